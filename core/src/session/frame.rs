//! The messages, read and written.
//!
//! ```text
//! request       {"jsonrpc":"2.0","id":1,"method":"stop","params":{…}}
//! response      {"jsonrpc":"2.0","id":1,"result":{…}}
//! error         {"jsonrpc":"2.0","id":1,"error":{"code":-32000,"message":"…","data":{"kind":"conflict","source":["…"]}}}
//! cancel        {"jsonrpc":"2.0","method":"$/cancel","params":{"id":1}}
//! progress      {"jsonrpc":"2.0","method":"$/progress","params":{"id":1,"message":"pulling"}}
//! stream item   {"jsonrpc":"2.0","method":"stream.data","params":{"stream":7,"item":{…}}}
//! stream end    {"jsonrpc":"2.0","method":"stream.end","params":{"stream":7}}            or with "error"
//! stream drop   {"jsonrpc":"2.0","method":"stream.drop","params":{"stream":7}}           by the reader
//! stream ack    {"jsonrpc":"2.0","method":"stream.ack","params":{"stream":7,"credit":65536}}
//! ```

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::error::{Error, ErrorKind};
use crate::id::shorten;
use crate::run::FailureClass;

/// The codes of JSON-RPC errors.
pub mod code {
    /// Not JSON.
    pub const PARSE: i32 = -32700;
    /// JSON, but no message of ours.
    pub const INVALID_REQUEST: i32 = -32600;
    /// No such method.
    pub const METHOD_NOT_FOUND: i32 = -32601;
    /// The parameters do not fit the method.
    pub const INVALID_PARAMS: i32 = -32602;
    /// Something that should not happen did.
    pub const INTERNAL: i32 = -32603;
    /// The request was cancelled by who made it.
    pub const CANCELLED: i32 = -32800;
    /// An error of the contract: `data.kind` says which.
    pub const CONTRACT: i32 = -32000;
}

/// Any message, its parts not yet read.
#[derive(Deserialize)]
pub(super) struct Incoming<'a> {
    #[serde(borrow, default)]
    pub(super) jsonrpc: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub(super) id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) method: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub(super) params: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) result: Option<&'a RawValue>,
    #[serde(default)]
    pub(super) error: Option<WireError>,
}

/// An error on the wire.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct WireError {
    /// See [`code`].
    pub code: i32,
    /// What happened.
    pub message: String,
    /// The contract's view of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<WireErrorData>,
}

/// The contract's view of an error.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct WireErrorData {
    /// What the caller can do. An unknown kind reads as `internal`.
    #[serde(default)]
    pub kind: Option<String>,
    /// The class of failure for a run that cannot go on because of it. An unknown one reads as none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// Why: the chain of causes, the nearest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub source: Vec<String>,
}

impl WireError {
    pub(super) fn of(error: &Error) -> Self {
        let mut source = Vec::new();
        let mut next = std::error::Error::source(error);
        while let Some(cause) = next {
            source.push(cause.to_string());
            next = cause.source();
        }
        let data = WireErrorData {
            kind: Some(error.kind().as_str().to_owned()),
            class: error.class().map(|class| class.as_str().to_owned()),
            source,
        };
        Self {
            code: code::CONTRACT,
            message: error.message().to_owned(),
            data: Some(data),
        }
    }

    pub(super) fn plain(code: i32, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            data: None,
        }
    }

    pub(super) fn into_error(self) -> Error {
        let kind = match self.data.as_ref().and_then(|data| data.kind.as_deref()) {
            Some("invalid") => ErrorKind::Invalid,
            Some("not_found") => ErrorKind::NotFound,
            Some("denied") => ErrorKind::Denied,
            Some("conflict") => ErrorKind::Conflict,
            Some("unsupported") => ErrorKind::Unsupported,
            Some("unavailable") => ErrorKind::Unavailable,
            Some(_) => ErrorKind::Internal,
            None => match self.code {
                code::METHOD_NOT_FOUND => ErrorKind::Unsupported,
                code::PARSE | code::INVALID_REQUEST | code::INVALID_PARAMS => ErrorKind::Invalid,
                _ => ErrorKind::Internal,
            },
        };
        let class = self.data.as_ref().and_then(|data| data.class.as_deref());
        let class = class.and_then(FailureClass::from_name);
        let causes = self.data.map(|data| data.source).unwrap_or_default();
        let cause = causes
            .into_iter()
            .rev()
            .fold(None, |below: Option<Error>, message| {
                let cause = Error::new(kind, message);
                Some(match below {
                    Some(below) => cause.with_source(below),
                    None => cause,
                })
            });
        let error = Error::new(kind, self.message);
        let error = match class {
            Some(class) => error.with_class(class),
            None => error,
        };
        match cause {
            Some(cause) => error.with_source(cause),
            None => error,
        }
    }
}

#[derive(Serialize)]
struct Request<'a, P> {
    jsonrpc: &'static str,
    id: u64,
    method: &'a str,
    params: &'a P,
}

#[derive(Serialize)]
struct Notification<'a, P> {
    jsonrpc: &'static str,
    method: &'a str,
    params: &'a P,
}

#[derive(Serialize)]
struct Answer<'a> {
    jsonrpc: &'static str,
    id: &'a RawValue,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a WireError>,
}

/// Parameters that name a request.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct CancelParams<'a> {
    #[serde(borrow)]
    pub(super) id: &'a RawValue,
}

/// Parameters of `$/progress`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(super) struct ProgressParams<'a> {
    #[schemars(with = "u64")]
    #[serde(borrow)]
    pub(super) id: &'a RawValue,
    #[serde(borrow)]
    pub(super) message: Cow<'a, str>,
}

/// What every request that opens a stream has among its parameters.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(super) struct OpenParams {
    /// The stream's number, chosen by who asks.
    pub(super) stream: u64,
    /// How many bytes of items may be sent before the first `stream.ack`.
    pub(super) credit: u64,
}

/// Parameters of `stream.data`.
#[derive(Deserialize)]
pub(super) struct DataParams<'a> {
    pub(super) stream: u64,
    #[serde(borrow)]
    pub(super) item: &'a RawValue,
}

/// Parameters of `stream.end`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(super) struct EndParams {
    pub(super) stream: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<WireError>,
}

/// Parameters of `stream.drop`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(super) struct DropParams {
    pub(super) stream: u64,
}

/// Parameters of `stream.ack`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(super) struct AckParams {
    pub(super) stream: u64,
    /// How many bytes of items more may be sent.
    pub(super) credit: u64,
}

/// Types of ours always serialize; a failure would be a bug in them.
fn to_json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("the types of the protocol serialize to JSON")
}

pub(super) fn request(id: u64, method: &str, params: &impl Serialize) -> Result<String, Error> {
    serde_json::to_string(&Request {
        jsonrpc: "2.0",
        id,
        method,
        params,
    })
    .map_err(|error| {
        Error::invalid(format!("failed to write the parameters of `{method}`")).with_source(error)
    })
}

pub(super) fn notification(method: &str, params: &impl Serialize) -> String {
    to_json(&Notification {
        jsonrpc: "2.0",
        method,
        params,
    })
}

pub(super) fn answer(id: &RawValue, result: &Result<Box<RawValue>, WireError>) -> String {
    let (result, error) = match result {
        Ok(result) => (Some(&**result), None),
        Err(error) => (None, Some(error)),
    };
    to_json(&Answer {
        jsonrpc: "2.0",
        id,
        result,
        error,
    })
}

/// `stream.data`, put together without another pass over the item.
pub(super) fn data(stream: u64, item: &RawValue) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","method":"stream.data","params":{{"stream":{stream},"item":{}}}}}"#,
        item.get()
    )
}

/// A message as it was understood.
pub(super) enum Message<'a> {
    Request {
        id: &'a RawValue,
        method: Cow<'a, str>,
        params: &'a RawValue,
    },
    Notification {
        method: Cow<'a, str>,
        params: &'a RawValue,
    },
    Answer {
        id: u64,
        result: Result<&'a RawValue, WireError>,
    },
}

/// Reads a message, or says what to answer to it.
pub(super) fn read(text: &str) -> Result<Message<'_>, (Option<&RawValue>, WireError)> {
    if text.trim_start().starts_with('[') {
        return Err((
            None,
            WireError::plain(
                code::INVALID_REQUEST,
                "batches are refused: send one message at a time",
            ),
        ));
    }
    let incoming: Incoming<'_> = serde_json::from_str(text).map_err(|error| {
        let code = if error.is_data() {
            code::INVALID_REQUEST
        } else {
            code::PARSE
        };
        (
            None,
            WireError::plain(
                code,
                format!("malformed message: {}", shorten(&error.to_string())),
            ),
        )
    })?;
    if incoming.jsonrpc.as_deref() != Some("2.0") {
        return Err((
            incoming.id,
            WireError::plain(
                code::INVALID_REQUEST,
                "a message needs `\"jsonrpc\":\"2.0\"`",
            ),
        ));
    }
    let params = incoming.params.unwrap_or_else(|| empty());
    match (incoming.method, incoming.id) {
        (Some(method), Some(id)) => {
            if !id
                .get()
                .starts_with(|c: char| c == '"' || c == '-' || c.is_ascii_digit())
                || id.get().len() > 128
            {
                return Err((
                    None,
                    WireError::plain(
                        code::INVALID_REQUEST,
                        "`id` must be a number or a short string",
                    ),
                ));
            }
            Ok(Message::Request { id, method, params })
        }
        (Some(method), None) => Ok(Message::Notification { method, params }),
        (None, Some(id)) => {
            let number = id.get().parse().map_err(|_| {
                (
                    None,
                    WireError::plain(
                        code::INVALID_REQUEST,
                        "an answer to a request that was never made",
                    ),
                )
            })?;
            let result = match incoming.error {
                Some(error) => Err(error),
                None => Ok(incoming.result.unwrap_or_else(|| null())),
            };
            Ok(Message::Answer { id: number, result })
        }
        (None, None) if incoming.error.is_some() => {
            // The other side could not read a message of ours; there is nothing to answer.
            Ok(Message::Notification {
                method: "$/unread".into(),
                params: empty(),
            })
        }
        (None, None) => Err((
            None,
            WireError::plain(code::INVALID_REQUEST, "a message needs `method` or `id`"),
        )),
    }
}

pub(super) fn empty() -> &'static RawValue {
    serde_json::from_str("{}").expect("`{}` is JSON")
}

pub(super) fn null() -> &'static RawValue {
    RawValue::NULL
}
