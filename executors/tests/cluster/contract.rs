//! The executors over a cluster keep the executor contract.

mod jobs {
    hybrid_runner_core::executor_contract_tests!(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        crate::place::Place::new(crate::over::Over::Jobs)
    );
}

mod workflows {
    hybrid_runner_core::executor_contract_tests!(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        crate::place::Place::new(crate::over::Over::Workflows)
    );
}
