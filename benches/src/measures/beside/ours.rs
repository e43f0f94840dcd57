//! The executor's side.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use futures::StreamExt as _;
use futures::stream::{self, TryStreamExt as _};
use hybrid_runner_core::executor::{Executor, Handle, Progress};
use hybrid_runner_core::id::Owner;
use hybrid_runner_core::kind::Context;
use hybrid_runner_core::run::{Outcome, RunSpec};
use hybrid_runner_core::{LogItem, RunId, Secrets};
use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::process::Memory;
use crate::table::{Row, number};

/// What has just begun to be held pays for its beginning meanwhile.
const SETTLED: Duration = Duration::from_secs(3);
/// So many are started at once, where that is not what is measured.
const STARTERS: usize = 10;

#[derive(Debug)]
pub(in super::super) struct Ours {
    kind: &'static str,
    settings: Value,
    executor: Arc<dyn Executor>,
    pub(in super::super) owner: Owner,
}

impl Ours {
    pub(in super::super) fn new(kind: &'static str, settings: Value) -> Result<Self> {
        let owner = Owner::of("bench", &format!("bench-{}", std::process::id()).parse()?);
        Self::of(kind, settings, owner)
    }

    fn of(kind: &'static str, settings: Value, owner: Owner) -> Result<Self> {
        let context = Context::new(
            "here".parse()?,
            settings.clone(),
            "/nowhere",
            owner.clone(),
            1 << 30,
        );
        let executor = hybrid_runner_executors::build(kind, &context)?;
        Ok(Self {
            kind,
            settings,
            executor,
            owner,
        })
    }

    /// The executor of a runner that comes back: it knows nothing.
    pub(in super::super) fn anew(&self) -> Result<Self> {
        Self::of(self.kind, self.settings.clone(), self.owner.clone())
    }

    pub(in super::super) fn spec(command: &[&str]) -> Result<RunSpec> {
        let run = RunId::generate().attempt(1);
        Ok(RunSpec::new(run, "bench".parse()?, command.iter().copied()))
    }

    pub(in super::super) async fn start(&self, command: &[&str]) -> Result<Handle> {
        self.start_with(&Self::spec(command)?, &Secrets::none())
            .await
    }

    pub(in super::super) async fn start_with(
        &self,
        spec: &RunSpec,
        secrets: &Secrets,
    ) -> Result<Handle> {
        let progress = Progress::none();
        Ok(self.executor.start(spec, secrets, &progress).await?)
    }

    /// What it would make of a run.
    #[cfg(feature = "cluster")]
    pub(in super::super) async fn preview(
        &self,
        spec: &RunSpec,
        secrets: &Secrets,
    ) -> Result<Vec<Value>> {
        Ok(self.executor.preview(spec, secrets).await?)
    }

    /// Waits, reads the log, removes.
    pub(in super::super) async fn end(&self, run: Handle) -> Result<()> {
        self.ended(&run).await?;
        self.read(&run).await?;
        self.remove(run).await
    }

    pub(in super::super) async fn whole(&self, command: &[&str]) -> Result<()> {
        let run = self.start(command).await?;
        self.end(run).await
    }

    /// Waits until the work runs, or has run.
    pub(in super::super) async fn running(&self, run: &Handle) -> Result<()> {
        const RUNNING: u8 = 2;
        let mut levels = self.executor.watch(run);
        while let Some(level) = levels.next().await {
            if level?.state.rank() >= RUNNING {
                return Ok(());
            }
        }
        anyhow::bail!("the levels of {} ended before it ran", run.run)
    }

    pub(in super::super) async fn ended(&self, run: &Handle) -> Result<()> {
        let mut levels = self.executor.watch(run);
        while let Some(level) = levels.next().await {
            if let Some(outcome) = level?.outcome() {
                ensure!(*outcome == Outcome::Succeeded, "{outcome}");
            }
        }
        Ok(())
    }

    pub(in super::super) async fn read(&self, run: &Handle) -> Result<u64> {
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

    /// Waits for the first piece of its log.
    pub(in super::super) async fn heard(&self, run: &Handle) -> Result<()> {
        let mut chunks = self.executor.logs(run, None);
        chunks.next().await.context("a log")??;
        Ok(())
    }

    /// Holds a run as a runner does: watched, its log followed.
    fn follow(&self, run: &Handle, held: &mut JoinSet<()>) {
        let (mut levels, mut chunks) = (self.executor.watch(run), self.executor.logs(run, None));
        held.spawn(async move { while levels.next().await.is_some() {} });
        held.spawn(async move { while chunks.next().await.is_some() {} });
    }

    /// What a run that lives takes in this process, watched and followed: so many, beside those that pay for what all share.
    /// They live on.
    pub(in super::super) async fn live(
        &self,
        what: &str,
        [first, more]: [usize; 2],
    ) -> Result<(Row, Vec<Handle>)> {
        let mut held = JoinSet::new();
        let mut runs = Vec::new();
        let mut memory = Vec::new();
        for count in [first, more] {
            let started: Vec<Handle> = stream::iter(0..count)
                .map(|_| self.start(&["sh", "-c", "echo begun; sleep 3600"]))
                .buffer_unordered(STARTERS)
                .try_collect()
                .await?;
            for run in &started {
                self.running(run).await?;
                self.follow(run, &mut held);
            }
            runs.extend(started);
            sleep(SETTLED).await;
            memory.push(Memory::of(std::process::id())?.anonymous);
        }
        held.shutdown().await;
        let each = (memory[1] - memory[0]) / number(more as u64);
        let what = format!("{what}, {more} beside {first}, watched and followed");
        let row = Row::new(what, format!("{each:.1} KiB anonymous")).goal("≤ 20 KB");
        Ok((row, runs))
    }

    pub(in super::super) async fn stop(&self, run: Handle) -> Result<()> {
        self.executor.stop(&run, Duration::ZERO).await?;
        let mut levels = self.executor.watch(&run);
        while let Some(level) = levels.next().await {
            level?;
        }
        self.remove(run).await
    }

    pub(in super::super) async fn remove(&self, run: Handle) -> Result<()> {
        Ok(self.executor.remove(&run).await?)
    }

    pub(in super::super) async fn list(&self) -> Result<usize> {
        Ok(self.executor.list().await?.len())
    }
}
