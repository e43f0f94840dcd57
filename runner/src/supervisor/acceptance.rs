//! What becomes of a start: answered for, taken up, or refused.

use std::sync::Arc;

use hybrid_runner_core::RunId;
use hybrid_runner_core::error::{Error, ErrorKind, Result};
use hybrid_runner_core::run::{Outcome, RunSpec};
use jiff::Timestamp;
use tokio::sync::oneshot;

use super::Runner;
use super::journal::Grave;
use super::record::{Record, Row};
use super::redelivery::{Decision, decide};
use super::registry::{Command, Entry, new_entry};
use super::run::{Run, buried};
use super::shared::shut_down;

/// What a start comes to.
pub(super) enum Acceptance {
    Accepted,
    /// Somebody was faster, or it was refused to somebody else.
    LookAgain,
}

impl Runner {
    /// Answers for a run that is known, once that survives power loss.
    pub(super) async fn answer_for(
        &self,
        run: RunId,
        mut entry: Entry,
        spec: &RunSpec,
    ) -> Result<Acceptance> {
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
                Ok(Acceptance::LookAgain)
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
        Ok(Acceptance::Accepted)
    }

    /// Takes up a run that nothing here knows; if it may have run, only to say that it is lost.
    pub(super) async fn take_up(&self, spec: &RunSpec) -> Result<Acceptance> {
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
            return Ok(Acceptance::LookAgain);
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
        Ok(Acceptance::Accepted)
    }
}

/// Whatever stands in the way of accepting a run here, the server may try again.
fn unavailable(error: Error) -> Error {
    match error.kind() {
        ErrorKind::Unavailable | ErrorKind::Conflict | ErrorKind::Invalid => error,
        _ => Error::unavailable("the runner cannot take runs up now").with_source(error),
    }
}
