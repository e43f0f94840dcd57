//! The same through the executor.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use futures::StreamExt as _;
use hybrid_runner_core::executor::{Executor, Handle, Progress};
use hybrid_runner_core::id::Owner;
use hybrid_runner_core::kind::Context;
use hybrid_runner_core::run::{Outcome, RunSpec};
use hybrid_runner_core::{LogItem, RunId, Secrets};
use serde_json::json;
use tokio::task::JoinSet;

use super::IMAGE;

#[derive(Debug)]
pub(super) struct Ours {
    executor: Arc<dyn Executor>,
    owner: Owner,
}

impl Ours {
    pub(super) fn new(host: &str) -> Result<Self> {
        let owner = Owner::of("bench", &format!("bench-{}", std::process::id()).parse()?);
        let settings = json!({ "host": host, "image": IMAGE, "network": "none" });
        let context = Context::new(
            "here".parse()?,
            settings,
            "/nowhere",
            owner.clone(),
            1 << 30,
        );
        let executor = hybrid_runner_executors::build("docker", &context)?;
        Ok(Self { executor, owner })
    }

    pub(super) async fn start(&self, command: &[&str]) -> Result<Handle> {
        let run = RunId::generate().attempt(1);
        let spec = RunSpec::new(run, "bench".parse()?, command.iter().copied());
        Ok(self
            .executor
            .start(&spec, &Secrets::none(), &Progress::none())
            .await?)
    }

    /// Waits, reads the log, removes.
    pub(super) async fn end(&self, run: Handle) -> Result<()> {
        self.ended(&run).await?;
        self.read(&run).await?;
        self.remove(run).await
    }

    pub(super) async fn whole(&self, command: &[&str]) -> Result<()> {
        let run = self.start(command).await?;
        self.end(run).await
    }

    pub(super) async fn ended(&self, run: &Handle) -> Result<()> {
        let mut levels = self.executor.watch(run);
        while let Some(level) = levels.next().await {
            if let Some(outcome) = level?.outcome() {
                ensure!(*outcome == Outcome::Succeeded, "{outcome}");
            }
        }
        Ok(())
    }

    pub(super) async fn read(&self, run: &Handle) -> Result<u64> {
        let mut chunks = self.executor.logs(run, None);
        let mut read = 0;
        while let Some(chunk) = chunks.next().await {
            match chunk?.item {
                LogItem::Data { bytes, .. } => read += bytes.len() as u64,
                gap => anyhow::bail!("{gap:?}"),
            }
        }
        Ok(read)
    }

    /// Holds a run as a runner does: watched, its log followed.
    pub(super) fn follow(&self, run: &Handle, held: &mut JoinSet<()>) {
        let (mut levels, mut chunks) = (self.executor.watch(run), self.executor.logs(run, None));
        held.spawn(async move { while levels.next().await.is_some() {} });
        held.spawn(async move { while chunks.next().await.is_some() {} });
    }

    pub(super) async fn stop(&self, run: Handle) -> Result<()> {
        self.executor.stop(&run, Duration::ZERO).await?;
        let mut levels = self.executor.watch(&run);
        while let Some(level) = levels.next().await {
            level?;
        }
        self.remove(run).await
    }

    pub(super) async fn remove(&self, run: Handle) -> Result<()> {
        Ok(self.executor.remove(&run).await?)
    }

    /// The name of its container.
    pub(super) fn container(&self, run: &Handle) -> String {
        format!("hr-{}-{}", self.owner, run.run)
    }
}
