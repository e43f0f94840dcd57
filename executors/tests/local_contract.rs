//! The local executor keeps the executor contract, with real processes.
#![cfg(feature = "local")]

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use hybrid_runner_core::executor::Executor;
use hybrid_runner_core::id::Owner;
use hybrid_runner_core::kind::Context;
use hybrid_runner_core::run::RunSpec;
use hybrid_runner_core::secret::Secrets;
use hybrid_runner_core::testing::{Harness, processes_of};
use hybrid_runner_core::{RunId, executor_contract_tests};
use serde_json::json;
use tempfile::TempDir;

struct Here(TempDir);

impl Here {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder can be made"))
    }

    fn data_dir(&self) -> PathBuf {
        self.0.path().join("data")
    }
}

fn build(agent: &str, data_dir: PathBuf) -> Arc<dyn Executor> {
    let context = Context::new(
        "here".parse().expect("the name is valid"),
        json!({}),
        data_dir,
        Owner::of("server", &agent.parse().expect("the name is valid")),
        1 << 30,
    );
    hybrid_runner_executors::build("local", &context).expect("the settings are valid")
}

#[async_trait]
impl Harness for Here {
    async fn executor(&self) -> Arc<dyn Executor> {
        build("one", self.data_dir())
    }

    async fn other_owner(&self) -> Option<Arc<dyn Executor>> {
        Some(build("two", self.data_dir()))
    }

    /// A file where a folder should be.
    async fn unreachable(&self) -> Option<Arc<dyn Executor>> {
        let file = self.0.path().join("file");
        std::fs::write(&file, "").expect("it can be written");
        Some(build("one", file.join("data")))
    }

    /// As after a crash behind the claim.
    async fn half_start(&self, spec: &RunSpec, _secrets: &Secrets) -> bool {
        let owner = Owner::of("server", &"one".parse().expect("the name is valid"));
        let runs = self.data_dir().join("runs").join(owner.as_str());
        std::fs::create_dir_all(runs.join(spec.run.to_string())).is_ok()
    }

    async fn alive(&self, run: RunId) -> Option<bool> {
        processes_of(run).map(|found| !found.is_empty())
    }

    fn evidence(&self, run: RunId) -> Option<PathBuf> {
        Some(self.0.path().join(format!("evidence-{run}")))
    }
}

executor_contract_tests!(
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    Here::new()
);

mod over_a_session {
    hybrid_runner_core::executor_contract_tests!(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        hybrid_runner_core::testing::OverSession::new(super::Here::new())
    );
}
