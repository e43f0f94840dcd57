//! What is wrong with a run ends it, with the right class and words; what is wrong with us refuses it.

use std::time::Duration;

use hybrid_runner_core::error::ErrorKind;
use hybrid_runner_core::run::{FailureClass, Outcome, Retries, State};
use hybrid_runner_core::testing::Script;
use hybrid_runner_core::unit::Period;
use hybrid_runner_core::{Error, Executor as _, RunId};

use super::{World, held, kind, spec, start, within};
use crate::config::Resolve;
use crate::policy::Policy;

#[tokio::test(start_paused = true)]
async fn a_run_against_the_policy_fails_before_anything_is_resolved() {
    let mut world = World::new();
    world.policy = Policy {
        commands: Some(vec!["metadata".to_owned()]),
        ..Policy::default()
    };
    let life = world.open().await;
    let mut spec = held();
    spec.env.insert("A".to_owned(), "secret:/a".to_owned());
    life.start(&spec).await.unwrap();
    let failure = life.failure(spec.run).await;
    assert_eq!(failure.class, FailureClass::Policy);
    assert!(
        failure.message.contains(r#"commands = ["by-hand"]"#),
        "{}",
        failure.message
    );
    assert_eq!(world.provider.reads(), []);
    assert_eq!(world.backend.starts().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_secret_that_cannot_be_resolved_fails_the_run_before_it_starts() {
    let world = World::new();
    let life = world.open().await;
    let mut spec = held();
    spec.env.insert("A".to_owned(), "secret:/gone".to_owned());
    life.start(&spec).await.unwrap();
    let failure = life.failure(spec.run).await;
    assert_eq!(failure.class, FailureClass::Secret);
    assert!(
        failure.message.contains("secret:/gone"),
        "{}",
        failure.message
    );
    assert_eq!(world.backend.starts().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn each_kind_of_refusal_stops_the_run_before_it_starts() {
    let world = World::new();
    let life = world.open().await;
    for kind in [
        ErrorKind::NotFound,
        ErrorKind::Denied,
        ErrorKind::Conflict,
        ErrorKind::Unavailable,
        ErrorKind::Invalid,
        ErrorKind::Unsupported,
        ErrorKind::Internal,
    ] {
        let name = format!("/{kind}");
        world.provider.fail(&name, kind, "the store says no");
        let mut spec = held();
        spec.env.insert("A".to_owned(), format!("secret:{name}"));
        life.start(&spec).await.unwrap();
        let failure = life.failure(spec.run).await;
        assert_eq!(failure.class, FailureClass::Secret, "{kind}");
        assert!(
            failure.message.contains("the store says no"),
            "{kind}: {}",
            failure.message
        );
        assert_eq!(failure.may_pass, kind == ErrorKind::Unavailable, "{kind}");
    }
    assert_eq!(world.backend.starts().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn each_attempt_after_the_first_asks_the_store_itself() {
    let world = World::new();
    let life = world.open().await;
    let mut spec = Script::new().exit(3).spec(RunId::generate());
    spec.env.insert("A".to_owned(), "secret:/a".to_owned());
    spec.retries = Some(Retries {
        limit: 2,
        delay: Period::ZERO,
        on: Vec::new(),
    });
    life.start(&spec).await.unwrap();
    life.failure(spec.run).await;
    let fresh: Vec<bool> = world
        .provider
        .reads()
        .iter()
        .map(|name| name.fresh)
        .collect();
    assert_eq!(fresh, [false, true, true]);
}

#[tokio::test(start_paused = true)]
async fn other_rules_are_in_force_for_what_starts_next() {
    let world = World::new();
    let life = world.open().await;
    let mut spec = held();
    spec.env.insert("A".to_owned(), "secret:/a".to_owned());
    let policy = Policy {
        secrets: Some(vec!["store:/other/*".to_owned()]),
        ..Policy::default()
    };
    life.runner.set_rules(crate::supervisor::Rules {
        policy,
        workload: None,
    });
    life.start(&spec).await.unwrap();
    let failure = life.failure(spec.run).await;
    assert_eq!(failure.class, FailureClass::Policy);
}

#[tokio::test(start_paused = true)]
async fn an_unknown_executor_is_told_with_those_there_are() {
    let world = World::new();
    let life = world.open().await;
    let mut spec = held();
    spec.executor = Some("slurm".parse().unwrap());
    life.start(&spec).await.unwrap();
    let failure = life.failure(spec.run).await;
    assert_eq!(failure.class, FailureClass::Spec);
    assert!(
        failure.message.contains("`slurm`") && failure.message.contains("`fake`"),
        "{}",
        failure.message
    );
}

#[tokio::test(start_paused = true)]
async fn a_spec_that_no_backend_can_run_fails_as_such() {
    let world = World::new();
    let life = world.open().await;
    for wrong in [spec([]), {
        let mut spec = held();
        spec.runner = Some("Other".parse().unwrap());
        spec
    }] {
        life.start(&wrong).await.unwrap();
        assert_eq!(life.failure(wrong.run).await.class, FailureClass::Spec);
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_start_fails_by_its_kind_and_leaves_nothing_alive() {
    let world = World::new();
    let life = world.open().await;
    for (kind, class) in [
        (ErrorKind::Unsupported, FailureClass::Spec),
        (ErrorKind::Denied, FailureClass::Denied),
        (ErrorKind::Internal, FailureClass::Backend),
    ] {
        world.backend.fail_next_start(kind, "not here");
        let spec = held();
        life.start(&spec).await.unwrap();
        let failure = life.failure(spec.run).await;
        assert_eq!(
            (failure.class, failure.message.as_str()),
            (class, "not here")
        );
        assert!(!world.first(spec.run).is_alive());
    }
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_is_away_for_a_while_delays_the_start() {
    let world = World::new();
    let life = world.open().await;
    for _ in 0..5 {
        world
            .backend
            .fail_next_start(ErrorKind::Unavailable, "away");
    }
    world.backend.lose_next_reply();
    let spec = held();
    life.start(&spec).await.unwrap();
    life.running(spec.run).await;
    assert_eq!(world.first(spec.run).starts(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_run_that_does_not_begin_in_its_time_is_pending_and_leaves_nothing_alive() {
    let world = World::new();
    let life = world.open().await;
    world.backend.hold_starts();
    let mut spec = held();
    spec.limits.start_timeout = Period::seconds(60);
    life.start(&spec).await.unwrap();
    let failure = life.failure(spec.run).await;
    assert_eq!(failure.class, FailureClass::Pending);
    assert!(failure.message.contains("1m"), "{}", failure.message);
    assert_eq!(failure.source.as_deref(), Some("made; waits to begin"));
    world.backend.release_starts();
    assert!(!world.first(spec.run).is_alive());
    assert_eq!(world.first(spec.run).starts(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_kept_a_run_from_beginning_is_blamed_and_not_its_executor() {
    let world = World::new();
    let life = world.open().await;
    for _ in 0..100 {
        let away = Error::unavailable("failed to pull the image `a:1`")
            .with_class(FailureClass::Image)
            .with_source("the registry is away");
        world.backend.fail_next_start_with(away);
    }
    let mut spec = held();
    spec.limits.start_timeout = Period::seconds(60);
    life.start(&spec).await.unwrap();
    let failure = life.failure(spec.run).await;
    assert_eq!(failure.class, FailureClass::Image);
    assert_eq!(failure.message, "failed to pull the image `a:1`");
    assert_eq!(failure.source.as_deref(), Some("the registry is away"));
}

#[tokio::test(start_paused = true)]
async fn an_end_that_has_happened_wins_over_giving_up() {
    let world = World::new();
    let life = world.open().await;
    world.backend.lose_next_reply();
    for _ in 0..3 {
        world.backend.fail_next_start(ErrorKind::Internal, "broken");
    }
    // The order in line: three errors first; the run is given up after the first of them.
    let spec = spec(["true"]);
    life.start(&spec).await.unwrap();
    assert_eq!(life.failure(spec.run).await.message, "broken");
    // A start that did its work and then answered with an error: its end stands.
    let world = World::new();
    let life = world.open().await;
    world.backend.lose_next_reply();
    let spec = Script::new().out("done\n").spec(RunId::generate());
    life.start(&spec).await.unwrap();
    assert_eq!(life.outcome(spec.run).await, Outcome::Succeeded);
    assert_eq!(life.log(spec.run, None).await.0, "done\n");
}

#[tokio::test(start_paused = true)]
async fn without_a_free_slot_nothing_is_accepted_until_one_is_free() {
    let mut world = World::new();
    world.max_runs = 1;
    let life = world.open().await;
    let (first, second) = (held(), held());
    life.start(&first).await.unwrap();
    let refused = life.start(&second).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unavailable);
    assert_eq!(refused.message(), "no free slot (1 of 1)");
    life.start(&first).await.unwrap();
    life.running(first.run).await;
    world.first(first.run).finish(Outcome::Succeeded);
    life.outcome(first.run).await;
    tokio::task::yield_now().await;
    life.start(&second).await.unwrap();
    life.running(second.run).await;
}

#[tokio::test(start_paused = true)]
async fn a_draining_runner_accepts_nothing_and_lets_its_runs_live() {
    let world = World::new();
    let life = world.open().await;
    let spec = held();
    life.start(&spec).await.unwrap();
    life.running(spec.run).await;
    let runner = life.runner.clone();
    life.drain().await;
    assert!(runner.snapshot().draining);
    assert_eq!(
        kind(within(start(runner, held())).await),
        ErrorKind::Unavailable
    );
    assert!(world.first(spec.run).is_alive());
}

#[tokio::test(start_paused = true)]
async fn only_the_runner_makes_attempts() {
    let world = World::new();
    let life = world.open().await;
    let mut spec = held();
    spec.run = spec.run.attempt(1);
    assert_eq!(kind(life.start(&spec).await), ErrorKind::Invalid);
}

#[tokio::test(start_paused = true)]
async fn where_the_workload_resolves_nothing_is_read() {
    let mut world = World::new();
    world.resolve = Resolve::Workload;
    let life = world.open().await;
    let mut spec = held();
    spec.env.insert("A".to_owned(), "secret:/a".to_owned());
    life.start(&spec).await.unwrap();
    // It gets the reference itself: without one to hand over, the start would be refused.
    life.level(spec.run, |level| level.state == State::Running)
        .await;
    assert_eq!(world.provider.reads(), []);
}

#[tokio::test(start_paused = true)]
async fn what_the_workload_cannot_resolve_itself_fails_before_it_starts() {
    let mut world = World::new();
    world.resolve = Resolve::Workload;
    world.workload = Some(hybrid_runner_secrets::workload::Workload::of_chart(
        "aws", None,
    ));
    let life = world.open().await;
    let mut spec = held();
    spec.env
        .insert("A".to_owned(), "secret:/a#field".to_owned());
    life.start(&spec).await.unwrap();
    let failure = life.failure(spec.run).await;
    assert_eq!(failure.class, FailureClass::Secret);
    assert!(failure.message.contains("`#key`"), "{}", failure.message);
    assert_eq!(world.backend.starts().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_status_tells_times_attempt_and_progress() {
    let world = World::new();
    let life = world.open().await;
    world.backend.hold_starts();
    let spec = held();
    life.start(&spec).await.unwrap();
    let starting = life
        .level(spec.run, |level| {
            level.message.as_deref() == Some("made; waits to begin")
        })
        .await;
    assert_eq!((starting.attempt, &starting.state), (1, &State::Starting));
    world.backend.release_starts();
    let running = life.running(spec.run).await;
    let times = running.times;
    assert!(times.queued.is_some() && times.starting.is_some() && times.running.is_some());
    world.first(spec.run).finish(Outcome::Succeeded);
    let ended = life
        .level(spec.run, hybrid_runner_core::Status::is_finished)
        .await;
    assert_eq!(ended.attempt, 1);
    assert!(ended.times.finished >= ended.times.running);
}

#[tokio::test(start_paused = true)]
async fn the_snapshot_counts_runs_slots_and_troubles() {
    let mut world = World::new();
    world.max_runs = 7;
    let life = world.open().await;
    let (running, ended) = (held(), spec(["true"]));
    life.start(&running).await.unwrap();
    life.start(&ended).await.unwrap();
    life.running(running.run).await;
    life.outcome(ended.run).await;
    tokio::task::yield_now().await;
    let snapshot = life.runner.snapshot();
    assert_eq!((snapshot.runs.running, snapshot.runs.finished), (1, 1));
    assert_eq!((snapshot.slots_used, snapshot.slots), (1, 7));
    assert!(
        snapshot
            .oldest_outcome
            .is_some_and(|age| age < Duration::from_mins(1))
    );
    assert_eq!(snapshot.obstacles(), [""; 0]);
    world.backend.set_reachable(false);
    within(life.runner.check()).await.unwrap_err();
    let obstacles = life.runner.snapshot().obstacles();
    assert!(
        obstacles.len() == 1 && obstacles[0].contains("`fake`"),
        "{obstacles:?}"
    );
    world.backend.set_reachable(true);
    within(life.runner.check()).await.unwrap();
    assert_eq!(life.runner.snapshot().obstacles(), [""; 0]);
}
