//! What the commands print.

use base64::Engine as _;
use hybrid_runner_core::error::{Error, Result};
use serde::Deserialize;

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
