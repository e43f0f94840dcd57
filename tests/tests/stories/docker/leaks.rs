//! P4 of containers: no value stands anywhere but in the work, also not in the engine.

use hybrid_runner_tests::{Docker, Engine, Story};

use crate::p4_secrets;

#[tokio::test]
async fn no_value_is_in_the_engine_nor_anywhere_else_but_in_the_work() {
    Story::told(240, async |story| {
        // An engine of its own, as every byte that it keeps is searched.
        let Some(engine) = Engine::started(&[]).await else {
            return;
        };
        let docker = Docker::at(&story, engine.address());
        p4_secrets::values_stay(&story, Some((&docker, &engine))).await;
    })
    .await;
}
