//! One case's try at one executor.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use futures::stream::BoxStream;

use super::Harness;
use crate::error::Result;
use crate::executor::{Executor, Handle, Progress};
use crate::id::RunId;
use crate::log::{LogChunk, LogCursor, LogItem, Stream};
use crate::run::{Outcome, RunSpec, Status};
use crate::secret::Secrets;
use crate::testing::script::{Script, Step};
use crate::testing::verdict::{Tried, done, ensure, equal, failed, not_offered, shown, within};

/// One case's try at one executor: what a case is given. It knows its runs and removes them afterwards.
pub struct Trial {
    pub(super) harness: Arc<dyn Harness>,
    pub(super) executor: Arc<dyn Executor>,
    /// What the backend says that it has not.
    pub(super) missing: Vec<String>,
    runs: Mutex<Vec<RunId>>,
}

impl std::fmt::Debug for Trial {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Trial")
            .field("executor", &self.executor)
            .finish_non_exhaustive()
    }
}

impl Trial {
    pub(super) async fn new(harness: Arc<dyn Harness>) -> Self {
        let executor = harness.executor().await;
        let asked = tokio::time::timeout(harness.patience(), executor.capabilities()).await;
        let can = asked.ok().and_then(Result::ok);
        Self {
            harness,
            executor,
            missing: can.map(|can| can.missing).unwrap_or_default(),
            runs: Mutex::default(),
        }
    }

    /// Whether the backend says that it has not this part of the contract.
    pub(super) fn lacks(&self, part: &str) -> bool {
        self.missing.iter().any(|missing| missing == part)
    }

    /// Ends and removes the case's runs, as far as the executor lets us.
    pub(super) async fn clean_up(&self) {
        let runs = std::mem::take(&mut *self.runs.lock().unwrap_or_else(PoisonError::into_inner));
        let executor = self.harness.executor().await;
        for run in runs {
            let handle = Handle::of(run);
            let clean = async {
                executor.stop(&handle, Duration::ZERO).await.ok();
                let mut statuses = executor.watch(&handle);
                while let Some(Ok(_)) = statuses.next().await {}
                executor.remove(&handle).await.ok();
            };
            tokio::time::timeout(self.patience(), clean).await.ok();
        }
    }

    pub(super) fn tick(&self) -> Duration {
        self.harness.tick()
    }
    pub(super) fn patience(&self) -> Duration {
        self.harness.patience()
    }

    /// A new run of this script. If the harness counts starts by evidence, the script leaves it.
    pub(super) fn spec(&self, script: Script) -> RunSpec {
        let run = self.new_run();
        let script = match self.harness.evidence(run) {
            Some(path) => script.after(Step::Evidence(path)),
            None => script,
        };
        self.harness.spec(run, &script)
    }

    /// A new id, cleaned up afterwards.
    pub(super) fn new_run(&self) -> RunId {
        let run = self.harness.run_id();
        let mut runs = self.runs.lock().unwrap_or_else(PoisonError::into_inner);
        runs.push(run);
        run
    }

    /// Starts without expecting success.
    pub(super) async fn try_start(
        &self,
        spec: &RunSpec,
        values: &Secrets,
    ) -> Tried<Result<Handle>> {
        self.start_through(&*self.executor, spec, values).await
    }

    /// Starts through some executor without expecting success.
    pub(super) async fn start_through(
        &self,
        executor: &dyn Executor,
        spec: &RunSpec,
        values: &Secrets,
    ) -> Tried<Result<Handle>> {
        let secrets = self.harness.hand_over(values).await;
        let progress = Progress::none();
        let started = executor.start(spec, &secrets, &progress);
        self.within("an answer to the start", started).await
    }

    pub(super) async fn start(&self, spec: &RunSpec) -> Tried<Handle> {
        self.start_with(spec, &Secrets::none()).await
    }

    pub(super) async fn start_with(&self, spec: &RunSpec, values: &Secrets) -> Tried<Handle> {
        let handle = done("a start", self.try_start(spec, values).await?)?;
        equal("the run in the handle", &spec.run, &handle.run)?;
        Ok(handle)
    }

    /// Starts a run of this script.
    pub(super) async fn begin(&self, script: Script) -> Tried<Handle> {
        self.start(&self.spec(script)).await
    }

    /// Starts a run of this script and waits until it runs.
    pub(super) async fn begin_and_see_running(&self, script: Script) -> Tried<Handle> {
        let handle = self.begin(script).await?;
        self.running(&handle).await?;
        Ok(handle)
    }

    /// Starts a run of this script and waits for its end.
    pub(super) async fn run(&self, script: Script) -> Tried<(Handle, Outcome)> {
        let handle = self.begin(script).await?;
        let outcome = self.end(&handle).await?;
        Ok((handle, outcome))
    }

    /// The present status.
    pub(super) async fn status(&self, run: &Handle) -> Tried<Status> {
        let mut statuses = self.executor.watch(run);
        self.next_status(&mut statuses).await
    }

    /// The next level of a watch; there must be one.
    pub(super) async fn next_status(
        &self,
        statuses: &mut BoxStream<'static, Result<Status>>,
    ) -> Tried<Status> {
        match self.within("a status", statuses.next()).await? {
            None => Err(failed("a status", "the end of the watch")),
            Some(status) => done("a status", status),
        }
    }

    /// Waits until the work runs.
    pub(super) async fn running(&self, run: &Handle) -> Tried {
        let mut statuses = self.executor.watch(run);
        loop {
            let status = self.next_status(&mut statuses).await?;
            match status.state.rank() {
                0 | 1 => {}
                2 => return Ok(()),
                _ => return Err(failed("the run to be running", shown(&status))),
            }
        }
    }

    /// How the run ends.
    pub(super) async fn end(&self, run: &Handle) -> Tried<Outcome> {
        self.end_through(&*self.executor, run).await
    }

    pub(super) async fn end_through(
        &self,
        executor: &dyn Executor,
        run: &Handle,
    ) -> Tried<Outcome> {
        let mut statuses = executor.watch(run);
        let finished = async {
            loop {
                match statuses.next().await {
                    None => return Err(failed("the run's end", "the end of the watch before it")),
                    Some(status) => {
                        if let Some(outcome) = done("the run's end", status)?.outcome() {
                            return Ok(outcome.clone());
                        }
                    }
                }
            }
        };
        self.within("the run's end", finished).await?
    }

    /// Fails unless the run ends as stopped.
    pub(super) async fn ends_stopped(&self, run: &Handle) -> Tried {
        let outcome = self.end(run).await?;
        let stopped = matches!(outcome, Outcome::Stopped { .. });
        ensure(stopped, "the run to end as stopped", || shown(&outcome))
    }

    pub(super) async fn stop(&self, run: &Handle, grace: Duration) -> Tried {
        if self.lacks("stop") {
            return Err(not_offered("a backend with `stop`"));
        }
        let stopped = self.executor.stop(run, grace);
        done(
            "a stop",
            self.within("an answer to the stop", stopped).await?,
        )
    }

    pub(super) async fn remove(&self, run: &Handle) -> Tried {
        done("a removal", self.try_remove(run).await?)
    }

    pub(super) async fn try_remove(&self, run: &Handle) -> Tried<Result<()>> {
        let removed = self.executor.remove(run);
        self.within("an answer to the removal", removed).await
    }

    /// The ids in an executor's list.
    pub(super) async fn listed(&self, executor: &dyn Executor) -> Tried<Vec<RunId>> {
        let list = self.within("a list", executor.list()).await?;
        let mut runs: Vec<RunId> = done("a list", list)?
            .iter()
            .map(|handle| handle.run)
            .collect();
        runs.sort();
        Ok(runs)
    }

    /// The whole rest of a log.
    pub(super) async fn log(&self, run: &Handle, from: Option<&LogCursor>) -> Tried<Vec<LogChunk>> {
        self.log_through(&*self.executor, run, from).await
    }

    pub(super) async fn log_through(
        &self,
        executor: &dyn Executor,
        run: &Handle,
        from: Option<&LogCursor>,
    ) -> Tried<Vec<LogChunk>> {
        if self.lacks("logs") {
            return Err(not_offered("a backend with `logs`"));
        }
        self.rest(&mut executor.logs(run, from.cloned())).await
    }

    /// What is left of a log.
    pub(super) async fn rest(
        &self,
        chunks: &mut BoxStream<'static, Result<LogChunk>>,
    ) -> Tried<Vec<LogChunk>> {
        let mut log = Vec::new();
        let whole = async {
            while let Some(chunk) = chunks.next().await {
                let chunk = done("the rest of the log", chunk)?;
                let length = chunk.item.len();
                ensure(
                    length <= crate::log::MAX_CHUNK,
                    "chunks of 64 KiB at most",
                    || format!("one of {length} bytes"),
                )?;
                log.push(chunk);
            }
            Ok(log)
        };
        self.within("the end of the log", whole).await?
    }

    /// The whole output as text.
    pub(super) async fn text(&self, run: &Handle) -> Tried<String> {
        let log = self.log(run, None).await?;
        Ok(String::from_utf8_lossy(&all_bytes(&log)).into_owned())
    }

    /// Reads until the log holds this text.
    pub(super) async fn read_until(
        &self,
        chunks: &mut BoxStream<'static, Result<LogChunk>>,
        text: &str,
    ) -> Tried<Vec<LogChunk>> {
        if self.lacks("logs") {
            return Err(not_offered("a backend with `logs`"));
        }
        let mut log: Vec<LogChunk> = Vec::new();
        let read = async {
            while !contains(&all_bytes(&log), text.as_bytes()) {
                match chunks.next().await {
                    None => return Err(failed(format!("`{text}` in the log"), "the log's end")),
                    Some(chunk) => log.push(done("a piece of the log", chunk)?),
                }
            }
            Ok(log)
        };
        self.within(&format!("`{}` in the log", text.trim()), read)
            .await?
    }

    /// Fails unless the work began this often, as far as anybody can tell.
    ///
    /// `output` is a line that the work writes once each time it begins; `None` if it never may have begun.
    pub(super) async fn began_times(
        &self,
        run: &Handle,
        times: u32,
        output: Option<&str>,
    ) -> Tried {
        if let Some(counted) = self.harness.starts(run.run).await {
            equal("how often the work began", &times, &counted)?;
        }
        let Some(line) = output else { return Ok(()) };
        let text = self.text(run).await?;
        let written = text.lines().filter(|written| *written == line).count();
        equal(
            "how often the work wrote its first line",
            &(times as usize),
            &written,
        )
    }

    /// Waits until no process of the run lives, if the harness can tell; `false` if it cannot.
    pub(super) async fn gone_within(&self, run: RunId, limit: Duration) -> Tried<bool> {
        let looked = async {
            loop {
                match self.harness.alive(run).await {
                    None => return false,
                    Some(false) => return true,
                    // The operating system has no event for "the last of them is gone".
                    Some(true) => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            }
        };
        within(limit, "all processes of the run to be gone", looked).await
    }

    pub(super) async fn within<F: Future>(&self, what: &str, future: F) -> Tried<F::Output> {
        within(self.patience(), what, future).await
    }
}

/// All data of a log, streams mixed as they came.
pub(super) fn all_bytes(log: &[LogChunk]) -> Vec<u8> {
    let mut all = Vec::new();
    for chunk in log {
        if let LogItem::Data { bytes, .. } = &chunk.item {
            all.extend_from_slice(bytes);
        }
    }
    all
}

/// The data of each stream.
pub(super) fn streams(log: &[LogChunk]) -> HashMap<Stream, Bytes> {
    let mut found: HashMap<Stream, BytesMut> = HashMap::new();
    for chunk in log {
        if let LogItem::Data { stream, bytes, .. } = &chunk.item {
            found.entry(*stream).or_default().extend_from_slice(bytes);
        }
    }
    let whole = found.into_iter();
    whole
        .map(|(stream, bytes)| (stream, bytes.freeze()))
        .collect()
}

/// The gaps in a log.
pub(super) fn gaps(log: &[LogChunk]) -> usize {
    let gap = |chunk: &&LogChunk| matches!(chunk.item, LogItem::Gap { .. });
    log.iter().filter(gap).count()
}

pub(super) fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}
