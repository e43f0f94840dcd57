//! Secret stores of hybrid-runner, and what stands around them.
//!
//! | module | holds |
//! |---|---|
//! | [`stores`] | the configured stores by name: resolves references, each read with a time limit and an audit line |
//! | [`mod@env`] | variables of the runner's environment that have a prefix |
//! | [`mod@file`] | a folder of files, as Kubernetes and Docker mount them; a dotenv file |
//! | [`plugin`] | a program of yours (feature `plugin`) |
//! | `aws`, `azure`, `gcp`, `vault`, `kubernetes` | stores that are far away, a feature each |
//! | [`decorate`] | wrappers around any provider: time limit, retry, cache, single flight, concurrency limit |
//! | [`workload`] | what a workload needs to read a store itself |
//! | `audit` | one line for each reference that was asked for |
//! | `answer` | [`Refusal`]: why a store gave nothing, as finely as stores tell it |
//! | `remote`, `web`, `body`, `echo`, `names`, `credential` | what stores that are far away have in common |
//!
//! A new store is one module, one feature, one line in [`KINDS`], and its contract test.

mod answer;
mod audit;
#[cfg(feature = "aws")]
pub mod aws;
#[cfg(feature = "azure")]
pub mod azure;
#[cfg(feature = "_web")]
mod body;
#[cfg(any(feature = "aws", feature = "azure", feature = "vault"))]
mod credential;
pub mod decorate;
#[cfg(feature = "_web")]
mod echo;
pub mod env;
mod field;
pub mod file;
#[cfg(feature = "gcp")]
pub mod gcp;
#[cfg(feature = "kubernetes")]
pub mod kubernetes;
mod names;
#[cfg(feature = "plugin")]
pub mod plugin;
#[cfg(feature = "_web")]
mod remote;
pub mod stores;
mod variable;
#[cfg(feature = "vault")]
pub mod vault;
#[cfg(feature = "_web")]
mod web;
pub mod workload;

use std::sync::Arc;

use hybrid_runner_core::kind::{self, Context, Kind};
use hybrid_runner_core::{Result, SecretProvider};

pub use answer::Refusal;
#[cfg(any(feature = "aws", feature = "azure", feature = "vault"))]
pub use credential::Source;
pub use stores::{Found, Reads, Stores};

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
    #[cfg(feature = "aws")]
    Kind {
        name: "aws",
        summary: "AWS Secrets Manager, or Systems Manager's Parameter Store",
        build: remote::build::<aws::Settings>,
        schema: || schemars::schema_for!(aws::Settings),
    },
    #[cfg(feature = "azure")]
    Kind {
        name: "azure",
        summary: "Azure Key Vault",
        build: remote::build::<azure::Settings>,
        schema: || schemars::schema_for!(azure::Settings),
    },
    #[cfg(feature = "gcp")]
    Kind {
        name: "gcp",
        summary: "Google Secret Manager",
        build: remote::build::<gcp::Settings>,
        schema: || schemars::schema_for!(gcp::Settings),
    },
    #[cfg(feature = "kubernetes")]
    Kind {
        name: "kubernetes",
        summary: "Secrets of a Kubernetes cluster",
        build: remote::build::<kubernetes::Settings>,
        schema: || schemars::schema_for!(kubernetes::Settings),
    },
    #[cfg(feature = "vault")]
    Kind {
        name: "vault",
        summary: "Vault or OpenBao, the key-value engine",
        build: remote::build::<vault::Settings>,
        schema: || schemars::schema_for!(vault::Settings),
    },
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

/// What stores add to an error on its way out.
#[cfg(feature = "_web")]
trait ErrorIs {
    /// Names the section.
    fn in_section(self, context: &Context) -> Self;
}

#[cfg(feature = "_web")]
impl ErrorIs for hybrid_runner_core::Error {
    fn in_section(self, context: &Context) -> Self {
        Self::invalid(format!("section [secrets.{}]", context.name)).with_source(self)
    }
}
