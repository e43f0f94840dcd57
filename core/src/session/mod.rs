//! The session layer: JSON-RPC 2.0 over any transport of text messages.
//!
//! The same layer carries the contract from server to runner (one WebSocket text frame a message) and
//! from runner to plugin (one line a message). Both sides may ask; answers come in any order; streams
//! flow under credit, so that a slow reader never makes the other side buffer without bound; what
//! controls overtakes what is only data. `docs/protocol.md` describes it message by message.
//!
//! | file | holds |
//! |---|---|
//! | [`transport`] | what a transport is; a pair in memory for tests |
//! | `frame` | the messages, read and written |
//! | `outbox` | what waits to be sent, control before data |
//! | `credit` | how much a stream may send |
//! | `driver` | the loop that reads, answers, writes and listens for life |
//! | `calls` | our own requests and subscriptions |
//! | [`executor`] | the executor contract over a session: the asking half and the answering half |
//! | [`hello`] | the first exchange |

mod calls;
mod credit;
mod driver;
pub mod executor;
mod frame;
pub mod hello;
mod outbox;
#[cfg(test)]
mod tests;
pub mod transport;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use serde_json::value::RawValue;

use crate::error::Result;
use crate::executor::Progress;

#[cfg(feature = "plugin")]
pub(crate) use executor::WireValue;

pub use calls::Session;
pub use executor::{ExecutorService, RemoteExecutor};
pub use frame::{WireError, code};
pub use hello::{Hello, LINK_PATH, PROTOCOL, SUBPROTOCOL, Welcome};
pub use transport::{MemoryTransport, Transport, memory_pair};

/// A message is at most this long; a transport refuses a longer one before it is read whole.
pub const MAX_MESSAGE: usize = 1 << 20;

/// What one side answers.
#[async_trait]
pub trait Service: Send + Sync + 'static {
    /// Answers a request with JSON. An unknown method is [`unknown_method`].
    ///
    /// # Cancel safety
    ///
    /// Dropped when the other side cancels the request or the session ends.
    async fn call(
        &self,
        method: &str,
        params: &RawValue,
        progress: &Progress,
    ) -> Result<Box<RawValue>>;

    /// Opens a stream, if `method` is one that does. The items' cost is the length of their JSON.
    fn open(&self, method: &str, params: &RawValue) -> Option<Result<Items>>;
}

/// The items of a stream that is served, each as JSON.
pub type Items = BoxStream<'static, Result<Box<RawValue>>>;

/// The error of a method that a service does not have.
pub fn unknown_method(method: &str) -> crate::Error {
    crate::Error::unsupported(format!("no method `{}`", crate::id::shorten(method)))
}

/// A side that only asks and answers nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoService;

#[async_trait]
impl Service for NoService {
    async fn call(&self, method: &str, _: &RawValue, _: &Progress) -> Result<Box<RawValue>> {
        Err(unknown_method(method))
    }

    fn open(&self, _: &str, _: &RawValue) -> Option<Result<Items>> {
        None
    }
}

/// Bounds and times of a session.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Options {
    /// How often silence is broken by a ping. The peer is dead after two intervals of silence. `None`: never.
    pub heartbeat: Option<Duration>,
    /// Requests of the other side that are being answered at once; more are refused as `Unavailable`.
    pub max_in_flight: usize,
    /// What all our subscriptions together may have under way, in bytes of items (each may always have 16 KiB).
    pub credit: usize,
    /// Malformed messages that are answered before the session is given up.
    pub max_malformed: usize,
    /// Messages in a row that nobody asked for: late items and unknown notifications are tolerated, a flood is not.
    pub max_unasked: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            heartbeat: None,
            max_in_flight: 1024,
            credit: 1 << 20,
            max_malformed: 100,
            max_unasked: 100_000,
        }
    }
}

/// Why a session ended.
#[derive(Debug)]
#[non_exhaustive]
pub enum Closed {
    /// We closed it.
    Here,
    /// The other side closed it.
    There,
    /// The other side was silent for two heartbeats.
    Silent,
    /// The transport failed.
    Transport(crate::Error),
    /// The other side broke the protocol.
    Protocol(String),
}

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Here => f.write_str("closed by this side"),
            Self::There => f.write_str("closed by the other side"),
            Self::Silent => f.write_str("the other side was silent for two heartbeats"),
            Self::Transport(error) => write!(f, "the connection failed: {}", error.report()),
            Self::Protocol(what) => write!(f, "the other side broke the protocol: {what}"),
        }
    }
}

/// The work of a session. Its owner polls it; dropping it ends the session at once.
pub type Driver = BoxFuture<'static, Closed>;

impl Session {
    /// Starts a session over a transport. Nothing happens until the driver is polled.
    pub fn start(
        transport: impl Transport,
        service: Arc<dyn Service>,
        options: Options,
    ) -> (Self, Driver) {
        driver::start(transport, service, options)
    }
}
