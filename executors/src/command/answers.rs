//! What the commands print.

use base64::Engine as _;
use hybrid_runner_core::error::{Error, ErrorKind, Result};
use hybrid_runner_core::run::{Failure, FailureClass, Outcome, State};
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// A name that the backend gave.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(super) enum Id {
    Text(String),
    Number(u64),
}

impl Id {
    pub(super) fn text(self) -> String {
        match self {
            Self::Text(text) => text,
            Self::Number(number) => number.to_string(),
        }
    }
}

/// Of `start`.
#[derive(Debug, Deserialize)]
pub(super) struct Started {
    pub(super) id: Id,
}

/// Of `find`.
#[derive(Debug, Deserialize)]
pub(super) struct Found {
    pub(super) id: Option<Id>,
}

/// Of `status`.
#[derive(Debug, Deserialize)]
pub(super) struct Told {
    state: String,
    #[serde(default)]
    exit_code: Option<i32>,
    #[serde(default)]
    signal: Option<i32>,
    #[serde(default)]
    class: Option<FailureClass>,
    #[serde(default)]
    pub(super) message: Option<String>,
}

impl Told {
    pub(super) fn state(&self) -> Result<State> {
        Ok(match self.state.as_str() {
            "queued" => State::Queued,
            "starting" => State::Starting,
            "running" => State::Running,
            "succeeded" => State::Finished(Outcome::Succeeded),
            "failed" => State::Finished(Outcome::Failed(self.failure())),
            "stopped" => State::Finished(Outcome::Stopped { by: None }),
            "lost" => State::Finished(Outcome::lost(
                self.message.as_deref().unwrap_or("the backend says so"),
            )),
            other => {
                return Err(Error::internal(format!(
                    "the command `status` printed the state `{}`; there are queued, starting, running, succeeded, failed, stopped and lost",
                    hybrid_runner_core::id::shorten(other)
                )));
            }
        })
    }

    fn failure(&self) -> Failure {
        let class = self.class.unwrap_or(FailureClass::Exit);
        let mut failure = match (self.exit_code, self.signal) {
            (_, Some(signal)) => Failure::signal(class, signal),
            (Some(code), None) => Failure::exit(code),
            (None, None) => Failure::new(class, "the backend says that it failed"),
        };
        failure.class = class;
        (failure.mender, failure.may_pass) = (class.mender(), class.may_pass());
        if let Some(message) = &self.message {
            failure.message.clone_from(message);
        }
        failure
    }
}

/// Of `logs`.
#[derive(Debug, Deserialize)]
pub(super) struct Output {
    #[serde(default)]
    text: Option<String>,
    #[serde(default)]
    base64: Option<String>,
}

impl Output {
    pub(super) fn bytes(self) -> Result<Vec<u8>> {
        let wrong = |error| {
            Error::internal("the command `logs` printed `base64` that is none").with_source(error)
        };
        match (self.text, self.base64) {
            (Some(text), _) => Ok(text.into_bytes()),
            (None, Some(encoded)) => base64::engine::general_purpose::STANDARD
                .decode(encoded)
                .map_err(wrong),
            (None, None) => Ok(Vec::new()),
        }
    }
}

pub(super) fn base64(bytes: &[u8]) -> String {
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// What a command printed; the parser's own words could quote a value, and are left out.
pub(super) fn read<T: DeserializeOwned>(command: &str, printed: &[u8]) -> Result<T> {
    serde_json::from_slice(printed).map_err(|error| {
        Error::internal(format!(
            "the command `{command}` did not print what it should (line {}, column {})",
            error.line(),
            error.column()
        ))
    })
}

/// The error that a command printed: `{"error": {"kind": "denied", "message": "…"}}`.
pub(super) fn error(printed: &[u8]) -> Option<Error> {
    #[derive(Deserialize)]
    struct Printed {
        error: Words,
    }
    #[derive(Deserialize)]
    struct Words {
        #[serde(default)]
        kind: Option<ErrorKind>,
        message: String,
    }
    let printed: Printed = serde_json::from_slice(printed).ok()?;
    let kind = printed.error.kind.unwrap_or(ErrorKind::Internal);
    Some(Error::new(kind, printed.error.message))
}
