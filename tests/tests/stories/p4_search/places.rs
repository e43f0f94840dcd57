//! What is looked for: each value in each form.

use std::collections::BTreeSet;

use hybrid_runner_core::testing::{Looked, Search};
use hybrid_runner_tests::processes::holds;

use super::forms::{forms, forms_within, parts};
use super::values::Value;

/// Shorter forms would be found by accident; values themselves are looked for whatever their length.
const SHORTEST: usize = 6;
/// Longer needles are looked for in parts, so that a part of a value is found as well.
const PART: usize = 64;

/// A search for these values, in each form.
pub(super) fn search_for<'a>(values: impl IntoIterator<Item = &'a Value>) -> Search {
    let mut needles = Vec::new();
    for value in values {
        add(value, &mut needles);
    }
    Search::new(needles)
}

/// Looks into arguments and environment of every process that has not this mark.
pub(super) fn processes(search: &mut Search, mark: &str) {
    let mark = mark.as_bytes();
    search.processes(|_, arguments, environment| {
        if holds(arguments, mark) || holds(environment, mark) {
            return Looked::Nothing;
        }
        Looked::All
    });
}

/// How many of the values are found in these bytes: shows that a search finds.
pub(super) fn values_in(search: &Search, bytes: &[u8]) -> usize {
    let found = search.known_in(bytes).into_iter();
    let names: BTreeSet<_> = found.filter_map(|name| name.split(", ").next()).collect();
    names.len()
}

/// Fails unless nothing was found in all that a story has.
pub(super) fn found_nothing(search: &Search) {
    search.found_nothing(40);
    let bytes = search.bytes();
    // What a short run leaves in a cluster is close to 1 MiB.
    assert!(bytes > 1 << 19, "only {bytes} bytes were looked at");
}

fn add(value: &Value, needles: &mut Vec<(Vec<u8>, String)>) {
    let mut take = |text: &str, what: &str, shortest: usize| {
        for part in in_parts(text.as_bytes()).filter(|part| part.len() >= shortest) {
            needles.push((part.to_vec(), format!("{}, {what}", value.name)));
        }
    };
    take(&value.text, "itself", 4);
    for form in forms(&value.text) {
        form.hidden()
            .for_each(|text| take(text, form.encoder, SHORTEST));
    }
    for part in parts(&value.text).0 {
        for form in forms_within(&value.text, &part) {
            form.hidden()
                .for_each(|text| take(text, form.encoder, SHORTEST));
        }
    }
    for (encoder, output) in &value.recorded {
        let quotes = |char: char| char.is_whitespace() || "'\"`$".contains(char);
        take(output.trim_matches(quotes), encoder, SHORTEST);
    }
}

/// A long text in parts that cover it.
fn in_parts(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let starts = (0..text.len()).step_by(PART);
    starts.map(|start| {
        let start = start.min(text.len().saturating_sub(PART));
        &text[start..text.len().min(start + PART)]
    })
}
