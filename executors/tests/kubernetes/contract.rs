//! The Kubernetes executor keeps the executor contract.

use crate::place::Place;

hybrid_runner_core::executor_contract_tests!(
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    Place::new()
);
