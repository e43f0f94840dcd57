//! The runner as its server sees it: an executor.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::{self, BoxStream};
use futures::{FutureExt as _, StreamExt as _};
use hybrid_runner_core::error::{Error, Result};
use hybrid_runner_core::log::{LogChunk, LogCursor};
use hybrid_runner_core::run::{Outcome, RunSpec, State, Status};
use hybrid_runner_core::{Capabilities, Executor, Handle, Progress, RunId, Secrets};
use serde_json::json;

use super::acceptance::Acceptance;
use super::journal::{Grave, Listed};
use super::record::Stop;
use super::registry::Command;
use super::shared::shut_down;
use super::{Runner, capabilities, levels, logs, recover, removal};

#[async_trait]
impl Executor for Runner {
    async fn capabilities(&self) -> Result<Capabilities> {
        Ok(capabilities::all(&self.shared).await)
    }

    async fn check(&self) -> Result<()> {
        capabilities::check(&self.shared).await
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
                Acceptance::Accepted => return Ok(Handle::of(run)),
                Acceptance::LookAgain => tokio::task::yield_now().await,
            }
        }
    }

    fn watch(&self, run: &Handle) -> BoxStream<'static, Result<Status>> {
        let run = run.run;
        let Some(entry) = self.shared.registry.find(run) else {
            let this = self.clone();
            return stream::once(async move { this.level_of_unknown(run).await }).boxed();
        };
        let levels = levels::watch(entry.view.clone());
        if entry.view.borrow().has_spec {
            return levels;
        }
        let told = async move {
            // One that has ended has nothing to wait for.
            drop(entry.commands.send(Command::Followed).await);
            levels
        };
        told.flatten_stream().boxed()
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
                // A backend may have it: then it is one that runs, and no start to be prevented.
                if recover::survey_anew(&self.shared).await? {
                    continue;
                }
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
        match self.shared.registry.find_even_removing(run) {
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
        let shown = |listed: &Listed| self.shared.registry.find(listed.run).is_some();
        Ok(listed.into_iter().filter(shown).map(handle).collect())
    }
}

impl Runner {
    /// The one level of a run that nothing here knows.
    async fn level_of_unknown(&self, run: RunId) -> Result<Status> {
        let grave = self.shared.journal.grave(run).await?;
        let outcome = match grave {
            Some(Grave::Stopped { by }) => Outcome::Stopped { by },
            Some(Grave::Removed) => {
                Outcome::lost("the run's outcome was acknowledged, and the run was removed")
            }
            None => {
                if recover::survey_anew(&self.shared).await?
                    && self.shared.registry.find(run).is_some()
                {
                    return Err(Error::unavailable("the run was found just now: ask again"));
                }
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
