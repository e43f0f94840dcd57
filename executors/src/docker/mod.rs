//! Containers of a Docker Engine.
//!
//! The engine is the database: names and labels say what is ours, and everything here works from the id of a run alone,
//! so that coming back after a crash is the same as looking for the first time. The first process of each container is
//! ours ([`hybrid_runner_helper`], as init): it gets the command and the values through its standard input, masks the output
//! before the engine sees it, keeps the time limits, and says with the output how the work began and ended.
//!
//! | file | holds |
//! |---|---|
//! | [`config`] | the section `[executors.NAME]` |
//! | `engine`, `facts`, `names` | the connection and its errors; what the engine can do; names and labels |
//! | `check`, `trial` | what the doctor finds; a container made to see whether the engine makes it |
//! | `image`, `carrier`, `holder` | the image, pulled; the volume that carries init into each container; who lays it, alive or not |
//! | `plan`, `start`, `feed`, `blame` | what a run becomes; the steps of its start; the payload handed over; whose fault it is if not |
//! | `look`, `bell`, `watch`, `status` | how a run stands; who waits hears of changes; the levels; the words of the contract |
//! | `records`, `lines`, `place`, `logs` | the records of the engine's log; init's lines in it; a place in it; following it |
//! | `stop`, `turns` | stop and remove; one start or removal at a time for each run |
//!
//! # What a run gets
//!
//! The image's own entry point and command, where the workflow has none; the image's environment, then the variables that
//! `env` in the section passes on, then the run's own and `WORKFLOW_*`. Its config is `/.hr/private/run/config.json`
//! (`config.yaml` if it was written as text), beside its `files`, on a file system in memory. Nothing of it stands in the
//! container's description, on the engine's disk, or in an argument.

mod bell;
mod blame;
mod carrier;
mod check;
pub mod config;
mod engine;
mod facts;
mod feed;
mod holder;
mod image;
mod lines;
mod logs;
mod look;
mod names;
mod place;
mod plan;
mod records;
mod start;
mod status;
mod stop;
mod trial;
mod watch;

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bollard::query_parameters::ListVolumesOptionsBuilder;
use futures::FutureExt as _;
use futures::stream::BoxStream;
use hybrid_runner_core::error::Result;
use hybrid_runner_core::executor::{Capabilities, Executor, Handle, Progress};
use hybrid_runner_core::id::SectionName;
use hybrid_runner_core::kind::{Context, Kind};
use hybrid_runner_core::run::{RunSpec, Status};
use hybrid_runner_core::secret::{References, Secrets};
use hybrid_runner_core::{Finding, LogChunk, LogCursor, RunId};

pub use config::DockerConfig;

use bell::Bells;
use config::Settings;
use engine::Engine;
use facts::Facts;
use names::Names;

use crate::turns::Turns;

/// The executor's entry in [`crate::KINDS`].
pub const KIND: Kind<dyn Executor> = Kind {
    name: "docker",
    summary: "containers of a Docker Engine",
    build: |context| Ok(Arc::new(Docker::new(context)?)),
    schema: || schemars::schema_for!(DockerConfig),
};

/// Of the handle's state.
const VERSION: u16 = 1;

/// Runs work as containers of a Docker Engine. See the [module](self).
#[derive(Debug)]
pub struct Docker(Arc<Shared>);

/// What the methods share; streams hold it too.
#[derive(Debug)]
struct Shared {
    name: SectionName,
    settings: Settings,
    references: References,
    engine: Arc<Engine>,
    names: Names,
    /// The volume of init, once it was looked into.
    carrier: tokio::sync::Mutex<Option<String>>,
    facts: tokio::sync::OnceCell<Facts>,
    bells: Bells,
    turns: Turns,
    /// Runs whose work is known to have begun.
    begun: Mutex<HashSet<RunId>>,
}

impl Docker {
    /// The executor of a section. Asks the engine nothing yet.
    pub fn new(context: &Context) -> Result<Self> {
        let settings = Settings::read(context, |name| std::env::var(name).ok())?;
        Ok(Self(Arc::new(Shared {
            name: context.name.clone(),
            engine: Arc::new(Engine::new(settings.host.clone())),
            settings,
            references: context.references.clone(),
            names: Names::of(context.owner.clone()),
            carrier: tokio::sync::Mutex::default(),
            facts: tokio::sync::OnceCell::new(),
            bells: Bells::default(),
            turns: Turns::default(),
            begun: Mutex::default(),
        })))
    }
}

#[async_trait]
impl Executor for Docker {
    async fn capabilities(&self) -> Result<Capabilities> {
        self.0.capabilities().await
    }

    async fn check(&self) -> Result<()> {
        self.0.list().await.map(drop)
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
        logs::follow(Arc::clone(&self.0), run.run, from)
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

impl Shared {
    /// All runs that have a container, or the mark of a stop.
    async fn list(&self) -> Result<Vec<Handle>> {
        let filter = self.names.filter();
        let what = "list what the engine has of ours";
        let containers = self.containers(what, &filter).await?;
        let options = ListVolumesOptionsBuilder::default()
            .filters(&filter)
            .build();
        let list = |docker: bollard::Docker| {
            let options = Some(options.clone());
            async move { docker.list_volumes(options).await }.boxed()
        };
        let marks = self.engine.question(what, list).await?;
        let mut runs: BTreeMap<RunId, Handle> = BTreeMap::new();
        for mark in marks.volumes.unwrap_or_default() {
            if let Some(run) = names::run_of(Some(&mark.labels))
                && mark.name == self.names.stopped(run)
            {
                runs.insert(run, Handle::of(run));
            }
        }
        for container in containers {
            let labels = container.labels.as_ref();
            if let Some(run) = self.names.run_of_container(&container) {
                let name = labels.and_then(|labels| labels.get(names::NAME));
                runs.insert(
                    run,
                    name.map_or_else(|| Handle::of(run), |name| handle(run, name)),
                );
            }
        }
        Ok(runs.into_values().collect())
    }

    fn begun(&self) -> MutexGuard<'_, HashSet<RunId>> {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn handle(run: RunId, name: &str) -> Handle {
    Handle::with_state(run, VERSION, serde_json::json!({ "name": name }))
}
