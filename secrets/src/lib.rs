//! Secret stores of hybrid-runner, and what stands around them.
//!
//! | module | holds |
//! |---|---|
//! | [`stores`] | the configured stores by name: resolves references, each read with a time limit and an audit line |
//! | [`mod@env`] | variables of the runner's environment that have a prefix |
//! | [`mod@file`] | a folder of files, as Kubernetes and Docker mount them; a dotenv file |
//! | [`plugin`] | a program of yours (feature `plugin`) |
//! | [`decorate`] | wrappers around any provider: time limit, retry, cache, single flight, concurrency limit |
//!
//! A new store is one module, one feature, one line in [`KINDS`], and its contract test.

pub mod decorate;
pub mod env;
mod field;
pub mod file;
#[cfg(feature = "plugin")]
pub mod plugin;
pub mod stores;
mod variable;

use std::sync::Arc;

use hybrid_runner_core::kind::{self, Context, Kind};
use hybrid_runner_core::{Result, SecretProvider};

pub use stores::{Found, Stores};

/// The kinds of secret stores in this build.
pub const KINDS: &[Kind<dyn SecretProvider>] = &[
    Kind {
        name: "env",
        summary: "variables of the runner's environment that have a prefix",
        build: env::build,
        schema: || schemars::schema_for!(env::Settings),
    },
    Kind {
        name: "file",
        summary: "a folder of files, as Kubernetes and Docker mount them, or a dotenv file",
        build: file::build,
        schema: || schemars::schema_for!(file::Settings),
    },
    #[cfg(feature = "plugin")]
    plugin::KIND,
];

/// All kinds of the project, in this build or not.
pub const KNOWN: &[&str] = &[
    "env",
    "file",
    "aws",
    "azure",
    "gcp",
    "kubernetes",
    "vault",
    "plugin",
];

/// Builds the store of a section; an error says what this build has.
pub fn build(kind: &str, context: &Context) -> Result<Arc<dyn SecretProvider>> {
    (kind::find(KINDS, "secret store", kind, KNOWN)?.build)(context)
}
