//! The runner as its server sees it: an executor.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt as _;
use futures::future::join_all;
use futures::stream::{self, BoxStream};
use hybrid_runner_core::error::{Error, ErrorKind, Result};
use hybrid_runner_core::executor::LogKeeping;
use hybrid_runner_core::log::{LogChunk, LogCursor};
use hybrid_runner_core::run::{Outcome, RunSpec, State, Status};
use hybrid_runner_core::{Capabilities, Executor, Handle, Progress, RunId, Secrets};
use jiff::Timestamp;
use serde_json::json;
use tokio::sync::oneshot;

use super::journal::{Grave, Listed};
use super::record::{Record, Row, Stop};
use super::redelivery::{Decision, decide};
use super::registry::{Command, Entry, new_entry};
use super::run::{Run, buried};
use super::shared::shut_down;
use super::{Runner, levels, logs, removal};

#[async_trait]
impl Executor for Runner {
    async fn capabilities(&self) -> Result<Capabilities> {
        let asked = self
            .shared
            .executors
            .iter()
            .map(|(name, executor)| async move { (name, executor.capabilities().await) });
        let mut all = Capabilities::least();
        all.contained = true;
        all.max_runs = Some(self.shared.registry.slots().1);
        for (name, answer) in join_all(asked).await {
            match answer {
                Ok(one) => {
                    if one.logs == LogKeeping::Volatile {
                        all.logs = LogKeeping::Volatile;
                    }
                    all.streams |= one.streams;
                    all.resources |= one.resources;
                    all.images |= one.images;
                    all.contained &= one.contained;
                    all.notes.extend(
                        one.notes
                            .into_iter()
                            .map(|note| format!("executor `{name}`: {note}")),
                    );
                }
                Err(error) => {
                    all.contained = false;
                    all.notes.push(format!(
                        "executor `{name}` does not answer: {}",
                        error.report()
                    ));
                }
            }
        }
        Ok(all)
    }

    async fn check(&self) -> Result<()> {
        let checked = self
            .shared
            .executors
            .iter()
            .map(|(name, executor)| async move { (name, executor.check().await) });
        let mut wrong = Vec::new();
        for (name, answer) in join_all(checked).await {
            match answer {
                Ok(()) => self.shared.health.answered(name),
                Err(error) => {
                    self.shared.health.failed(name, &error);
                    wrong.push((name, error));
                }
            }
        }
        match wrong.pop() {
            None => Ok(()),
            Some((name, error)) if wrong.is_empty() => Err(Error::new(
                error.kind(),
                format!("executor `{name}` cannot be used"),
            )
            .with_source(error)),
            Some(last) => {
                let kind = last.1.kind();
                wrong.push(last);
                let all = wrong
                    .iter()
                    .map(|(name, error)| format!("`{name}`: {}", error.report()));
                let all = all.collect::<Vec<_>>().join("; ");
                Err(Error::new(kind, format!("executors cannot be used: {all}")))
            }
        }
    }

    /// Accepts a run; answers once that survives power loss, while its work begins already.
    async fn start(&self, spec: &RunSpec, _: &Secrets, _: &Progress) -> Result<Handle> {
        let run = spec.run;
        refuse_attempt(run)?;
        loop {
            let answer = match self.shared.registry.find_even_removing(run) {
                Some(entry) => self.answer_for(run, entry, spec).await?,
                None => self.take_up(spec).await?,
            };
            match answer {
                Answer::Accepted => return Ok(Handle::of(run)),
                Answer::LookAgain => tokio::task::yield_now().await,
            }
        }
    }

    fn watch(&self, run: &Handle) -> BoxStream<'static, Result<Status>> {
        let run = run.run;
        if let Some(entry) = self.shared.registry.find(run) {
            return levels::watch(entry.view);
        }
        let this = self.clone();
        stream::once(async move { this.level_of_unknown(run).await }).boxed()
    }

    fn logs(&self, run: &Handle, from: Option<LogCursor>) -> BoxStream<'static, Result<LogChunk>> {
        let run = run.run;
        if let Some(entry) = self.shared.registry.find(run) {
            return logs::read(Arc::clone(&self.shared), run, entry.view, from.as_ref());
        }
        let error = Error::not_found(format!("this runner does not know the run `{run}`"));
        stream::once(async { Err(error) }).boxed()
    }

    /// Writes the wish down and answers; the run's task, or the next life's, carries it out.
    ///
    /// Who wants it may stand in the handle's state, as `{"by": "…"}`.
    async fn stop(&self, run: &Handle, grace: Duration) -> Result<()> {
        let by = run
            .state
            .get("by")
            .and_then(|by| by.as_str())
            .map(str::to_owned);
        let run = run.run;
        refuse_attempt(run)?;
        loop {
            let Some(entry) = self.shared.registry.find_even_removing(run) else {
                if self
                    .shared
                    .journal
                    .stop_before_start(run, by.clone())
                    .await?
                {
                    return Ok(());
                }
                tokio::task::yield_now().await;
                continue;
            };
            let stop = Stop::asked(grace, by.clone());
            match entry.ask(|answer| Command::Stop(stop, answer)).await {
                Some(answer) => return answer,
                None if entry.view.borrow().is_finished() => return Ok(()),
                None if self.shared.shutdown.is_cancelled() => return Err(shut_down()),
                // It was refused, and is known no more.
                None => tokio::task::yield_now().await,
            }
        }
    }

    async fn remove(&self, run: &Handle) -> Result<()> {
        let run = run.run;
        match self.shared.registry.find(run) {
            Some(entry) => removal::remove(&self.shared, run, entry).await,
            // What was stopped before it was known is forgotten as what has ended is.
            None => match self.shared.journal.grave(run).await? {
                Some(Grave::Stopped { .. }) => self.shared.journal.bury(run).await.map(drop),
                Some(Grave::Removed) | None => Ok(()),
            },
        }
    }

    /// All runs in the journal that were not removed; a handle's state is `{"spec": …}`.
    ///
    /// An adopted run whose spec nobody has told yet has none; `{"adopted": true}` says so. While a backend does not
    /// answer, runs that only it may know are missing.
    async fn list(&self) -> Result<Vec<Handle>> {
        let listed = self.shared.journal.list().await?;
        let handle = |listed: Listed| {
            let adopted = listed.spec.is_none();
            let state =
                json!({ "spec": listed.spec, "executor": listed.executor, "adopted": adopted });
            Handle::with_state(listed.run, 1, state)
        };
        Ok(listed.into_iter().map(handle).collect())
    }
}

/// What a start comes to.
enum Answer {
    Accepted,
    /// Somebody was faster, or it was refused to somebody else.
    LookAgain,
}

impl Runner {
    /// Answers for a run that is known, once that survives power loss.
    async fn answer_for(&self, run: RunId, mut entry: Entry, spec: &RunSpec) -> Result<Answer> {
        if entry.removing {
            return Err(buried(run, &Grave::Removed));
        }
        let Ok(view) = entry
            .view
            .wait_for(|view| view.level.is_some())
            .await
            .map(|view| view.clone())
        else {
            return if self.shared.shutdown.is_cancelled() {
                Err(shut_down())
            } else {
                Ok(Answer::LookAgain)
            };
        };
        if view.stop_asked {
            return Err(Error::conflict(format!(
                "the run `{run}` was stopped; it cannot be started again"
            )));
        }
        if !view.has_spec {
            let told = entry
                .ask(|answer| Command::Spec(Box::new(spec.clone()), answer))
                .await;
            match told {
                Some(answer) => answer.map_err(unavailable)?,
                None => drop(
                    self.shared
                        .journal
                        .set_spec(run, spec)
                        .await
                        .map_err(unavailable)?,
                ),
            }
        }
        self.shared.journal.sync().await.map_err(unavailable)?;
        Ok(Answer::Accepted)
    }

    /// Takes up a run that nothing here knows; if it may have run, only to say that it is lost.
    async fn take_up(&self, spec: &RunSpec) -> Result<Answer> {
        let shared = &self.shared;
        let now = Timestamp::now();
        let record = match decide(shared, spec.first_sent.as_ref())
            .await
            .map_err(unavailable)?
        {
            Decision::Start => Record::accepted(now, &shared.boot()),
            Decision::Lost(why) => Record::ended(now, Outcome::lost(why)),
        };
        let executor = spec
            .executor
            .clone()
            .unwrap_or_else(|| shared.default_executor.clone());
        let (entry, view, commands) = new_entry(&executor);
        let place = shared.jobs.reserve().await.map_err(|_| shut_down())?;
        // Nothing is awaited between the two: a run that is known has its task.
        let known = if record.is_live() {
            shared.registry.claim(spec.run, entry)?
        } else {
            !shared.registry.add(spec.run, entry, false)
        };
        if known {
            return Ok(Answer::LookAgain);
        }
        let row = Row {
            run: spec.run,
            executor,
            spec: Some(Arc::new(spec.clone())),
            has_spec: true,
            accepted_at: now,
            record,
        };
        let (answer, answered) = oneshot::channel();
        place.send(Box::pin(
            Run::of(shared, row, view, commands).take_up(now, answer),
        ));
        let commit = answered.await.map_err(|_| shut_down())??;
        commit
            .synced()
            .await
            .map_err(|error| unavailable(error.into()))?;
        Ok(Answer::Accepted)
    }

    /// The one level of a run that nothing here knows.
    async fn level_of_unknown(&self, run: RunId) -> Result<Status> {
        let grave = self.shared.journal.grave(run).await?;
        let outcome = match grave {
            Some(Grave::Stopped { by }) => Outcome::Stopped { by },
            Some(Grave::Removed) => {
                Outcome::lost("the run's outcome was acknowledged, and the run was removed")
            }
            None => {
                self.shared.all_surveyed()?;
                Outcome::lost("this runner does not know the run")
            }
        };
        Ok(Status::new(0, State::Finished(outcome)))
    }
}

fn refuse_attempt(run: RunId) -> Result<()> {
    if run.attempt_number() == 0 {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "`{run}` is an attempt, and only the runner makes attempts: give the run's id"
    )))
}

/// Whatever stands in the way of accepting a run here, the server may try again.
fn unavailable(error: Error) -> Error {
    match error.kind() {
        ErrorKind::Unavailable | ErrorKind::Conflict | ErrorKind::Invalid => error,
        _ => Error::unavailable("the runner cannot take runs up now").with_source(error),
    }
}
