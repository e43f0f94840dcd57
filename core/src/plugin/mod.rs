//! Executors and secret stores as programs of their own.
//!
//! A plugin speaks the [session](crate::session) over its stdin and stdout, one message a line. `docs/plugins.md` is the
//! tutorial and the reference.
//!
//! | file | holds |
//! |---|---|
//! | `hello` | the first exchange |
//! | `lines` | the transport: one message a line |
//! | `store` | the contract of secret stores over a session |
//! | `serve` | the plugin's side: serves kinds over stdin and stdout |
//! | [`host`] | the runner's side: starts, watches, restarts, masks (feature `plugin-host`) |
//!
//! # A plugin in Rust
//!
//! ```no_run
//! # use hybrid_runner_core::{Executor, kind::Kind};
//! # const KIND: Kind<dyn Executor> = Kind {
//! #     name: "mine",
//! #     summary: "",
//! #     build: |_| Err(hybrid_runner_core::Error::internal("an example")),
//! #     schema: || schemars::json_schema!({}),
//! # };
//! #[tokio::main]
//! async fn main() -> hybrid_runner_core::Result<()> {
//!     hybrid_runner_core::plugin::Plugin::new("mine 1.0").executor(KIND).serve().await
//! }
//! ```

mod hello;
#[cfg(feature = "plugin-host")]
pub mod host;
mod lines;
mod serve;
mod store;

pub use hello::{Contract, PluginHello, PluginWelcome, Room};
pub use lines::Lines;
pub use serve::{Input, Output, Plugin, PutValue, stdio};
#[cfg(test)]
pub(crate) use store::{GetParams, Got, Put, PutParams};
pub use store::{RemoteStore, StoreService};
