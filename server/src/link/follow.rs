//! The status and the log of one run, into the store.
//!
//! At most one write of a run is under way. What comes meanwhile gathers and goes with the next, so
//! levels that follow each other closely become one, and a fast log becomes large extents. A log that
//! cannot be stored is not read on: the runner keeps it.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use hybrid_runner_core::log::GapReason;
use hybrid_runner_core::run::State;
use hybrid_runner_core::session::Session;
use hybrid_runner_core::unit::Period;
use hybrid_runner_core::{
    ErrorKind, Executor as _, Handle, LogChunk, LogCursor, LogItem, Outcome, Status,
};
use hybrid_runner_store::{Commit, Error as StoreError, rusqlite};
use serde::de::IgnoredAny;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::job::{Context, Job};
use super::retry::{Backoff, Event, Source};
use crate::app::{App, Counters};
use crate::logs::{Appended, Batch, append, attempt_of};
use crate::store::runs::{self, Run};

/// After an outcome the rest of the log may pause for this long; then it is stored without.
const LOG_END: Duration = Duration::from_secs(30);
/// So long if the backend is away, or does not let the runner read it: it comes back, or somebody sees to that.
const LOG_TROUBLE: Duration = Duration::from_mins(10);

/// Begins what is said of a run whose log does not come.
const UNREAD: &str = "the log cannot be read: ";

/// What a living link has under way arrives within this.
const UNDER_WAY: Duration = Duration::from_secs(1);

/// How following a run ended.
pub(super) enum Followed {
    /// It has its outcome, in this commit.
    Ended { run: Box<Run>, commit: Commit },
    /// The session is over, or another one has taken the run.
    Gone,
}

/// Follows one run.
pub(super) struct Follower<'a> {
    context: &'a Context,
    run: Run,
    handle: Handle,
    place: Option<OwnedSemaphorePermit>,
    stop: watch::Receiver<Option<Period>>,
    /// The cursor behind what is stored, and behind what was received.
    stored: Option<LogCursor>,
    received: Option<LogCursor>,
    batch: Batch,
    /// A level that is not stored yet.
    level: Option<Status>,
    outcome: Option<Status>,
    log_ended: bool,
    /// The runner has no log of the run. Of one that was stopped before it began, nothing is missing then.
    log_unknown: bool,
    /// Why the runner cannot read the log now.
    trouble: Option<Trouble>,
    /// Resolves when the log has paused for too long after the outcome.
    overdue: Option<BoxFuture<'static, ()>>,
    /// A runner that may not know the run would call it lost: nothing is asked before it has written the stop down.
    stop_first: bool,
    writing: Option<Writing>,
    /// After trouble with the disk: not before.
    hold: Option<Instant>,
    backoff: Backoff,
}

/// Why a log does not come.
#[derive(PartialEq, Eq)]
struct Trouble {
    /// The backend does not let the runner read it; else it does not answer.
    is_refused: bool,
    why: String,
}

struct Writing {
    batch: Arc<Batch>,
    level: Option<Status>,
    done: BoxFuture<'static, Result<(Stored, Commit), StoreError>>,
}

/// What a write came to.
enum Stored {
    /// `ended`: whether the outcome was taken, if there was one.
    Yes {
        segment_full: bool,
        ended: Option<bool>,
    },
    Fenced,
    NotTheLog(std::io::Error),
}

impl<'a> Follower<'a> {
    pub(super) fn new(context: &'a Context, job: Job) -> Self {
        let (run, place, stop) = job.into_parts();
        Self {
            context,
            handle: Handle::of(run.id),
            place,
            stop,
            stored: run.cursor.clone(),
            received: run.cursor.clone(),
            run,
            batch: Batch::default(),
            level: None,
            outcome: None,
            log_ended: false,
            log_unknown: false,
            trouble: None,
            overdue: None,
            stop_first: false,
            writing: None,
            hold: None,
            backoff: Backoff::new(),
        }
    }

    /// Has the runner stop the run before anything else is asked of it.
    pub(super) fn stop_first(mut self) -> Self {
        self.stop_first = true;
        self
    }

    /// Follows the run until its outcome is stored.
    pub(super) async fn follow(mut self) -> Followed {
        let runner = &self.context.runner.clone();
        let handle = self.handle.clone();
        let mut levels = Source::new();
        let mut chunks = Source::new();
        let mut stopping: BoxFuture<'static, ()> = std::future::pending().boxed();
        let mut asked = None;
        loop {
            if asked != *self.stop.borrow_and_update() {
                asked = *self.stop.borrow();
                stopping = self.stopping(asked);
            }
            self.write();
            let from = self.received.clone();
            tokio::select! {
                (stored, batch, level) = finish(&mut self.writing), if self.writing.is_some() => {
                    if let Some(end) = self.written(stored, &batch, level) {
                        return end;
                    }
                }
                event = levels.next(|| runner.watch(&handle)), if self.outcome.is_none() && !self.stop_first => {
                    self.on_level(event);
                }
                event = chunks.next(|| runner.logs(&handle, from)), if self.reads_log() => {
                    self.on_chunk(event);
                }
                () = &mut stopping => {
                    stopping = std::future::pending().boxed();
                    self.stop_first = false;
                }
                Ok(()) = self.stop.changed() => {}
                () = passed(self.overdue.as_mut()), if self.waits_for_log() => {
                    self.give_log_up();
                }
                () = until(self.hold), if self.hold.is_some() => self.hold = None,
                () = self.context.seat.session.closed() => return Followed::Gone,
            }
        }
    }

    /// Asks the runner to stop the run, until it has said that it will.
    fn stopping(&self, grace: Option<Period>) -> BoxFuture<'static, ()> {
        let Some(grace) = grace else {
            return std::future::pending().boxed();
        };
        let (runner, handle) = (self.context.runner.clone(), self.handle.clone());
        async move {
            let mut backoff = Backoff::new();
            while let Err(error) = runner.stop(&handle, grace.get()).await {
                debug!(run = %handle.run, %error, "failed to ask for a stop; trying again");
                tokio::time::sleep(backoff.wait()).await;
            }
            info!(run = %handle.run, %grace, "asked to stop");
        }
        .boxed()
    }

    fn on_level(&mut self, event: Event<Status>) {
        let mut status = match event {
            Event::Item(status) => status,
            Event::Ended => return,
            Event::Failed(error) => {
                return debug!(run = %self.run.id, error = %error.report(), "lost sight of its status");
            }
        };
        let lost = matches!(status.state, State::Finished(Outcome::Lost { .. }));
        let known = self.level.as_ref().unwrap_or(&self.run.status);
        let goes_back =
            (status.attempt, status.state.rank()) < (known.attempt, known.state.rank()) && !lost;
        if goes_back && !status.is_finished() {
            return debug!(run = %self.run.id, attempt = status.attempt, "ignored a level that goes back");
        }
        if goes_back {
            // What it says of an attempt that is over is not taken, and nothing else will follow.
            let is_prevented = known.state == State::Queued && self.stop.borrow().is_some();
            let outcome = if is_prevented {
                Outcome::Stopped { by: None }
            } else {
                Outcome::lost(format!(
                    "attempt {} was under way, and the runner ended the run with attempt {}: it has lost its journal, or that was put back to an older copy",
                    known.attempt, status.attempt
                ))
            };
            status.attempt = known.attempt;
            status.state = State::Finished(outcome);
        }
        if status.is_finished() {
            // Its place is free before its log is stored.
            self.place = None;
            self.context.seat.ended.notify_waiters();
            self.expect_log();
            self.outcome = Some(status);
            self.show_trouble();
        } else {
            self.level = Some(self.with_trouble(status));
        }
    }

    fn on_chunk(&mut self, event: Event<LogChunk>) {
        match event {
            Event::Item(chunk) => {
                self.tell(None);
                self.take(&chunk);
            }
            Event::Ended => self.log_ended = true,
            // That may change while the run goes on, or soon after.
            Event::Failed(error) if error.kind() == ErrorKind::Denied => {
                let (is_refused, why) = (true, error.report());
                self.tell(Some(Trouble { is_refused, why }));
            }
            Event::Failed(error)
                if matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Internal) =>
            {
                let (is_refused, why) = (false, error.report());
                debug!(run = %self.run.id, error = why, "lost sight of its log");
                self.tell(Some(Trouble { is_refused, why }));
            }
            Event::Failed(error)
                if error.kind() == ErrorKind::NotFound && self.received.is_none() =>
            {
                self.log_ended = true;
                self.log_unknown = true;
            }
            Event::Failed(error) => {
                warn!(run = %self.run.id, error = %error.report(), "its log cannot be read on");
                self.end_log_with_gap(GapReason::Damaged);
            }
        }
    }

    /// Notes, and shows with the run, that its log cannot be read, or can again.
    fn tell(&mut self, trouble: Option<Trouble>) {
        if self.trouble == trouble {
            return;
        }
        if let Some(Trouble {
            is_refused: true,
            why,
        }) = &trouble
        {
            warn!(run = %self.run.id, error = why, "its log cannot be read; it is asked for again");
        }
        let is_other = self.trouble.is_some() != trouble.is_some();
        self.trouble = trouble;
        self.show_trouble();
        if is_other && self.overdue.is_some() {
            self.expect_log();
        }
    }

    /// Shows it with the last level, if it is not shown like this.
    fn show_trouble(&mut self) {
        let being_written = self.writing.as_ref().and_then(|it| it.level.as_ref());
        let known = self.level.as_ref().or(being_written);
        let known = known.unwrap_or(&self.run.status);
        let mut level = known.clone();
        if level
            .message
            .as_ref()
            .is_some_and(|it| it.starts_with(UNREAD))
        {
            level.message = None;
        }
        let level = self.with_trouble(level);
        if level != *known {
            self.level = Some(level);
        }
    }

    /// A backend that is away for a moment is no matter while the work runs.
    fn with_trouble(&self, mut level: Status) -> Status {
        let is_to_be_shown = |trouble: &&Trouble| trouble.is_refused || self.outcome.is_some();
        if let Some(trouble) = self.trouble.as_ref().filter(is_to_be_shown) {
            level.message = Some(format!("{UNREAD}{}", trouble.why));
            level.cut();
        }
        level
    }

    /// The log did not end in time after the outcome.
    fn give_log_up(&mut self) {
        let why = self.trouble.as_ref().map(|trouble| trouble.why.as_str());
        warn!(run = %self.run.id, why, "its log did not end in time after its outcome");
        let is_refused = self
            .trouble
            .as_ref()
            .is_some_and(|trouble| trouble.is_refused);
        self.end_log_with_gap(if is_refused {
            GapReason::Refused
        } else {
            GapReason::Crashed
        });
    }

    fn was_stopped(&self) -> bool {
        let state = self.outcome.as_ref().map(|status| &status.state);
        matches!(state, Some(State::Finished(Outcome::Stopped { .. })))
    }

    fn reads_log(&self) -> bool {
        !self.log_ended && !self.stop_first && !self.batch.is_full()
    }

    /// From now on the log may pause for a while, and no longer.
    fn expect_log(&mut self) {
        let session = self.context.seat.session.clone();
        let pause = if self.trouble.is_some() {
            LOG_TROUBLE
        } else {
            LOG_END
        };
        self.overdue = Some(overdue(session, Instant::now() + pause).boxed());
    }

    /// Whether only the runner can bring the log on: what it sent is stored, and the disk takes more.
    fn waits_for_log(&self) -> bool {
        !self.log_ended && self.writing.is_none() && self.hold.is_none() && self.batch.is_empty()
    }

    /// Shows that the rest of the log is missing.
    fn end_log_with_gap(&mut self, why: GapReason) {
        let nowhere = || "0:end".parse().expect("a valid cursor");
        let next = self.received.clone().unwrap_or_else(nowhere);
        let item = LogItem::Gap { bytes: None, why };
        self.batch.push(&LogChunk { item, next });
        self.log_ended = true;
        self.log_unknown = false;
    }

    fn take(&mut self, chunk: &LogChunk) {
        let before = self.received.as_ref().map_or(0, attempt_of);
        if attempt_of(&chunk.next) < before {
            return warn!(run = %self.run.id, cursor = %chunk.next, "ignored output of an attempt that is over");
        }
        self.received = Some(chunk.next.clone());
        if matches!(&chunk.item, LogItem::Data { bytes, .. } if bytes.is_empty()) {
            // It is being read, and that is no pause.
            if self.overdue.is_some() {
                self.expect_log();
            }
            return;
        }
        self.batch.push(chunk);
    }

    /// Puts a write under way, if there is something to write and none is.
    fn write(&mut self) {
        let ends = self.outcome.is_some() && self.log_ended;
        if ends && self.log_unknown && !self.was_stopped() {
            self.end_log_with_gap(GapReason::Rotated);
        }
        let nothing = self.batch.is_empty() && self.level.is_none() && !ends;
        if nothing || self.writing.is_some() || self.hold.is_some() {
            return;
        }
        let batch = Arc::new(std::mem::take(&mut self.batch));
        let level = self.level.take();
        let outcome = self.outcome.clone().filter(|_| ends);
        let done = store(
            Arc::clone(&self.context.app),
            self.run.seq,
            self.stored.clone(),
            Arc::clone(&batch),
            outcome.or_else(|| level.clone()),
        );
        self.writing = Some(Writing {
            batch,
            level,
            done: done.boxed(),
        });
    }

    /// Takes note of a write that is done. Whether that was the last.
    fn written(
        &mut self,
        stored: Result<(Stored, Commit), StoreError>,
        batch: &Arc<Batch>,
        level: Option<Status>,
    ) -> Option<Followed> {
        let app = &self.context.app;
        match stored {
            Ok((
                Stored::Yes {
                    segment_full,
                    ended,
                },
                commit,
            )) => {
                if let Some(cursor) = batch.cursor() {
                    self.stored = Some(cursor.clone());
                    Counters::add(&app.counters.log_bytes, batch.size());
                }
                if let Some(level) = level {
                    self.run.status = level;
                }
                if segment_full {
                    app.segment_full.notify_one();
                }
                self.backoff.reset();
                if self.overdue.is_some() {
                    self.expect_log();
                }
                app.watchers.tell(self.run.seq);
                match ended {
                    None => None,
                    Some(true) => {
                        Counters::add(&app.counters.outcomes, 1);
                        Some(Followed::Ended {
                            run: Box::new(self.run.clone()),
                            commit,
                        })
                    }
                    Some(false) => {
                        warn!(run = %self.run.id, "ignored the outcome of an attempt that is over");
                        Some(Followed::Gone)
                    }
                }
            }
            Ok((Stored::Fenced, _)) => {
                warn!(run = %self.run.id, epoch = self.context.seat.epoch, "its log was taken over or has ended; nothing more is accepted here");
                Some(Followed::Gone)
            }
            Ok((Stored::NotTheLog(error), _)) => {
                self.put_back(&StoreError::from(error), batch, level);
                None
            }
            Err(error) => {
                self.put_back(&error, batch, level);
                None
            }
        }
    }

    /// Keeps what could not be stored, and pauses.
    fn put_back(&mut self, error: &StoreError, batch: &Arc<Batch>, level: Option<Status>) {
        let wait = self.backoff.wait();
        warn!(run = %self.run.id, %error, "failed to store; trying again");
        self.hold = Some(Instant::now() + wait);
        let later = std::mem::replace(&mut self.batch, (**batch).clone());
        self.batch.append(later);
        if self.level.is_none() {
            self.level = level;
        }
    }
}

/// The end of the write that is under way, and what was in it.
async fn finish(
    writing: &mut Option<Writing>,
) -> (
    Result<(Stored, Commit), StoreError>,
    Arc<Batch>,
    Option<Status>,
) {
    let done = match writing {
        Some(writing) => (&mut writing.done).await,
        None => std::future::pending().await,
    };
    let Writing { batch, level, .. } = writing.take().expect("it was there");
    (done, batch, level)
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

async fn passed(overdue: Option<&mut BoxFuture<'static, ()>>) {
    match overdue {
        Some(overdue) => overdue.await,
        None => std::future::pending().await,
    }
}

/// The deadline has passed, and the runner was heard after it: a link that is dead, or a process that slept, is no
/// pause of the log's.
async fn overdue(session: Session, deadline: Instant) {
    tokio::time::sleep_until(deadline).await;
    let nothing = serde_json::json!({});
    if session
        .call::<_, IgnoredAny>("ping", &nothing)
        .await
        .is_err()
    {
        // The session is over; the next one reads on.
        std::future::pending::<()>().await;
    }
    tokio::time::sleep(UNDER_WAY).await;
}

/// One write: the batch behind `before`, and the level or outcome.
async fn store(
    app: Arc<App>,
    run: i64,
    before: Option<LogCursor>,
    batch: Arc<Batch>,
    status: Option<Status>,
) -> Result<(Stored, Commit), StoreError> {
    let (files, below) = (Arc::clone(&app.segments), app.db.store().clone());
    let write = move |tx: &rusqlite::Transaction<'_>| {
        let segment_full = match append(tx, &below, &files, run, before.as_ref(), &batch)? {
            Appended::Stored { fresh } => fresh,
            Appended::Fenced => return Ok(Stored::Fenced),
            Appended::Failed(error) => return Ok(Stored::NotTheLog(error)),
        };
        let ended = match &status {
            Some(status) if status.is_finished() => Some(runs::finish(tx, run, status)?),
            Some(status) => runs::advance(tx, run, status).map(|_| None)?,
            None => None,
        };
        Ok(Stored::Yes {
            segment_full,
            ended,
        })
    };
    app.db
        .write(write)
        .await
        .map(hybrid_runner_store::Committed::into_parts)
}

#[cfg(test)]
mod tests {
    use hybrid_runner_core::session::{NoService, Options, memory_pair};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_log_is_overdue_only_while_the_runner_is_heard() {
        let (here, there) = memory_pair();
        let start = |end| Session::start(end, Arc::new(NoService), Options::default());
        let (session, driver) = start(here);
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(async move { drop(driver.await) });
        // As a link that is half open: nothing answers, and nothing says that it is over.
        let (_runner, frozen) = start(there);
        let deadline = Instant::now() + LOG_END;
        let mut waits = overdue(session, deadline).boxed();
        let long = Duration::from_hours(1);
        assert!(tokio::time::timeout(long, &mut waits).await.is_err());
        tasks.spawn(async move { drop(frozen.await) });
        assert!(tokio::time::timeout(long, &mut waits).await.is_ok());
        tasks.shutdown().await;
        assert!(
            tokio::time::timeout(long, overdue(closed(), deadline))
                .await
                .is_err()
        );
    }

    fn closed() -> Session {
        let (here, _there) = memory_pair();
        Session::start(here, Arc::new(NoService), Options::default()).0
    }
}
