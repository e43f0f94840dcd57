//! The executor keeps the contract.

#![expect(
    clippy::unwrap_used,
    reason = "a harness of tests: a failure is the test's"
)]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use hybrid_runner_core::id::Owner;
use hybrid_runner_core::kind::Context;
use hybrid_runner_core::testing::Harness;
use hybrid_runner_core::{Executor, RunId};

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn executor_in(&self, folder: &str) -> Arc<dyn Executor> {
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("../batch/batch.py");
        let settings =
            serde_json::json!({ "program": program, "folder": self.0.path().join(folder) });
        let name = "batch".parse().unwrap();
        let owner = Owner::of("here", &"me".parse().unwrap());
        let context = Context::new(name, settings, self.0.path(), owner, 1 << 20);
        (custom_executor::KIND.build)(&context).unwrap()
    }
}

#[async_trait]
impl Harness for Place {
    async fn executor(&self) -> Arc<dyn Executor> {
        self.executor_in("jobs")
    }

    async fn other_owner(&self) -> Option<Arc<dyn Executor>> {
        Some(self.executor_in("jobs-of-another"))
    }

    fn evidence(&self, run: RunId) -> Option<PathBuf> {
        Some(self.0.path().join(format!("evidence-{run}")))
    }

    fn patience(&self) -> std::time::Duration {
        std::time::Duration::from_secs(20)
    }

    /// The batch system masks nothing. Where values matter, serve it as a plugin: then the runner does.
    fn declines(&self) -> &[(&'static str, &'static str)] {
        const WHY: &str = "a backend that masks";
        &[
            ("a_value_in_a_variable_arrives_and_is_masked", WHY),
            ("a_value_in_a_file_arrives_and_is_masked", WHY),
            ("a_value_in_the_config_arrives_and_is_masked", WHY),
            ("a_value_written_in_pieces_is_masked", WHY),
        ]
    }
}

mod batch_keeps_the_contract {
    hybrid_runner_core::executor_contract_tests!(super::Place::new());
}
