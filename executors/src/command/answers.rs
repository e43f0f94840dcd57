//! What the commands print.

use base64::Engine as _;
use hybrid_runner_core::error::{Error, ErrorKind, Result};
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
