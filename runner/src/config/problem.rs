//! What is wrong with a configuration, in words that say where and what to do.

use std::fmt;

use figment::error::{Actual, Kind};
use hybrid_runner_core::kind::nearest;

/// A configuration that cannot be used: everything that was found wrong with it.
#[derive(Debug)]
#[non_exhaustive]
pub struct Error {
    /// At least one.
    pub problems: Vec<Problem>,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the configuration cannot be used")?;
        for problem in &self.problems {
            write!(f, "\n  {problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

/// One thing that is wrong: section and key, what, and where it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Problem {
    /// `link.url`; empty for a whole file.
    pub key: String,
    /// What is wrong and what to do.
    pub message: String,
    /// The file, the variable or the flag.
    pub source: Option<String>,
}

impl Problem {
    /// A problem of a key, source unknown.
    pub(crate) fn new(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            message: message.into(),
            source: None,
        }
    }

    /// Says where it was written.
    #[must_use]
    pub(crate) fn written_in(mut self, source: impl Into<String>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// What figment found while it read the raw form.
    pub(crate) fn of(error: &figment::Error) -> Self {
        let key = error.path.join(".");
        let message = message(error);
        let source = error
            .metadata
            .as_ref()
            .map(|metadata| metadata.name.to_string());
        Self {
            key,
            message,
            source,
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(source) = &self.source {
            write!(f, "{source}: ")?;
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", heading(&self.key))?;
        }
        f.write_str(&self.message)
    }
}

/// `runner.spool.total` as `[runner] spool.total`, `executors.here.kind` as `[executors.here] kind`.
pub(crate) fn heading(key: &str) -> String {
    let parts: Vec<&str> = key.split('.').collect();
    let depth = if matches!(parts[0], "executors" | "secrets") {
        2
    } else {
        1
    };
    let (section, rest) = parts.split_at(depth.min(parts.len()));
    let section = section.join(".");
    if rest.is_empty() {
        format!("[{section}]")
    } else {
        format!("[{section}] {}", rest.join("."))
    }
}

/// What sections of secret stores keep to themselves.
const OF_STORES: &[&str] = &[
    "access",
    "access_key",
    "auth",
    "credential",
    "credentials",
    "jwt",
    "proxy",
    "value",
];
/// What is in the name of such a key, whoever named it; not of one that only says where it is.
const WORDS: &[&str] = &["key", "passphrase", "password", "secret", "token"];
const PLACES: &[&str] = &["_env", "_file", "_id", "_path"];

/// Whether the value at this key must never be printed.
pub(crate) fn is_secret(key: &str) -> bool {
    let value = key.rsplit('.').next().unwrap_or(key);
    key == "link.token"
        || key == "link.token.value"
        || key == "link.proxy"
        || is_variable(key)
        || ["password", "token", "secret_id", "key_value"].contains(&value)
            && !key.starts_with("runner.")
        || key.starts_with("secrets.")
            && (OF_STORES.contains(&value)
                || WORDS.iter().any(|word| value.contains(word))
                    && !PLACES.iter().any(|place| value.ends_with(place)))
}

/// Whether it is the value of a variable that a section has for its programs or its workloads (`executors.NAME.env.VARIABLE`).
fn is_variable(key: &str) -> bool {
    key.split('.').nth(2) == Some("env") && key.matches('.').count() > 2
}

/// A text with what stands for a password in the addresses in it left out.
pub(crate) fn without_passwords(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once("://") {
        kept.push_str(before);
        kept.push_str("://");
        let end = behind.find(['/', '?', '#', ' ']).unwrap_or(behind.len());
        let (place, next) = behind.split_at(end);
        match place.rsplit_once('@') {
            // One that stands alone may be a token.
            Some((who, host)) => {
                if let Some((user, _)) = who.split_once(':') {
                    kept.push_str(user);
                    kept.push(':');
                }
                kept.push_str("***@");
                kept.push_str(host);
            }
            None => kept.push_str(place),
        }
        rest = next;
    }
    kept.push_str(rest);
    kept
}

fn message(error: &figment::Error) -> String {
    let top = error.path.len() < 2;
    let secret = is_secret(&error.path.join("."));
    match &error.kind {
        Kind::UnknownField(name, known) => {
            let what = if top { "section" } else { "key" };
            format!("unknown {what} `{name}`{}", hint(name, known))
        }
        Kind::UnknownVariant(name, known) if !secret => {
            format!("`{name}` is not known here{}", hint(name, known))
        }
        Kind::InvalidType(_, expected) | Kind::InvalidValue(_, expected) if secret => {
            format!("expected {expected}")
        }
        Kind::InvalidType(actual, expected) | Kind::InvalidValue(actual, expected) => {
            let hint = match (actual, expected.as_str()) {
                (
                    Actual::Unsigned(_) | Actual::Signed(_) | Actual::Float(_) | Actual::Bool(_),
                    "a string",
                ) => "; write it in quotes, with its unit if it has one",
                _ => "",
            };
            let expected = match expected.as_str() {
                "u16" | "u32" | "u64" => "a whole number",
                other if other.starts_with("struct ") || other == "a map" => "a table",
                other => other,
            };
            match actual {
                // Which of its keys it was meant for is not known.
                Actual::Str(_) if expected == "a table" => {
                    format!("expected {expected}, found a string")
                }
                _ => format!("expected {expected}, found {actual}{hint}"),
            }
        }
        Kind::MissingField(name) => format!("`{name}` is missing"),
        _ if secret => "is not valid here".to_owned(),
        other => other.to_string(),
    }
}

fn hint(word: &str, known: &[&str]) -> String {
    nearest(word, known.iter().copied()).map_or_else(
        || {
            format!(
                "; expected one of {}",
                known
                    .iter()
                    .map(|k| format!("`{k}`"))
                    .collect::<Vec<_>>()
                    .join(", ")
            )
        },
        |near| format!("; did you mean `{near}`?"),
    )
}
