//! Handing an attempt over: policy, secrets, and the executor's `start`.

use std::sync::Arc;

use futures::StreamExt as _;
use hybrid_runner_core::error::{Error, ErrorKind, Result};
use hybrid_runner_core::fault;
use hybrid_runner_core::run::{Failure, FailureClass, Outcome, RunSpec, State};
use hybrid_runner_core::{Executor, Handle, Progress, Secrets};
use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::sleep;

use super::backoff::Backoff;
use super::record::Phase;
use super::requests::First;
use super::run::{Run, Step, made_nothing};
use crate::config::Resolve;

impl Run {
    /// Hands the attempt over, or finds out what an earlier life did about it.
    pub(super) async fn begin(&mut self, attempt: u32) -> Step {
        let told = self.unclear || self.record.reached >= attempt;
        if self.record.stop.is_some() {
            if !told {
                // The backend never heard of it: nothing is to be stopped there.
                return self
                    .attempt_ended(attempt, Outcome::Stopped { by: None })
                    .await;
            }
            self.record.reached = self.record.reached.max(attempt);
            return self.attend(attempt).await;
        }
        if self.unclear {
            return self.look(attempt).await;
        }
        let (executor, spec) = match self.permitted(attempt) {
            Ok(permitted) => permitted,
            Err(failure) => return self.fail(attempt, failure).await,
        };
        self.record.status.attempt = attempt;
        self.record.status.state = State::Starting;
        self.record.status.times.starting = Some(Timestamp::now());
        self.record.status.message = None;
        self.publish();
        let secrets = match self
            .race(self.values_for(&spec), self.start_deadline())
            .await?
        {
            First::Changed => return Ok(()),
            First::Done(Ok(secrets)) => secrets,
            First::Done(Err(failure)) => return self.fail(attempt, failure).await,
            First::Late => {
                let failure = self.not_begun();
                return self.fail(attempt, failure).await;
            }
        };
        self.hand_over(attempt, &executor, Arc::new(spec), Arc::new(secrets))
            .await
    }

    /// The executor and the attempt's spec, if the run may run here at all.
    fn permitted(&self, attempt: u32) -> Result<(Arc<dyn Executor>, RunSpec), Failure> {
        let shared = &self.shared;
        let wrong = |error: &Error| Failure::new(FailureClass::Spec, error.report());
        let spec = self
            .spec
            .as_ref()
            .ok_or_else(|| wrong(&Error::internal("the run's spec is not known")))?;
        if let Some(meant) = spec.runner.as_ref().filter(|meant| **meant != shared.agent) {
            let message = format!(
                "this run is meant for runner `{meant}`, and this is `{}`",
                shared.agent
            );
            return Err(Failure::new(FailureClass::Spec, message));
        }
        let Some(executor) = shared.executor(&self.executor) else {
            let have = shared
                .executors
                .keys()
                .map(|name| format!("`{name}`"))
                .collect::<Vec<_>>()
                .join(", ");
            let message = format!(
                "no executor `{}` is configured on this runner; it has {have}",
                self.executor
            );
            return Err(Failure::new(FailureClass::Spec, message));
        };
        spec.validate().map_err(|error| wrong(&error))?;
        let rules = shared.rules();
        let default_store = shared.stores.default_store();
        rules
            .policy
            .check(spec, &self.executor, default_store.as_ref())?;
        let mut inner = spec.attempt(attempt);
        inner.runner = Some(shared.agent.clone());
        if let Some(workload) = &rules.workload {
            let refused = |error: &Error| Failure::new(FailureClass::Secret, error.report());
            workload
                .prepare(&mut inner)
                .map_err(|error| refused(&error))?;
        }
        Ok((Arc::clone(executor), inner))
    }

    /// The values that the workload is to get.
    fn values_for(
        &self,
        spec: &RunSpec,
    ) -> impl Future<Output = Result<Secrets, Failure>> + Send + use<> {
        let shared = Arc::clone(&self.shared);
        let run = spec.run;
        let references = match shared.resolve {
            Resolve::Runner => spec.references().map(Some),
            Resolve::Workload => Ok(None),
        };
        async move {
            let failed = |error: &Error| {
                let mut failure = Failure::new(FailureClass::Secret, error.report());
                failure.may_pass = error.is_transient();
                failure
            };
            let Some(references) = references.map_err(|error| failed(&error))? else {
                return Ok(Secrets::left_to_the_workload());
            };
            if references.is_empty() {
                return Ok(Secrets::none());
            }
            shared
                .stores
                .resolve(run, &references)
                .await
                .map_err(|error| failed(&error))
        }
    }

    /// Calls `start` until the backend has the attempt, refuses it, or its time is over.
    async fn hand_over(
        &mut self,
        attempt: u32,
        executor: &Arc<dyn Executor>,
        spec: Arc<RunSpec>,
        secrets: Arc<Secrets>,
    ) -> Step {
        let mut backoff = Backoff::new();
        // Why it has not begun, where the executor knows whose fault that is.
        let mut blamed: Option<Failure> = None;
        loop {
            let deadline = self.start_deadline();
            self.record.reached = self.record.reached.max(attempt);
            fault::step("supervisor.start");
            let started = self
                .race(self.start_with(executor, &spec, &secrets), deadline)
                .await?;
            let error = match started {
                First::Changed => return Ok(()),
                First::Done(Ok(handle)) => return self.started(attempt, handle).await,
                First::Done(Err(error)) => error,
                First::Late => {
                    let failure = blamed.unwrap_or_else(|| self.not_begun());
                    return self.fail(attempt, failure).await;
                }
            };
            match error.kind() {
                ErrorKind::Unavailable if error.class().is_some() => {
                    // Not the executor's: a registry, say, that is away.
                    self.say(error.report());
                    blamed = Some(Failure::of_start(&error));
                }
                ErrorKind::Unavailable => self.unanswered(Some(error)),
                // It was stopped in the backend: its status tells.
                ErrorKind::Conflict => {
                    return self
                        .started(attempt, Handle::of(self.id.attempt(attempt)))
                        .await;
                }
                _ if made_nothing(&error) => {
                    let outcome = Outcome::Failed(Failure::of_start(&error));
                    return self.attempt_ended(attempt, outcome).await;
                }
                _ => return self.fail(attempt, Failure::of_start(&error)).await,
            }
            match self.race(sleep(backoff.next()), deadline).await? {
                First::Changed => return Ok(()),
                First::Done(()) => {}
                First::Late => {
                    let failure = blamed.unwrap_or_else(|| self.not_begun());
                    return self.fail(attempt, failure).await;
                }
            }
        }
    }

    fn start_with(
        &self,
        executor: &Arc<dyn Executor>,
        spec: &Arc<RunSpec>,
        secrets: &Arc<Secrets>,
    ) -> impl Future<Output = Result<Handle>> + Send + use<> {
        let (executor, spec, secrets) =
            (Arc::clone(executor), Arc::clone(spec), Arc::clone(secrets));
        let view = Arc::clone(&self.view);
        let progress = Progress::to(move |message| {
            view.send_modify(|view| view.say(message.to_owned()));
        });
        async move { executor.start(&spec, &secrets, &progress).await }
    }

    /// The backend has the attempt.
    async fn started(&mut self, attempt: u32, handle: Handle) -> Step {
        fault::step("supervisor.started");
        self.shared.health.answered(&self.executor);
        let expected = self.id.attempt(attempt);
        if handle.run == expected {
            self.record.take(handle);
        } else {
            tracing::error!(run = %self.id, answered = %handle.run, "the executor answered with the handle of another run");
            self.record.take(Handle::of(expected));
        }
        self.record.phase = Phase::Started {
            attempt,
            since: Timestamp::now(),
        };
        // Lost by a crash, it is found again by its name.
        self.save_soon().await;
        fault::step("supervisor.handle");
        self.publish();
        Ok(())
    }

    /// The attempt fails. What the backend may have of it is stopped first.
    async fn fail(&mut self, attempt: u32, failure: Failure) -> Step {
        if self.record.reached < attempt {
            return self.attempt_ended(attempt, Outcome::Failed(failure)).await;
        }
        self.give_up(failure).await;
        Ok(())
    }

    /// Finds out what an earlier life told the backend about this attempt.
    ///
    /// | the backend shows | then |
    /// |---|---|
    /// | it, running or ended | it is watched |
    /// | it, not begun | it may be a half-done start: `start` completes it, and is harmless if it is not |
    /// | a later one | that one is taken up: the journal is older than the truth |
    /// | nothing, in the same boot | it was never made: it is begun |
    /// | nothing, after a reboot | what followed in the journal may have been lost with the power: lost |
    async fn look(&mut self, attempt: u32) -> Step {
        let Some(mut survey) = self
            .shared
            .surveys
            .get(&self.executor)
            .map(watch::Sender::subscribe)
        else {
            // A run of this life never comes here: its executor was configured once.
            return self.wait_for_executor().await;
        };
        let seen = async move {
            survey
                .wait_for(Option::is_some)
                .await
                .ok()
                .and_then(|survey| survey.clone())
        };
        let survey = match self.race(seen, None).await? {
            First::Done(Some(survey)) => survey,
            First::Done(None) | First::Changed | First::Late => return Ok(()),
        };
        let handle = survey
            .latest(self.id)
            .filter(|handle| handle.run.attempt_number() >= attempt);
        if let Some(handle) = handle.cloned() {
            return self.found(handle).await;
        }
        self.unclear = false;
        let boot = self.shared.boot();
        match &self.record.phase {
            Phase::Starting { boot: written, .. } if *written == boot => Ok(()),
            _ => {
                self.record.reached = self.record.reached.max(attempt);
                let why = "the machine was restarted while this run was being started, and its backend does not show it; \
                           whether it had begun is not known, so it is not started again";
                self.finish(Outcome::lost(why)).await
            }
        }
    }

    /// The backend shows the attempt: it is watched if it lives, and begun again if it may be half done.
    async fn found(&mut self, handle: Handle) -> Step {
        let attempt = handle.run.attempt_number();
        let Some(executor) = self.shared.executor(&self.executor).cloned() else {
            return self.wait_for_executor().await;
        };
        let mut backoff = Backoff::new();
        let lives = loop {
            let mut levels = executor.watch(&handle);
            let error = match self.race(async { levels.next().await }, None).await? {
                First::Changed | First::Late => return Ok(()),
                First::Done(Some(Ok(level))) => break level.state.rank() >= State::Running.rank(),
                First::Done(Some(Err(error))) => Some(error),
                First::Done(None) => None,
            };
            self.unanswered(error);
            if let First::Changed = self.race(sleep(backoff.next()), None).await? {
                return Ok(());
            }
        };
        self.unclear = false;
        self.record.status.attempt = attempt;
        self.record.reached = self.record.reached.max(attempt);
        let since = Timestamp::now();
        if lives || self.spec.is_none() {
            self.record.take(handle);
            self.record.phase = Phase::Started { attempt, since };
            self.save_soon().await;
            self.publish();
        } else {
            let boot = self.shared.boot();
            self.record.phase = Phase::Starting {
                attempt,
                since,
                boot,
            };
        }
        Ok(())
    }
}
