//! A start that is delivered twice starts once, whatever was lost in between. The runner decides.

use futures::StreamExt as _;
use hybrid_runner_core::error::ErrorKind;
use hybrid_runner_core::incarnation::Incarnation;
use hybrid_runner_core::log::LogItem;
use hybrid_runner_core::run::{Outcome, RunSpec, Status};
use hybrid_runner_core::{Executor as _, Handle};
use tempfile::TempDir;

use super::{Life, World, held, kind, spec, within};

/// A run as a server sends it that first sent it to that life.
fn sent_under(incarnation: &Incarnation, mut spec: RunSpec) -> RunSpec {
    spec.first_sent = Some(incarnation.clone());
    spec
}

async fn is_lost(life: &Life, spec: &RunSpec) -> String {
    match life.outcome(spec.run).await {
        Outcome::Lost { why } => why,
        other => panic!("ended as {other:?}"),
    }
}

/// One run that lives and one that its backend has forgotten, both sent under the life's next connect.
async fn one_living_one_forgotten(world: &World, life: &Life) -> (RunSpec, RunSpec) {
    let incarnation = life.incarnation().await;
    let living = sent_under(&incarnation, held());
    let forgotten = sent_under(&incarnation, spec(["true"]));
    for spec in [&living, &forgotten] {
        life.start(spec).await.unwrap();
    }
    life.running(living.run).await;
    life.outcome(forgotten.run).await;
    world.first(forgotten.run).vanish();
    (living, forgotten)
}

/// Delivers both again: the living one is adopted, the other is lost, and nothing begins twice.
async fn deliver_again(
    world: &World,
    life: &Life,
    living: &RunSpec,
    forgotten: &RunSpec,
) -> String {
    life.start(living).await.unwrap();
    life.running(living.run).await;
    life.start(forgotten).await.unwrap();
    let why = is_lost(life, forgotten).await;
    world.assert_nothing_began_twice();
    assert!(world.first(living.run).is_alive());
    why
}

#[tokio::test(start_paused = true)]
async fn the_same_life_is_asked_twice_and_starts_once() {
    let world = World::new();
    let life = world.open().await;
    let spec = sent_under(&life.incarnation().await, held());
    life.start(&spec).await.unwrap();
    life.incarnation().await;
    life.start(&spec).await.unwrap();
    life.running(spec.run).await;
    assert_eq!(world.first(spec.run).starts(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_never_arrived_is_started_by_a_later_life_of_the_same_boot() {
    let world = World::new();
    let life = world.open().await;
    let spec = sent_under(&life.incarnation().await, held());
    life.kill().await;
    let life = world.open().await;
    life.incarnation().await;
    life.start(&spec).await.unwrap();
    life.running(spec.run).await;
}

#[tokio::test(start_paused = true)]
async fn a_container_layer_lost_with_the_same_boot_id_starts_nothing_again() {
    let mut world = World::new();
    let life = world.open().await;
    let (living, forgotten) = one_living_one_forgotten(&world, &life).await;
    life.kill().await;
    world.disk = tempfile::tempdir().unwrap();
    let life = world.open().await;
    life.incarnation().await;
    let why = deliver_again(&world, &life, &living, &forgotten).await;
    assert!(why.contains("journal of that time is gone"), "{why}");
}

#[tokio::test(start_paused = true)]
async fn a_lost_disk_starts_nothing_again() {
    let mut world = World::new();
    let life = world.open().await;
    let (living, forgotten) = one_living_one_forgotten(&world, &life).await;
    life.kill().await;
    world.disk = tempfile::tempdir().unwrap();
    world.boot = "boot-2".to_owned();
    let life = world.open().await;
    deliver_again(&world, &life, &living, &forgotten).await;
}

#[tokio::test(start_paused = true)]
async fn a_database_restored_from_an_old_copy_starts_nothing_again_however_far_it_counts() {
    let mut world = World::new();
    let life = world.open().await;
    life.incarnation().await;
    life.drain().await;
    let copy = tempfile::tempdir().unwrap();
    std::fs::copy(
        world.disk.path().join("state.db"),
        copy.path().join("state.db"),
    )
    .unwrap();
    let life = world.open().await;
    let (living, forgotten) = one_living_one_forgotten(&world, &life).await;
    let last = life.incarnation().await;
    life.kill().await;
    world.disk = copy;
    let life = world.open().await;
    let first = life.incarnation().await;
    assert_eq!(first.state, last.state);
    assert!(!first.follows(&last), "the server can tell as well");
    // Connects that brought nothing let its counter pass the place where the original was.
    for _ in 0..5 {
        life.incarnation().await;
    }
    let why = deliver_again(&world, &life, &living, &forgotten).await;
    assert!(why.contains("older copy"), "{why}");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_lost_power_before_its_sync_sends_again_and_starts_nothing_again() {
    let world = World::new();
    let life = world.open().await;
    let spec = sent_under(&life.incarnation().await, held());
    life.start(&spec).await.unwrap();
    life.running(spec.run).await;
    // It forgot under which life it sent the run first, and takes the present one.
    let forgetful = sent_under(&life.incarnation().await, spec.clone());
    life.start(&forgetful).await.unwrap();
    life.kill().await;
    let life = world.open().await;
    let forgetful = sent_under(&life.incarnation().await, spec.clone());
    life.start(&forgetful).await.unwrap();
    world.first(spec.run).finish(Outcome::Succeeded);
    life.outcome(spec.run).await;
    life.remove(spec.run).await.unwrap();
    assert_eq!(kind(life.start(&forgetful).await), ErrorKind::Conflict);
    assert_eq!(world.first(spec.run).starts(), 1);
}

#[tokio::test(start_paused = true)]
async fn after_a_reboot_what_may_have_begun_is_lost_and_what_lives_is_followed() {
    let mut world = World::new();
    let life = world.open().await;
    let living = sent_under(&life.incarnation().await, held());
    life.start(&living).await.unwrap();
    life.running(living.run).await;
    world.provider.hold_reads();
    let mut starting = sent_under(&life.incarnation().await, held());
    starting.env.insert("A".to_owned(), "secret:/a".to_owned());
    life.start(&starting).await.unwrap();
    let unseen = sent_under(&life.incarnation().await, held());
    life.kill().await;
    world.boot = "boot-2".to_owned();
    world.provider.release_reads();
    let life = world.open().await;
    life.running(living.run).await;
    // Its acceptance is on disk; lines that followed may have been lost with the power.
    assert!(
        is_lost(&life, &starting)
            .await
            .contains("whether it had begun is not known")
    );
    life.start(&unseen).await.unwrap();
    assert!(is_lost(&life, &unseen).await.contains("restarted"));
    assert_eq!(world.backend.starts().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_decided_before_the_backend_has_been_read() {
    let mut world = World::new();
    let life = world.open().await;
    let (living, forgotten) = one_living_one_forgotten(&world, &life).await;
    life.kill().await;
    world.disk = tempfile::tempdir().unwrap();
    world.backend.set_reachable(false);
    let life = world.open().await;
    for spec in [&living, &forgotten] {
        assert_eq!(kind(life.start(spec).await), ErrorKind::Unavailable);
    }
    // What was sent to this life needs no backend to be decided.
    life.start(&sent_under(&life.incarnation().await, held()))
        .await
        .unwrap();
    world.backend.set_reachable(true);
    while life.start(&living).await.is_err() {
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    }
    deliver_again(&world, &life, &living, &forgotten).await;
}

/// Runs that one life began while another, of another disk, waited for its end.
async fn taken_over<const N: usize>(world: &World, disk: &TempDir) -> (Life, [RunSpec; N]) {
    let before = world.open().await;
    let after = world.open_with(|| world.parts(disk.path())).await;
    let connect = before.incarnation().await;
    let runs = [(); N].map(|()| sent_under(&connect, held()));
    for spec in &runs {
        before.start(spec).await.unwrap();
        before.running(spec.run).await;
    }
    before.kill().await;
    after.incarnation().await;
    (after, runs)
}

#[tokio::test(start_paused = true)]
async fn who_takes_over_knows_what_was_begun_while_it_waited() {
    let (world, disk) = (World::new(), tempfile::tempdir().unwrap());
    let (after, [again, stopped, watched]) = taken_over(&world, &disk).await;
    let grace = std::time::Duration::from_secs(3);
    after
        .runner
        .stop(&Handle::of(stopped.run), grace)
        .await
        .unwrap();
    let end = after.level(stopped.run, Status::is_finished).await;
    assert_eq!(end.state.name(), "stopped");
    assert!(!world.first(stopped.run).is_alive());
    after.start(&again).await.unwrap();
    for spec in [again, watched] {
        after.running(spec.run).await;
    }
    assert_eq!(world.backend.starts().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn who_watches_first_after_a_takeover_is_told_to_ask_again() {
    let (world, disk) = (World::new(), tempfile::tempdir().unwrap());
    let (after, [spec]) = taken_over(&world, &disk).await;
    let run = Handle::of(spec.run);
    let first = after.runner.watch(&run).next().await.unwrap();
    assert_eq!(kind(first), ErrorKind::Unavailable);
    after.running(spec.run).await;
}

#[tokio::test(start_paused = true)]
async fn a_stop_waits_until_it_is_known_whether_the_run_is_there() {
    let mut world = World::new();
    let life = world.open().await;
    let spec = held();
    life.start(&spec).await.unwrap();
    life.running(spec.run).await;
    life.kill().await;
    world.disk = tempfile::tempdir().unwrap();
    world.backend.set_reachable(false);
    let life = world.open().await;
    let run = Handle::of(spec.run);
    let grace = std::time::Duration::from_secs(3);
    let stop = async || life.runner.stop(&run, grace).await;
    assert_eq!(kind(stop().await), ErrorKind::Unavailable);
    world.backend.set_reachable(true);
    while stop().await.is_err() {
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    }
    let end = life.level(spec.run, Status::is_finished).await;
    assert_eq!((end.attempt, end.state.name()), (1, "stopped"));
}

#[tokio::test(start_paused = true)]
async fn a_lost_run_stays_lost_and_takes_no_slot() {
    let mut world = World::new();
    world.max_runs = 1;
    let life = world.open().await;
    let foreign = Incarnation::new("boot-1", uuid::Uuid::from_u128(7), 1);
    let lost = sent_under(&foreign, held());
    life.start(&lost).await.unwrap();
    is_lost(&life, &lost).await;
    life.start(&lost).await.unwrap();
    life.start(&held()).await.unwrap();
    life.kill().await;
    let life = world.open().await;
    is_lost(&life, &lost).await;
    // What it may have written is missing.
    let log = life.runner.logs(&Handle::of(lost.run), None);
    let log: Vec<_> = within(log.collect()).await;
    let [Ok(gap)] = log.as_slice() else {
        panic!("{log:?}")
    };
    assert!(matches!(gap.item, LogItem::Gap { .. }), "{gap:?}");
    let behind = life.log(lost.run, Some(gap.next.clone())).await;
    assert_eq!(behind.0, "");
    life.remove(lost.run).await.unwrap();
    assert_eq!(world.first(lost.run).starts(), 0);
}
