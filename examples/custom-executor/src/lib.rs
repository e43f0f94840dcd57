//! An executor of one's own: hands runs to the batch system of `../batch`. Put yours in its place.
//!
//! Shows all that an executor needs: a section, the contract, and the suite that certifies it (`tests/contract.rs`).
//! `src/main.rs` serves it as a plugin; `../custom-runner` builds it in.

use std::{path::PathBuf, process::Stdio, sync::Arc, time::Duration};

use futures::stream::BoxStream;
use hybrid_runner_core::run::{RunSpec, Told, render};
use hybrid_runner_core::{Capabilities, Error, Executor, Handle, LogChunk, LogCursor, Progress};
use hybrid_runner_core::{Result, RunId, Secrets, Status, kind, poll, schemars};
use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt as _, process::Command};

/// What `kind = "batch"` names.
pub const KIND: kind::Kind<dyn Executor> = kind::Kind {
    name: "batch",
    summary: "jobs of a very small batch system",
    build: |context| Ok(Arc::new(Batch(context.settings("executors")?))),
    schema: || schemars::schema_for!(Settings),
};

const EVERY: Duration = Duration::from_millis(200);

/// The section `[executors.NAME]`.
#[derive(Debug, Clone, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The batch system's program.
    program: PathBuf,
    /// The folder of its jobs.
    folder: PathBuf,
}

/// The batch system, as an executor.
#[derive(Debug, Clone)]
pub struct Batch(Settings);

impl Batch {
    /// Runs the batch system's program; what it prints.
    async fn ask(&self, arguments: &[&str], input: &Value) -> Result<Vec<u8>> {
        let failed = |error| Error::unavailable("failed to run the program").with_source(error);
        let mut command = Command::new(&self.0.program);
        command.args(arguments).env("BATCH_DIR", &self.0.folder);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.kill_on_drop(true).spawn().map_err(failed)?;
        let mut stdin = child.stdin.take().expect("it was piped");
        let input = input.to_string();
        stdin.write_all(input.as_bytes()).await.map_err(failed)?;
        drop(stdin);
        let ended = child.wait_with_output().await.map_err(failed)?;
        let words = String::from_utf8_lossy(&ended.stdout).into_owned();
        let done = ended.status.success().then_some(ended.stdout);
        done.ok_or_else(|| Error::conflict(words))
    }

    async fn status(&self, run: RunId) -> Result<Status> {
        let answer = self.ask(&["status", &run.to_string()], &Value::Null).await;
        // A job that is not known: its program says so, and that is an end.
        let answer = answer.unwrap_or_else(|_| br#"{"state":"lost"}"#.to_vec());
        let told = serde_json::from_slice::<Told>(&answer);
        told.map_err(|error| Error::internal("no JSON").with_source(error))?
            .status(run)
    }
}

#[async_trait::async_trait]
impl Executor for Batch {
    async fn capabilities(&self) -> Result<Capabilities> {
        Ok(Capabilities::least())
    }

    async fn check(&self) -> Result<()> {
        self.ask(&["list"], &Value::Null).await.map(drop)
    }

    async fn start(&self, spec: &RunSpec, secrets: &Secrets, _: &Progress) -> Result<Handle> {
        if !spec.resources.limits.is_empty() {
            return Err(Error::unsupported("`resources.limits` cannot be kept"));
        }
        let mut job = render(spec, secrets, "@WORKFLOW_CONFIG@")?.to_job()?;
        job["workdir"] = json!(spec.workdir);
        job["timeout"] = json!(spec.limits.timeout.get().as_secs_f64());
        job["stall_timeout"] = json!(spec.limits.stall_timeout.get().as_secs_f64());
        job["grace"] = json!(spec.limits.grace.get().as_secs_f64());
        // The run's name is the job's: submitting twice is submitting once.
        self.ask(&["submit", &spec.run.to_string()], &job).await?;
        Ok(Handle::of(spec.run))
    }

    fn watch(&self, run: &Handle) -> BoxStream<'static, Result<Status>> {
        let (this, run) = (self.clone(), run.run);
        poll::watch(EVERY, move || {
            let this = this.clone();
            async move { this.status(run).await }
        })
    }

    fn logs(&self, run: &Handle, from: Option<LogCursor>) -> BoxStream<'static, Result<LogChunk>> {
        let (this, run) = (self.clone(), run.run);
        poll::logs(run, from, EVERY, move |offset| {
            let this = this.clone();
            async move {
                let ended = this.status(run).await?.is_finished();
                let (run, offset) = (run.to_string(), offset.to_string());
                let bytes = this.ask(&["logs", &run, &offset], &Value::Null).await?;
                let bytes = bytes.into();
                Ok(poll::Output { bytes, ended })
            }
        })
    }

    async fn stop(&self, run: &Handle, grace: Duration) -> Result<()> {
        let grace = grace.as_secs_f64().to_string();
        let stop = ["stop", &run.run.to_string(), &grace];
        self.ask(&stop, &Value::Null).await.map(drop)
    }

    async fn remove(&self, run: &Handle) -> Result<()> {
        let status = self.status(run.run).await?;
        if !status.is_finished() {
            return Err(Error::conflict("the run has not ended; stop it first"));
        }
        let remove = ["remove", &run.run.to_string()];
        self.ask(&remove, &Value::Null).await.map(drop)
    }

    async fn list(&self) -> Result<Vec<Handle>> {
        let jobs = self.ask(&["list"], &Value::Null).await?;
        let jobs = serde_json::from_slice::<Vec<RunId>>(&jobs);
        let jobs = jobs.map_err(|error| Error::internal("no JSON").with_source(error))?;
        Ok(jobs.into_iter().map(Handle::of).collect())
    }
}
