//! Looks for values where nobody may find one.

use std::collections::BTreeMap;
use std::path::Path;

use aho_corasick::AhoCorasick;
use hybrid_runner_tests::processes;

use super::forms::{forms, forms_within, parts};
use super::values::Value;

/// Shorter forms would be found by accident; values themselves are looked for whatever their length.
const SHORTEST: usize = 6;
/// Longer needles are looked for in parts, so that a part of a value is found as well.
const PART: usize = 64;

/// What is looked for, and what was found.
pub(super) struct Search {
    needles: AhoCorasick,
    /// Of which value each of them is.
    names: Vec<String>,
    places: usize,
    bytes: usize,
    hits: Vec<String>,
}

impl Search {
    /// A search for these values, in each form.
    pub(super) fn new<'a>(values: impl IntoIterator<Item = &'a Value>) -> Self {
        let mut needles = BTreeMap::new();
        for value in values {
            add(value, &mut needles);
        }
        let (texts, names): (Vec<_>, Vec<_>) = needles.into_iter().unzip();
        Self {
            needles: AhoCorasick::new(texts).expect("they fit into memory"),
            names,
            places: 0,
            bytes: 0,
            hits: Vec::new(),
        }
    }

    /// Looks into some bytes.
    pub(super) fn look(&mut self, place: &str, bytes: &[u8]) {
        self.places += 1;
        self.bytes += bytes.len();
        let mut found = self.needles.find_iter(bytes);
        if let Some(hit) = found.next() {
            let around = &bytes[hit.start().saturating_sub(40)..bytes.len().min(hit.end() + 40)];
            self.hits.push(format!(
                "{place} at byte {}, {}, and {} more: …{}…",
                hit.start(),
                self.names[hit.pattern()],
                found.count(),
                around.escape_ascii()
            ));
        }
    }

    /// Looks into every file below a folder, but for one folder in it.
    pub(super) fn files(&mut self, folder: &Path, but: &Path) {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let Ok(kind) = entry.file_type() else {
                continue;
            };
            if kind.is_dir() && path != but {
                self.files(&path, but);
            } else if kind.is_file() {
                // One that was removed meanwhile holds nothing.
                let bytes = std::fs::read(&path).unwrap_or_default();
                self.look(&path.display().to_string(), &bytes);
            }
        }
    }

    /// Looks into arguments and environment of every process that has not this mark.
    pub(super) fn processes(&mut self, mark: &str) {
        let all = processes::all();
        assert!(all.len() > 2, "only {} processes are seen", all.len());
        for process in all.iter().filter(|process| !process.mentions(mark)) {
            let line = process.line();
            self.look(&format!("the arguments of `{line}`"), &process.arguments);
            self.look(
                &format!("the environment of `{line}`"),
                &process.environment,
            );
        }
    }

    /// How many of the values are found in these bytes: shows that a search finds.
    pub(super) fn values_in(&self, bytes: &[u8]) -> usize {
        let found = self.needles.find_overlapping_iter(bytes);
        let mut names: Vec<_> = found
            .filter_map(|hit| self.names[hit.pattern()].split(", ").next())
            .collect();
        names.sort_unstable();
        names.dedup();
        names.len()
    }

    /// Fails unless nothing was found.
    pub(super) fn found_nothing(&self) {
        let (hits, places, bytes) = (self.hits.len(), self.places, self.bytes);
        assert!(
            self.hits.is_empty(),
            "{hits} of {places} places ({bytes} bytes) hold a value:\n{}",
            self.hits.join("\n")
        );
        assert!(
            places > 40 && bytes > 1 << 20,
            "only {bytes} bytes in {places} places were looked at"
        );
    }
}

fn add(value: &Value, needles: &mut BTreeMap<Vec<u8>, String>) {
    let mut take = |text: &str, what: &str, shortest: usize| {
        for part in in_parts(text.as_bytes()).filter(|part| part.len() >= shortest) {
            let name = || format!("{}, {what}", value.name);
            needles.entry(part.to_vec()).or_insert_with(name);
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
