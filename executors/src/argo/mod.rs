//! Workflows of Argo (argoproj.io/v1alpha1).
//!
//! A Workflow has one template, one step, and so one pod. Everything that is not about Workflows is in `executors/src/cluster`, which
//! the executor of Jobs shares.
//!
//! | file | holds |
//! |---|---|
//! | `workflow` | how a Workflow looks, stands and ends |
//! | `archive` | where Argo archived a log, and what reads it from there |
//! | `patch` | the pod of a run as the `podSpecPatch` of its Workflow, in which Argo replaces nothing |
//!
//! # What a run gets
//!
//! The same as with [`kubernetes`](crate::kubernetes), and what Argo puts beside it: its emissary is the first process of the container
//! and runs the work as its child, an init container brings that, and a container `wait` reports to the controller. The token for that
//! report is mounted there alone.

mod archive;
mod patch;
mod workflow;

use std::sync::Arc;

use hybrid_runner_core::executor::Executor;
use hybrid_runner_core::kind::Kind;

pub use crate::cluster::config::{ClusterConfig, Ignorable, PullPolicy};

use crate::cluster::runs::Runs;

/// The executor's entry in [`crate::KINDS`].
pub const KIND: Kind<dyn Executor> = Kind {
    name: "argo",
    summary: "Workflows of Argo in a Kubernetes cluster",
    build: |context| Ok(Arc::new(Runs::new(&workflow::Workflow, context)?)),
    schema: || schemars::schema_for!(ClusterConfig),
};
