//! An executor of one's own: hands runs to the batch system of `../batch`. Put yours in its place.
//!
//! Shows all that an executor needs: a section, the answers of a [`Backend`], and the suite that certifies it
//! (`tests/contract.rs`). `src/main.rs` serves it as a plugin; `../custom-runner` builds it in.

use std::{path::PathBuf, sync::Arc, time::Duration};

use hybrid_runner_core::poll::{Backend, Polled};
use hybrid_runner_core::run::{Rendered, RunSpec, Told};
use hybrid_runner_core::{ErrorKind, Executor, Result, RunId, Status, kind, program, schemars};
use tokio::process::Command;

/// What `kind = "batch"` names.
pub const KIND: kind::Kind<dyn Executor> = kind::Kind {
    name: "batch",
    summary: "jobs of a very small batch system",
    build: |context| {
        let batch: Batch = context.settings("executors")?;
        // Asked five times a second how its runs are; a large one wants that less often.
        Ok(Arc::new(Polled::new(batch, Duration::from_millis(200))))
    },
    schema: || schemars::schema_for!(Batch),
};

/// The batch system, and the section `[executors.NAME]`.
#[derive(Debug, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Batch {
    /// The batch system's program.
    program: PathBuf,
    /// The folder of its jobs.
    folder: PathBuf,
}

impl Batch {
    /// Runs the batch system's program: what it prints, or the error that it tells.
    async fn ask(&self, words: &str, input: &str) -> Result<Vec<u8>> {
        let mut command = Command::new(&self.program);
        command.args(words.split(' '));
        command.env("BATCH_DIR", &self.folder);
        // Each of its commands may be given again, so a failure that it does not explain may pass.
        program::ask(words, command, input.as_bytes(), ErrorKind::Unavailable).await
    }
}

#[async_trait::async_trait]
impl Backend for Batch {
    async fn check(&self) -> Result<()> {
        self.ask("list", "").await.map(drop)
    }

    async fn submit(&self, spec: &RunSpec, work: &Rendered) -> Result<()> {
        // Values go through the pipe, and the run's name is the job's: submitting twice is submitting once.
        let (words, job) = (format!("submit {}", spec.run), work.to_job()?.to_string());
        self.ask(&words, &job).await.map(drop)
    }

    async fn status(&self, run: RunId) -> Result<Status> {
        let printed = self.ask(&format!("status {run}"), "").await?;
        program::read::<Told>("status", &printed)?.status(run)
    }

    async fn output(&self, run: RunId, from: u64) -> Result<Vec<u8>> {
        self.ask(&format!("logs {run} {from}"), "").await
    }

    async fn stop(&self, run: RunId, grace: Duration) -> Result<()> {
        let words = format!("stop {run} {}", grace.as_secs_f64());
        self.ask(&words, "").await.map(drop)
    }

    async fn remove(&self, run: RunId) -> Result<()> {
        self.ask(&format!("remove {run}"), "").await.map(drop)
    }

    async fn list(&self) -> Result<Vec<RunId>> {
        program::read("list", &self.ask("list", "").await?)
    }
}
