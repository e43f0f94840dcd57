//! The open control plane of hybrid-runner.
//!
//! | module | holds |
//! |---|---|
//! | `server`, `config` | a control plane from bind to shutdown |
//! | `listen` | accepting connections, TLS |
//! | `access` | tokens and roles |
//! | `link` | runners: hello, comparison, one job a run |
//! | `store` | runs, runners and tokens in SQLite |
//! | `logs` | output in segment files, indexed in SQLite |
//! | `api` | REST under `/api/v1`, health, metrics |
//! | `watchers` | who waits for news of a run |
//! | `sweep` | retention, runners that stay away |
//!
//! # What holds when
//!
//! After `kill -9` of the server nothing is missing that it ever showed or sent. After a power loss nothing
//! is missing that it acknowledged: a submit, a stop, a token, an outcome that its runner let go of. What
//! was shown but not acknowledged (a status, the end of a log) is asked from the runner again.
//!
//! ```no_run
//! # async fn example() -> hybrid_runner_core::Result<()> {
//! let config = hybrid_runner_server::Config::new("/var/lib/hybrid-runner-server");
//! hybrid_runner_server::run(config, std::future::pending()).await
//! # }
//! ```

mod access;
mod api;
mod app;
mod config;
mod link;
mod listen;
mod logs;
mod server;
mod store;
mod sweep;
#[cfg(test)]
mod tests;
mod watchers;

pub use access::{NewToken, Role, Token};
pub use config::{Config, Retention, Tls};
pub use server::{Server, run};
