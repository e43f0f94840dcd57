//! Any harness, with a session in between: proves that a wire changes nothing.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::task::JoinSet;

use super::executor::Harness;
use super::script::Script;
use crate::executor::Executor;
use crate::id::RunId;
use crate::run::RunSpec;
use crate::secret::Secrets;
use crate::session::{
    Closed, ExecutorService, NoService, Options, RemoteExecutor, Session, memory_pair,
};

/// A harness whose executors are reached through a session of their own each, as a plugin is.
pub struct OverSession<H> {
    inner: H,
    /// The two drivers of each session; they end with the harness.
    drivers: Mutex<JoinSet<Closed>>,
}

impl<H: fmt::Debug> fmt::Debug for OverSession<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OverSession").field(&self.inner).finish()
    }
}

impl<H: Harness> OverSession<H> {
    /// Puts a session before each executor of `inner`.
    pub fn new(inner: H) -> Self {
        Self {
            inner,
            drivers: Mutex::default(),
        }
    }

    fn reach(&self, executor: Arc<dyn Executor>) -> Arc<dyn Executor> {
        let (near, far) = memory_pair();
        let options = Options {
            heartbeat: Some(Duration::from_secs(15)),
            ..Options::default()
        };
        let (session, one) = Session::start(near, Arc::new(NoService), options.clone());
        let service = Arc::new(ExecutorService::new(executor));
        let (_, other) = Session::start(far, service, options);
        let mut drivers = self.drivers.lock().unwrap_or_else(PoisonError::into_inner);
        drivers.spawn(one);
        drivers.spawn(other);
        Arc::new(RemoteExecutor::with_secrets(session))
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<H: Harness> Harness for OverSession<H> {
    async fn executor(&self) -> Arc<dyn Executor> {
        self.reach(self.inner.executor().await)
    }

    fn run_id(&self) -> RunId {
        self.inner.run_id()
    }

    fn spec(&self, run: RunId, script: &Script) -> RunSpec {
        self.inner.spec(run, script)
    }

    async fn hand_over(&self, values: &Secrets) -> Secrets {
        self.inner.hand_over(values).await
    }

    fn tick(&self) -> Duration {
        self.inner.tick()
    }

    fn patience(&self) -> Duration {
        self.inner.patience()
    }

    async fn other_owner(&self) -> Option<Arc<dyn Executor>> {
        Some(self.reach(self.inner.other_owner().await?))
    }

    async fn unreachable(&self) -> Option<Arc<dyn Executor>> {
        Some(self.reach(self.inner.unreachable().await?))
    }

    async fn half_start(&self, spec: &RunSpec, secrets: &Secrets) -> bool {
        self.inner.half_start(spec, secrets).await
    }

    fn unsupported(&self, spec: &RunSpec) -> Option<RunSpec> {
        self.inner.unsupported(spec)
    }

    async fn alive(&self, run: RunId) -> Option<bool> {
        self.inner.alive(run).await
    }

    fn evidence(&self, run: RunId) -> Option<PathBuf> {
        self.inner.evidence(run)
    }

    async fn starts(&self, run: RunId) -> Option<u32> {
        self.inner.starts(run).await
    }

    async fn drop_log(&self, run: RunId) -> bool {
        self.inner.drop_log(run).await
    }

    fn decided(&self) {
        self.inner.decided();
    }

    fn declines(&self) -> &[(&'static str, &'static str)] {
        self.inner.declines()
    }
}

#[cfg(test)]
mod the_fake_passes_over_a_session {
    crate::executor_contract_tests!(
        #[tokio::test(start_paused = true)]
        super::OverSession::new(crate::testing::FakeBackend::new())
    );
}
