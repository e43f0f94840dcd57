//! Names and owners do not collide, nothing is left, and what somebody else does to our objects does no harm.

use std::collections::BTreeSet;
use std::time::Duration;

use bollard::query_parameters::{
    RemoveContainerOptions, RemoveContainerOptionsBuilder, RemoveVolumeOptions,
    RenameContainerOptionsBuilder,
};
use hybrid_runner_core::executor::Progress;
use hybrid_runner_core::run::Outcome;
use hybrid_runner_core::secret::{References, Secrets};
use serde_json::json;

use crate::bench::{Bench, until, within};
use crate::own::Own;

#[tokio::test]
async fn a_workflow_may_be_called_as_it_likes() {
    let Some(bench) = Bench::new() else { return };
    let long = "ü".repeat(100);
    for name in [
        "Заказы из 東京 🚚 und mehr",
        &long,
        &"x".repeat(200),
        "a/b:c \"d\" ../e",
        "-",
    ] {
        let Ok(name) = name.parse() else { continue };
        let mut spec = bench.spec("echo $WORKFLOW_NAME");
        spec.name = name;
        // Two runs of one name.
        let mut again = spec.clone();
        again.run = bench.spec("").run;
        let (one, two) = (bench.start(&spec).await, bench.start(&again).await);
        for run in [&one, &two] {
            assert_eq!(bench.text(run).await, format!("{}\n", spec.name));
            assert_eq!(bench.end(run).await, Outcome::Succeeded);
        }
        let listed: BTreeSet<_> = bench.listed().await.into_iter().collect();
        assert_eq!(listed, BTreeSet::from([one.run, two.run]));
        bench.remove(&one).await;
        assert_eq!(bench.listed().await, [two.run]);
        bench.remove(&two).await;
    }
    assert_eq!(bench.listed().await, []);
}

#[tokio::test]
async fn two_owners_of_one_run_do_not_meet() {
    let Some(bench) = Bench::new() else { return };
    let other = bench.place.docker("two");
    let spec = bench.spec("sleep 600 & wait");
    let run = bench.start(&spec).await;
    let (secrets, progress) = (Secrets::none(), Progress::none());
    let started = other.start(&spec, &secrets, &progress);
    let theirs = within(Duration::from_secs(60), "a start", started)
        .await
        .unwrap();
    assert_eq!(other.list().await.unwrap().len(), 1);
    other.stop(&theirs, Duration::ZERO).await.unwrap();
    let ended = async || other.remove(&theirs).await.is_ok();
    until("the end of the other", ended).await;
    assert_eq!(other.list().await.unwrap(), []);
    // Ours has not heard of it.
    assert_eq!(bench.status(&run).await.unwrap().state.rank(), 2);
    bench.docker.stop(&run, Duration::ZERO).await.unwrap();
    assert!(matches!(bench.end(&run).await, Outcome::Stopped { .. }));
    bench.remove(&run).await;
}

#[tokio::test]
async fn what_somebody_halts_or_renames_can_still_be_stopped() {
    let Some(bench) = Bench::new() else { return };
    let client = bench.place.client();
    let run = bench.begin("echo there; sleep 600 & wait").await;
    client
        .pause_container(&bench.place.container(run.run))
        .await
        .unwrap();
    let status = bench.status(&run).await.unwrap();
    assert!(
        status
            .message
            .as_deref()
            .is_some_and(|message| message.contains("paused")),
        "{status:?}"
    );
    let stopped = bench.docker.stop(&run, Duration::ZERO);
    within(Duration::from_secs(60), "the stop", stopped)
        .await
        .unwrap();
    assert!(matches!(bench.end(&run).await, Outcome::Stopped { .. }));
    bench.remove(&run).await;

    let run = bench.begin("echo there; sleep 600 & wait").await;
    let options = RenameContainerOptionsBuilder::default()
        .name(&format!("renamed-{}", run.run))
        .build();
    client
        .rename_container(&bench.place.container(run.run), options)
        .await
        .unwrap();
    // It is known by its labels, and by nothing else.
    assert_eq!(bench.listed().await, [run.run]);
    let stopped = bench.docker.stop(&run, Duration::ZERO);
    within(Duration::from_secs(60), "the stop", stopped)
        .await
        .unwrap();
    let outcome = bench.end(&run).await;
    assert!(matches!(outcome, Outcome::Stopped { .. }), "{outcome}");
    bench.remove(&run).await;
    assert_eq!(bench.listed().await, []);
}

#[tokio::test]
async fn what_somebody_takes_away_between_runs_is_made_anew() {
    let Some(own) = Own::up(&[]).await else {
        return;
    };
    let bench = Bench::at(own.host.clone(), json!({}), References::none());
    let client = bench.place.client();
    let round = async || {
        let run = bench.begin("echo done").await;
        assert_eq!(bench.end(&run).await, Outcome::Succeeded);
        assert_eq!(bench.text(&run).await, "done\n");
        bench.remove(&run).await;
    };
    round().await;
    let volumes = client.list_volumes(None::<bollard::query_parameters::ListVolumesOptions>);
    for volume in volumes.await.unwrap().volumes.unwrap() {
        client
            .remove_volume(&volume.name, None::<RemoveVolumeOptions>)
            .await
            .unwrap();
    }
    round().await;
    client
        .prune_volumes(None::<bollard::query_parameters::PruneVolumesOptions>)
        .await
        .unwrap();
    round().await;
    // Emptied, and not removed.
    let volume = std::fs::read_dir(own.folder().join("data/volumes")).unwrap();
    for entry in volume.flatten().filter(|entry| entry.path().is_dir()) {
        std::fs::remove_file(entry.path().join("_data/init")).unwrap();
    }
    round().await;
    let all = client.list_containers(Some(
        bollard::query_parameters::ListContainersOptionsBuilder::default()
            .all(true)
            .build(),
    ));
    assert_eq!(all.await.unwrap().len(), 0);
}

#[tokio::test]
async fn an_image_that_is_removed_between_runs_is_missed_and_found_again() {
    let Some(own) = Own::up(&[]).await else {
        return;
    };
    let settings = json!({ "image": "mine:1", "pull": "never" });
    let bench = Bench::at(own.host.clone(), settings, References::none());
    let client = bench.place.client();
    let tag = async || {
        let options = bollard::query_parameters::TagImageOptionsBuilder::default()
            .repo("mine")
            .tag("1")
            .build();
        client
            .tag_image(crate::place::BUSYBOX, Some(options))
            .await
            .unwrap();
    };
    tag().await;
    let run = bench.begin("echo done").await;
    bench.end(&run).await;
    client
        .remove_image(
            "mine:1",
            None::<bollard::query_parameters::RemoveImageOptions>,
            None,
        )
        .await
        .unwrap();
    // The run that was does not need it any more.
    assert_eq!(bench.text(&run).await, "done\n");
    bench.remove(&run).await;
    let (_, failure) = bench.refused(&bench.spec("true")).await;
    assert_eq!(failure.class, hybrid_runner_core::run::FailureClass::Image);
    tag().await;
    let run = bench.begin("echo done").await;
    assert_eq!(bench.end(&run).await, Outcome::Succeeded);
    bench.remove(&run).await;
}

#[tokio::test]
async fn a_container_that_is_removed_while_it_is_made_ready_is_made_again() {
    let Some(bench) = Bench::new() else { return };
    let client = bench.place.client();
    let spec = bench.spec("echo done");
    let name = format!("{}.new", bench.place.container(spec.run));
    let taken = async {
        // Once.
        until("the container", async || {
            client
                .remove_container(&name, None::<RemoveContainerOptions>)
                .await
                .is_ok()
        })
        .await;
    };
    let (run, ()) = futures::join!(bench.start(&spec), async {
        drop(tokio::time::timeout(Duration::from_secs(5), taken).await);
    });
    assert_eq!(bench.end(&run).await, Outcome::Succeeded);
    assert_eq!(bench.text(&run).await, "done\n");
    bench.remove(&run).await;
    let forced = RemoveContainerOptionsBuilder::default().force(true).build();
    drop(client.remove_container(&name, Some(forced)).await);
}
