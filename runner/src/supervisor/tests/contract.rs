//! The executor contract, held by a whole runner as its server sees it.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use hybrid_runner_core::testing::Harness;
use hybrid_runner_core::{Executor, RunId, Secrets};

use super::{Life, World};

/// A runner over the fake: the names of its runs have no attempt, and it resolves for itself.
struct Outer {
    world: World,
    life: Life,
    unreachable: Life,
    /// Of the runner that cannot reach its backend.
    _elsewhere: World,
}

impl Outer {
    async fn new() -> Self {
        let world = World::new();
        let life = world.open().await;
        let elsewhere = World::new();
        elsewhere.backend.set_reachable(false);
        let unreachable = elsewhere.open().await;
        Self {
            world,
            life,
            unreachable,
            _elsewhere: elsewhere,
        }
    }
}

#[async_trait]
impl Harness for Outer {
    async fn executor(&self) -> Arc<dyn Executor> {
        Arc::new(self.life.runner.clone())
    }

    fn run_id(&self) -> RunId {
        RunId::generate()
    }

    async fn hand_over(&self, values: &Secrets) -> Secrets {
        for (reference, value) in values.iter() {
            // Into the store of a test, where the runner finds it.
            self.world.provider.set(reference, value.expose());
        }
        Secrets::none()
    }

    async fn unreachable(&self) -> Option<Arc<dyn Executor>> {
        Some(Arc::new(self.unreachable.runner.clone()))
    }

    fn patience(&self) -> Duration {
        Duration::from_mins(1)
    }

    async fn starts(&self, run: RunId) -> Option<u32> {
        Some(self.world.backend.starts_of(run.attempt(1)))
    }

    async fn alive(&self, run: RunId) -> Option<bool> {
        Some(self.world.first(run).is_alive())
    }

    async fn drop_log(&self, run: RunId) -> bool {
        self.world.first(run).rotate(1);
        true
    }

    fn declines(&self) -> &[(&'static str, &'static str)] {
        const FAILS: &str = "what is wrong with a run is an accepted run that fails";
        &[
            (
                "a_field_that_cannot_be_honoured_is_refused_before_anything_is_made",
                FAILS,
            ),
            ("a_missing_value_is_refused_before_anything_is_made", FAILS),
        ]
    }
}

hybrid_runner_core::executor_contract_tests!(
    #[tokio::test(start_paused = true)]
    Outer::new().await
);
