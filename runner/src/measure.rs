//! Counts and times, taken where they happen: around each executor, and at the link.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use hybrid_runner_core::executor::{Capabilities, Executor, Handle, Progress};
use hybrid_runner_core::log::{LogChunk, LogCursor};
use hybrid_runner_core::run::{RunSpec, Status};
use hybrid_runner_core::secret::Secrets;
use hybrid_runner_core::{Finding, Result, RunId};
use tokio::time::Instant;

/// How often and how long something was waited for.
#[derive(Debug, Default)]
pub(crate) struct Timer {
    count: AtomicU64,
    micros: AtomicU64,
    longest: AtomicU64,
}

/// What a timer says.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Times {
    pub(crate) count: u64,
    pub(crate) sum: f64,
    /// The longest since the timer was read last.
    pub(crate) max: f64,
}

impl Timer {
    pub(crate) fn took(&self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.count.fetch_add(1, Ordering::Relaxed);
        self.micros.fetch_add(micros, Ordering::Relaxed);
        self.longest.fetch_max(micros, Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> Times {
        Times {
            count: self.count.load(Ordering::Relaxed),
            sum: Duration::from_micros(self.micros.load(Ordering::Relaxed)).as_secs_f64(),
            max: Duration::from_micros(self.longest.swap(0, Ordering::Relaxed)).as_secs_f64(),
        }
    }
}

/// Everything that is counted since this process began.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// Answers of the control plane.
    pub(crate) server: Timer,
    /// Answers of executors.
    pub(crate) executor: Timer,
    /// Attempts handed to executors.
    started: AtomicU64,
    /// Attempts that ended, by state.
    ended: Mutex<BTreeMap<&'static str, u64>>,
}

impl Counts {
    pub(crate) fn started(&self) -> u64 {
        self.started.load(Ordering::Relaxed)
    }

    pub(crate) fn ended(&self) -> BTreeMap<&'static str, u64> {
        self.ended
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn end(&self, state: &'static str) {
        *self
            .ended
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(state)
            .or_default() += 1;
    }
}

/// An executor whose answers are timed and whose attempts are counted.
pub(crate) struct Measured {
    inner: Arc<dyn Executor>,
    counts: Arc<Counts>,
    /// Attempts whose end was counted; forgotten with the attempt.
    counted: Arc<Mutex<HashSet<RunId>>>,
}

impl Measured {
    pub(crate) fn new(inner: Arc<dyn Executor>, counts: Arc<Counts>) -> Self {
        Self {
            inner,
            counts,
            counted: Arc::default(),
        }
    }

    async fn timed<T>(&self, answer: impl Future<Output = Result<T>> + Send) -> Result<T> {
        let asked = Instant::now();
        let answer = answer.await;
        self.counts.executor.took(asked.elapsed());
        answer
    }
}

impl fmt::Debug for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Executor for Measured {
    async fn capabilities(&self) -> Result<Capabilities> {
        self.inner.capabilities().await
    }

    async fn check(&self) -> Result<()> {
        self.timed(self.inner.check()).await
    }

    async fn examine(&self) -> Vec<Finding> {
        self.inner.examine().await
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
        let started = self.timed(self.inner.start(spec, secrets, progress)).await;
        if started.is_ok() {
            self.counts.started.fetch_add(1, Ordering::Relaxed);
        }
        started
    }

    fn watch(&self, run: &Handle) -> BoxStream<'static, Result<Status>> {
        let (counts, counted, run_id) =
            (Arc::clone(&self.counts), Arc::clone(&self.counted), run.run);
        self.inner
            .watch(run)
            .inspect(move |level| {
                let Ok(Some(outcome)) = level.as_ref().map(Status::outcome) else {
                    return;
                };
                if counted
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .insert(run_id)
                {
                    counts.end(outcome.name());
                }
            })
            .boxed()
    }

    fn logs(&self, run: &Handle, from: Option<LogCursor>) -> BoxStream<'static, Result<LogChunk>> {
        self.inner.logs(run, from)
    }

    async fn stop(&self, run: &Handle, grace: Duration) -> Result<()> {
        self.timed(self.inner.stop(run, grace)).await
    }

    async fn remove(&self, run: &Handle) -> Result<()> {
        let removed = self.timed(self.inner.remove(run)).await;
        if removed.is_ok() {
            self.counted
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .remove(&run.run);
        }
        removed
    }

    async fn list(&self) -> Result<Vec<Handle>> {
        self.timed(self.inner.list()).await
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timer_tells_the_longest_since_it_was_read() {
        let timer = Timer::default();
        timer.took(Duration::from_millis(500));
        timer.took(Duration::from_millis(250));
        assert_eq!(
            timer.read(),
            Times {
                count: 2,
                sum: 0.75,
                max: 0.5
            }
        );
        assert_eq!(
            timer.read(),
            Times {
                count: 2,
                sum: 0.75,
                max: 0.0
            }
        );
    }
}
