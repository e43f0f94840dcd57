//! What most tests ask of an executor, each within a limit of time.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use hybrid_runner_core::error::Error;
use hybrid_runner_core::executor::{Executor, Handle, Progress};
use hybrid_runner_core::log::{LogChunk, LogCursor, LogItem};
use hybrid_runner_core::run::{Failure, Outcome, RunSpec, Status};
use hybrid_runner_core::secret::Secrets;
use hybrid_runner_core::{Finding, Health, RunId};
use serde_json::{Value, json};

use crate::over::Over;
use crate::place::{Place, kubeconfig};

/// How long one step may take on a machine that is busy with other tests. Argo takes a pod that is gone for lost after two minutes.
const PATIENCE: Duration = Duration::from_mins(4);

pub(crate) async fn within<T>(limit: Duration, what: &str, future: impl Future<Output = T>) -> T {
    let limited = tokio::time::timeout(limit, future).await;
    limited.unwrap_or_else(|_| panic!("{what} took longer than {limit:?}"))
}

/// Asks until it is so, where nobody tells.
pub(crate) async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    within(PATIENCE, what, async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
}

/// A namespace, and an executor in it.
pub(crate) struct Bench {
    pub(crate) place: Place,
    pub(crate) executor: Arc<dyn Executor>,
}

impl Bench {
    /// In the shared cluster, if there is one.
    pub(crate) async fn new(over: Over) -> Option<Self> {
        Self::with(over, json!({})).await
    }

    /// With more settings in its section.
    pub(crate) async fn with(over: Over, more: Value) -> Option<Self> {
        Some(Self::at(Place::with(over, Some(kubeconfig()?), more)).await)
    }

    pub(crate) async fn at(place: Place) -> Self {
        let executor = place.executor_of("one").await;
        Self { place, executor }
    }

    /// A run of this shell script.
    #[expect(clippy::unused_self, reason = "reads as what is asked of it")]
    pub(crate) fn spec(&self, script: &str) -> RunSpec {
        let run = RunId::generate().attempt(1);
        RunSpec::new(run, "a".parse().unwrap(), ["/bin/sh", "-c", script])
    }

    pub(crate) async fn try_start(
        &self,
        spec: &RunSpec,
        secrets: &Secrets,
    ) -> Result<Handle, Error> {
        let progress = Progress::none();
        let started = self.executor.start(spec, secrets, &progress);
        within(PATIENCE, "a start", started).await
    }

    pub(crate) async fn start(&self, spec: &RunSpec) -> Handle {
        self.try_start(spec, &Secrets::none()).await.unwrap()
    }

    /// Starts a run of this shell script.
    pub(crate) async fn begin(&self, script: &str) -> Handle {
        self.start(&self.spec(script)).await
    }

    /// The first status that is so.
    pub(crate) async fn status(
        &self,
        run: &Handle,
        is_so: impl Fn(&Status) -> bool + Send + Sync,
    ) -> Status {
        let mut levels = self.executor.watch(run);
        within(PATIENCE, "a status", async {
            loop {
                let status = levels.next().await.expect("one more level").unwrap();
                if is_so(&status) {
                    return status;
                }
            }
        })
        .await
    }

    pub(crate) async fn running(&self, run: &Handle) {
        self.status(run, |status| status.state.rank() == 2).await;
    }

    pub(crate) async fn end(&self, run: &Handle) -> Outcome {
        let last = self.status(run, Status::is_finished).await;
        last.outcome().unwrap().clone()
    }

    /// How it failed.
    pub(crate) async fn failure(&self, run: &Handle) -> Failure {
        match self.end(run).await {
            Outcome::Failed(failure) => failure,
            outcome => panic!("it did not fail: {outcome}"),
        }
    }

    /// Starts a run, awaits its failure, and removes it.
    pub(crate) async fn failure_of(&self, spec: &RunSpec) -> Failure {
        let run = self.start(spec).await;
        let failure = self.failure(&run).await;
        let again = self.failure(&run).await;
        assert_eq!(failure, again, "whoever looks later sees the same end");
        self.remove(&run).await;
        failure
    }

    pub(crate) async fn log(&self, run: &Handle, from: Option<LogCursor>) -> Log {
        let chunks = self.executor.logs(run, from).collect::<Vec<_>>();
        let chunks = within(PATIENCE, "the log", chunks).await;
        Log(chunks.into_iter().map(Result::unwrap).collect())
    }

    pub(crate) async fn remove(&self, run: &Handle) {
        within(PATIENCE, "a removal", self.executor.remove(run))
            .await
            .unwrap();
    }
}

/// What the doctor finds: one thing of this health, in words that have these.
pub(crate) async fn finds(executor: &dyn Executor, health: Health, words: &str) {
    let findings = executor.examine().await;
    let is_it = |it: &&Finding| it.health == health && it.message.contains(words);
    let found = findings.iter().filter(is_it).count();
    assert_eq!(found, 1, "{words}: {findings:?}");
}

/// A log that was read.
#[derive(Debug, Default)]
pub(crate) struct Log(pub(crate) Vec<LogChunk>);

impl Log {
    pub(crate) fn text(&self) -> String {
        let mut all = Vec::new();
        for chunk in &self.0 {
            if let LogItem::Data { bytes, .. } = &chunk.item {
                all.extend_from_slice(bytes);
            }
        }
        String::from_utf8(all).unwrap()
    }

    /// The gaps: how many bytes of output stand before each.
    pub(crate) fn gaps(&self) -> Vec<usize> {
        let mut seen = 0;
        let mut gaps = Vec::new();
        for chunk in &self.0 {
            match &chunk.item {
                LogItem::Gap { .. } => gaps.push(seen),
                item => seen += item.len(),
            }
        }
        gaps
    }
}

/// The whole log and the end of a run, by asking again from where it broke off, as a runner does.
pub(crate) async fn read_and_watch(executor: &dyn Executor, run: &Handle) -> (Log, Status) {
    let pause = || tokio::time::sleep(Duration::from_millis(100));
    let reading = async {
        let mut log = Log::default();
        loop {
            let from = log.0.last().map(|chunk| chunk.next.clone());
            let mut chunks = executor.logs(run, from);
            loop {
                match chunks.next().await {
                    None => return log,
                    Some(Ok(chunk)) => log.0.push(chunk),
                    Some(Err(error)) => {
                        assert!(error.is_transient(), "{error:?}");
                        break;
                    }
                }
            }
            pause().await;
        }
    };
    let watching = async {
        loop {
            let levels = executor.watch(run).collect::<Vec<_>>().await;
            if let Some(Ok(status)) = levels.into_iter().next_back() {
                return status;
            }
            pause().await;
        }
    };
    tokio::join!(reading, watching)
}
