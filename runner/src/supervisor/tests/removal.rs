//! An acknowledged outcome is forgotten everywhere, but for a grave.

use std::time::Duration;

use hybrid_runner_core::error::ErrorKind;
use hybrid_runner_core::run::{Outcome, Retries};
use hybrid_runner_core::unit::Period;
use hybrid_runner_core::{Executor as _, Progress, RunId, Secrets};

use super::{World, held, kind, spec, within};

#[tokio::test(start_paused = true)]
async fn all_attempts_are_removed_and_the_run_never_starts_again() {
    let world = World::new();
    let life = world.open().await;
    let mut spec = spec(["false"]);
    spec.retries = Some(Retries {
        limit: 2,
        delay: Period::ZERO,
        on: Vec::new(),
    });
    life.start(&spec).await.unwrap();
    life.failure(spec.run).await;
    assert_eq!(world.backend.known().len(), 3);
    life.remove(spec.run).await.unwrap();
    assert_eq!(world.backend.known(), []);
    assert_eq!(life.listed().await, []);
    assert!(matches!(life.outcome(spec.run).await, Outcome::Lost { .. }));
    life.remove(spec.run).await.unwrap();
    assert_eq!(kind(life.start(&spec).await), ErrorKind::Conflict);
    life.kill().await;
    let life = world.open().await;
    assert_eq!(kind(life.start(&spec).await), ErrorKind::Conflict);
    world.assert_nothing_began_twice();
}

#[tokio::test(start_paused = true)]
async fn a_run_that_has_not_ended_and_one_that_nobody_knows() {
    let world = World::new();
    let life = world.open().await;
    let spec = held();
    life.start(&spec).await.unwrap();
    assert_eq!(kind(life.remove(spec.run).await), ErrorKind::Conflict);
    life.remove(RunId::generate()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_outcome_that_nobody_acknowledged_stays() {
    let world = World::new();
    let life = world.open().await;
    let spec = spec(["true"]);
    life.start(&spec).await.unwrap();
    life.outcome(spec.run).await;
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_hours(30 * 24)).await;
    }
    life.kill().await;
    let life = world.open().await;
    assert_eq!(life.outcome(spec.run).await, Outcome::Succeeded);
    assert_eq!(life.listed().await.len(), 1);
    assert_eq!(world.backend.known().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_removal_goes_on_while_the_backend_is_away_also_in_the_next_life() {
    let world = World::new();
    let life = world.open().await;
    let spec = spec(["true"]);
    life.start(&spec).await.unwrap();
    life.outcome(spec.run).await;
    world.backend.set_reachable(false);
    life.remove(spec.run).await.unwrap();
    assert_eq!(life.listed().await, []);
    life.kill().await;
    let life = world.open().await;
    assert_eq!(life.listed().await, []);
    assert_eq!(kind(life.start(&spec).await), ErrorKind::Conflict);
    world.backend.set_reachable(true);
    within(world.first(spec.run).removed()).await;
}

#[tokio::test(start_paused = true)]
async fn what_a_backend_shows_of_a_buried_run_is_swept_away() {
    let world = World::new();
    let life = world.open().await;
    let spec = spec(["true"]);
    life.start(&spec).await.unwrap();
    life.outcome(spec.run).await;
    life.remove(spec.run).await.unwrap();
    life.kill().await;
    // A stray of that run lives on, as after a backend was put back to an old copy.
    let mut stray = held().attempt(2);
    stray.run = spec.run.attempt(2);
    let executor = world.backend.executor();
    within(executor.start(&stray, &Secrets::none(), &Progress::none()))
        .await
        .unwrap();
    let life = world.open().await;
    within(world.backend.control(stray.run).removed()).await;
    assert_eq!(life.listed().await, []);
}

#[tokio::test(start_paused = true)]
async fn the_list_has_each_run_with_its_spec() {
    let world = World::new();
    let life = world.open().await;
    let (one, two) = (held(), spec(["true"]));
    life.start(&one).await.unwrap();
    life.start(&two).await.unwrap();
    life.outcome(two.run).await;
    let mut listed = life.listed().await;
    listed.sort_by_key(|handle| handle.run);
    let mut wanted = [one, two];
    wanted.sort_by_key(|spec| spec.run);
    for (handle, spec) in listed.iter().zip(&wanted) {
        let told: hybrid_runner_core::RunSpec =
            serde_json::from_value(handle.state["spec"].clone()).unwrap();
        assert_eq!((&handle.run, &told), (&spec.run, spec));
    }
    assert_eq!(listed.len(), 2);
}
