//! What the commands print.

use base64::Engine as _;
use hybrid_runner_core::error::{Error, Result};
use serde::Deserialize;

/// A name that the backend gave. An empty one is what a script prints that has none.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "Written")]
pub(super) struct Id(String);

#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Text(String),
    Number(u64),
}

impl TryFrom<Written> for Id {
    type Error = &'static str;

    fn try_from(written: Written) -> Result<Self, Self::Error> {
        match written {
            Written::Text(text) if text.trim().is_empty() => Err("an empty `id`"),
            Written::Text(text) => Ok(Self(text)),
            Written::Number(number) => Ok(Self(number.to_string())),
        }
    }
}

impl Id {
    pub(super) fn text(self) -> String {
        self.0
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
    /// Must be there: `null` is an answer, and nothing is none.
    #[serde(deserialize_with = "Option::deserialize")]
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_null_says_that_nothing_was_found() {
        let read =
            |text: &str| serde_json::from_str::<Found>(text).map(|found| found.id.map(Id::text));
        assert_eq!(read(r#"{"id": null}"#).unwrap(), None);
        assert_eq!(read(r#"{"id": 7}"#).unwrap(), Some("7".to_owned()));
        assert_eq!(read(r#"{"id": "a"}"#).unwrap(), Some("a".to_owned()));
        for wrong in [
            "{}",
            r#"{"error": "away"}"#,
            r#"{"Id": "7"}"#,
            r#"{"id": " "}"#,
            "null",
            "[]",
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
        assert!(serde_json::from_str::<Started>(r#"{"id": ""}"#).is_err());
    }
}
