//! A journal that cannot be written: nothing is promised, nothing breaks, nothing is lost.

use hybrid_runner_core::error::ErrorKind;
use hybrid_runner_core::run::{Failure, FailureClass, Outcome};

use super::{Life, World, held};

async fn fill(life: &Life) {
    life.runner.shared.journal.set_room(false).await;
}

async fn free(life: &Life) {
    life.runner.shared.journal.set_room(true).await;
}

/// A run that does not fit into what is left of a page.
fn big() -> hybrid_runner_core::RunSpec {
    let mut spec = held();
    spec.labels.insert("a".to_owned(), "x".repeat(100_000));
    spec
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_refuses_new_runs_and_names_itself() {
    let world = World::new();
    let life = world.open().await;
    let running = held();
    life.start(&running).await.unwrap();
    life.running(running.run).await;
    fill(&life).await;
    let spec = big();
    let refused = life.start(&spec).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unavailable);
    let report = refused.report();
    assert!(
        report.contains("state.db") && report.contains("no room on the disk"),
        "{report}"
    );
    assert!(
        life.runner
            .snapshot()
            .obstacles()
            .iter()
            .any(|text| text.contains("journal"))
    );
    assert_eq!(world.first(spec.run).starts(), 0);
    assert!(world.first(running.run).is_alive());
    free(&life).await;
    life.start(&spec).await.unwrap();
    life.running(spec.run).await;
    assert_eq!(life.runner.snapshot().obstacles(), [""; 0]);
    assert_eq!(life.runner.snapshot().slots_used, 2);
}

#[tokio::test(start_paused = true)]
async fn an_outcome_waits_for_room_and_is_not_shown_before() {
    let world = World::new();
    let life = world.open().await;
    let spec = held();
    life.start(&spec).await.unwrap();
    life.running(spec.run).await;
    fill(&life).await;
    let failure = Failure::new(FailureClass::Backend, "x".repeat(100_000));
    world
        .first(spec.run)
        .finish(Outcome::Failed(failure.clone()));
    while life.runner.snapshot().journal.is_none() {
        tokio::task::yield_now().await;
    }
    assert_eq!(life.runner.snapshot().runs.running, 1);
    // A stop does not change an end that has happened, and is answered.
    life.stop(spec.run).await;
    free(&life).await;
    let outcome = life.outcome(spec.run).await;
    let Outcome::Failed(told) = outcome else {
        panic!("{outcome}");
    };
    // A text of this length is cut.
    let kept = told.message.split('…').next().unwrap();
    assert!(told.class == failure.class && failure.message.starts_with(kept));
}
