//! Stop wins over what has not happened, never over an end that already has.

use std::time::Duration;

use futures::StreamExt as _;
use hybrid_runner_core::error::ErrorKind;
use hybrid_runner_core::run::{Failure, Outcome, Retries, State, Status};
use hybrid_runner_core::unit::Period;
use hybrid_runner_core::{Executor as _, Handle, RunSpec};

use super::{Life, World, held, kind, spec, start, within};

async fn assert_stopped(life: &Life, world: &World, spec: &RunSpec) {
    assert!(matches!(
        life.outcome(spec.run).await,
        Outcome::Stopped { .. }
    ));
    assert!(!world.first(spec.run).is_alive());
    assert_eq!(kind(life.start(spec).await), ErrorKind::Conflict);
}

#[tokio::test(start_paused = true)]
async fn stopped_while_resolving_nothing_is_made() {
    let world = World::new();
    let life = world.open().await;
    world.provider.hold_reads();
    let mut spec = held();
    spec.env.insert("A".to_owned(), "secret:/a".to_owned());
    life.start(&spec).await.unwrap();
    life.level(spec.run, |level| level.state == State::Starting)
        .await;
    life.stop(spec.run).await;
    assert_stopped(&life, &world, &spec).await;
    assert_eq!(world.backend.known(), []);
}

#[tokio::test(start_paused = true)]
async fn stopped_while_starting_it_never_begins() {
    let world = World::new();
    let life = world.open().await;
    world.backend.hold_starts();
    let spec = held();
    life.start(&spec).await.unwrap();
    within(world.first(spec.run).known()).await;
    life.stop(spec.run).await;
    world.backend.release_starts();
    assert_stopped(&life, &world, &spec).await;
    assert_eq!(world.first(spec.run).starts(), 0);
}

#[tokio::test(start_paused = true)]
async fn stopped_while_running_it_ends_within_grace_and_says_who() {
    let world = World::new();
    let life = world.open().await;
    let spec = held();
    life.start(&spec).await.unwrap();
    life.running(spec.run).await;
    let by = Handle::with_state(spec.run, 1, serde_json::json!({ "by": "ann" }));
    within(life.runner.stop(&by, Duration::from_secs(3)))
        .await
        .unwrap();
    within(world.first(spec.run).stopping()).await;
    assert_eq!(
        world.first(spec.run).stop_asked(),
        Some(Duration::from_secs(3))
    );
    assert_eq!(
        life.outcome(spec.run).await,
        Outcome::Stopped {
            by: Some("ann".to_owned())
        }
    );
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_refuses_to_stop_it_is_asked_again_and_the_run_says_so() {
    let world = World::new();
    let life = world.open().await;
    let spec = held();
    life.start(&spec).await.unwrap();
    life.running(spec.run).await;
    let can = world.backend.executor().capabilities().await.unwrap();
    let mut cannot = can.clone();
    cannot.missing = vec!["stop".to_owned()];
    world.backend.set_capabilities(cannot);
    life.stop(spec.run).await;
    let says = |words: &'static str| {
        move |level: &Status| {
            level
                .message
                .as_deref()
                .is_some_and(|text| text.contains(words))
        }
    };
    let refusal = "refuses to stop it: the fake backend cannot";
    life.level(spec.run, says(refusal)).await;
    // What the backend tells meanwhile does not hide it.
    within(world.first(spec.run).called("stop", 3)).await;
    world.first(spec.run).message("busy");
    within(world.first(spec.run).called("stop", 5)).await;
    life.level(spec.run, says(refusal)).await;
    world.backend.set_capabilities(can);
    assert_stopped(&life, &world, &spec).await;
}

#[tokio::test(start_paused = true)]
async fn stopped_in_its_retry_delay_it_is_not_tried_again() {
    let world = World::new();
    let life = world.open().await;
    let mut spec = spec(["false"]);
    spec.retries = Some(Retries {
        limit: 3,
        delay: Period::seconds(600),
        on: Vec::new(),
    });
    life.start(&spec).await.unwrap();
    life.level(spec.run, |level| level.attempt == 2).await;
    life.stop(spec.run).await;
    assert_stopped(&life, &world, &spec).await;
    assert_eq!(world.backend.starts().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_failed_before_the_stop_reached_it_is_not_tried_again() {
    let world = World::new();
    let life = world.open().await;
    let mut spec = held();
    spec.retries = Some(Retries {
        limit: 3,
        delay: Period::ZERO,
        on: Vec::new(),
    });
    life.start(&spec).await.unwrap();
    life.running(spec.run).await;
    world.backend.set_reachable(false);
    life.stop(spec.run).await;
    world
        .first(spec.run)
        .finish(Outcome::Failed(Failure::exit(1)));
    world.backend.set_reachable(true);
    assert_stopped(&life, &world, &spec).await;
    assert_eq!(world.backend.starts().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_end_that_has_happened_stands_against_a_stop() {
    let world = World::new();
    let life = world.open().await;
    let spec = held();
    life.start(&spec).await.unwrap();
    life.running(spec.run).await;
    // The end has happened, and the runner has not heard of it yet.
    world.backend.set_reachable(false);
    world.first(spec.run).finish(Outcome::Succeeded);
    life.stop(spec.run).await;
    world.backend.set_reachable(true);
    assert_eq!(life.outcome(spec.run).await, Outcome::Succeeded);
    life.stop(spec.run).await;
    assert_eq!(life.outcome(spec.run).await, Outcome::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn an_answered_stop_is_carried_out_by_the_next_life() {
    let world = World::new();
    let life = world.open().await;
    let spec = held();
    life.start(&spec).await.unwrap();
    life.running(spec.run).await;
    world.backend.set_reachable(false);
    life.stop(spec.run).await;
    life.kill().await;
    let life = world.open().await;
    world.backend.set_reachable(true);
    assert_stopped(&life, &world, &spec).await;
}

#[tokio::test(start_paused = true)]
async fn a_stop_of_a_start_of_an_earlier_life_is_carried_out() {
    let world = World::new();
    let life = world.open().await;
    world.backend.hold_starts();
    let spec = held();
    life.start(&spec).await.unwrap();
    within(world.first(spec.run).known()).await;
    world.backend.set_reachable(false);
    life.stop(spec.run).await;
    life.kill().await;
    world.backend.release_starts();
    world.backend.set_reachable(true);
    let life = world.open().await;
    assert_stopped(&life, &world, &spec).await;
    assert_eq!(world.first(spec.run).starts(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_run_stopped_before_it_came_never_starts() {
    let world = World::new();
    let life = world.open().await;
    let spec = held();
    let by = Handle::with_state(spec.run, 1, serde_json::json!({ "by": "ann" }));
    within(life.runner.stop(&by, Duration::ZERO)).await.unwrap();
    assert_eq!(
        life.outcome(spec.run).await,
        Outcome::Stopped {
            by: Some("ann".to_owned())
        }
    );
    assert_eq!(kind(life.start(&spec).await), ErrorKind::Conflict);
    life.kill().await;
    let life = world.open().await;
    assert_stopped(&life, &world, &spec).await;
    life.remove(spec.run).await.unwrap();
    assert!(matches!(life.outcome(spec.run).await, Outcome::Lost { .. }));
    assert_eq!(kind(life.start(&spec).await), ErrorKind::Conflict);
}

#[tokio::test(start_paused = true)]
async fn a_stop_at_any_moment_of_a_start_leaves_nothing_alive() {
    for polls in 0..60 {
        let world = World::new();
        let life = world.open().await;
        let spec = held();
        let mut starting = Box::pin(start(life.runner.clone(), spec.clone()));
        let mut answered = false;
        for _ in 0..polls {
            tokio::select! {
                biased;
                _ = &mut starting, if !answered => answered = true,
                () = tokio::task::yield_now() => {}
            }
        }
        life.stop(spec.run).await;
        if !answered {
            drop(within(starting).await);
        }
        let outcome = life.outcome(spec.run).await;
        assert!(
            matches!(outcome, Outcome::Stopped { .. }),
            "after {polls} polls: {outcome:?} {:?}",
            world
                .backend
                .calls()
                .iter()
                .map(|call| call.method)
                .collect::<Vec<_>>()
        );
        assert!(!world.first(spec.run).is_alive(), "after {polls} polls");
    }
}

#[tokio::test(start_paused = true)]
async fn everybody_who_watches_sees_the_one_end() {
    let world = World::new();
    let life = world.open().await;
    let spec = held();
    life.start(&spec).await.unwrap();
    life.running(spec.run).await;
    let watchers: Vec<_> = (0..5)
        .map(|_| life.runner.watch(&Handle::of(spec.run)).collect::<Vec<_>>())
        .collect();
    life.stop(spec.run).await;
    for levels in within(futures::future::join_all(watchers)).await {
        let last = levels.last().unwrap().as_ref().unwrap();
        assert_eq!(last.outcome(), Some(&Outcome::Stopped { by: None }));
    }
}
