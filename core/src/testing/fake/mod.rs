//! An executor in memory whose every step a test controls.
//!
//! | file | holds |
//! |---|---|
//! | `harness` | the fake under the contract suite |
//! | `backend` | [`FakeBackend`]: the runs, the faults, the calls; [`Control`] of one run by hand |
//! | `record` | one run as the backend keeps it |
//! | `work` | how a run behaves: its script, limits and stops, on tokio's clock |

mod backend;
mod harness;
mod record;
#[cfg(test)]
mod tests;
mod work;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};

use crate::error::{Error, ErrorKind, Result};
use crate::executor::{Capabilities, Executor, Handle, Progress};
use crate::id::{Owner, RunId};
use crate::log::{LogChunk, LogCursor};
use crate::run::{Outcome, RunSpec, State, Status, render};
use crate::secret::Secrets;

pub use backend::{Call, Control, FakeBackend};
use record::Run;
use work::Job;

/// An executor over a [`FakeBackend`]. It keeps nothing itself: drop it, make another, all is there.
///
/// How a run behaves stands in its command:
///
/// | command | the run |
/// |---|---|
/// | of a [`Script`](super::Script) | does what the script says |
/// | `true`, `false` | ends at once, with 0 or 1 |
/// | `echo TEXT…` | writes the texts and a newline, and succeeds |
/// | `sleep SECONDS` | waits, and succeeds |
/// | a path under `/no/such/` | ends at once as `Failed`, class `spec` |
/// | anything else | lives until it is stopped, or ended by [`Control::finish`] |
#[derive(Debug, Clone)]
pub struct FakeExecutor {
    backend: FakeBackend,
    owner: Owner,
}

impl FakeExecutor {
    /// An executor of `owner` over `backend`.
    pub fn new(backend: FakeBackend, owner: Owner) -> Self {
        Self { backend, owner }
    }

    /// The backend below.
    pub fn backend(&self) -> &FakeBackend {
        &self.backend
    }

    fn find(&self, run: RunId) -> Option<Arc<Run>> {
        self.backend.find(&self.owner, run)
    }

    async fn enter(&self, method: &'static str, run: Option<RunId>) -> Result<()> {
        self.backend.enter(&self.owner, method, run).await
    }

    fn handle(run: RunId) -> Handle {
        Handle::with_state(run, 1, serde_json::json!({ "fake": run.to_string() }))
    }

    /// Refuses what the backend's capabilities do not offer.
    fn refuse_unsupported(&self, spec: &RunSpec) -> Result<()> {
        let can = self.backend.capabilities();
        let refused = [
            ("image", spec.image.is_some() && !can.images),
            ("resources", !spec.resources.is_empty() && !can.resources),
        ];
        match refused.iter().find(|(_, refused)| *refused) {
            Some((field, _)) => Err(Error::new(
                ErrorKind::Unsupported,
                format!("the fake backend cannot honour `{field}`"),
            )),
            None => Ok(()),
        }
    }
}

#[async_trait]
impl Executor for FakeExecutor {
    async fn capabilities(&self) -> Result<Capabilities> {
        self.enter("capabilities", None).await?;
        Ok(self.backend.capabilities())
    }

    async fn check(&self) -> Result<()> {
        self.enter("check", None).await
    }

    async fn start(
        &self,
        spec: &RunSpec,
        secrets: &Secrets,
        progress: &Progress,
    ) -> Result<Handle> {
        self.enter("start", Some(spec.run)).await?;
        self.backend.injected_start_error()?;
        spec.validate()?;
        self.refuse_unsupported(spec)?;
        let rendered = render(spec, secrets, &work::config_path(spec.run))?;
        let job = Job::new(spec, rendered, secrets);
        let run = self.backend.find_or_make(&self.owner, spec.run);
        progress.report("made; waits to begin");
        tokio::task::yield_now().await;
        self.backend.gate_open().await;
        tokio::task::yield_now().await;
        self.backend.begin(&run, job)?;
        tokio::task::yield_now().await;
        self.backend.injected_lost_reply()?;
        Ok(Self::handle(spec.run))
    }

    fn watch(&self, run: &Handle) -> BoxStream<'static, Result<Status>> {
        let this = self.clone();
        let id = run.run;
        let opened = async move {
            if let Err(error) = this.enter("watch", Some(id)).await {
                return stream::once(async { Err(error) }).boxed();
            }
            match this.find(id) {
                Some(run) => this.backend.until_cut(run.statuses()),
                None => stream::once(async move { Ok(lost(id)) }).boxed(),
            }
        };
        stream::once(opened).flatten().boxed()
    }

    fn logs(&self, run: &Handle, from: Option<LogCursor>) -> BoxStream<'static, Result<LogChunk>> {
        let this = self.clone();
        let id = run.run;
        let opened = async move {
            let chunks = match this.enter("logs", Some(id)).await {
                Err(error) => Err(error),
                Ok(()) => match this.find(id) {
                    Some(run) => run.chunks(from.as_ref()),
                    None => Err(Error::not_found(format!(
                        "the fake backend does not know the run `{id}`"
                    ))),
                },
            };
            match chunks {
                Ok(chunks) => this.backend.until_cut(chunks),
                Err(error) => stream::once(async { Err(error) }).boxed(),
            }
        };
        stream::once(opened).flatten().boxed()
    }

    async fn stop(&self, run: &Handle, grace: Duration) -> Result<()> {
        self.enter("stop", Some(run.run)).await?;
        if !self.backend.capabilities().offers("stop") {
            return Err(Error::unsupported("the fake backend cannot stop a run"));
        }
        self.backend
            .find_or_make(&self.owner, run.run)
            .ask_to_stop(grace);
        Ok(())
    }

    async fn remove(&self, run: &Handle) -> Result<()> {
        self.enter("remove", Some(run.run)).await?;
        match self.find(run.run) {
            Some(found) if !found.status().is_finished() => Err(Error::conflict(format!(
                "the run `{}` has not ended; stop it first",
                run.run
            ))),
            _ => {
                self.backend.forget(&self.owner, run.run);
                Ok(())
            }
        }
    }

    async fn list(&self) -> Result<Vec<Handle>> {
        self.enter("list", None).await?;
        let runs = self.backend.runs_of(&self.owner);
        Ok(runs.into_iter().map(Self::handle).collect())
    }
}

fn lost(run: RunId) -> Status {
    let why = "the fake backend does not know this run";
    Status::new(
        run.attempt_number().max(1),
        State::Finished(Outcome::lost(why)),
    )
}
