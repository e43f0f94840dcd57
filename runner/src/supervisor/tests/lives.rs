//! What a new life of the runner goes on with, after `kill -9` of the one before.

use std::time::Duration;

use futures::StreamExt as _;
use hybrid_runner_core::log::{LogCursor, LogItem};
use hybrid_runner_core::run::{Failure, Outcome, Retries, State};
use hybrid_runner_core::testing::{Control, Script};
use hybrid_runner_core::unit::Period;
use hybrid_runner_core::{Executor as _, Handle, Progress, RunId, RunSpec, Secrets, Status};

use super::{Life, World, held, start, within};

#[tokio::test(start_paused = true)]
async fn a_run_outlives_its_runner_and_its_log_goes_on_where_it_was() {
    let world = World::new();
    let life = world.open().await;
    let spec = held();
    life.start(&spec).await.unwrap();
    life.running(spec.run).await;
    world.first(spec.run).emit("one\n");
    let mut chunks = life.runner.logs(&Handle::of(spec.run), None);
    let first = within(futures::StreamExt::next(&mut chunks))
        .await
        .unwrap()
        .unwrap();
    drop(chunks);
    life.kill().await;
    world.first(spec.run).emit("two\n");
    let life = world.open().await;
    life.running(spec.run).await;
    world.first(spec.run).emit("three\n");
    world.first(spec.run).finish(Outcome::Succeeded);
    assert_eq!(life.log(spec.run, Some(first.next)).await.0, "two\nthree\n");
    assert_eq!(life.outcome(spec.run).await, Outcome::Succeeded);
    assert_eq!(world.first(spec.run).starts(), 1);
}

/// Has a line written, and perhaps reads it: the place behind it.
async fn first_line(life: &Life, first: &Control, run: &Handle, reads: bool) -> Option<LogCursor> {
    first.emit("one\n");
    if !reads {
        return None;
    }
    let mut chunks = life.runner.logs(run, None);
    let chunk = within(chunks.next()).await?;
    Some(chunk.unwrap().next)
}

#[tokio::test(start_paused = true)]
async fn the_log_that_goes_with_a_lost_run_is_a_gap() {
    for has_read in [false, true] {
        let world = World::new();
        let life = world.open().await;
        let spec = held();
        life.start(&spec).await.unwrap();
        life.running(spec.run).await;
        let handle = Handle::of(spec.run);
        let first = world.first(spec.run);
        let from = first_line(&life, &first, &handle, has_read).await;
        life.kill().await;
        first.vanish();
        let life = world.open().await;
        let outcome = life.outcome(spec.run).await;
        assert!(matches!(outcome, Outcome::Lost { .. }), "{outcome}");
        let left: Vec<_> = within(life.runner.logs(&handle, from).collect()).await;
        let [Ok(gap)] = left.as_slice() else {
            panic!("{left:?}")
        };
        assert!(matches!(gap.item, LogItem::Gap { .. }), "{gap:?}");
        let behind = life.log(spec.run, Some(gap.next.clone())).await;
        assert_eq!(behind.0, "");
    }
}

#[tokio::test(start_paused = true)]
async fn the_log_of_an_attempt_is_read_although_that_of_the_one_before_is_gone() {
    for has_read in [false, true] {
        let world = World::new();
        let life = world.open().await;
        let spec = once_more(held());
        life.start(&spec).await.unwrap();
        life.running(spec.run).await;
        let handle = Handle::of(spec.run);
        let first = world.first(spec.run);
        let from = first_line(&life, &first, &handle, has_read).await;
        first.finish(Outcome::Failed(Failure::exit(3)));
        let second = world.backend.control(spec.run.attempt(2));
        within(second.begun()).await;
        first.vanish();
        second.emit("two\n");
        second.finish(Outcome::Succeeded);
        assert_eq!(life.outcome(spec.run).await, Outcome::Succeeded);
        let chunks: Vec<_> = within(life.runner.logs(&handle, from).collect()).await;
        let [Ok(gap), Ok(second_log), ..] = chunks.as_slice() else {
            panic!("{chunks:?}")
        };
        assert!(matches!(gap.item, LogItem::Gap { .. }), "{gap:?}");
        assert!(
            matches!(&second_log.item, LogItem::Data { bytes, .. } if *bytes == "two\n"),
            "{second_log:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn an_end_that_came_while_nobody_looked_is_told() {
    let world = World::new();
    let life = world.open().await;
    let spec = held();
    life.start(&spec).await.unwrap();
    life.running(spec.run).await;
    life.kill().await;
    world.first(spec.run).finish(Outcome::Succeeded);
    let life = world.open().await;
    assert_eq!(life.outcome(spec.run).await, Outcome::Succeeded);
    life.kill().await;
    let life = world.open().await;
    assert_eq!(life.outcome(spec.run).await, Outcome::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_resolved_again_for_an_attempt_that_lives() {
    let world = World::new();
    let life = world.open().await;
    let mut spec = held();
    spec.env.insert("A".to_owned(), "secret:/a".to_owned());
    life.start(&spec).await.unwrap();
    life.running(spec.run).await;
    life.kill().await;
    world.provider.set_reachable(false);
    let life = world.open().await;
    life.running(spec.run).await;
    world.first(spec.run).finish(Outcome::Succeeded);
    assert_eq!(life.outcome(spec.run).await, Outcome::Succeeded);
    assert_eq!(world.provider.reads_of("/a"), 1);
}

#[tokio::test(start_paused = true)]
async fn killed_while_resolving_the_run_is_begun_by_the_next_life() {
    let world = World::new();
    let life = world.open().await;
    world.provider.hold_reads();
    let mut spec = held();
    spec.env.insert("A".to_owned(), "secret:/a".to_owned());
    life.start(&spec).await.unwrap();
    life.level(spec.run, |level| level.state == State::Starting)
        .await;
    life.kill().await;
    world.provider.release_reads();
    let life = world.open().await;
    life.running(spec.run).await;
    assert_eq!(world.first(spec.run).starts(), 1);
}

#[tokio::test(start_paused = true)]
async fn killed_while_starting_the_half_done_start_is_completed() {
    let world = World::new();
    let life = world.open().await;
    world.backend.hold_starts();
    let spec = held();
    life.start(&spec).await.unwrap();
    within(world.first(spec.run).known()).await;
    life.kill().await;
    world.backend.release_starts();
    let life = world.open().await;
    life.running(spec.run).await;
    assert_eq!(world.first(spec.run).starts(), 1);
}

#[tokio::test(start_paused = true)]
async fn killed_at_any_moment_of_a_start_nothing_begins_twice_and_all_ends() {
    for polls in 0..60 {
        let world = World::new();
        let life = world.open().await;
        let spec = Script::new().out("x").spec(RunId::generate());
        let mut starting = Box::pin(start(life.runner.clone(), spec.clone()));
        let mut accepted = false;
        for _ in 0..polls {
            tokio::select! {
                biased;
                answer = &mut starting, if !accepted => accepted = answer.is_ok(),
                () = tokio::task::yield_now() => {}
            }
        }
        drop(starting);
        life.kill().await;
        let life = world.open().await;
        if !accepted {
            life.start(&spec).await.unwrap();
        }
        assert_eq!(life.outcome(spec.run).await, Outcome::Succeeded);
        assert_eq!(life.log(spec.run, None).await.0, "x");
        assert_eq!(
            world.first(spec.run).starts(),
            1,
            "killed after {polls} polls"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_goes_away_ends_no_run() {
    let world = World::new();
    let life = world.open().await;
    let spec = held();
    life.start(&spec).await.unwrap();
    life.running(spec.run).await;
    world.backend.set_reachable(false);
    let told = life.level(spec.run, |level| level.message.is_some()).await;
    assert_eq!(told.state, State::Running);
    world.first(spec.run).finish(Outcome::Succeeded);
    world.backend.set_reachable(true);
    assert_eq!(life.outcome(spec.run).await, Outcome::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn a_run_that_its_backend_has_lost_is_lost() {
    let world = World::new();
    let life = world.open().await;
    let spec = held();
    life.start(&spec).await.unwrap();
    life.running(spec.run).await;
    life.kill().await;
    world.first(spec.run).vanish();
    let life = world.open().await;
    assert!(matches!(life.outcome(spec.run).await, Outcome::Lost { .. }));
}

#[tokio::test(start_paused = true)]
async fn a_hundred_runs_are_taken_up_with_one_list_and_without_a_write() {
    let world = World::new();
    let life = world.open().await;
    let specs: Vec<_> = (0..100).map(|_| held()).collect();
    for spec in &specs {
        life.start(spec).await.unwrap();
        life.running(spec.run).await;
    }
    life.kill().await;
    let lists = world
        .backend
        .calls()
        .iter()
        .filter(|call| call.method == "list")
        .count();
    let life = world.open().await;
    let before = life.runner.shared.journal.stats();
    for spec in &specs {
        life.running(spec.run).await;
    }
    let after = life.runner.shared.journal.stats();
    assert_eq!((before.writes, before.syncs), (after.writes, after.syncs));
    assert_eq!(
        world
            .backend
            .calls()
            .iter()
            .filter(|call| call.method == "list")
            .count(),
        lists + 1
    );
    world.assert_nothing_began_twice();
}

#[tokio::test(start_paused = true)]
async fn a_damaged_journal_is_set_aside_and_what_lives_is_adopted() {
    let world = World::new();
    let life = world.open().await;
    let spec = held();
    life.start(&spec).await.unwrap();
    life.running(spec.run).await;
    life.drain().await;
    world.damage();
    let life = world.open().await;
    let set_aside = |entry: std::io::Result<std::fs::DirEntry>| {
        entry
            .unwrap()
            .file_name()
            .to_string_lossy()
            .contains("unreadable")
    };
    assert!(std::fs::read_dir(world.disk.path()).unwrap().any(set_aside));
    life.running(spec.run).await;
    let listed = life.listed().await;
    assert_eq!(listed[0].run, spec.run);
    assert_eq!(
        (&listed[0].state["spec"], &listed[0].state["adopted"]),
        (&serde_json::Value::Null, &true.into())
    );
    // The server tells the spec; the run is known then, and not started again.
    life.start(&spec).await.unwrap();
    assert_eq!(life.listed().await[0].state["spec"]["name"], "a");
    assert_eq!(world.first(spec.run).starts(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_half_done_start_that_was_adopted_is_completed_once_its_spec_is_told() {
    let world = World::new();
    let spec = held();
    // Left behind by a runner whose disk is gone.
    world.backend.hold_starts();
    let executor = world.backend.executor();
    let (none, nobody, attempt) = (Secrets::none(), Progress::none(), spec.attempt(1));
    let starting = executor.start(&attempt, &none, &nobody);
    tokio::select! {
        _ = starting => unreachable!("starts are held"),
        () = within(async { world.backend.control(attempt.run).known().await }) => {}
    }
    world.backend.release_starts();
    let life = world.open().await;
    life.level(spec.run, |level| level.state == State::Starting)
        .await;
    assert_eq!(world.first(spec.run).starts(), 0);
    life.start(&spec).await.unwrap();
    life.running(spec.run).await;
    assert_eq!(world.first(spec.run).starts(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_record_that_cannot_be_read_costs_no_run_that_lives() {
    let world = World::new();
    let life = world.open().await;
    let spec = held();
    life.start(&spec).await.unwrap();
    life.running(spec.run).await;
    life.runner.shared.journal.damage(spec.run).await;
    life.kill().await;
    let life = world.open().await;
    life.running(spec.run).await;
    world.first(spec.run).finish(Outcome::Succeeded);
    assert_eq!(life.outcome(spec.run).await, Outcome::Succeeded);
    assert_eq!(world.first(spec.run).starts(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_run_whose_executor_is_configured_no_more_waits_for_it() {
    let world = World::new();
    let life = world.open().await;
    let spec = held();
    life.start(&spec).await.unwrap();
    life.running(spec.run).await;
    life.kill().await;
    let renamed = || {
        let mut parts = world.parts(world.disk.path());
        let executor = parts.executors.pop_first().unwrap().1;
        parts.executors.insert("renamed".parse().unwrap(), executor);
        parts
    };
    let life = world.open_with(renamed).await;
    let told = life.level(spec.run, |level| level.message.is_some()).await;
    assert!(told.message.unwrap().contains("`fake` is not configured"));
    life.kill().await;
    let life = world.open().await;
    world.first(spec.run).finish(Outcome::Succeeded);
    assert_eq!(life.outcome(spec.run).await, Outcome::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn one_data_directory_has_one_runner() {
    let world = World::new();
    let _life = world.open().await;
    let second = within(super::Runner::open_in(
        world.parts(world.disk.path()),
        world.boot.clone(),
    ))
    .await;
    assert_eq!(
        second.unwrap_err().kind(),
        hybrid_runner_core::ErrorKind::Conflict
    );
}

#[tokio::test(start_paused = true)]
async fn opening_does_not_wait_for_a_backend_that_hangs() {
    let world = World::new();
    let life = world.open().await;
    let spec = held();
    life.start(&spec).await.unwrap();
    life.running(spec.run).await;
    life.kill().await;
    world.backend.set_latency(Duration::from_hours(1));
    let began = tokio::time::Instant::now();
    let life = world.open().await;
    assert!(began.elapsed() < Duration::from_secs(5));
    world.backend.set_latency(Duration::ZERO);
    life.running(spec.run).await;
}

fn once_more(mut spec: RunSpec) -> RunSpec {
    spec.retries = Some(Retries {
        limit: 1,
        delay: Period::ZERO,
        on: Vec::new(),
    });
    spec
}

/// A run that is tried again, its first attempt in the backend, and a runner that has lost its journal.
async fn forgotten() -> (World, Life, RunSpec) {
    let world = World::new();
    let life = world.open().await;
    let spec = once_more(held());
    life.start(&spec).await.unwrap();
    life.running(spec.run).await;
    life.drain().await;
    world.damage();
    let life = world.open().await;
    let failed = Outcome::Failed(Failure::exit(3));
    world.first(spec.run).finish(failed);
    (world, life, spec)
}

#[tokio::test(start_paused = true)]
async fn a_run_that_a_lost_journal_forgot_is_tried_again_once_its_spec_is_told() {
    let (world, life, spec) = forgotten().await;
    // As long as nobody has told what it is.
    tokio::time::sleep(Duration::from_mins(10)).await;
    life.start(&spec).await.unwrap();
    let second = world.backend.control(spec.run.attempt(2));
    within(second.begun()).await;
    second.finish(Outcome::Succeeded);
    assert_eq!(life.outcome(spec.run).await, Outcome::Succeeded);
    world.assert_nothing_began_twice();
}

#[tokio::test(start_paused = true)]
async fn a_run_of_which_nobody_knows_the_spec_ends_with_its_attempt() {
    let (_world, life, spec) = forgotten().await;
    assert_eq!(life.failure(spec.run).await.exit_code, Some(3));
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_only_the_server_knows_of_is_not_started_again() {
    let (world, life, mut spec) = forgotten().await;
    spec.reached = Some(2);
    life.start(&spec).await.unwrap();
    let end = life.level(spec.run, Status::is_finished).await;
    assert!(
        matches!(end.outcome(), Some(Outcome::Lost { .. })),
        "{end:?}"
    );
    assert_eq!(end.attempt, 2);
    assert_eq!(world.backend.starts().len(), 1);
    // What it wrote is not known.
    for from in [None, Some("2:somewhere".parse().unwrap())] {
        let chunks = life.runner.logs(&Handle::of(spec.run), from);
        let chunks: Vec<_> = within(chunks.collect()).await;
        let [.., Ok(gap)] = chunks.as_slice() else {
            panic!("{chunks:?}")
        };
        assert!(matches!(gap.item, LogItem::Gap { .. }), "{gap:?}");
        let behind = life.log(spec.run, Some(gap.next.clone())).await;
        assert_eq!(behind.0, "");
    }
}
