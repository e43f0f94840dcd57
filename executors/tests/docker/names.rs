//! Names and owners do not collide, nothing is left, and what somebody else does to our objects does no harm.

use std::collections::{BTreeSet, HashMap};
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use bollard::models::{ContainerConfig, ContainerCreateBody};
use bollard::query_parameters::{
    CommitContainerOptionsBuilder, ListContainersOptionsBuilder, RemoveContainerOptions,
    RemoveContainerOptionsBuilder, RemoveVolumeOptions, RenameContainerOptionsBuilder,
    UploadToContainerOptionsBuilder,
};
use hybrid_runner_core::executor::Progress;
use hybrid_runner_core::run::{FailureClass, Outcome};
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
    let theirs = within(Duration::from_mins(1), "a start", started)
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
    within(Duration::from_mins(1), "the stop", stopped)
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
    within(Duration::from_mins(1), "the stop", stopped)
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

/// An image of the scripts with what is given, made as an operator would: path, content.
async fn image_with(client: &bollard::Docker, name: &str, path: &str, content: &[u8]) {
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o755);
    header.set_size(content.len() as u64);
    archive.append_data(&mut header, path, content).unwrap();
    let body = ContainerCreateBody {
        image: Some(crate::place::BUSYBOX.to_owned()),
        cmd: Some(vec!["true".to_owned()]),
        ..ContainerCreateBody::default()
    };
    let made = client.create_container(None, body).await.unwrap().id;
    let options = UploadToContainerOptionsBuilder::default().path("/").build();
    let archive = bollard::body_full(archive.into_inner().unwrap().into());
    client
        .upload_to_container(&made, Some(options), archive)
        .await
        .unwrap();
    commit(client, &made, name, "VOLUME /data").await;
    client
        .remove_container(&made, None::<RemoveContainerOptions>)
        .await
        .unwrap();
}

async fn commit(client: &bollard::Docker, container: &str, name: &str, changes: &str) {
    let options = CommitContainerOptionsBuilder::default()
        .container(container)
        .repo(name)
        .tag("1")
        .changes(changes)
        .build();
    client
        .commit_container(options, ContainerConfig::default())
        .await
        .unwrap();
}

async fn volumes(client: &bollard::Docker) -> Vec<String> {
    let volumes = client.list_volumes(None::<bollard::query_parameters::ListVolumesOptions>);
    let volumes = volumes.await.unwrap().volumes.unwrap();
    volumes.into_iter().map(|volume| volume.name).collect()
}

#[tokio::test]
async fn an_image_with_a_file_in_the_place_of_the_folder_is_blamed_and_others_run() {
    let Some(own) = Own::up(&[]).await else {
        return;
    };
    let settings = json!({ "image": "filed:1" });
    let bench = Bench::at(own.host.clone(), settings, References::none());
    image_with(&bench.place.client(), "filed", ".hr", b"a file").await;
    let mut good = bench.spec("true");
    good.image = Some(crate::place::BUSYBOX.to_owned());
    // Before the volume of init is there, and behind it.
    for _ in 0..2 {
        let (_, failure) = bench.refused(&bench.spec("true")).await;
        assert_eq!(failure.class, FailureClass::Image, "{failure:?}");
        assert!(failure.message.contains("a file at `/.hr`"), "{failure:?}");
        good.run = bench.spec("").run;
        let run = bench.start(&good).await;
        assert_eq!(bench.end(&run).await, Outcome::Succeeded);
        bench.remove(&run).await;
    }
}

#[tokio::test]
async fn what_an_image_or_somebody_puts_in_the_place_of_init_is_not_run() {
    let Some(own) = Own::up(&[]).await else {
        return;
    };
    let settings = json!({ "image": "spoilt:1" });
    let mut bench = Bench::at(own.host.clone(), settings, References::none());
    let client = bench.place.client();
    image_with(&client, "spoilt", ".hr/init", b"#!/bin/sh\necho spoilt\n").await;
    let mut spec = bench.spec("cat $KEY_FILE; ls -A /.hr");
    spec.files.insert("KEY_FILE".into(), "the file ".into());
    let round = async |bench: &Bench| {
        let mut spec = spec.clone();
        spec.run = bench.spec("").run;
        let run = bench.start(&spec).await;
        assert_eq!(bench.text(&run).await, "the file init\nprivate\n");
        assert_eq!(bench.end(&run).await, Outcome::Succeeded);
        bench.remove(&run).await;
    };
    round(&bench).await;
    // With what belongs to the image's VOLUME nothing is left, neither of the start nor of a check.
    let says = async |bench: &Bench| {
        let findings = within(Duration::from_mins(1), "the check", bench.docker.examine());
        findings.await.pop().unwrap().message
    };
    assert!(says(&bench).await.contains("makes containers"));
    let names = volumes(&client).await;
    let [carrier] = names.as_slice() else {
        panic!("{names:?}")
    };
    let folder = own
        .folder()
        .join("data/volumes")
        .join(carrier)
        .join("_data");
    // What can be mended is.
    let owned = |owner| std::os::unix::fs::chown(folder.join("init"), Some(owner), Some(owner));
    for spoil in [
        &|| owned(1000),
        &|| std::fs::remove_dir(folder.join("private")),
        &|| std::fs::set_permissions(folder.join("init"), Permissions::from_mode(0o4755)),
    ] as [&dyn Fn() -> std::io::Result<()>; 3]
    {
        spoil().unwrap();
        bench.anew();
        assert!(says(&bench).await.contains(carrier.as_str()));
        round(&bench).await;
        assert!(says(&bench).await.contains("makes containers"));
    }
    // What cannot be is refused by name.
    std::fs::write(folder.join("more"), "more").unwrap();
    bench.anew();
    let (_, failure) = bench.refused(&bench.spec("true")).await;
    assert_eq!(failure.class, FailureClass::Backend, "{failure:?}");
    let advice = format!("docker volume rm {carrier}");
    assert!(failure.message.contains(&advice), "{failure:?}");
}

#[tokio::test]
async fn who_loses_its_turn_at_the_volume_of_init_takes_another_and_the_dead_hold_nobody_up() {
    let Some(own) = Own::up(&[]).await else {
        return;
    };
    let mut bench = Bench::at(own.host.clone(), json!({}), References::none());
    let client = bench.place.client();
    let laying = async || {
        let filters = HashMap::from([(
            "label".to_owned(),
            vec!["io.hybrid-runner.laying".to_owned()],
        )]);
        let options = ListContainersOptionsBuilder::default()
            .all(true)
            .filters(&filters)
            .build();
        let found = client.list_containers(Some(options)).await.unwrap();
        found.into_iter().next().and_then(|container| container.id)
    };
    let forced = || Some(RemoveContainerOptionsBuilder::default().force(true).build());
    let taken = async {
        until("the turn", async || match laying().await {
            Some(id) => client.remove_container(&id, forced()).await.is_ok(),
            None => false,
        })
        .await;
    };
    let limit = Duration::from_secs(5);
    let (run, _) = futures::join!(bench.begin("echo done"), tokio::time::timeout(limit, taken));
    assert_eq!(bench.end(&run).await, Outcome::Succeeded);
    bench.remove(&run).await;

    // Left in the midst of it, as by somebody who dies.
    bench.anew();
    let spec = bench.spec("echo done");
    let (secrets, progress) = (Secrets::none(), Progress::none());
    tokio::select! {
        biased;
        () = until("the turn", async || laying().await.is_some()) => {}
        _ = bench.docker.start(&spec, &secrets, &progress) => {}
    }
    bench.anew();
    let started = bench.docker.start(&spec, &secrets, &progress);
    let run = within(Duration::from_secs(30), "a start behind a death", started);
    let run = run.await.unwrap();
    assert_eq!(bench.end(&run).await, Outcome::Succeeded);
    bench.remove(&run).await;
    assert_eq!(laying().await, None);
}

#[tokio::test]
async fn what_an_operator_makes_of_our_container_is_not_ours() {
    let Some(bench) = Bench::new() else { return };
    let client = bench.place.client();
    let spec = bench.spec("echo done");
    let run = bench.start(&spec).await;
    bench.end(&run).await;
    let image = format!("hybrid-runner-test/committed-{}", run.run);
    commit(
        &client,
        &bench.place.container(run.run),
        &image,
        "LABEL by=operator",
    )
    .await;
    bench.remove(&run).await;
    // With an entry point of the operator's, and with ours, which the image has kept.
    let mut theirs = Vec::new();
    for entrypoint in [Some(vec!["/bin/sh".to_owned()]), None] {
        let body = ContainerCreateBody {
            image: Some(format!("{image}:1")),
            entrypoint,
            ..ContainerCreateBody::default()
        };
        theirs.push(client.create_container(None, body).await.unwrap().id);
    }
    assert_eq!(bench.listed().await, []);
    // Nothing of the run is there any more.
    let again = bench.start(&spec).await;
    assert_eq!(bench.text(&again).await, "done\n");
    bench.remove(&again).await;
    for container in &theirs {
        let removed = client.remove_container(container, None::<RemoveContainerOptions>);
        assert!(removed.await.is_ok(), "what is not ours was taken");
    }
    client
        .remove_image(
            &format!("{image}:1"),
            None::<bollard::query_parameters::RemoveImageOptions>,
            None,
        )
        .await
        .unwrap();
}
