//! Reading workflow files: YAML, and JSON, which is YAML too.
//!
//! Read straight into [`Workflow`], so that texts in `env`, `files` and `labels` are taken as they are
//! written: `0123`, `no` and `1e5` stay text. Inside `config`, where a value may be of any type, only
//! `true` and `false` are truth values, and `0123` and `1_000` stay text. An error has line, column and
//! the line itself.

mod locate;

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use hybrid_runner_core::error::{Error, ErrorKind, Result};
use hybrid_runner_core::kind::nearest;
use hybrid_runner_core::workflow::{VERSION, Workflow};
use serde::Deserialize;
use serde_saphyr::options::DuplicateKeyPolicy;
use serde_saphyr::{MessageFormatter as _, Options, UserMessageFormatter};

/// The largest file that is read.
pub const MAX_BYTES: usize = 4 << 20;
/// Nodes of one file: some twenty times a large one.
const MAX_NODES: usize = 200_000;
/// Nodes that aliases may add; what is above has been built to hurt.
const MAX_ALIASED: usize = 10_000;
/// The longest line that an error shows, in characters.
const LINE_SHOWN: usize = 120;

/// Reads and checks the workflow in a file.
pub fn read(path: &Path) -> Result<Workflow> {
    let name = path.display().to_string();
    let failed = |error: std::io::Error| {
        let kind = match error.kind() {
            std::io::ErrorKind::NotFound => ErrorKind::NotFound,
            std::io::ErrorKind::PermissionDenied => ErrorKind::Denied,
            _ => ErrorKind::Invalid,
        };
        Error::new(kind, format!("failed to read workflow file `{name}`")).with_source(error)
    };
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes))
        .map_err(failed)?;
    if bytes.len() > MAX_BYTES {
        return Err(Error::invalid(format!(
            "workflow file `{name}` is larger than 4 MiB"
        )));
    }
    let text = String::from_utf8(bytes).map_err(|error| {
        let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = good.split(|byte| *byte == b'\n').count();
        Error::invalid(format!("{name}:{line}: the file is not UTF-8 text"))
    })?;
    parse(&text, &name)
}

/// Reads and checks a workflow; `name` stands for the file in errors.
pub fn parse(text: &str, name: &str) -> Result<Workflow> {
    if text.len() > MAX_BYTES {
        return Err(Error::invalid(format!("`{name}` is larger than 4 MiB")));
    }
    let workflow: Workflow = serde_saphyr::from_str_with_options(text, options())
        .map_err(|error| explain(text, name, &error))?;
    workflow.validate().map_err(|error| {
        let place = locate::culprit(text, &workflow);
        Error::invalid(pointed(text, name, place, &error.report()))
    })?;
    Ok(workflow)
}

fn options() -> Options {
    let mut options = Options::default();
    options.duplicate_keys = DuplicateKeyPolicy::Error;
    options.strict_booleans = true;
    options.leading_zero_numbers_as_strings = true;
    options.underscored_numbers_as_strings = true;
    options.reject_unsupported_tags = true;
    options.with_snippet = false;
    options.alias_limits.max_total_replayed_events = MAX_ALIASED;
    options.alias_limits.max_replay_stack_depth = 16;
    if let Some(budget) = &mut options.budget {
        budget.max_nodes = MAX_NODES;
        budget.max_aliases = MAX_ALIASED;
        budget.max_anchors = MAX_ALIASED;
        budget.max_total_scalar_bytes = MAX_BYTES;
    }
    options
}

/// Line and column, both from 1.
type Place = (u64, u64);

fn place_of(location: serde_saphyr::Location) -> Option<Place> {
    (location != serde_saphyr::Location::UNKNOWN).then(|| (location.line(), location.column()))
}

/// An error of the reader in our words, with its place.
fn explain(text: &str, name: &str, error: &serde_saphyr::Error) -> Error {
    let says_nothing = |line: &str| matches!(line.trim(), "" | "---") || line.starts_with('#');
    if text.lines().all(says_nothing) {
        return Error::invalid(format!(
            "`{name}` is empty; a workflow has at least `name` and `command`"
        ));
    }
    if let Some(version) = newer_version(text) {
        return Error::invalid(format!(
            "`{name}` is of version {version}; this build reads version {VERSION}: use a newer hybrid-runner"
        ));
    }
    let place = error.location().and_then(place_of);
    Error::invalid(pointed(text, name, place, &words(error)))
}

fn words(error: &serde_saphyr::Error) -> String {
    use serde_saphyr::Error as E;
    match error {
        E::AliasError { error, .. } | E::WithSnippet { error, .. } => words(error),
        E::SerdeUnknownField {
            field, expected, ..
        } => unknown("field", field, expected),
        E::SerdeUnknownVariant {
            variant, expected, ..
        } => unknown("value", variant, expected),
        E::SerdeMissingField { field, .. } => format!("`{field}` is missing"),
        E::DuplicateMappingKey { key: Some(key), .. } => format!("`{key}` stands here twice"),
        E::MultipleDocuments { .. } => {
            "a second document begins here; write each workflow into a file of its own".to_owned()
        }
        E::NullIntoString { .. } => {
            "text is missing here; write `\"\"` for the empty text, or quotes around `null` and `~`"
                .to_owned()
        }
        E::AliasReplayLimitExceeded { .. }
        | E::AliasExpansionLimitExceeded { .. }
        | E::AliasReplayStackDepthExceeded { .. } => {
            "aliases (`*name`) make this file too large".to_owned()
        }
        E::Unexpected {
            expected: "sequence start",
            ..
        } => "a list is needed here, as in `[a, b]`".to_owned(),
        E::Unexpected {
            expected: "mapping start",
            ..
        } => "fields are needed here, each as `name: value`".to_owned(),
        E::Budget { breach, .. } => format!("the file is too large or too deep: {breach:?}"),
        E::NonFiniteFloat { value, .. } => {
            format!("`{value}` is no number that JSON can hold; write quotes around it")
        }
        other => UserMessageFormatter.format_message(other).into_owned(),
    }
}

fn unknown(what: &str, word: &str, expected: &[&str]) -> String {
    match nearest(word, expected.iter().copied()) {
        Some(near) => format!("unknown {what} `{word}`; did you mean `{near}`?"),
        None => format!(
            "unknown {what} `{word}`; expected one of {}",
            expected.join(", ")
        ),
    }
}

/// The format version that a file claims, if this build does not know it yet.
fn newer_version(text: &str) -> Option<u64> {
    #[derive(Deserialize)]
    struct Claim {
        version: u64,
    }
    let claim: Claim = serde_saphyr::from_str_with_options(text, options()).ok()?;
    (claim.version > u64::from(VERSION)).then_some(claim.version)
}

/// `name:line:column: what`, and below it the line with a caret.
fn pointed(text: &str, name: &str, place: Option<Place>, what: &str) -> String {
    let Some((line, column)) = place else {
        return format!("{name}: {what}");
    };
    let head = format!("{name}:{line}:{column}: {what}");
    let at = usize::try_from(column).unwrap_or(usize::MAX) - 1;
    let index = usize::try_from(line).unwrap_or(usize::MAX) - 1;
    match text.lines().nth(index) {
        Some(shown) if at < LINE_SHOWN => {
            let tidy = |c: char| if c.is_control() { ' ' } else { c };
            let shown: String = shown.chars().take(LINE_SHOWN).map(tidy).collect();
            let margin = " ".repeat(line.to_string().len());
            format!(
                "{head}\n {line} | {}\n {margin} | {:at$}^",
                shown.trim_end(),
                ""
            )
        }
        _ => head,
    }
}

#[cfg(test)]
mod tests;
