//! The output of a run: chunks with a cursor behind each.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::Error;
use crate::id::text_serde;

/// A chunk's data is at most this long.
pub const MAX_CHUNK: usize = 64 * 1024;

/// A place in a run's log, made by the executor and opaque to all others.
///
/// At most 512 bytes of printable ASCII. Whoever stores a chunk's bytes stores its cursor in the same
/// write, and gets exactly the rest by handing it back.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LogCursor(String);

impl LogCursor {
    /// A cursor is at most this long.
    pub const MAX: usize = 512;

    /// The cursor as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for LogCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for LogCursor {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let printable = text.bytes().all(|byte| (0x20..0x7f).contains(&byte));
        if text.is_empty() || text.len() > Self::MAX || !printable {
            return Err(Error::invalid(
                "a log cursor must be 1 to 512 printable ASCII characters",
            ));
        }
        Ok(Self(text.to_owned()))
    }
}

text_serde!(
    LogCursor,
    "LogCursor",
    "an opaque place in a log, at most 512 printable ASCII characters"
);

/// Which of a process's outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
    /// Not told apart by the backend.
    Both,
}

/// Why a part of the log is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum GapReason {
    /// The backend rotated or dropped it before it was read.
    Rotated,
    /// The declared limit of the spool was reached.
    Limit,
    /// The disk was full.
    DiskFull,
    /// The values that the run was given are not known any more, so that they could not be masked in it.
    HeldBack,
    /// The backend did not let it be read.
    Refused,
    /// The engine, node or helper that held it died or was killed.
    Crashed,
    /// The stored log was damaged, or a reason that a later version has.
    #[serde(other)]
    Damaged,
}

impl GapReason {
    /// The reason in words, for the visible gap line.
    pub fn in_words(self) -> &'static str {
        match self {
            Self::Rotated => "the backend dropped it before it could be read",
            Self::Limit => "the limit of the log was reached",
            Self::DiskFull => "the disk was full",
            Self::HeldBack => {
                "it is held back: the values that the run was given cannot be had again to mask them"
            }
            Self::Refused => {
                "the backend did not let it be read; the log of the control plane says why"
            }
            Self::Crashed => "what held it died or was killed; its last words may be among it",
            Self::Damaged => "the stored log cannot be read",
        }
    }
}

/// What a chunk holds.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum LogItem {
    /// Bytes as the workload wrote them, secrets masked. At most [`MAX_CHUNK`] long; not whole lines. None at all: the log is
    /// being read, which takes long.
    Data {
        /// Where they were written to.
        stream: Stream,
        /// When, if the backend tells.
        time: Option<Timestamp>,
        /// The bytes.
        bytes: Bytes,
    },
    /// Something is missing here.
    Gap {
        /// How many bytes, if known.
        bytes: Option<u64>,
        /// Why.
        why: GapReason,
    },
}

impl LogItem {
    /// The length of the data; 0 for a gap.
    pub fn len(&self) -> usize {
        match self {
            Self::Data { bytes, .. } => bytes.len(),
            Self::Gap { .. } => 0,
        }
    }

    /// Whether there is no data.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A piece of a log, and the cursor behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogChunk {
    /// The piece.
    pub item: LogItem,
    /// The place behind it; stored by the receiver with the bytes, in one write.
    pub next: LogCursor,
}

/// A chunk as it stands on the wire: `text` if the bytes are valid UTF-8, else `base64`.
#[derive(Serialize, Deserialize, JsonSchema)]
struct WireChunk<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    stream: Option<Stream>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    time: Option<Timestamp>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    text: Option<std::borrow::Cow<'a, str>>,
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    base64: Option<std::borrow::Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gap: Option<WireGap>,
    next: LogCursor,
}

#[derive(Serialize, Deserialize, JsonSchema)]
struct WireGap {
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
    why: GapReason,
}

impl JsonSchema for LogChunk {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "LogChunk".into()
    }
    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        WireChunk::json_schema(generator)
    }
}

impl Serialize for LogChunk {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use base64::Engine as _;
        let mut wire = WireChunk {
            stream: None,
            time: None,
            text: None,
            base64: None,
            gap: None,
            next: self.next.clone(),
        };
        match &self.item {
            LogItem::Gap { bytes, why } => {
                wire.gap = Some(WireGap {
                    bytes: *bytes,
                    why: *why,
                });
            }
            LogItem::Data {
                stream,
                time,
                bytes,
            } => {
                wire.stream = Some(*stream);
                wire.time = *time;
                match std::str::from_utf8(bytes) {
                    Ok(text) => wire.text = Some(text.into()),
                    Err(_) => {
                        wire.base64 = Some(
                            base64::engine::general_purpose::STANDARD
                                .encode(bytes)
                                .into(),
                        );
                    }
                }
            }
        }
        wire.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for LogChunk {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use base64::Engine as _;
        use serde::de::Error as _;
        let wire = WireChunk::deserialize(deserializer)?;
        let item = match (wire.gap, wire.text, wire.base64) {
            (Some(gap), None, None) => LogItem::Gap {
                bytes: gap.bytes,
                why: gap.why,
            },
            (None, text, base64) => {
                let bytes = match (text, base64) {
                    (Some(text), None) => Bytes::from(text.into_owned()),
                    (None, Some(encoded)) => base64::engine::general_purpose::STANDARD
                        .decode(encoded.as_bytes())
                        .map_err(|_| D::Error::custom("`base64` is not valid base64"))?
                        .into(),
                    _ => {
                        return Err(D::Error::custom(
                            "a log chunk needs one of `text`, `base64` and `gap`",
                        ));
                    }
                };
                if bytes.len() > MAX_CHUNK {
                    return Err(D::Error::custom("a log chunk holds at most 65536 bytes"));
                }
                LogItem::Data {
                    stream: wire.stream.unwrap_or(Stream::Both),
                    time: wire.time,
                    bytes,
                }
            }
            _ => {
                return Err(D::Error::custom(
                    "a log chunk needs one of `text`, `base64` and `gap`",
                ));
            }
        };
        Ok(Self {
            item,
            next: wire.next,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(bytes: &'static [u8]) -> LogChunk {
        let item = LogItem::Data {
            stream: Stream::Out,
            time: None,
            bytes: Bytes::from_static(bytes),
        };
        LogChunk {
            item,
            next: "7".parse().unwrap(),
        }
    }

    #[test]
    fn text_and_binary_come_back_as_they_were() {
        for bytes in [
            &b"plain \"quoted\"\n"[..],
            "ü\u{2028}".as_bytes(),
            &[0xff, 0, 1],
            b"",
        ] {
            let chunk = chunk(bytes);
            let json = serde_json::to_string(&chunk).unwrap();
            assert_eq!(serde_json::from_str::<LogChunk>(&json).unwrap(), chunk);
        }
    }

    #[test]
    fn a_reason_that_a_later_version_has_is_a_gap_too() {
        for (why, read) in [
            ("held_back", GapReason::HeldBack),
            ("refused", GapReason::Refused),
            ("of_a_later_version", GapReason::Damaged),
        ] {
            let json = format!(r#"{{"next":"1","gap":{{"why":"{why}"}}}}"#);
            let chunk: LogChunk = serde_json::from_str(&json).unwrap();
            let (bytes, why) = (None, read);
            assert_eq!(chunk.item, LogItem::Gap { bytes, why });
        }
    }

    #[test]
    fn a_chunk_of_two_minds_is_refused() {
        for wrong in [
            r#"{"next":"1"}"#,
            r#"{"next":"1","text":"a","base64":"YQ=="}"#,
            r#"{"next":"1","text":"a","gap":{"why":"limit"}}"#,
            r#"{"next":"","text":"a"}"#,
            r#"{"next":"1","base64":"%"}"#,
        ] {
            assert!(serde_json::from_str::<LogChunk>(wrong).is_err(), "{wrong}");
        }
    }
}
