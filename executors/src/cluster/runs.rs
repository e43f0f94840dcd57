//! The executor contract over a kind of object.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::future::join;
use futures::stream::BoxStream;
use hybrid_runner_core::error::Result;
use hybrid_runner_core::executor::{Capabilities, Executor, Handle, LogKeeping, Progress};
use hybrid_runner_core::kind::Context;
use hybrid_runner_core::run::{RunSpec, Status};
use hybrid_runner_core::secret::Secrets;
use hybrid_runner_core::{Finding, LogChunk, LogCursor, RunId};
use serde_json::Value;

use super::board::{Board, Seen, list};
use super::client::Cluster;
use super::config::Settings;
use super::delivery::Delivery;
use super::error::failed;
use super::events::Pace;
use super::names::{self, Names};
use super::object::Kind;
use super::plan::Plan;
use super::status::{self, Level};
use super::{output, start, stop, watch};
use crate::turns::Turns;

/// Of the handle's state.
const VERSION: u16 = 1;

/// Runs work as objects of one kind, each of which runs a pod.
#[derive(Debug)]
pub(crate) struct Runs(Arc<Shared>);

/// What the methods share; streams hold it too.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) kind: &'static dyn Kind,
    pub(super) settings: Settings,
    pub(super) cluster: Arc<Cluster>,
    pub(super) names: Names,
    pub(super) board: Board,
    pub(super) turns: Turns,
    pub(super) pace: Pace,
}

impl Runs {
    /// The executor of a section. Asks the cluster nothing yet.
    pub(crate) fn new(kind: &'static dyn Kind, context: &Context) -> Result<Self> {
        let settings = Settings::read(context, |name| std::env::var(name).ok())?;
        Ok(Self(Arc::new(Shared {
            kind,
            cluster: Arc::new(Cluster::new(settings.access.clone())),
            settings,
            names: Names::of(context.owner.clone()),
            board: Board::new(),
            turns: Turns::default(),
            pace: Pace::default(),
        })))
    }
}

#[async_trait]
impl Executor for Runs {
    async fn capabilities(&self) -> Result<Capabilities> {
        Ok(capabilities())
    }

    async fn check(&self) -> Result<()> {
        self.0.check().await
    }

    async fn examine(&self) -> Vec<Finding> {
        self.0.examine().await
    }

    async fn preview(&self, spec: &RunSpec, secrets: &Secrets) -> Result<Vec<Value>> {
        let plan = Plan::of(&self.0, spec, secrets)?;
        let secret = plan.delivery.as_ref().map(Delivery::preview);
        Ok(std::iter::once(plan.object).chain(secret).collect())
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
    /// All runs that have an object, or a pod that lost it.
    pub(super) async fn list(&self) -> Result<Vec<Handle>> {
        let connected = self.cluster.connected().await?;
        let (api, selector) = (connected.objects(self.kind), self.names.selector());
        let (objects, orphans) = join(list(&api, &selector), self.orphans(&selector)).await;
        let (objects, _) = objects
            .map_err(|error| failed(connected, "list what the cluster has of ours", &error))?;
        let runs = objects
            .iter()
            .filter_map(|object| names::run_of(object.metadata.labels.as_ref()));
        let mut runs: BTreeSet<RunId> = runs.collect();
        match orphans {
            Ok(orphans) => runs.extend(orphans.into_iter().map(|(run, _)| run)),
            // Whose pods cannot be seen has more to tell of.
            Err(error) => {
                tracing::debug!(
                    error = error.report(),
                    "pods without an object are not found"
                );
            }
        }
        Ok(runs.into_iter().map(|run| self.handle(run)).collect())
    }

    pub(super) fn handle(&self, run: RunId) -> Handle {
        let state = serde_json::json!({ "object": self.names.object(run) });
        Handle::with_state(run, VERSION, state)
    }

    /// Where a run stands.
    pub(super) fn level(&self, seen: &Seen) -> Level {
        status::level(self.kind, seen)
    }
}
