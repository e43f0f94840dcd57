//! One run of a connected runner: start, stop, follow, settle.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use hybrid_runner_core::run::{Failure, State};
use hybrid_runner_core::session::RemoteExecutor;
use hybrid_runner_core::unit::Period;
use hybrid_runner_core::{
    Error, ErrorKind, Executor as _, Handle, Outcome, Progress, RunSpec, Secrets, Status, fault,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tracing::{info, warn};

use super::follow::{Followed, Follower};
use super::retry::Backoff;
use super::roster::Seat;
use crate::app::App;
use crate::store::runs::{self, Run};

/// What every job of a session has.
#[derive(Debug, Clone)]
pub(super) struct Context {
    pub(super) app: Arc<App>,
    pub(super) seat: Arc<Seat>,
    pub(super) runner: RemoteExecutor,
    /// One for each run that is followed or settled: more than there are places, and still bounded, so that
    /// a runner that comes back with thousands of ended runs is not asked for all of them at once.
    pub(super) turns: Arc<Semaphore>,
}

impl Context {
    pub(super) fn new(app: &Arc<App>, seat: &Arc<Seat>) -> Self {
        const ENDED: usize = 64;
        Self {
            app: Arc::clone(app),
            seat: Arc::clone(seat),
            runner: RemoteExecutor::new(seat.session.clone()),
            turns: Arc::new(Semaphore::new(seat.places + ENDED)),
        }
    }
}

/// One run under way.
pub(super) struct Job {
    pub(super) run: Run,
    /// Given back when the run has ended.
    pub(super) place: Option<OwnedSemaphorePermit>,
    /// Whether it is to stop, and with what grace.
    pub(super) stop: watch::Receiver<Option<Period>>,
}

/// Where a job begins.
pub(super) enum Begin {
    /// The runner is to start it, if it has not.
    Start(Box<RunSpec>),
    /// The runner knows it.
    Follow,
}

/// The highest attempt that was under way.
fn reached(status: &Status) -> Option<u32> {
    let is_waited_for = u32::from(status.state == State::Queued);
    let reached = status.attempt.saturating_sub(is_waited_for);
    (reached > 0).then_some(reached)
}

/// What a start came to.
enum Started {
    Yes,
    /// It is to stop, and whether the runner has taken it is not known.
    Unclear,
    Failed(Error),
    /// The session is over.
    Gone,
}

impl Job {
    /// Does what is to be done until the runner has let go of the run, or the session is over.
    pub(super) async fn run(mut self, context: &Context, begin: Begin) {
        let seq = self.run.seq;
        let started = match begin {
            Begin::Start(spec) => self.start(context, *spec).await,
            Begin::Follow => Started::Yes,
        };
        let _turn = context.turns.acquire().await;
        let ended = match started {
            Started::Gone => return,
            Started::Yes => Follower::new(context, self).follow().await,
            Started::Unclear => Follower::new(context, self).stop_first().follow().await,
            Started::Failed(error) => self.failed(context, &error).await,
        };
        let Followed::Ended { run, commit } = ended else {
            return settle_if_ended(context, seq).await;
        };
        fault::step("server.outcome");
        if let Err(error) = context.app.db.synced(&commit).await {
            // Not acknowledged: the runner keeps the run, and a later session will ask again.
            return warn!(run = %run.id, %error, "failed to make an outcome durable");
        }
        fault::step("server.outcome.synced");
        settle(context, &run).await;
    }

    /// Hands the run to the runner, until it takes it or says why it never will.
    async fn start(&mut self, context: &Context, mut spec: RunSpec) -> Started {
        spec.first_sent.clone_from(&self.run.first_sent);
        spec.reached = reached(&self.run.status);
        let (no_secrets, nobody) = (Secrets::none(), Progress::none());
        let mut backoff = Backoff::new();
        loop {
            if self.stop.borrow().is_some() {
                // Never started, or half: the stop that follows settles it either way.
                return Started::Unclear;
            }
            let ended = context.seat.ended.notified();
            let result = tokio::select! {
                result = context.runner.start(&spec, &no_secrets, &nobody) => result,
                _ = self.stop.changed() => continue,
            };
            let error = match result {
                Ok(_) => return Started::Yes,
                Err(_) if context.seat.session.is_closed() => return Started::Gone,
                Err(error) => error,
            };
            match error.kind() {
                ErrorKind::Unavailable => {
                    info!(run = %self.run.id, runner = %context.seat.agent, error = %error.report(), "not taken yet");
                    self.waits_because(context, &error).await;
                    tokio::select! {
                        () = ended => {}
                        () = tokio::time::sleep(backoff.wait()) => {}
                        _ = self.stop.changed() => {}
                    }
                }
                // It was stopped, or it has ended: its status tells.
                ErrorKind::Conflict => return Started::Yes,
                _ => return Started::Failed(error),
            }
        }
    }

    /// Lets people see why the runner does not take the run yet: its disk is full, say.
    async fn waits_because(&mut self, context: &Context, error: &Error) {
        let message = Some(error.report());
        if self.run.status.message == message {
            return;
        }
        self.run.status.message = message;
        let (seq, status) = (self.run.seq, self.run.status.clone());
        let written = context
            .app
            .db
            .write(move |tx| runs::advance(tx, seq, &status));
        match written.await {
            Ok(_) => context.app.watchers.tell(seq),
            // It is only told: the run waits all the same.
            Err(error) => info!(run = %self.run.id, %error, "failed to store why it waits"),
        }
    }

    /// Stores that the runner refused the run.
    async fn failed(self, context: &Context, error: &Error) -> Followed {
        let failure = Failure::of_start(error);
        let mut status = self.run.status.clone();
        status.message = None;
        status.state = State::Finished(Outcome::Failed(failure));
        let seq = self.run.seq;
        let mut backoff = Backoff::new();
        loop {
            let status = status.clone();
            match context
                .app
                .db
                .write(move |tx| runs::finish(tx, seq, &status))
                .await
            {
                Ok(committed) => {
                    context.app.watchers.tell(seq);
                    return Followed::Ended {
                        run: Box::new(self.run),
                        commit: committed.commit(),
                    };
                }
                Err(error) => {
                    warn!(run = %self.run.id, %error, "failed to store an outcome; trying again");
                    tokio::time::sleep(backoff.wait()).await;
                }
            }
        }
    }
}

/// Has the runner let go of a run whose outcome is stored. A run that still lives there is stopped first:
/// it was given up here.
pub(super) async fn settle(context: &Context, run: &Run) {
    let handle = Handle::of(run.id);
    let mut backoff = Backoff::new();
    loop {
        match context.runner.remove(&handle).await {
            Ok(()) => break,
            Err(_) if context.seat.session.is_closed() => return,
            Err(error) if error.kind() == ErrorKind::Conflict => end(context, &handle).await,
            Err(error) => {
                warn!(run = %run.id, error = %error.report(), "failed to have a run removed; trying again");
            }
        }
        tokio::time::sleep(backoff.wait()).await;
    }
    fault::step("server.removed");
    let seq = run.seq;
    // Lost with a crash, it is found out again: the runner does not list the run any more.
    drop(
        context
            .app
            .db
            .write(move |tx| runs::set_removed(tx, seq))
            .await,
    );
}

/// Settles a run that was given an outcome elsewhere while its job followed it.
async fn settle_if_ended(context: &Context, seq: i64) {
    if context.seat.session.is_closed() {
        return;
    }
    if let Ok(run) = context.app.db.read(move |tx| runs::by_seq(tx, seq)).await
        && run.finished.is_some()
        && context.app.db.store().sync().await.is_ok()
    {
        settle(context, &run).await;
    }
}

/// Stops a run that lives on without anybody, and waits for its end.
async fn end(context: &Context, handle: &Handle) {
    info!(run = %handle.run, "stopping a run that was given up");
    if context.runner.stop(handle, Duration::ZERO).await.is_ok() {
        let mut levels = context.runner.watch(handle);
        while let Some(Ok(status)) = levels.next().await {
            if status.is_finished() {
                return;
            }
        }
    }
}

/// What the follower of a run needs.
impl Job {
    pub(super) fn into_parts(
        self,
    ) -> (
        Run,
        Option<OwnedSemaphorePermit>,
        watch::Receiver<Option<Period>>,
    ) {
        (self.run, self.place, self.stop)
    }
}
