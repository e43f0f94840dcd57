//! The same run, the next attempt.

use futures::StreamExt as _;
use hybrid_runner_core::run::{Failure, FailureClass, Outcome, Retries, State};
use hybrid_runner_core::testing::Script;
use hybrid_runner_core::unit::Period;
use hybrid_runner_core::{Executor as _, Handle, RunId, RunSpec};

use super::{World, held, within};

fn retried(mut spec: RunSpec, limit: u32, delay: Period, on: &[FailureClass]) -> RunSpec {
    spec.retries = Some(Retries {
        limit,
        delay,
        on: on.to_vec(),
    });
    spec
}

#[tokio::test(start_paused = true)]
async fn a_failed_attempt_is_followed_by_the_next_up_to_the_limit() {
    let world = World::new();
    let life = world.open().await;
    let script = Script::new().out("try\n").exit(3);
    let spec = retried(script.spec(RunId::generate()), 2, Period::seconds(300), &[]);
    life.start(&spec).await.unwrap();
    let failure = life.failure(spec.run).await;
    assert_eq!(
        (failure.class, failure.exit_code),
        (FailureClass::Exit, Some(3))
    );
    assert_eq!(world.backend.starts().len(), 3);
    world.assert_nothing_began_twice();
    assert_eq!(life.log(spec.run, None).await.0, "try\ntry\ntry\n");
}

#[tokio::test(start_paused = true)]
async fn the_log_goes_on_from_any_cursor_across_attempts() {
    let world = World::new();
    let life = world.open().await;
    let script = Script::new().out("a").out("b").exit(1);
    let spec = retried(script.spec(RunId::generate()), 1, Period::ZERO, &[]);
    life.start(&spec).await.unwrap();
    life.failure(spec.run).await;
    let mut chunks = futures::StreamExt::boxed(hybrid_runner_core::Executor::logs(
        &life.runner,
        &hybrid_runner_core::Handle::of(spec.run),
        None,
    ));
    let mut rest = "abab".to_owned();
    assert_eq!(life.log(spec.run, None).await.0, rest);
    while let Some(chunk) = within(futures::StreamExt::next(&mut chunks)).await {
        rest.remove(0);
        assert_eq!(life.log(spec.run, Some(chunk.unwrap().next)).await.0, rest);
    }
    assert_eq!(rest, "");
}

#[tokio::test(start_paused = true)]
async fn a_log_goes_on_in_an_attempt_that_a_restored_journal_does_not_know_yet() {
    let mut world = World::new();
    let life = world.open().await;
    let spec = retried(held(), 1, Period::seconds(600), &[]);
    life.start(&spec).await.unwrap();
    life.running(spec.run).await;
    life.drain().await;
    let copy = tempfile::tempdir().unwrap();
    let journal = |disk: &tempfile::TempDir| disk.path().join("state.db");
    std::fs::copy(journal(&world.disk), journal(&copy)).unwrap();
    let life = world.open().await;
    world
        .first(spec.run)
        .finish(Outcome::Failed(Failure::exit(1)));
    life.level(spec.run, |level| {
        level.attempt == 2 && level.state == State::Running
    })
    .await;
    let second = world.backend.control(spec.run.attempt(2));
    second.emit("one\n");
    let run = Handle::of(spec.run);
    let first = within(life.runner.logs(&run, None).next()).await.unwrap();
    life.kill().await;
    world.disk = copy;
    let life = world.open().await;
    let rest = life.log(spec.run, Some(first.unwrap().next));
    second.emit("two\n");
    second.finish(Outcome::Succeeded);
    assert_eq!(rest.await.0, "two\n");
    assert_eq!(life.outcome(spec.run).await, Outcome::Succeeded);
    world.assert_nothing_began_twice();
}

#[tokio::test(start_paused = true)]
async fn only_the_wanted_failures_are_tried_again() {
    let world = World::new();
    let life = world.open().await;
    let spec = retried(
        super::spec(["false"]),
        2,
        Period::ZERO,
        &[FailureClass::Evicted],
    );
    life.start(&spec).await.unwrap();
    life.failure(spec.run).await;
    assert_eq!(world.backend.starts().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_delay_survives_a_restart() {
    let world = World::new();
    let life = world.open().await;
    let spec = retried(held(), 1, Period::seconds(600), &[]);
    life.start(&spec).await.unwrap();
    life.running(spec.run).await;
    world
        .first(spec.run)
        .finish(Outcome::Failed(Failure::exit(1)));
    let waiting = life.level(spec.run, |level| level.attempt == 2).await;
    assert_eq!(waiting.state, State::Queued);
    assert!(waiting.message.unwrap().contains("attempt 1 failed (exit)"));
    life.kill().await;
    let began = tokio::time::Instant::now();
    let life = world.open().await;
    let running = life.running(spec.run).await;
    assert_eq!(running.attempt, 2);
    assert!(began.elapsed() > std::time::Duration::from_secs(500));
    world.assert_nothing_began_twice();
}

#[tokio::test(start_paused = true)]
async fn killed_at_any_moment_around_a_retry_nothing_begins_twice_and_the_end_is_right() {
    for polls in 0..80 {
        let world = World::new();
        let life = world.open().await;
        let spec = retried(held(), 1, Period::ZERO, &[]);
        life.start(&spec).await.unwrap();
        life.running(spec.run).await;
        world
            .first(spec.run)
            .finish(Outcome::Failed(Failure::exit(1)));
        for _ in 0..polls {
            tokio::task::yield_now().await;
        }
        life.kill().await;
        let life = world.open().await;
        life.level(spec.run, |level| {
            level.attempt == 2 && level.state == State::Running
        })
        .await;
        world
            .backend
            .control(spec.run.attempt(2))
            .finish(Outcome::Succeeded);
        assert_eq!(life.outcome(spec.run).await, Outcome::Succeeded);
        assert_eq!(
            world.backend.starts().len(),
            2,
            "killed after {polls} polls"
        );
        world.assert_nothing_began_twice();
    }
}

#[tokio::test(start_paused = true)]
async fn a_journal_that_is_older_than_the_truth_takes_up_the_later_attempt() {
    let mut world = World::new();
    let life = world.open().await;
    let spec = retried(held(), 1, Period::ZERO, &[]);
    life.start(&spec).await.unwrap();
    life.running(spec.run).await;
    life.drain().await;
    let copy = tempfile::tempdir().unwrap();
    std::fs::copy(
        world.disk.path().join("state.db"),
        copy.path().join("state.db"),
    )
    .unwrap();
    let life = world.open().await;
    world
        .first(spec.run)
        .finish(Outcome::Failed(Failure::exit(1)));
    life.level(spec.run, |level| {
        level.attempt == 2 && level.state == State::Running
    })
    .await;
    life.kill().await;
    world.disk = copy;
    let life = world.open().await;
    life.level(spec.run, |level| {
        level.attempt == 2 && level.state == State::Running
    })
    .await;
    world.assert_nothing_began_twice();
}
