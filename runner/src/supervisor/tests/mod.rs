//! Tests of the supervisor over an executor in memory that outlives each life of the runner.

mod contract;
mod disk;
mod lives;
mod outcomes;
mod redelivery;
mod removal;
mod retries;
mod stops;
#[cfg(feature = "_faults")]
mod walk;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use hybrid_runner_core::error::{ErrorKind, Result};
use hybrid_runner_core::incarnation::Incarnation;
use hybrid_runner_core::run::{Failure, Outcome, RunSpec, State, Status};
use hybrid_runner_core::testing::{Control, FakeBackend, FakeProvider};
use hybrid_runner_core::{
    Executor, Handle, LogCursor, LogItem, Progress, RunId, SecretProvider, Secrets,
};
use hybrid_runner_secrets::Stores;
use tempfile::TempDir;
use tokio::task::JoinSet;

use super::{Parts, Runner};
use crate::config::Resolve;
use crate::policy::Policy;

/// On the paused clock, so that it costs nothing; some waits of the runner are minutes.
const LIMIT: Duration = Duration::from_hours(24);

async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, work)
        .await
        .expect("it comes to an end in time")
}

/// What outlives a runner: its machine, its disk, its backend, its store of secrets.
struct World {
    backend: FakeBackend,
    provider: FakeProvider,
    disk: TempDir,
    boot: String,
    max_runs: u32,
    policy: Policy,
    resolve: Resolve,
    workload: Option<hybrid_runner_secrets::workload::Workload>,
}

/// One life of a runner.
struct Life {
    runner: Runner,
    tasks: JoinSet<()>,
}

impl World {
    fn new() -> Self {
        Self {
            backend: FakeBackend::new(),
            provider: FakeProvider::new().with("/a", "alpha"),
            disk: tempfile::tempdir().unwrap(),
            boot: "boot-1".to_owned(),
            max_runs: 1000,
            policy: Policy::default(),
            resolve: Resolve::Runner,
            workload: None,
        }
    }

    fn parts(&self, disk: &Path) -> Parts {
        let provider: Arc<dyn SecretProvider> = Arc::new(self.provider.clone());
        let stores = BTreeMap::from([("store".parse().unwrap(), provider)]);
        let executor: Arc<dyn Executor> = self.backend.executor();
        Parts {
            agent: "Fake".parse().unwrap(),
            executors: BTreeMap::from([("fake".parse().unwrap(), executor)]),
            default_executor: "fake".parse().unwrap(),
            stores: Arc::new(Stores::new(stores, None).unwrap()),
            policy: self.policy.clone(),
            data_dir: disk.to_owned(),
            max_runs: self.max_runs,
            resolve: self.resolve,
            workload: self.workload.clone(),
        }
    }

    async fn open(&self) -> Life {
        self.open_with(|| self.parts(self.disk.path())).await
    }

    async fn open_with(&self, parts: impl Fn() -> Parts + Send + Sync) -> Life {
        let opening = async {
            loop {
                match Runner::open_in(parts(), self.boot.clone()).await {
                    // A process that a test beside this one is just starting holds the lock until its `exec`.
                    Err(error) if error.kind() == ErrorKind::Conflict => {
                        tokio::task::yield_now().await;
                    }
                    opened => return opened.unwrap(),
                }
            }
        };
        let (runner, driver) = within(opening).await;
        let mut tasks = JoinSet::new();
        tasks.spawn(driver);
        Life { runner, tasks }
    }

    /// Leaves nothing to be read of the journal.
    fn damage(&self) {
        let text = "not a database, but long enough to be looked at";
        std::fs::write(self.disk.path().join("state.db"), text).unwrap();
    }

    /// The control of the first attempt.
    fn first(&self, run: RunId) -> Control {
        self.backend.control(run.attempt(1))
    }

    /// How often any attempt began more than once: never.
    fn assert_nothing_began_twice(&self) {
        let twice: Vec<_> = self
            .backend
            .starts()
            .into_iter()
            .filter(|(_, times)| *times > 1)
            .collect();
        assert_eq!(twice, []);
    }
}

impl Life {
    async fn start(&self, spec: &RunSpec) -> Result<Handle> {
        within(start(self.runner.clone(), spec.clone())).await
    }

    async fn stop(&self, run: RunId) {
        within(self.runner.stop(&Handle::of(run), Duration::from_secs(1)))
            .await
            .unwrap();
    }

    async fn remove(&self, run: RunId) -> Result<()> {
        within(self.runner.remove(&Handle::of(run))).await
    }

    /// The first level for which that holds.
    async fn level(&self, run: RunId, wanted: impl Fn(&Status) -> bool + Send + Sync) -> Status {
        let mut levels = self.runner.watch(&Handle::of(run));
        let looking = async {
            while let Some(level) = levels.next().await {
                let level = level.unwrap();
                if wanted(&level) {
                    return level;
                }
                assert!(!level.is_finished(), "ended as {level:?}");
            }
            panic!("the levels ended before the run");
        };
        within(looking).await
    }

    async fn running(&self, run: RunId) -> Status {
        self.level(run, |level| level.state == State::Running).await
    }

    async fn outcome(&self, run: RunId) -> Outcome {
        self.level(run, Status::is_finished)
            .await
            .outcome()
            .unwrap()
            .clone()
    }

    async fn failure(&self, run: RunId) -> Failure {
        match self.outcome(run).await {
            Outcome::Failed(failure) => failure,
            other => panic!("ended as {other:?}"),
        }
    }

    async fn log(&self, run: RunId, from: Option<LogCursor>) -> (String, Option<LogCursor>) {
        let mut chunks = self.runner.logs(&Handle::of(run), from.clone());
        let reading = async {
            let (mut text, mut last) = (String::new(), from);
            while let Some(chunk) = chunks.next().await {
                let chunk = chunk.unwrap();
                if let LogItem::Data { bytes, .. } = &chunk.item {
                    text.push_str(std::str::from_utf8(bytes).unwrap());
                }
                last = Some(chunk.next);
            }
            (text, last)
        };
        within(reading).await
    }

    async fn listed(&self) -> Vec<Handle> {
        within(self.runner.list()).await.unwrap()
    }

    async fn incarnation(&self) -> Incarnation {
        within(self.runner.incarnation()).await.unwrap()
    }

    /// Ends this life as `kill -9` does: wherever each task stands. The journal's last write is in the hands of a
    /// thread, as it would be in those of the kernel; the next life waits for its lock.
    async fn kill(mut self) {
        within(self.tasks.shutdown()).await;
    }

    /// Ends this life in order.
    async fn drain(mut self) {
        self.runner.drain();
        within(self.tasks.join_next()).await.unwrap().unwrap();
    }
}

/// A start that borrows nothing, so that a test may drop it where it likes.
async fn start(runner: Runner, spec: RunSpec) -> Result<Handle> {
    runner
        .start(&spec, &Secrets::none(), &Progress::none())
        .await
}

/// A run that lives until it is ended by hand.
fn held() -> RunSpec {
    spec(["by-hand"])
}

fn spec<const N: usize>(command: [&str; N]) -> RunSpec {
    RunSpec::new(RunId::generate(), "a".parse().unwrap(), command)
}

fn kind<T: std::fmt::Debug>(result: Result<T>) -> ErrorKind {
    result.unwrap_err().kind()
}
