//! The least that a scheduler answers, and the executor that is made of it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;

use super::{Output, logs, no_logs, watch};
use crate::error::{Error, ErrorKind, Result};
use crate::executor::{Capabilities, Executor, Handle, Progress, findings};
use crate::finding::Finding;
use crate::id::RunId;
use crate::log::{LogChunk, LogCursor};
use crate::run::{CONFIG_PLACE, Outcome, Rendered, RunSpec, State, Status, render};
use crate::secret::Secrets;

/// A backend that only answers, and whose runs go by the names that they are given: what most schedulers are.
///
/// [`Polled`] makes an [`Executor`] of it: it asks again and again, makes the cursors, puts values into their places, and
/// refuses what the backend cannot do before it is asked. What is left to write are the backend's own words. A backend that
/// can do more (events, streams told apart) is an [`Executor`] itself; [`watch`] and [`logs`] serve there too.
#[async_trait]
pub trait Backend: fmt::Debug + Send + Sync + 'static {
    /// What it can do. The one method with a default: the least.
    ///
    /// # Behavior
    ///
    /// - what is named as missing is never asked for.
    fn capabilities(&self) -> Capabilities {
        Capabilities::least()
    }

    /// As [`Executor::check`].
    async fn check(&self) -> Result<()>;

    /// Hands a run over. `work` is the spec with its values in place; the path of its config is [`CONFIG_PLACE`].
    ///
    /// # Behavior
    ///
    /// - the run's name is the job's: handing it over twice is handing it over once, and completes what is half done;
    /// - after a stop of that name it is refused as `Conflict`;
    /// - `spec.limits` are kept by the backend, unless they are named as missing.
    async fn submit(&self, spec: &RunSpec, work: &Rendered) -> Result<()>;

    /// How a run stands.
    ///
    /// # Behavior
    ///
    /// - `NotFound` only from a backend that answers and does not know the run: that is the run's end, `Lost`.
    async fn status(&self, run: RunId) -> Result<Status>;

    /// What a run wrote, from the byte of that number on: as much as is handy; nothing if there is no more yet.
    async fn output(&self, run: RunId, from: u64) -> Result<Vec<u8>>;

    /// As [`Executor::stop`].
    async fn stop(&self, run: RunId, grace: Duration) -> Result<()>;

    /// Forgets a run that has ended, or of which little or nothing is known. Idempotent.
    async fn remove(&self, run: RunId) -> Result<()>;

    /// All runs that were handed over and not removed: a strong read.
    async fn list(&self) -> Result<Vec<RunId>>;
}

/// The executor over a [`Backend`]. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Polled {
    backend: Arc<dyn Backend>,
    every: Duration,
}

impl Polled {
    /// An executor of this backend, which is asked so often.
    pub fn new(backend: impl Backend, every: Duration) -> Self {
        let backend = Arc::new(backend);
        Self { backend, every }
    }

    /// Refuses what the backend would not honour.
    fn refuse(&self, spec: &RunSpec) -> Result<()> {
        let can = self.backend.capabilities();
        let keeps = |limit: &str| can.offers("limits") && can.offers(limit);
        let limits = &spec.limits;
        let asked = [
            (
                "resources.limits",
                !spec.resources.limits.is_empty() && !can.resources,
            ),
            (
                "timeout",
                limits.timeout.limit().is_some() && !keeps("timeout"),
            ),
            (
                "stall_timeout",
                limits.stall_timeout.limit().is_some() && !keeps("stall_timeout"),
            ),
        ];
        if let Some((field, _)) = asked.iter().find(|(_, cannot)| *cannot) {
            return Err(Error::unsupported(format!(
                "the backend cannot keep `{field}`"
            )));
        }
        if !can.images && spec.command.as_ref().is_none_or(Vec::is_empty) {
            let what =
                "the backend uses no images: give `command`, or choose an executor for containers";
            return Err(Error::unsupported(what));
        }
        Ok(())
    }
}

/// How a run stands; one that is not known is lost.
async fn level(backend: &dyn Backend, run: RunId) -> Result<Status> {
    match backend.status(run).await {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let lost = State::Finished(Outcome::lost(error.report()));
            Ok(Status::new(run.attempt_number().max(1), lost))
        }
        level => level,
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Executor for Polled {
    async fn capabilities(&self) -> Result<Capabilities> {
        Ok(self.backend.capabilities())
    }

    async fn check(&self) -> Result<()> {
        self.backend.check().await
    }

    async fn examine(&self) -> Vec<Finding> {
        findings(self.check().await, self.capabilities().await)
    }

    async fn preview(&self, _: &RunSpec, _: &Secrets) -> Result<Vec<serde_json::Value>> {
        Ok(Vec::new())
    }

    async fn start(&self, spec: &RunSpec, secrets: &Secrets, _: &Progress) -> Result<Handle> {
        spec.validate()?;
        self.refuse(spec)?;
        let work = render(spec, secrets, CONFIG_PLACE)?;
        self.backend.submit(spec, &work).await?;
        Ok(Handle::of(spec.run))
    }

    fn watch(&self, run: &Handle) -> BoxStream<'static, Result<Status>> {
        let (backend, run) = (Arc::clone(&self.backend), run.run);
        watch(self.every, move || {
            let backend = Arc::clone(&backend);
            async move { level(&*backend, run).await }
        })
    }

    fn logs(&self, run: &Handle, from: Option<LogCursor>) -> BoxStream<'static, Result<LogChunk>> {
        if !self.backend.capabilities().offers("logs") {
            return no_logs(self.watch(run));
        }
        let (backend, run) = (Arc::clone(&self.backend), run.run);
        logs(run, from, self.every, move |offset| {
            let backend = Arc::clone(&backend);
            async move {
                // Asked first: what is written until the end is then behind it.
                let ended = backend.status(run).await?.is_finished();
                let bytes = backend.output(run, offset).await?.into();
                Ok(Output { bytes, ended })
            }
        })
    }

    async fn stop(&self, run: &Handle, grace: Duration) -> Result<()> {
        if !self.backend.capabilities().offers("stop") {
            return Err(Error::unsupported("the backend cannot stop a run"));
        }
        self.backend.stop(run.run, grace).await
    }

    async fn remove(&self, run: &Handle) -> Result<()> {
        if !level(&*self.backend, run.run).await?.is_finished() {
            let what = format!("the run `{}` has not ended; stop it first", run.run);
            return Err(Error::conflict(what));
        }
        self.backend.remove(run.run).await
    }

    async fn list(&self) -> Result<Vec<Handle>> {
        let runs = self.backend.list().await?;
        Ok(runs.into_iter().map(Handle::of).collect())
    }

    async fn close(&self) {}
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, PoisonError};

    use futures::StreamExt as _;

    use super::*;
    use crate::unit::Period;

    /// Tells each run's status in one way, and notes what it is asked to do.
    #[derive(Debug, Clone)]
    struct Scripted {
        status: fn() -> Result<State>,
        missing: &'static [&'static str],
        done: Arc<Mutex<Vec<&'static str>>>,
    }

    impl Scripted {
        fn new(status: fn() -> Result<State>) -> Self {
            Self {
                status,
                missing: &[],
                done: Arc::default(),
            }
        }

        fn executor(&self) -> Polled {
            Polled::new(self.clone(), Duration::from_secs(1))
        }

        fn note(&self, what: &'static str) {
            let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
            done.push(what);
        }

        fn done(&self) -> Vec<&'static str> {
            let done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
            done.clone()
        }
    }

    #[async_trait]
    impl Backend for Scripted {
        fn capabilities(&self) -> Capabilities {
            let mut can = Capabilities::least();
            can.missing = self.missing.iter().map(|&part| part.to_owned()).collect();
            can
        }
        async fn check(&self) -> Result<()> {
            Ok(())
        }
        async fn submit(&self, _: &RunSpec, _: &Rendered) -> Result<()> {
            self.note("submit");
            Ok(())
        }
        async fn status(&self, run: RunId) -> Result<Status> {
            (self.status)().map(|state| Status::new(run.attempt_number(), state))
        }
        async fn output(&self, _: RunId, from: u64) -> Result<Vec<u8>> {
            self.note("output");
            Ok(b"one\ntwo\n"[usize::try_from(from).unwrap()..].to_vec())
        }
        async fn stop(&self, _: RunId, _: Duration) -> Result<()> {
            self.note("stop");
            Ok(())
        }
        async fn remove(&self, _: RunId) -> Result<()> {
            self.note("remove");
            Ok(())
        }
        async fn list(&self) -> Result<Vec<RunId>> {
            Ok(Vec::new())
        }
    }

    fn spec() -> RunSpec {
        let run = RunId::generate().attempt(1);
        RunSpec::new(run, "orders".parse().unwrap(), ["true"])
    }

    async fn start(executor: &Polled, spec: &RunSpec) -> Result<Handle> {
        let (secrets, progress) = (Secrets::none(), Progress::none());
        executor.start(spec, &secrets, &progress).await
    }

    #[tokio::test]
    async fn what_the_backend_cannot_do_is_refused_before_it_is_asked() {
        let mut backend = Scripted::new(|| Ok(State::Running));
        backend.missing = &["stall_timeout", "stop", "logs"];
        let executor = backend.executor();
        let mut stalls = spec();
        stalls.limits.stall_timeout = Period::seconds(1);
        let mut limited = spec();
        limited.resources.limits.pids = Some(1);
        let mut without = spec();
        (without.image, without.command) = (Some("an/image".into()), None);
        for spec in [stalls, limited, without] {
            let error = start(&executor, &spec).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unsupported);
        }
        let run = Handle::of(spec().run);
        let stopped = executor.stop(&run, Duration::ZERO).await;
        assert_eq!(stopped.unwrap_err().kind(), ErrorKind::Unsupported);
        assert!(backend.done().is_empty(), "{:?}", backend.done());
        let mut timed = spec();
        timed.limits.timeout = Period::seconds(1);
        let handle = start(&executor, &timed).await.unwrap();
        assert_eq!(handle, Handle::of(timed.run));
        assert_eq!(backend.done(), ["submit"]);
    }

    #[tokio::test]
    async fn a_run_that_is_not_known_is_lost_and_a_backend_that_is_away_is_an_error() {
        let run = Handle::of(spec().run);
        let unknown = Scripted::new(|| Err(Error::not_found("no such job"))).executor();
        let level = unknown.watch(&run).next().await.unwrap().unwrap();
        assert!(
            matches!(level.outcome(), Some(Outcome::Lost { why }) if why == "no such job"),
            "{level:?}"
        );
        let away = Scripted::new(|| Err(Error::unavailable("no route to it"))).executor();
        let error = away.watch(&run).next().await.unwrap().unwrap_err();
        assert!(error.is_transient(), "{error:?}");
        assert!(away.remove(&run).await.unwrap_err().is_transient());
    }

    #[tokio::test(start_paused = true)]
    async fn a_run_is_read_to_its_end_and_removed_only_then() {
        let run = Handle::of(spec().run);
        let running = Scripted::new(|| Ok(State::Running));
        let error = running.executor().remove(&run).await.unwrap_err();
        assert_eq!(
            (error.kind(), running.done()),
            (ErrorKind::Conflict, vec![])
        );
        let ended = Scripted::new(|| Ok(State::Finished(Outcome::Succeeded)));
        let chunks: Vec<_> = ended.executor().logs(&run, None).collect().await;
        let cursor = chunks[0].as_ref().unwrap().next.clone();
        assert_eq!(
            (chunks.len(), cursor.as_str()),
            (1, &*format!("{}@8", run.run))
        );
        ended.executor().remove(&run).await.unwrap();
        assert_eq!(ended.done().last(), Some(&"remove"));
    }
}
