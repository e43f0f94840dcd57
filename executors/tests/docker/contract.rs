//! The Docker executor keeps the executor contract.

use crate::place::Place;

mod here {
    hybrid_runner_core::executor_contract_tests!(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        super::Place::new()
    );
}

mod over_a_session {
    hybrid_runner_core::executor_contract_tests!(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        hybrid_runner_core::testing::OverSession::new(super::Place::new())
    );
}
