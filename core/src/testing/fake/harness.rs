//! The fake under the contract suite.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::FakeBackend;
use crate::executor::{Executor, Progress};
use crate::id::RunId;
use crate::run::RunSpec;
use crate::secret::Secrets;
use crate::testing::executor::Harness;

#[async_trait]
impl Harness for FakeBackend {
    async fn executor(&self) -> Arc<dyn Executor> {
        FakeBackend::executor(self)
    }

    fn tick(&self) -> Duration {
        Duration::from_millis(100)
    }

    async fn other_owner(&self) -> Option<Arc<dyn Executor>> {
        Some(self.executor_of("Other"))
    }

    async fn unreachable(&self) -> Option<Arc<dyn Executor>> {
        let elsewhere = FakeBackend::new();
        elsewhere.set_reachable(false);
        Some(elsewhere.executor())
    }

    async fn half_start(&self, spec: &RunSpec, secrets: &Secrets) -> bool {
        self.hold_starts();
        let executor = FakeBackend::executor(self);
        let progress = Progress::none();
        let made = self.control(spec.run);
        let half_done = tokio::select! {
            _ = executor.start(spec, secrets, &progress) => false,
            () = made.known() => true,
        };
        self.release_starts();
        half_done
    }

    async fn alive(&self, run: RunId) -> Option<bool> {
        Some(self.control(run).is_alive())
    }

    async fn starts(&self, run: RunId) -> Option<u32> {
        Some(self.starts_of(run))
    }

    async fn drop_log(&self, run: RunId) -> bool {
        self.control(run).rotate(20);
        true
    }
}
