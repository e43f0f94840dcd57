//! Jobs of a Kubernetes cluster.
//!
//! A Job runs its pod once (`backoffLimit: 0`), and is held back by `suspend`. Everything that is not about Jobs is in
//! `executors/src/cluster`, which the executor of Argo Workflows shares.
//!
//! | file | holds |
//! |---|---|
//! | `job` | how a Job looks, stands and ends |
//!
//! # What a run gets
//!
//! The image's own entry point and command, where the workflow has none; the variables that `env` in the section passes on, then
//! the run's own and `WORKFLOW_*`. Its config is `/run/hybrid-runner/config.json` (`config.yaml` if it was written as text), beside
//! its `files`, in a Secret that is mounted. Nothing that came out of a store stands in the Job or its pod.

mod job;

use std::sync::Arc;

use hybrid_runner_core::executor::Executor;
use hybrid_runner_core::kind::Kind;

pub use crate::cluster::config::{ClusterConfig, Ignorable, PullPolicy};

use crate::cluster::runs::Runs;

/// The executor's entry in [`crate::KINDS`].
pub const KIND: Kind<dyn Executor> = Kind {
    name: "kubernetes",
    summary: "Jobs of a Kubernetes cluster",
    build: |context| Ok(Arc::new(Runs::new(&job::Job, context)?)),
    schema: || schemars::schema_for!(ClusterConfig),
};
