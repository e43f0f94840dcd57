//! One live run: the task that alone writes its row, from acceptance to outcome.
//!
//! A run is a loop over its [`Phase`]: [`Run::begin`] hands an attempt over, [`Run::attend`] watches it to its end,
//! [`Run::wait`] lets a retry come due. Each step may be entered from the journal after a crash; that is the
//! whole of recovery. Durable effects stand in this order:
//!
//! ```text
//! accepted ─▶ executor.start ─▶ started ─▶ (end) ─▶ waiting, synced next attempt ─▶ executor.start …
//!                                            └────▶ outcome, synced ─▶ shown ─▶ (acknowledged) removing ─▶ grave
//! ```

use std::sync::Arc;
use std::time::Duration;

use hybrid_runner_core::RunId;
use hybrid_runner_core::error::{Error, ErrorKind, Result};
use hybrid_runner_core::fault;
use hybrid_runner_core::id::SectionName;
use hybrid_runner_core::run::{Failure, FailureClass, Outcome, RunSpec, State, Status};
use hybrid_runner_store::Commit;
use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, sleep_until};

use super::backoff::Backoff;
use super::journal::{Grave, Verdict};
use super::record::{Phase, Record, Row, Stop, Why};
use super::registry::{Command, View};
use super::requests::First;
use super::shared::Shared;

/// A live run.
pub(super) struct Run {
    pub(super) shared: Arc<Shared>,
    pub(super) id: RunId,
    pub(super) executor: SectionName,
    pub(super) spec: Option<Arc<RunSpec>>,
    pub(super) record: Record,
    pub(super) view: Arc<watch::Sender<View>>,
    pub(super) commands: mpsc::Receiver<Command>,
    /// What an earlier life told the backend is not known: it is asked before anything is begun.
    pub(super) unclear: bool,
    /// Whether somebody follows it who has told what is known of it.
    pub(super) is_followed: bool,
    /// When the present attempt was begun, on the clock that tests can pause.
    pub(super) begun: Instant,
    /// Why the present attempt, which is to end, is not being stopped.
    pub(super) refusal: Option<String>,
}

/// The runner shuts down; the run goes on without us.
pub(super) struct LetGo;

pub(super) type Step<T = ()> = Result<T, LetGo>;

impl Run {
    /// The task of a run that is in the journal.
    pub(super) fn of(
        shared: &Arc<Shared>,
        row: Row,
        view: watch::Sender<View>,
        commands: mpsc::Receiver<Command>,
    ) -> Self {
        let since = match row.record.phase {
            Phase::Starting { since, .. } | Phase::Started { since, .. } => since,
            _ => Timestamp::now(),
        };
        let spent = Duration::try_from(Timestamp::now().duration_since(since)).unwrap_or_default();
        Self {
            shared: Arc::clone(shared),
            id: row.run,
            executor: row.executor,
            spec: row.spec,
            record: row.record,
            view: Arc::new(view),
            commands,
            unclear: true,
            is_followed: false,
            begun: Instant::now()
                .checked_sub(spent)
                .unwrap_or_else(Instant::now),
            refusal: None,
        }
    }

    /// Takes a new run up and lives it. `answer` gets the commit: the caller waits for its sync, the work does not.
    pub(super) async fn take_up(
        mut self,
        accepted_at: Timestamp,
        answer: oneshot::Sender<Result<Commit>>,
    ) {
        self.unclear = false;
        let row = Row {
            run: self.id,
            executor: self.executor.clone(),
            spec: self.spec.clone(),
            has_spec: true,
            accepted_at,
            record: self.record.clone(),
        };
        let live = row.record.is_live();
        let accepted = self.accept(&row).await;
        let goes_on = accepted.is_ok();
        if goes_on {
            self.publish();
        } else {
            self.shared.registry.forget(self.id);
        }
        // Whoever asked may have left.
        drop(answer.send(accepted));
        if live && goes_on {
            self.live().await;
        } else if live {
            self.shared.registry.ended();
        }
    }

    async fn accept(&self, row: &Row) -> Result<Commit> {
        fault::step("supervisor.accept");
        let failed = |error: Error| {
            self.shared.health.not_written(&error);
            let path = self.shared.journal.path().display();
            Error::unavailable(format!(
                "failed to record the run in `{path}`; free some space or mend the disk"
            ))
            .with_source(error)
        };
        let (verdict, commit) = self.shared.journal.accept(row).await.map_err(failed)?;
        fault::step("supervisor.accepted");
        if let Verdict::Buried(grave) = verdict {
            return Err(buried(self.id, &grave));
        }
        if !row.record.is_live() {
            // It is accepted only to tell its outcome, and no outcome is shown before it is durable.
            commit
                .synced()
                .await
                .map_err(|error| failed(error.into()))?;
        }
        self.shared.health.written();
        Ok(commit)
    }

    /// Lives the run to its outcome.
    pub(super) async fn live(mut self) {
        while self.record.is_live() {
            let step = match self.record.phase {
                Phase::Starting { attempt, .. } => self.begin(attempt).await,
                Phase::Started { attempt, .. } => self.attend(attempt).await,
                Phase::Waiting { attempt, at } => self.wait(attempt, at).await,
                Phase::Finished | Phase::Removing => return,
            };
            if step.is_err() {
                tracing::debug!(run = %self.id, "let go");
                return;
            }
        }
        self.shared.registry.ended();
        // What came too late has nothing to change any more.
        self.commands.close();
        while let Some(command) = self.commands.recv().await {
            self.obey(command).await;
        }
    }

    /// Watches an attempt to its end.
    pub(super) async fn attend(&mut self, attempt: u32) -> Step {
        let handle = self.record.handle(self.id, attempt);
        let Some(executor) = self.shared.executor(&self.executor).cloned() else {
            return self.wait_for_executor().await;
        };
        let Some(outcome) = self.follow(&executor, &handle).await? else {
            return Ok(());
        };
        if !matches!(outcome, Outcome::Lost { .. }) {
            self.record.take(handle);
        }
        self.attempt_ended(attempt, outcome).await
    }

    /// Lets a retry come due.
    async fn wait(&mut self, attempt: u32, at: Timestamp) -> Step {
        if let Some(outcome) = self.asked_outcome() {
            return self.finish(outcome).await;
        }
        let longest = self
            .spec
            .as_ref()
            .and_then(|spec| spec.retries.as_ref())
            .map(|retries| retries.delay.get());
        let rest = Duration::try_from(at.duration_since(Timestamp::now())).unwrap_or_default();
        // A clock that was set back must not make it longer.
        let rest = rest.min(longest.unwrap_or_default());
        match self.race(sleep(rest), None).await? {
            First::Changed => return Ok(()),
            First::Done(()) | First::Late => {}
        }
        let now = Timestamp::now();
        self.begun = Instant::now();
        self.record.phase = Phase::Starting {
            attempt,
            since: now,
            boot: self.shared.boot(),
        };
        fault::step("supervisor.again");
        // Synced before it is handed over: after power loss, "waiting" must mean that it was never begun.
        self.save_durably().await?;
        fault::step("supervisor.due");
        Ok(())
    }

    /// An attempt has ended: the run goes on with the next one, or ends.
    pub(super) async fn attempt_ended(&mut self, attempt: u32, outcome: Outcome) -> Step {
        if matches!(outcome, Outcome::Failed(_)) {
            self.hear().await?;
            if let Some(later) = self.forgotten(attempt) {
                let why = format!(
                    "attempt {later} was under way, and the backend shows nothing of it any more; whether it has ended is not known, so it is not started again"
                );
                self.record.status.attempt = later;
                return self.finish(Outcome::lost(why)).await;
            }
        }
        let outcome = match (self.record.stop.as_ref().map(|stop| &stop.why), outcome) {
            (Some(Why::Asked { by }), Outcome::Stopped { .. }) => {
                Outcome::Stopped { by: by.clone() }
            }
            (Some(Why::GaveUp(failure)), Outcome::Stopped { .. } | Outcome::Lost { .. }) => {
                Outcome::Failed(failure.clone())
            }
            (_, outcome) => outcome,
        };
        let Some(failure) = self.wants_another(attempt, &outcome) else {
            return self.finish(outcome).await;
        };
        if let Some(stopped) = self.asked_outcome() {
            // The attempt's end stands in its log; the run's was still to come.
            return self.finish(stopped).await;
        }
        self.retry(attempt, &failure).await
    }

    /// A later attempt than this, of which the server knows and the backend does not.
    fn forgotten(&self, attempt: u32) -> Option<u32> {
        let reached = self.spec.as_ref()?.reached?;
        (reached > attempt.max(self.record.reached)).then_some(reached)
    }

    fn wants_another(&self, attempt: u32, outcome: &Outcome) -> Option<Failure> {
        let retries = self.spec.as_ref()?.retries.as_ref()?;
        match outcome {
            Outcome::Failed(failure) if retries.wants_another(failure.class, attempt) => {
                Some(failure.clone())
            }
            _ => None,
        }
    }

    async fn retry(&mut self, attempt: u32, failure: &Failure) -> Step {
        let delay = self
            .spec
            .as_ref()
            .and_then(|spec| spec.retries.as_ref())
            .map(|retries| retries.delay);
        let delay = delay.unwrap_or_default();
        let now = Timestamp::now();
        let at = now.checked_add(delay.get()).unwrap_or(Timestamp::MAX);
        tracing::info!(run = %self.id, attempt, class = %failure.class, %delay, "attempt failed; trying again");
        let queued = self.record.status.times.queued;
        self.record.status = Status::new(attempt + 1, State::Queued);
        self.record.status.times.queued = queued;
        self.record.status.message = Some(format!(
            "attempt {attempt} failed ({}): {}; the next is due at {at}",
            failure.class, failure.message
        ));
        self.record.phase = Phase::Waiting {
            attempt: attempt + 1,
            at,
        };
        self.record.stop = None;
        fault::step("supervisor.retry");
        // Lost by a crash, the end of the attempt is read from its backend again.
        self.save_soon().await;
        fault::step("supervisor.waiting");
        self.publish();
        Ok(())
    }

    /// Ends the run. The outcome is shown once it is durable, and not before.
    pub(super) async fn finish(&mut self, outcome: Outcome) -> Step {
        tracing::info!(run = %self.id, attempt = self.record.status.attempt, %outcome, "finished");
        let status = &mut self.record.status;
        status.times.finished = status.times.finished.or_else(|| Some(Timestamp::now()));
        status.state = State::Finished(outcome);
        status.message = None;
        status.cut();
        self.record.phase = Phase::Finished;
        fault::step("supervisor.finish");
        self.save_durably().await?;
        fault::step("supervisor.finished");
        self.publish();
        Ok(())
    }

    /// Decides that this attempt is to end with that failure.
    pub(super) async fn give_up(&mut self, failure: Failure) {
        let grace = self
            .spec
            .as_ref()
            .map(|spec| spec.limits.grace)
            .unwrap_or_default();
        self.say(failure.message.clone());
        self.record.stop = Some(Stop {
            grace,
            why: Why::GaveUp(failure),
        });
        fault::step("supervisor.give_up");
        self.save_soon().await;
        fault::step("supervisor.gave_up");
    }

    pub(super) fn gave_up_before_start(&self) -> bool {
        let gave_up = matches!(
            self.record.stop,
            Some(Stop {
                why: Why::GaveUp(_),
                ..
            })
        );
        gave_up && matches!(self.record.phase, Phase::Starting { .. })
    }

    /// When the present attempt must have begun.
    pub(super) fn start_deadline(&self) -> Option<Instant> {
        let begun = self.record.status.state.rank() >= State::Running.rank();
        if begun || self.record.stop.is_some() {
            return None;
        }
        self.begun
            .checked_add(self.spec.as_ref()?.limits.start_timeout.limit()?)
    }

    /// The failure of an attempt that has not begun in its time.
    pub(super) fn not_begun(&self) -> Failure {
        let limit = self
            .spec
            .as_ref()
            .map(|spec| spec.limits.start_timeout)
            .unwrap_or_default();
        let said = self
            .view
            .borrow()
            .level
            .as_ref()
            .and_then(|level| level.message.clone());
        let message = format!("did not begin within `start_timeout` ({limit})");
        let failure = Failure::new(FailureClass::Pending, message);
        match said {
            Some(said) => failure.with_source(said),
            None => failure,
        }
    }

    /// How the run ends because somebody wants it to.
    pub(super) fn asked_outcome(&self) -> Option<Outcome> {
        match &self.record.stop.as_ref()?.why {
            Why::Asked { by } => Some(Outcome::Stopped { by: by.clone() }),
            Why::GaveUp(_) => None,
        }
    }

    /// The configuration has lost the run's executor: only it could tell how the run stands.
    pub(super) async fn wait_for_executor(&mut self) -> Step {
        let name = self.executor.clone();
        self.say(format!(
            "executor `{name}` is not configured any more: configure it again, or stop the run"
        ));
        while self.asked_outcome().is_none() {
            self.race(std::future::pending::<()>(), None).await?;
        }
        let why = format!(
            "stopped, but executor `{name}` is not configured any more, so nobody can tell whether it still runs"
        );
        self.finish(Outcome::lost(why)).await
    }

    /// A backend did not answer, or broke off.
    pub(super) fn unanswered(&mut self, error: Option<Error>) {
        let error =
            error.unwrap_or_else(|| Error::internal("the executor's stream ended before the run"));
        self.shared.health.failed(&self.executor, &error);
        self.say(format!(
            "executor `{}` does not answer: {}",
            self.executor,
            error.report()
        ));
    }

    /// Tells people, without writing it down.
    pub(super) fn say(&mut self, message: String) {
        self.record.status.message = Some(message);
        self.publish();
    }

    pub(super) fn publish(&self) {
        self.view
            .send_replace(View::of(&self.executor, self.spec.is_some(), &self.record));
    }

    /// Writes the record and waits until it survives power loss.
    pub(super) async fn save(&self) -> Result<()> {
        let saved = match self.shared.journal.save(self.id, &self.record).await {
            Ok(commit) => commit.synced().await.map_err(Error::from),
            Err(error) => Err(error),
        };
        self.told(saved)
    }

    /// Writes what can be found out again: a full disk does not stand in the way.
    pub(super) async fn save_soon(&self) {
        let saved = self.shared.journal.save(self.id, &self.record).await;
        drop(self.told(saved.map(drop)));
    }

    /// Writes what must not be lost, for as long as it takes.
    async fn save_durably(&mut self) -> Step {
        let mut backoff = Backoff::new();
        while self.save().await.is_err() {
            let until = Instant::now() + backoff.next();
            loop {
                tokio::select! {
                    biased;
                    () = self.shared.shutdown.cancelled() => return Err(LetGo),
                    Some(command) = self.commands.recv() => { self.obey(command).await; }
                    () = sleep_until(until) => break,
                }
            }
        }
        Ok(())
    }

    fn told(&self, saved: Result<()>) -> Result<()> {
        match &saved {
            Ok(()) => self.shared.health.written(),
            Err(error) => self.shared.health.not_written(error),
        }
        saved
    }
}

/// Why a buried run is not started.
pub(super) fn buried(run: RunId, grave: &Grave) -> Error {
    Error::conflict(match grave {
        Grave::Stopped { .. } => format!(
            "the run `{run}` was stopped before it was started; it cannot be started any more"
        ),
        Grave::Removed => format!(
            "the run `{run}` has ended and its outcome was acknowledged; it cannot be started again"
        ),
    })
}

/// Whether an error of a start says that nothing was made.
pub(super) fn made_nothing(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Invalid | ErrorKind::Unsupported)
}
