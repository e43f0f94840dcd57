//! What becomes of a promise when it is tried.

use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use serde::Serialize;

use crate::error::{Error, ErrorKind};

/// What one case of a contract suite found.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// The promise was kept.
    Kept,
    /// It was not.
    Failed(Failed),
    /// It could not be tried: what would be needed.
    NotOffered(String),
}

/// A promise that was not kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failed {
    /// What the contract says.
    pub expected: String,
    /// What came instead.
    pub came: String,
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected {}\n    came {}", self.expected, self.came)
    }
}

impl Verdict {
    /// Panics if the promise was not kept; says on stderr if it could not be tried. For `#[test]`s.
    #[expect(clippy::print_stderr, reason = "the place where a test's reader looks")]
    pub fn assert_kept(&self, name: &str) {
        match self {
            Self::Kept => {}
            Self::Failed(failed) => panic!("{name}:\n{failed}"),
            Self::NotOffered(needs) => eprintln!("{name}: not offered: needs {needs}"),
        }
    }
}

/// Why a case ended early.
#[derive(Debug)]
pub(super) enum Unkept {
    Failed(Failed),
    /// A method said that the backend cannot do it at all.
    Unsupported(Failed),
    NotOffered(String),
}

/// How a case ends.
pub(super) type Tried<T = ()> = Result<T, Unkept>;

impl From<Tried> for Verdict {
    fn from(tried: Tried) -> Self {
        match tried {
            Ok(()) => Self::Kept,
            Err(Unkept::Failed(failed) | Unkept::Unsupported(failed)) => Self::Failed(failed),
            Err(Unkept::NotOffered(needs)) => Self::NotOffered(needs),
        }
    }
}

pub(super) fn failed(expected: impl Into<String>, came: impl Into<String>) -> Unkept {
    Unkept::Failed(Failed {
        expected: expected.into(),
        came: came.into(),
    })
}

pub(super) fn not_offered(needs: &str) -> Unkept {
    Unkept::NotOffered(needs.to_owned())
}

/// Fails unless `holds`.
pub(super) fn ensure(holds: bool, expected: &str, came: impl FnOnce() -> String) -> Tried {
    if holds {
        Ok(())
    } else {
        Err(failed(expected, came()))
    }
}

/// Fails unless both are the same.
pub(super) fn equal<T: PartialEq + Serialize>(what: &str, expected: &T, came: &T) -> Tried {
    ensure(
        expected == came,
        &format!("{what}: {}", shown(expected)),
        || shown(came),
    )
}

/// Fails unless both are the same output.
pub(super) fn equal_bytes(what: &str, expected: &[u8], came: &[u8]) -> Tried {
    let text = |bytes: &[u8]| shown(&String::from_utf8_lossy(bytes));
    ensure(
        expected == came,
        &format!("{what}: {}", text(expected)),
        || text(came),
    )
}

/// What a method gave, or the failure that it was refused.
pub(super) fn done<T>(what: &str, result: Result<T, Error>) -> Tried<T> {
    result.map_err(|error| {
        let failed = Failed {
            expected: format!("{what}: success"),
            came: came_error(&error),
        };
        match error.kind() {
            ErrorKind::Unsupported => Unkept::Unsupported(failed),
            _ => Unkept::Failed(failed),
        }
    })
}

/// The error of a method that must refuse.
pub(super) fn refused<T>(what: &str, result: Result<T, Error>) -> Tried<Error> {
    match result {
        // It may be a secret.
        Ok(_) => Err(failed(format!("{what} to be refused"), "success")),
        Err(error) => Ok(error),
    }
}

/// Fails unless a method refused with this kind.
pub(super) fn refused_as<T>(kind: ErrorKind, what: &str, result: Result<T, Error>) -> Tried {
    let error = refused(what, result)?;
    ensure(
        error.kind() == kind,
        &format!("{what} to be refused as `{kind}`"),
        || came_error(&error),
    )
}

pub(super) fn came_error(error: &Error) -> String {
    format!("the error `{}`: {}", error.kind(), error.report())
}

/// At most 300 characters of something as the wire has it, for a message.
pub(super) fn shown(value: &impl Serialize) -> String {
    let text = serde_json::to_string(value)
        .unwrap_or_else(|error| format!("what cannot be shown ({error})"));
    match text.char_indices().nth(300) {
        None => text,
        Some((end, _)) => format!("{}… ({} characters)", &text[..end], text.len()),
    }
}

/// The same of an item of a stream.
pub(super) fn shown_item(item: Option<&Result<impl Serialize, Error>>) -> String {
    match item {
        None => "its end".to_owned(),
        Some(Ok(item)) => shown(item),
        Some(Err(error)) => came_error(error),
    }
}

/// Waits for an answer, but not for ever.
pub(super) async fn within<F: Future>(limit: Duration, what: &str, future: F) -> Tried<F::Output> {
    tokio::time::timeout(limit, future)
        .await
        .map_err(|_| failed(format!("{what} within {limit:?}"), "nothing"))
}

/// Polls a future at most `polls` times, then drops it; its output if it was there by then.
pub(super) async fn cut_short<F: Future>(future: F, polls: usize) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut left = polls;
    std::future::poll_fn(move |context| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        match future.as_mut().poll(context) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if left == 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}
