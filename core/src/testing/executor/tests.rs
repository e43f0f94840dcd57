mod the_fake_passes {
    crate::executor_contract_tests!(
        #[tokio::test(start_paused = true)]
        crate::testing::FakeBackend::new()
    );
}
