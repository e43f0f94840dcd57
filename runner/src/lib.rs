//! The hybrid runner: runs workflows inside your cloud for a control plane outside of it.
//!
//! | module | holds |
//! |---|---|
//! | [`cli`] | the commands of the binary |
//! | [`config`] | configuration: layers → raw → checked → built |
//! | [`Builder`], [`kinds`] | a binary with kinds of one's own |
//! | `app` | the runner as a program: link, supervisor and HTTP in one place |
//! | [`link`] | the link to the control plane |
//! | [`supervisor`] | the runs: accepted, started at most once, followed to their end |
//! | `spool` | copies of logs that their backend may drop |
//! | [`policy`] | what a control plane may ask for |
//! | [`client`] | client of the control plane's REST API |
//! | [`conformance`] | the contract suite against a program: `plugin test` |
//! | `http`, `measure` | `/healthz`, `/readyz`, `/metrics`; what they tell |
//! | `reload` | reading the configuration again |
//! | [`workflow_file`] | reading workflow files |
//! | [`logging`] | our own log |

mod app;
mod builder;
pub mod cli;
pub mod client;
pub mod config;
#[cfg(feature = "plugin")]
pub mod conformance;
mod http;
pub mod kinds;
pub mod link;
pub mod logging;
mod measure;
pub mod policy;
mod reload;
mod spool;
pub mod supervisor;
mod tame;
pub mod workflow_file;

pub use app::run;
pub use builder::Builder;
