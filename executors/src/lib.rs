//! Executors: what runs the work, one module and one cargo feature each.
//!
//! | kind and feature | runs |
//! |---|---|
//! | [`argo`] | Workflows of Argo in a Kubernetes cluster |
//! | [`docker`] | containers of a Docker Engine |
//! | [`kubernetes`] | Jobs of a Kubernetes cluster |
//! | [`local`] | processes on this machine |
//! | [`plugin`] | a program of yours that speaks the contract |
//! | [`command`] | four commands of yours; needs the feature `plugin` |
//!
//! A new executor is one module, one feature line, one line in [`KINDS`], and its contract test.

use std::sync::Arc;

use hybrid_runner_core::error::Result;
use hybrid_runner_core::executor::Executor;
use hybrid_runner_core::kind::{self, Context, Kind};

#[cfg(any(feature = "_cluster", feature = "docker"))]
mod answer;
#[cfg(feature = "argo")]
pub mod argo;
#[cfg(feature = "plugin")]
mod claims;
#[cfg(feature = "_cluster")]
mod cluster;
#[cfg(feature = "plugin")]
pub mod command;
#[cfg(any(feature = "_cluster", feature = "docker"))]
mod cursors;
#[cfg(feature = "docker")]
pub mod docker;
#[cfg(any(feature = "docker", feature = "local"))]
mod ending;
#[cfg(any(feature = "docker", feature = "local"))]
mod handover;
#[cfg(any(feature = "docker", feature = "local"))]
mod helper;
#[cfg(feature = "kubernetes")]
pub mod kubernetes;
#[cfg(any(feature = "docker", feature = "local"))]
mod levels;
#[cfg(feature = "local")]
pub mod local;
#[cfg(feature = "plugin")]
pub mod plugin;
#[cfg(any(feature = "_cluster", feature = "docker", feature = "local"))]
mod private;
#[cfg(any(
    feature = "_cluster",
    feature = "docker",
    feature = "local",
    feature = "plugin"
))]
mod settings;
#[cfg(any(feature = "_cluster", feature = "docker", feature = "local"))]
mod turns;

/// The executors in this build.
pub const KINDS: &[Kind<dyn Executor>] = &[
    #[cfg(feature = "argo")]
    argo::KIND,
    #[cfg(feature = "docker")]
    docker::KIND,
    #[cfg(feature = "kubernetes")]
    kubernetes::KIND,
    #[cfg(feature = "local")]
    local::KIND,
    #[cfg(feature = "plugin")]
    plugin::KIND,
    #[cfg(feature = "plugin")]
    command::KIND,
];

/// All kinds of the project, in this build or not.
pub const KNOWN: &[&str] = &["local", "docker", "kubernetes", "argo", "plugin", "command"];

/// Builds the executor of a section, or says what is in this build.
pub fn build(kind: &str, context: &Context) -> Result<Arc<dyn Executor>> {
    (kind::find(KINDS, "executor", kind, KNOWN)?.build)(context)
}
