//! Contracts and vocabulary of hybrid-runner.
//!
//! | module | holds |
//! |---|---|
//! | [`error`] | the one error of all contracts: what the caller can do, what happened, why |
//! | [`id`], [`mod@unit`] | identifiers, durations and sizes as people write them |
//! | [`workflow`], [`run`] | the workflow file, the run made of it, its status and outcome |
//! | [`executor`], [`log`] | the contract of everything that runs work, and of its output |
//! | [`masked`] | output without the values of its run, for backends that do not mask (feature `masking`) |
//! | [`finding`] | what the doctor finds |
//! | [`secret`] | references, values, and the contract of secret stores |
//! | [`incarnation`] | how a runner tells whether it is the one that was asked before |
//! | [`kind`] | the table in which an implementation is found by name |
//! | [`session`] | JSON-RPC over any message transport; carries the executor contract over a wire |
//! | [`poll`] | makes an executor of questions that are asked again and again |
//! | [`processes`] | processes of this machine, by number, environment and session |
//! | [`program`] | asks a program: input on its stdin, the answer on its stdout |
//! | [`plugin`] | executors and secret stores as programs of their own: serving one, running one (features `plugin`, `plugin-host`) |
//! | [`testing`] | the contract suites and fakes, for our executors and yours (feature `testing`) |
//!
//! There is no TLS here, no SDK and no socket. A custom executor depends on this crate alone.

pub mod error;
pub mod executor;
pub mod fault;
pub mod finding;
pub mod id;
pub mod incarnation;
pub mod kind;
pub mod log;
#[cfg(feature = "masking")]
pub mod masked;
#[cfg(feature = "plugin")]
pub mod plugin;
pub mod poll;
pub mod processes;
pub mod program;
pub mod run;
pub mod secret;
pub mod session;
#[cfg(feature = "testing")]
pub mod testing;
pub mod unit;
pub mod workflow;

// For the sections of third-party kinds: the version must be ours.
pub use schemars;

pub use error::{Error, ErrorKind, Result};
pub use executor::{Capabilities, Executor, Handle, Progress};
pub use finding::{Finding, Health};
pub use id::{AgentId, RunId};
pub use log::{LogChunk, LogCursor, LogItem, Stream};
pub use run::{Outcome, RunSpec, Status};
pub use secret::{Secret, SecretProvider, Secrets};
