//! Jobs of a Kubernetes cluster.
//!
//! The cluster is the database: names and labels say what is ours, and everything here works from the id of a run alone. A
//! Job is made suspended, gets a Secret of its own if there are values to hand over, and is let go: from then on the cluster runs
//! it without us, once. What is not about Jobs is in `executors/src/cluster`.
//!
//! | file | holds |
//! |---|---|
//! | [`config`] | the section `[executors.NAME]` |
//! | `job` | what we want to know of a Job; the marks that we leave on it |
//! | `plan`, `start` | what a run becomes; the steps of its start |
//! | `look`, `watch`, `status` | how a run stands; the levels; the words of the contract |
//! | `output` | its log, masked |
//! | `stop` | stop and remove |
//! | `check` | what the doctor finds |
//!
//! # What a run gets
//!
//! The image's own entry point and command, where the workflow has none; the variables that `env` in the section passes on, then
//! the run's own and `WORKFLOW_*`. Its config is `/run/hybrid-runner/config.json` (`config.yaml` if it was written as text), beside
//! its `files`, in a Secret that is mounted. Nothing that came out of a store stands in the Job or its pod.

mod check;
pub mod config;
mod job;
mod look;
mod output;
mod plan;
mod start;
mod status;
mod stop;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use hybrid_runner_core::error::Result;
use hybrid_runner_core::executor::{Capabilities, Executor, Handle, LogKeeping, Progress};
use hybrid_runner_core::kind::{Context, Kind};
use hybrid_runner_core::run::{RunSpec, Status};
use hybrid_runner_core::secret::Secrets;
use hybrid_runner_core::{Finding, LogChunk, LogCursor, RunId};
use k8s_openapi::api::batch::v1::Job;

pub use config::KubernetesConfig;

use config::Settings;
use job::JobSeen;

use crate::cluster::board::{Board, list};
use crate::cluster::client::Cluster;
use crate::cluster::error::failed;
use crate::cluster::names::{self, Names};
use crate::turns::Turns;

/// The executor's entry in [`crate::KINDS`].
pub const KIND: Kind<dyn Executor> = Kind {
    name: "kubernetes",
    summary: "Jobs of a Kubernetes cluster",
    build: |context| Ok(Arc::new(Kubernetes::new(context)?)),
    schema: || schemars::schema_for!(KubernetesConfig),
};

/// Of the handle's state.
const VERSION: u16 = 1;

/// Runs work as Jobs of a Kubernetes cluster. See the [module](self).
#[derive(Debug)]
pub struct Kubernetes(Arc<Shared>);

/// What the methods share; streams hold it too.
#[derive(Debug)]
struct Shared {
    settings: Settings,
    cluster: Arc<Cluster>,
    names: Names,
    board: Board<JobSeen>,
    turns: Turns,
}

impl Kubernetes {
    /// The executor of a section. Asks the cluster nothing yet.
    pub fn new(context: &Context) -> Result<Self> {
        let settings = Settings::read(context, |name| std::env::var(name).ok())?;
        Ok(Self(Arc::new(Shared {
            cluster: Arc::new(Cluster::new(settings.access.clone())),
            settings,
            names: Names::of(context.owner.clone()),
            board: Board::new(),
            turns: Turns::default(),
        })))
    }
}

#[async_trait]
impl Executor for Kubernetes {
    async fn capabilities(&self) -> Result<Capabilities> {
        Ok(capabilities())
    }

    async fn check(&self) -> Result<()> {
        self.0.check().await
    }

    async fn examine(&self) -> Vec<Finding> {
        self.0.examine().await
    }

    async fn start(
        &self,
        spec: &RunSpec,
        secrets: &Secrets,
        progress: &Progress,
    ) -> Result<Handle> {
        start::start(&self.0, spec, secrets, progress).await
    }

    fn watch(&self, run: &Handle) -> BoxStream<'static, Result<Status>> {
        watch::watch(Arc::clone(&self.0), run.run)
    }

    fn logs(&self, run: &Handle, from: Option<LogCursor>) -> BoxStream<'static, Result<LogChunk>> {
        output::follow(Arc::clone(&self.0), run.run, from)
    }

    async fn stop(&self, run: &Handle, grace: Duration) -> Result<()> {
        stop::stop(&self.0, run.run, grace).await
    }

    async fn remove(&self, run: &Handle) -> Result<()> {
        stop::remove(&self.0, run.run).await
    }

    async fn list(&self) -> Result<Vec<Handle>> {
        self.0.list().await
    }
}

fn capabilities() -> Capabilities {
    let mut capabilities = Capabilities::least();
    // A pod's log goes with the pod, and is rotated.
    capabilities.logs = LogKeeping::Volatile;
    capabilities.resources = true;
    capabilities.images = true;
    capabilities.contained = true;
    capabilities.missing = ["signals", "stall_timeout"].map(str::to_owned).to_vec();
    capabilities.notes = [
        "stdout and stderr come as one, and a carriage return before a newline is dropped by the container runtime",
        "the runner masks the output: the kubelet's own log of a pod, which `kubectl logs` shows, has what the work wrote",
        "`timeout` counts whole seconds",
    ]
    .map(str::to_owned)
    .to_vec();
    capabilities
}

impl Shared {
    /// All runs that have a Job.
    async fn list(&self) -> Result<Vec<Handle>> {
        let connected = self.cluster.connected().await?;
        let jobs = list::<Job>(&connected.api(), &self.names.selector()).await;
        let (jobs, _) =
            jobs.map_err(|error| failed(connected, "list what the cluster has of ours", &error))?;
        Ok(jobs
            .iter()
            .filter_map(|job| names::run_of(job.metadata.labels.as_ref()))
            .map(|run| handle(run, &self.names.object(run)))
            .collect())
    }
}

fn handle(run: RunId, job: &str) -> Handle {
    Handle::with_state(run, VERSION, serde_json::json!({ "job": job }))
}
