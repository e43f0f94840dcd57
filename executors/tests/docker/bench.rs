//! What most tests ask of an executor, each within a limit of time.

use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::StreamExt as _;
use hybrid_runner_core::RunId;
use hybrid_runner_core::error::{Error, Result};
use hybrid_runner_core::executor::{Executor, Handle, Progress};
use hybrid_runner_core::log::{LogChunk, LogCursor, LogItem, Stream};
use hybrid_runner_core::run::{Failure, Outcome, RunSpec, Status};
use hybrid_runner_core::secret::{References, Secrets};
use serde_json::{Value, json};

use crate::place::{Place, engine};

/// How long one step may take on a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(90);

pub(crate) async fn within<T>(limit: Duration, what: &str, future: impl Future<Output = T>) -> T {
    let limited = tokio::time::timeout(limit, future).await;
    limited.unwrap_or_else(|_| panic!("{what} took longer than {limit:?}"))
}

/// Asks until it is so, where nobody tells.
pub(crate) async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    within(PATIENCE, what, async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

/// A place, and an executor in it.
pub(crate) struct Bench {
    pub(crate) place: Place,
    pub(crate) docker: Arc<dyn Executor>,
}

impl Bench {
    /// In the shared engine, if there is one.
    pub(crate) fn new() -> Option<Self> {
        Self::with(json!({}))
    }

    /// With more settings in its section.
    pub(crate) fn with(more: Value) -> Option<Self> {
        Self::with_references(more, References::none())
    }

    pub(crate) fn with_references(more: Value, references: References) -> Option<Self> {
        engine().map(|host| Self::at(host, more, references))
    }

    pub(crate) fn at(host: String, more: Value, references: References) -> Self {
        let place = Place::with(Some(host), more, references);
        let docker = place.docker("one");
        Self { place, docker }
    }

    /// The executor anew, as after a crash.
    pub(crate) fn anew(&mut self) {
        self.docker = self.place.docker("one");
    }

    /// A run of this shell script.
    pub(crate) fn spec(&self, script: &str) -> RunSpec {
        spec(["/bin/sh", "-c", script])
    }

    pub(crate) async fn start(&self, spec: &RunSpec) -> Handle {
        self.start_with(spec, &Secrets::none()).await
    }

    pub(crate) async fn start_with(&self, spec: &RunSpec, secrets: &Secrets) -> Handle {
        let progress = Progress::none();
        let started = self.docker.start(spec, secrets, &progress);
        within(PATIENCE, "a start", started).await.unwrap()
    }

    /// Starts a run of this shell script.
    pub(crate) async fn begin(&self, script: &str) -> Handle {
        self.start(&self.spec(script)).await
    }

    /// The error of a start that cannot succeed, and how it reads.
    pub(crate) async fn refused(&self, spec: &RunSpec) -> (Error, Failure) {
        let progress = Progress::none();
        let (secrets, run) = (Secrets::none(), spec.run);
        let started = self.docker.start(spec, &secrets, &progress);
        let error = within(PATIENCE, "a start", started).await.unwrap_err();
        let left = self.docker.list().await;
        assert!(
            !left.is_ok_and(|left| left.iter().any(|left| left.run == run)),
            "the start was refused, and something is left of it"
        );
        let failure = Failure::of_start(&error);
        (error, failure)
    }

    pub(crate) async fn status(&self, run: &Handle) -> Result<Status> {
        let mut levels = self.docker.watch(run);
        within(PATIENCE, "a status", levels.next()).await.unwrap()
    }

    pub(crate) async fn end(&self, run: &Handle) -> Outcome {
        let levels = self.docker.watch(run).collect::<Vec<_>>();
        let last = within(PATIENCE, "the end", levels).await.pop();
        last.unwrap().unwrap().outcome().unwrap().clone()
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
        self.remove(&run).await;
        failure
    }

    pub(crate) async fn log(&self, run: &Handle, from: Option<LogCursor>) -> Log {
        let chunks = self.docker.logs(run, from).collect::<Vec<_>>();
        let chunks = within(PATIENCE, "the log", chunks).await;
        Log(chunks.into_iter().map(Result::unwrap).collect())
    }

    /// The whole output.
    pub(crate) async fn text(&self, run: &Handle) -> String {
        let log = self.log(run, None).await;
        String::from_utf8(log.bytes(None)).unwrap()
    }

    pub(crate) async fn remove(&self, run: &Handle) {
        within(PATIENCE, "a removal", self.docker.remove(run))
            .await
            .unwrap();
    }

    pub(crate) async fn listed(&self) -> Vec<RunId> {
        let listed = within(PATIENCE, "a list", self.docker.list())
            .await
            .unwrap();
        listed.into_iter().map(|handle| handle.run).collect()
    }
}

/// A run of this command.
pub(crate) fn spec<const N: usize>(command: [&str; N]) -> RunSpec {
    let run = RunId::generate().attempt(1);
    RunSpec::new(run, "a".parse().unwrap(), command)
}

/// A log that was read.
#[derive(Debug, Default)]
pub(crate) struct Log(pub(crate) Vec<LogChunk>);

impl Log {
    /// The bytes of one stream, or of both as they came.
    pub(crate) fn bytes(&self, wanted: Option<Stream>) -> Vec<u8> {
        let mut all = Vec::new();
        for chunk in &self.0 {
            if let LogItem::Data { stream, bytes, .. } = &chunk.item
                && wanted.is_none_or(|wanted| wanted == *stream)
            {
                all.extend_from_slice(bytes);
            }
        }
        all
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

/// Keeps what is reported while something starts.
pub(crate) fn listener() -> (Progress, Arc<Mutex<Vec<String>>>) {
    let heard = Arc::<Mutex<Vec<String>>>::default();
    let ears = Arc::clone(&heard);
    let progress = Progress::to(move |line| ears.lock().unwrap().push(line.to_owned()));
    (progress, heard)
}
