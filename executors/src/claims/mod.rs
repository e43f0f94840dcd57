//! Backends that give names of their own: what makes an executor of them.
//!
//! Such a backend cannot be asked for a run by the name that its caller chose, so the way from name to name is kept here: one
//! file for each run, written and synced before the backend is asked, with the backend's answer behind it.
//!
//! | file | holds |
//! |---|---|
//! | `ledger` | the files: records behind each other, under a lock that is the sign of life of whoever is busy |
//!
//! # After a crash
//!
//! A claim without an answer that nobody is busy with: the backend may have the run or not. If it can find it by a mark,
//! it is asked; what it does not have is started, once nobody of before is at work on its start any more. If it cannot, the
//! run is lost, and never started again.

mod ledger;

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use hybrid_runner_core::error::{Error, Result};
use hybrid_runner_core::executor::{Capabilities, Executor, Handle, Progress};
use hybrid_runner_core::finding::Finding;
use hybrid_runner_core::id::Owner;
use hybrid_runner_core::plugin::host::{Starts, Submitted};
use hybrid_runner_core::run::{Outcome, RunSpec, State, Status};
use hybrid_runner_core::secret::Secrets;
use hybrid_runner_core::{LogChunk, LogCursor, RunId};
use jiff::{SignedDuration, Timestamp};
use tokio::time::timeout;

use ledger::{Claim, Ledger};

/// How often a run whose start is to be made again is looked at.
const AGAIN: Duration = Duration::from_secs(1);

/// So long somebody may be busy with a run whatever is wanted of it.
const BUSY: Duration = Duration::from_secs(1);

const UNCLEAR: &str = "whether the backend took the run is not known: its answer never came, and it cannot be found by a mark; it is not started again";
const UNWRITTEN: &str = "the backend's own name of the run was forgotten with the restart: a value of the run stands in it, or may, so that it was never written down, and the run is not found by a mark";
const UNKNOWN: &str = "nothing is known here of this run";

/// A backend with names of its own.
#[async_trait]
pub(crate) trait Backend: fmt::Debug + Send + Sync + 'static {
    async fn capabilities(&self) -> Result<Capabilities>;
    async fn check(&self) -> Result<()>;
    async fn examine(&self) -> Vec<Finding>;
    /// Asks the backend once.
    async fn submit(&self, spec: &RunSpec, secrets: &Secrets, progress: &Progress) -> Submitted;
    /// By its mark: a strong read. Only asked if the capabilities say `find`.
    async fn find(&self, spec: &RunSpec) -> Result<Option<Handle>>;
    /// Whether anybody may still be at work on a start of this run that nobody waits for any more, and in words who: what
    /// [`Backend::find`] does not find then may be there later. Asked under the run's claim, and only if it can find.
    async fn at_work(&self, run: RunId) -> Result<Option<String>>;
    /// The run was stopped: a start of it that waits for its turn is not to have one.
    fn withdraw(&self, run: RunId);
    /// Whether it was.
    fn is_withdrawn(&self, run: RunId) -> bool;
    /// Ends who is at work on a start of this run, which was stopped, and whose grace is over.
    async fn end_start(&self, run: RunId);
    /// Whether no value stands in a handle.
    fn may_be_written(&self, handle: &Handle) -> bool;
    /// Forgets what a run was given: the backend does not have it, or has removed it.
    async fn forget(&self, run: RunId);
    /// Puts away what is open; nothing is asked afterwards.
    async fn close(&self);
    fn watch(&self, run: &Handle) -> BoxStream<'static, Result<Status>>;
    fn logs(&self, run: &Handle, from: Option<LogCursor>) -> BoxStream<'static, Result<LogChunk>>;
    async fn stop(&self, run: &Handle, grace: Duration) -> Result<()>;
    async fn remove(&self, run: &Handle) -> Result<()>;
}

/// An executor over such a backend.
#[derive(Debug)]
pub(crate) struct Claims<B>(Arc<Shared<B>>);

#[derive(Debug)]
struct Shared<B> {
    backend: B,
    ledger: Ledger,
    /// Handles that may not be written; the next life finds the runs by their marks.
    unwritten: Mutex<HashMap<RunId, Handle>>,
    /// Starts go on although nobody waits for them any more.
    starts: Starts,
}

/// How a run stands by its record.
enum Standing {
    Known(Handle),
    Ended(Outcome),
    /// The backend does not have it: a start may be made.
    Open,
    /// The backend does not have it yet, and who is at work on its start, in words, may give it to it.
    Awaited(String),
}

impl<B: Backend> Claims<B> {
    /// An executor that keeps its ledger in this folder.
    pub(crate) fn new(backend: B, data_dir: &std::path::Path, owner: &Owner) -> Self {
        let folder: PathBuf = data_dir.join("claims").join(owner.as_str());
        Self(Arc::new(Shared {
            backend,
            ledger: Ledger::new(folder),
            unwritten: Mutex::default(),
            starts: Starts::default(),
        }))
    }
}

impl<B: Backend> Shared<B> {
    async fn start(
        &self,
        spec: &RunSpec,
        secrets: &Secrets,
        progress: &Progress,
    ) -> Result<Handle> {
        let can = self.backend.capabilities().await?;
        let (mut claim, new) = self.ledger.claim(spec).await?;
        if !new {
            let settled = self.settle(&mut claim, spec.run, &can).await;
            match settled.map_err(not_known_yet)? {
                Standing::Known(handle) if claim.record.stopped => Err(stopped(handle.run)),
                Standing::Known(handle) => return Ok(handle),
                Standing::Ended(Outcome::Stopped { .. }) => Err(stopped(spec.run)),
                Standing::Ended(_) => Err(Error::conflict(UNCLEAR)),
                Standing::Awaited(who) => Err(Error::unavailable(who)),
                Standing::Open => Ok(()),
            }?;
        }
        match self.backend.submit(spec, secrets, progress).await {
            Submitted::Done(handle) => self.keep(&mut claim, spec.run, handle).await,
            Submitted::Refused(error) if self.backend.is_withdrawn(spec.run) => {
                claim.record.stopped = true;
                claim.write().await?;
                Err(error)
            }
            Submitted::Refused(error) => {
                // Of an earlier life's claim the backend may have the run all the same, with what it was given then.
                if new {
                    self.backend.forget(spec.run).await;
                }
                claim.remove().await?;
                Err(error)
            }
            Submitted::Unclear(error) => {
                let settled = self.settle(&mut claim, spec.run, &can).await;
                match settled.map_err(not_known_yet)? {
                    Standing::Known(handle) => Ok(handle),
                    Standing::Open => Err(Error::unavailable(
                        "the backend did not take the run; it may be started again",
                    )
                    .with_source(error)),
                    Standing::Awaited(who) => Err(Error::unavailable(who).with_source(error)),
                    Standing::Ended(_) => Err(Error::conflict(UNCLEAR).with_source(error)),
                }
            }
            _ => Err(Error::internal("an answer to a start that is not known")),
        }
    }

    /// Notes under which handle the backend has a run.
    async fn keep(&self, claim: &mut Claim, run: RunId, handle: Handle) -> Result<Handle> {
        let handle = Handle::with_state(run, handle.version, handle.state);
        let may_be_written = self.backend.may_be_written(&handle) && !claim.record.unwritten;
        if may_be_written {
            claim.record.handle = Some(handle.clone());
        } else if !std::mem::replace(&mut claim.record.unwritten, true) {
            tracing::warn!(%run, "the backend's own name of the run is not written down, since a value of the run stands in it, or may: after a restart the run must be found by its mark");
        }
        // In any case it is known as long as we live.
        self.unwritten().insert(run, handle.clone());
        match claim.write().await {
            Ok(()) if may_be_written => drop(self.unwritten().remove(&run)),
            Ok(()) => {}
            Err(error) => {
                claim.record.handle = None;
                tracing::warn!(%run, error = error.report(), "the backend's own name of the run is not written down yet");
            }
        }
        Ok(handle)
    }

    /// A handle as others may keep it; here the run alone is needed.
    fn outside(&self, handle: Handle) -> Handle {
        if self.unwritten().contains_key(&handle.run) {
            Handle::of(handle.run)
        } else {
            handle
        }
    }

    fn unwritten(&self) -> MutexGuard<'_, HashMap<RunId, Handle>> {
        self.unwritten
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The handle of a run, as far as it is known without asking.
    fn handle(&self, claim: &Claim, run: RunId) -> Option<Handle> {
        let written = claim.record.handle.clone();
        written.or_else(|| self.unwritten().get(&run).cloned())
    }

    /// How a run stands that nobody else is busy with.
    async fn settle(&self, claim: &mut Claim, run: RunId, can: &Capabilities) -> Result<Standing> {
        if let Some(handle) = self.handle(claim, run) {
            return Ok(Standing::Known(handle));
        }
        let lost = |claim: &Claim| {
            let why = if claim.record.unwritten {
                UNWRITTEN
            } else {
                UNCLEAR
            };
            Standing::Ended(Outcome::lost(why))
        };
        if claim.record.lost {
            return Ok(lost(claim));
        }
        // Not one that the backend has, or may be given yet: its end is the backend's to tell.
        let had = claim.record.unwritten;
        if claim.record.stopped && !had && claim.record.awaited.is_none() {
            return Ok(Standing::Ended(Outcome::Stopped { by: None }));
        }
        if can.named_start && !had {
            return Ok(Standing::Open);
        }
        let Some(spec) = claim.record.spec.clone().filter(|_| can.find) else {
            claim.record.lost = true;
            claim.write().await?;
            return Ok(lost(claim));
        };
        // In this order: who is at work now may be done when the backend is asked.
        let at_work = self.backend.at_work(run).await?;
        let found = self.backend.find(&spec).await;
        let awaited = claim.record.awaited;
        let is_over = awaited.is_some_and(|until| until <= Timestamp::now());
        if at_work.is_some() && is_over && !matches!(found, Ok(Some(_))) {
            self.backend.end_start(run).await;
        }
        if let Some(handle) = found? {
            if claim.record.awaited.is_some() {
                match self.backend.stop(&handle, spec.limits.grace.get()).await {
                    Err(error) if error.is_transient() => return Err(error),
                    Err(error) => {
                        tracing::warn!(%run, error = error.report(), "the backend refuses to stop the run; its end is waited for");
                    }
                    Ok(()) => {}
                }
                claim.record.awaited = None;
            }
            return Ok(Standing::Known(self.keep(claim, run, handle).await?));
        }
        if let Some(who) = at_work {
            return Ok(Standing::Awaited(who));
        }
        if had {
            // It had it, and so it is never started again.
            claim.record.lost = true;
            claim.write().await?;
            return Ok(lost(claim));
        }
        if claim.record.awaited.take().is_some() {
            claim.write().await?;
            return Ok(Standing::Ended(Outcome::Stopped { by: None }));
        }
        Ok(Standing::Open)
    }

    /// The same; a backend that does not answer must not keep from what is known.
    async fn known(&self, claim: &mut Claim, run: RunId) -> Result<Standing> {
        if let Some(handle) = self.handle(claim, run) {
            if claim.record.handle.is_none() && !claim.record.unwritten {
                // The disk was full.
                self.keep(claim, run, handle.clone()).await?;
            }
            return Ok(Standing::Known(handle));
        }
        let can = self.backend.capabilities().await?;
        self.settle(claim, run, &can).await
    }

    /// How a run stands; waits for whoever is busy with it.
    async fn standing(&self, run: RunId) -> Result<Standing> {
        match self.ledger.find(run).await? {
            Some(mut claim) => self.known(&mut claim, run).await,
            None => Ok(Standing::Ended(Outcome::lost(UNKNOWN))),
        }
    }

    async fn stop(&self, run: RunId, grace: Duration) -> Result<()> {
        self.backend.withdraw(run);
        let mut patience = grace.max(BUSY);
        let (mut claim, new) = loop {
            if let Ok(opened) = timeout(patience, self.ledger.stop(run)).await {
                break opened?;
            }
            // A start is under way, and does not come to its end.
            self.backend.end_start(run).await;
            patience = BUSY;
        };
        if new {
            return Ok(());
        }
        let standing = match self.known(&mut claim, run).await {
            // What the backend has of it, if that cannot be told now, is stopped when it can.
            Err(_) if self.handle(&claim, run).is_none() => None,
            standing => Some(standing?),
        };
        match standing {
            Some(Standing::Ended(_)) => Ok(()),
            Some(Standing::Open) => {
                claim.record.stopped = true;
                claim.write().await
            }
            None | Some(Standing::Awaited(_)) => {
                claim.record.stopped = true;
                let until = SignedDuration::try_from(grace)
                    .ok()
                    .and_then(|grace| Timestamp::now().checked_add(grace).ok())
                    .unwrap_or(Timestamp::MAX);
                // A later stop may shorten it.
                let before = claim.record.awaited.unwrap_or(Timestamp::MAX);
                claim.record.awaited = Some(until.min(before));
                claim.write().await
            }
            Some(Standing::Known(handle)) => {
                self.backend.stop(&handle, grace).await?;
                claim.record.stopped = true;
                claim.write().await
            }
        }
    }

    async fn remove(&self, run: RunId) -> Result<()> {
        let Some(mut claim) = self.ledger.find(run).await? else {
            self.backend.forget(run).await;
            return Ok(());
        };
        let not_ended = || Error::conflict(format!("the run `{run}` has not ended; stop it first"));
        if let Some(handle) = self.handle(&claim, run) {
            let level = self.backend.watch(&handle).next().await;
            match level {
                Some(Ok(level)) if level.is_finished() => {}
                Some(Err(error)) => return Err(error),
                _ => return Err(not_ended()),
            }
            self.backend.remove(&handle).await?;
        } else {
            let can = self.backend.capabilities().await?;
            match self.settle(&mut claim, run, &can).await? {
                Standing::Ended(_) => self.backend.forget(run).await,
                Standing::Open | Standing::Awaited(_) | Standing::Known(_) => {
                    return Err(not_ended());
                }
            }
        }
        claim.remove().await?;
        self.unwritten().remove(&run);
        Ok(())
    }
}

/// Of a start, as long as nobody knows whether the backend has the run: no answer to that question refuses it.
fn not_known_yet(error: Error) -> Error {
    if error.is_transient() {
        return error;
    }
    let what =
        "whether the backend has the run of a start before is not known yet: it is asked again";
    Error::unavailable(what).with_source(error)
}

fn stopped(run: RunId) -> Error {
    Error::conflict(format!("the run `{run}` was stopped"))
}

fn level(run: RunId, state: State) -> Status {
    Status::new(run.attempt_number().max(1), state)
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<B: Backend> Executor for Claims<B> {
    async fn capabilities(&self) -> Result<Capabilities> {
        self.0.backend.capabilities().await
    }

    async fn check(&self) -> Result<()> {
        self.0.ledger.check().await?;
        self.0.backend.check().await
    }

    async fn examine(&self) -> Vec<Finding> {
        match self.0.ledger.check().await {
            Ok(()) => self.0.backend.examine().await,
            Err(error) => vec![Finding::of_error(&error)],
        }
    }

    async fn preview(&self, _: &RunSpec, _: &Secrets) -> Result<Vec<serde_json::Value>> {
        Ok(Vec::new())
    }

    async fn start(
        &self,
        spec: &RunSpec,
        secrets: &Secrets,
        progress: &Progress,
    ) -> Result<Handle> {
        let (shared, spec, secrets) = (Arc::clone(&self.0), spec.clone(), secrets.clone());
        let progress = progress.clone();
        // Broken off midway, nobody would know what the backend did.
        let started = self.0.starts.to_its_end(spec.run, async move {
            let started = shared.start(&spec, &secrets, &progress).await;
            started.map(|handle| shared.outside(handle))
        });
        started.await
    }

    fn watch(&self, run: &Handle) -> BoxStream<'static, Result<Status>> {
        let (shared, run) = (Arc::clone(&self.0), run.run);
        stream::unfold(Some((shared, None)), move |state| async move {
            let (shared, told): (_, Option<Status>) = state?;
            let starting = level(run, State::Starting);
            if told.is_some() {
                tokio::time::sleep(AGAIN).await;
            } else if shared.ledger.is_busy(run).await.unwrap_or_default() {
                let levels = stream::iter([Ok(starting.clone())]).boxed();
                return Some((levels, Some((shared, Some(starting)))));
            }
            let mut now = starting;
            match shared.standing(run).await {
                Err(error) => return Some((stream::iter([Err(error)]).boxed(), None)),
                Ok(Standing::Known(handle)) => return Some((shared.backend.watch(&handle), None)),
                Ok(Standing::Ended(outcome)) => {
                    let level = level(run, State::Finished(outcome));
                    return Some((stream::iter([Ok(level)]).boxed(), None));
                }
                Ok(Standing::Awaited(who)) => now.message = Some(who),
                Ok(Standing::Open) => {}
            }
            let is_news = told.is_none_or(|told| told.message != now.message);
            let levels = stream::iter(is_news.then(|| Ok(now.clone()))).boxed();
            Some((levels, Some((shared, Some(now)))))
        })
        .flatten()
        .boxed()
    }

    fn logs(&self, run: &Handle, from: Option<LogCursor>) -> BoxStream<'static, Result<LogChunk>> {
        let (shared, run) = (Arc::clone(&self.0), run.run);
        stream::once(async move {
            let error = match shared.standing(run).await {
                Ok(Standing::Known(handle)) => return shared.backend.logs(&handle, from),
                Ok(Standing::Ended(_)) => Error::not_found(format!("the run `{run}` has no log")),
                Ok(Standing::Open | Standing::Awaited(_)) => {
                    Error::unavailable("the run is not started yet")
                }
                Err(error) => error,
            };
            stream::iter([Err(error)]).boxed()
        })
        .flatten()
        .boxed()
    }

    async fn stop(&self, run: &Handle, grace: Duration) -> Result<()> {
        self.0.stop(run.run, grace).await
    }

    async fn remove(&self, run: &Handle) -> Result<()> {
        self.0.remove(run.run).await
    }

    async fn list(&self) -> Result<Vec<Handle>> {
        self.0.ledger.list().await
    }

    async fn close(&self) {
        // Broken off, a run would be lost that cannot be found again.
        self.0.starts.ended().await;
        self.0.backend.close().await;
    }
}
