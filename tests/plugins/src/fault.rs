//! Wrong executors, each in one way: what `plugin test` must find.

use std::collections::{HashMap, HashSet};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use hybrid_runner_core::RunId;
use hybrid_runner_core::error::{Error, Result};
use hybrid_runner_core::executor::{Capabilities, Executor, Handle, Progress};
use hybrid_runner_core::finding::Finding;
use hybrid_runner_core::log::{LogChunk, LogCursor, LogItem};
use hybrid_runner_core::run::{Outcome, RunSpec, State, Status};
use hybrid_runner_core::secret::Secrets;
use serde_json::json;

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    StartsTwice,
    LosesTheLastLine,
    Forgets,
    EndsWithoutStatus,
    IsSlow,
    WritesGarbage,
    Leaks,
    LeaksInItsHandle,
    LeavesGrandchildren,
    /// Nothing is: a backend that gives names of its own, and forgets them with its process.
    NamesItself,
}

impl Fault {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::StartsTwice => "starts-twice",
            Self::LosesTheLastLine => "loses-the-last-line",
            Self::Forgets => "forgets",
            Self::EndsWithoutStatus => "ends-without-status",
            Self::IsSlow => "is-slow",
            Self::WritesGarbage => "writes-garbage",
            Self::Leaks => "leaks",
            Self::LeaksInItsHandle => "leaks-in-its-handle",
            Self::LeavesGrandchildren => "leaves-grandchildren",
            Self::NamesItself => "names-itself",
        }
    }
}

/// An executor with a fault.
#[derive(Debug)]
pub(crate) struct Odd {
    inner: Arc<dyn Executor>,
    fault: Fault,
    /// What this process started.
    started: Mutex<HashSet<RunId>>,
    values: Mutex<HashMap<RunId, String>>,
}

impl Odd {
    pub(crate) fn new(inner: Arc<dyn Executor>, fault: Fault) -> Self {
        Self {
            inner,
            fault,
            started: Mutex::default(),
            values: Mutex::default(),
        }
    }

    fn is(&self, fault: Fault) -> bool {
        self.fault == fault
    }

    async fn be_slow(&self) {
        if self.is(Fault::IsSlow) {
            tokio::time::sleep(Duration::from_secs(4)).await;
        }
    }

    /// Whether this process started the run; whether that was the first time.
    fn note(&self, run: RunId) -> bool {
        let mut started = self.started.lock().unwrap_or_else(PoisonError::into_inner);
        started.insert(run)
    }

    fn forgot(&self, run: RunId) -> bool {
        let started = self.started.lock().unwrap_or_else(PoisonError::into_inner);
        self.is(Fault::Forgets) && !started.contains(&run)
    }

    fn value(&self, run: RunId) -> Option<String> {
        let values = self.values.lock().unwrap_or_else(PoisonError::into_inner);
        values.get(&run).cloned()
    }

    fn remember(&self, run: RunId, secrets: &Secrets) {
        // Wrong on purpose: this is what the suite must find.
        let value = secrets
            .iter()
            .find_map(|(_, value)| value.expose_text().ok());
        if let Some(value) = value {
            let mut values = self.values.lock().unwrap_or_else(PoisonError::into_inner);
            values.insert(run, value.to_owned());
        }
    }

    /// The backend's own handle.
    fn own(&self, run: &Handle) -> Handle {
        let own = run.state["id"].as_str().and_then(|id| id.parse().ok());
        match own {
            Some(own) if self.is(Fault::NamesItself) => Handle::of(own),
            _ => run.clone(),
        }
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Executor for Odd {
    async fn capabilities(&self) -> Result<Capabilities> {
        let mut can = self.inner.capabilities().await?;
        can.named_start = !self.is(Fault::NamesItself);
        Ok(can)
    }

    async fn check(&self) -> Result<()> {
        self.be_slow().await;
        if self.is(Fault::WritesGarbage) {
            use std::io::Write as _;
            drop(writeln!(std::io::stdout(), "checking…"));
        }
        self.inner.check().await
    }

    async fn examine(&self) -> Vec<Finding> {
        let mut findings = self.inner.examine().await;
        if self.is(Fault::Leaks) {
            let values = self.values.lock().unwrap_or_else(PoisonError::into_inner);
            let given = values
                .values()
                .map(|value| format!("it was given `{value}`"));
            findings.extend(given.map(Finding::warning));
        }
        findings
    }

    async fn preview(&self, spec: &RunSpec, secrets: &Secrets) -> Result<Vec<serde_json::Value>> {
        self.inner.preview(spec, secrets).await
    }

    async fn start(
        &self,
        spec: &RunSpec,
        secrets: &Secrets,
        progress: &Progress,
    ) -> Result<Handle> {
        let first = self.note(spec.run);
        self.remember(spec.run, secrets);
        let mut spec = spec.clone();
        let run = spec.run;
        if (self.is(Fault::StartsTwice) && !first) || self.is(Fault::NamesItself) {
            spec.run = RunId::generate().attempt(1);
        }
        if self.is(Fault::LeavesGrandchildren) {
            leave_a_process(run);
        }
        let handle = self.inner.start(&spec, secrets, progress).await?;
        Ok(match self.fault {
            Fault::LeaksInItsHandle => {
                Handle::with_state(run, 1, json!({ "password": self.value(run) }))
            }
            Fault::NamesItself => Handle::with_state(run, 1, json!({ "id": spec.run })),
            _ => Handle::with_state(run, handle.version, handle.state),
        })
    }

    fn watch(&self, run: &Handle) -> BoxStream<'static, Result<Status>> {
        if self.forgot(run.run) {
            let lost = State::Finished(Outcome::lost("never heard of it"));
            return stream::iter([Ok(Status::new(1, lost))]).boxed();
        }
        let levels = self.inner.watch(&self.own(run));
        if self.is(Fault::EndsWithoutStatus) {
            let running = |level: &Result<Status>| {
                let more = !level.as_ref().is_ok_and(Status::is_finished);
                async move { more }
            };
            return levels.take_while(running).boxed();
        }
        levels
    }

    fn logs(&self, run: &Handle, from: Option<LogCursor>) -> BoxStream<'static, Result<LogChunk>> {
        let chunks = self.inner.logs(&self.own(run), from);
        match self.fault {
            Fault::LosesTheLastLine => all_but_the_last(chunks),
            Fault::Leaks => unmasked(chunks, self.value(run.run)),
            _ => chunks,
        }
    }

    async fn stop(&self, run: &Handle, grace: Duration) -> Result<()> {
        self.inner.stop(&self.own(run), grace).await
    }

    async fn remove(&self, run: &Handle) -> Result<()> {
        self.inner.remove(&self.own(run)).await
    }

    async fn list(&self) -> Result<Vec<Handle>> {
        if self.is(Fault::NamesItself) {
            return Err(Error::unsupported("it knows its own names only"));
        }
        self.be_slow().await;
        let mut runs = self.inner.list().await?;
        runs.retain(|run| !self.forgot(run.run));
        Ok(runs)
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}

fn all_but_the_last(
    chunks: BoxStream<'static, Result<LogChunk>>,
) -> BoxStream<'static, Result<LogChunk>> {
    let state = (chunks, None);
    stream::unfold(state, |(mut chunks, mut kept)| async move {
        loop {
            let next: Result<LogChunk> = chunks.next().await?;
            if let Some(chunk) = kept.replace(next) {
                return Some((chunk, (chunks, kept)));
            }
        }
    })
    .boxed()
}

fn unmasked(
    chunks: BoxStream<'static, Result<LogChunk>>,
    value: Option<String>,
) -> BoxStream<'static, Result<LogChunk>> {
    chunks
        .map(move |chunk| {
            let mut chunk = chunk?;
            if let (LogItem::Data { bytes, .. }, Some(value)) = (&mut chunk.item, &value) {
                let text = String::from_utf8_lossy(bytes).replace("***", value);
                *bytes = Bytes::from(text.into_bytes());
            }
            Ok(chunk)
        })
        .boxed()
}

/// A process that belongs to the run, and that nobody will end.
fn leave_a_process(run: RunId) {
    let begun = std::process::Command::new("sleep")
        .arg("20")
        .env("WORKFLOW_RUN_ID", run.run().to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    // Whether it could be begun is seen by the test that looks for it.
    drop(begun);
}
