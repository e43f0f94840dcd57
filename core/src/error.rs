//! The one error of all contracts.

use std::error::Error as StdError;
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::run::FailureClass;

/// A result of a contract's method.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What the caller can do about an error. Never which backend it came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ErrorKind {
    /// The request itself is wrong; the same request will fail again.
    Invalid,
    /// The thing named does not exist.
    NotFound,
    /// The backend answered that we may not.
    Denied,
    /// The state of the thing forbids it (already stopped, already ended, held by somebody else).
    Conflict,
    /// This backend cannot do it at all.
    Unsupported,
    /// The backend could not be reached or is overloaded; the same request may succeed later.
    Unavailable,
    /// Something that should not happen did.
    Internal,
}

impl ErrorKind {
    /// The kind's name as it stands on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::NotFound => "not_found",
            Self::Denied => "denied",
            Self::Conflict => "conflict",
            Self::Unsupported => "unsupported",
            Self::Unavailable => "unavailable",
            Self::Internal => "internal",
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An error of a contract: kind (what can be done), message (what), source (why).
///
/// The message is lowercase, without a full stop, and completes "failed to …". It never repeats its
/// source; [`Error::report`] prints the chain.
pub struct Error {
    kind: ErrorKind,
    message: String,
    class: Option<FailureClass>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error without a cause.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            class: None,
            source: None,
        }
    }

    /// Says which class of failure it is for a run that cannot go on because of it; without it the kind decides.
    #[must_use]
    pub fn with_class(mut self, class: FailureClass) -> Self {
        self.class = Some(class);
        self
    }

    /// Adds what else can be done to the message; the cause stays.
    #[must_use]
    pub fn with_hint(mut self, hint: &str) -> Self {
        self.message = format!("{}; {hint}", self.message);
        self
    }

    /// Adds the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// What the caller can do.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The class of failure, if whoever made the error knew it.
    pub fn class(&self) -> Option<FailureClass> {
        self.class
    }

    /// What happened, without its cause.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Whether the same request may succeed later.
    pub fn is_transient(&self) -> bool {
        self.kind == ErrorKind::Unavailable
    }

    /// The whole chain in one line, joined by `: `.
    pub fn report(&self) -> String {
        chain(self.message.clone(), self.source())
    }

    /// The chain without its head: why, as whoever caused it said it.
    pub fn causes(&self) -> Option<String> {
        let cause = self.source()?;
        Some(chain(cause.to_string(), cause.source()))
    }

    /// An [`ErrorKind::Invalid`] error.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid, message)
    }
    /// An [`ErrorKind::NotFound`] error.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::NotFound, message)
    }
    /// An [`ErrorKind::Denied`] error.
    pub fn denied(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Denied, message)
    }
    /// An [`ErrorKind::Conflict`] error.
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Conflict, message)
    }
    /// An [`ErrorKind::Unsupported`] error.
    pub fn unsupported(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unsupported, message)
    }
    /// An [`ErrorKind::Unavailable`] error.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Unavailable, message)
    }
    /// An [`ErrorKind::Internal`] error.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, message)
    }
}

/// An error of somebody else and its causes in words, each once. Never by `Debug`, which may show a whole answer.
pub fn causes(error: &(dyn StdError + 'static)) -> String {
    let mut words: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(cause) = next {
        let text = cause.to_string();
        if !text.is_empty() && !words.iter().any(|said| said.contains(&text)) {
            words.push(text);
        }
        next = cause.source();
    }
    words.join(": ")
}

/// The same of a file that holds secrets: parsers show lines of it behind their first words, and `serde` the value of a wrong type.
pub fn causes_unquoted(error: &(dyn StdError + 'static)) -> String {
    let words = causes(error);
    without_value(words.lines().next().unwrap_or_default())
}

/// The words of `serde` for a value of a wrong type, without the value: `invalid type: string, expected a table`.
pub(crate) fn without_value(words: &str) -> String {
    let short = ["invalid type: ", "invalid value: "]
        .into_iter()
        .find_map(|begin| {
            let (place, what) = words.split_once(begin)?;
            let (found, expected) = what.rsplit_once(", expected ")?;
            let found = found.split([' ', '"', '`']).next()?;
            Some(format!("{place}{begin}{found}, expected {expected}"))
        });
    short.unwrap_or_else(|| words.to_owned())
}

/// Each cause once, joined by `: `.
fn chain(mut text: String, mut next: Option<&(dyn StdError + 'static)>) -> String {
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind, self.report())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_holds_each_cause_once() {
        let inner = Error::unavailable("connection refused");
        let outer = Error::internal("failed to read `x`").with_source(inner);
        assert_eq!(outer.to_string(), "failed to read `x`");
        assert_eq!(outer.report(), "failed to read `x`: connection refused");
        assert_eq!(outer.causes().as_deref(), Some("connection refused"));
    }

    #[test]
    fn a_hint_stands_behind_the_message_and_before_the_cause() {
        let error = Error::denied("may not")
            .with_source("403")
            .with_hint("ask for it");
        assert_eq!(error.report(), "may not; ask for it: 403");
    }

    #[test]
    fn the_causes_of_an_error_are_told_once_each() {
        let inner = Error::unavailable("connection refused").with_source("refused");
        let outer = Error::internal("tcp: connection refused").with_source(inner);
        assert_eq!(causes(&outer), "tcp: connection refused");
        let outer = Error::internal("no answer")
            .with_source(Error::internal("dns").with_source("no such host"));
        assert_eq!(causes(&outer), "no answer: dns: no such host");
    }

    #[test]
    fn a_class_that_is_known_decides_the_failure_and_its_causes_are_the_source() {
        let error = Error::not_found("there is no image `a:1`")
            .with_class(FailureClass::Image)
            .with_source(Error::not_found("no such image: a:1"));
        let failure = crate::run::Failure::of_start(&error);
        assert_eq!(failure.class, FailureClass::Image);
        assert_eq!(failure.message, "there is no image `a:1`");
        assert_eq!(failure.source.as_deref(), Some("no such image: a:1"));
        let plain = crate::run::Failure::of_start(&Error::not_found("no such thing"));
        assert_eq!(plain.class, FailureClass::Spec);
    }

    #[test]
    fn each_class_is_found_by_its_name() {
        for class in [
            FailureClass::Exit,
            FailureClass::Image,
            FailureClass::Backend,
        ] {
            assert_eq!(FailureClass::from_name(class.as_str()), Some(class));
        }
        assert_eq!(FailureClass::from_name("luck"), None);
    }
}
