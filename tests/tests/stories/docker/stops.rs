//! Stops of containers, whatever they are about: P6 where the engine is between.

use std::time::Duration;

use hybrid_runner_core::id::Owner;
use hybrid_runner_tests::processes;
use hybrid_runner_tests::proxy::Mode;
use hybrid_runner_tests::{Client, Docker, Proxy, Runner, Server, Story, Workflow, skipped};
use reqwest::Method;

use crate::p6_stop::{mark, stubborn};

const SOON: Duration = Duration::from_secs(30);

async fn nothing_is_left(docker: &Docker, runner: &Runner) {
    let owner: Owner = docker.owner_of(&runner.id);
    docker.nothing_of(&owner).await;
}

#[tokio::test]
async fn a_tree_that_ignores_sigterm_is_gone_within_grace_also_while_the_runner_was_away() {
    Story::told(120, async |story| {
        let Some(docker) = Docker::of(&story) else {
            return;
        };
        let server = Server::started(&story).await;
        let mut runner = Runner::started_in(&story, &server, Some(&docker)).await;
        let client = server.client();
        for is_away in [false, true] {
            let mark = mark();
            let run = client.submit(&stubborn(&story, &mark), "runner-1").await;
            client.follow(&run).lines(1).await;
            processes::appear(&mark, 5, SOON).await;
            if is_away {
                runner.kill().await;
                client.runner_is("runner-1", "away").await;
            }

            client.stop(&run).await;
            if is_away {
                runner.start().await;
            }

            let end = client.finished(&run).await;
            end.expect("stopped");
            assert!(!end.0["stopped_by"].is_null(), "by whom: {}", end.0);
            processes::gone(&mark, SOON).await;
            assert_eq!(client.text(&run).await, "up\n");
        }
        nothing_is_left(&docker, &runner).await;
    })
    .await;
}

#[tokio::test]
async fn a_container_may_clean_up_before_it_ends() {
    Story::told(60, async |story| {
        let Some(docker) = Docker::of(&story) else {
            return;
        };
        let server = Server::started(&story).await;
        let _runner = Runner::started_in(&story, &server, Some(&docker)).await;
        let client = server.client();
        let script = "trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.05; done";
        let run = client.submit(&story.sh("polite", script), "runner-1").await;
        client.follow(&run).lines(1).await;
        client.stop(&run).await;
        client.finished(&run).await.expect("stopped");
        // The shell may tell of its `sleep`, too, and on which side of its other words that comes is the engine's choice.
        let path = format!("/runs/{run}/logs?stream=out");
        assert_eq!(client.get(&path).await.as_str(), Some("up\nbye\n"));
    })
    .await;
}

#[tokio::test]
async fn containers_stopped_while_they_start_or_finish_end_once_and_leave_nothing() {
    Story::told(150, async |story| {
        let Some(docker) = Docker::of(&story) else {
            return;
        };
        let server = Server::started(&story).await;
        let runner = Runner::started_in(&story, &server, Some(&docker)).await;
        let client = server.client();
        let mark = mark();
        let events = docker.events();
        let ends = futures::future::join_all((0..12_u64).map(|number| {
            let (client, story, mark) = (client.clone(), story.clone(), mark.clone());
            async move {
                // Half are stopped as they are made, half as they finish.
                let name = format!("race-{number}");
                let starts = number % 2 == 0;
                let work = if starts {
                    "exec sleep 600"
                } else {
                    "exec sleep 0.1"
                };
                let script = format!("echo $$ >> $STORY/{name}.starts; {work}");
                let workflow = story
                    .sh(&name, &script)
                    .env("MARK", &mark)
                    .with("grace", "2s");
                let run = client.submit(&workflow, "runner-1").await;
                if !starts {
                    client.wait(&run, "running").await;
                }
                tokio::time::sleep(Duration::from_millis(number * 60)).await;
                client.stop(&run).await;
                let end = client.finished(&run).await;
                assert!(
                    end.state() == "stopped" || !starts && end.state() == "succeeded",
                    "{name}: {}",
                    end.0
                );
                (name, run, end)
            }
        }))
        .await;
        for (name, run, end) in ends {
            let starts = story.read(&format!("{name}.starts")).lines().count();
            assert!(starts <= 1, "{name} was started twice");
            assert!(events.started(&run) <= 1, "{name}: {:?}", events.of(&run));
            assert_eq!(
                client.show(&run).await.state(),
                end.state(),
                "{name} changed its end"
            );
        }
        processes::gone(&mark, SOON).await;
        nothing_is_left(&docker, &runner).await;
    })
    .await;
}

/// Submits a run of an image that a registry sends as slowly as a proxy lets it.
async fn pulling(story: &Story, client: &Client, image: &str) -> String {
    let workflow: Workflow = story.sh("pulled", "echo started >> $STORY/starts; echo output");
    let run = client
        .submit(&workflow.with("image", image), "runner-1")
        .await;
    let told = format!("pulling image `{image}`");
    loop {
        let shown = client.show(&run).await;
        if shown.state() == "starting" && shown.0["message"].to_string().contains(&told) {
            return run;
        }
        assert!(!shown.is_finished(), "{}", shown.0);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_pull_is_shown_and_can_be_stopped_and_is_told_in_the_log() {
    let Ok(registry) = std::env::var("HYBRID_RUNNER_TEST_REGISTRY") else {
        return skipped("there is no registry; scripts/services/docker-registry up");
    };
    Story::told(120, async |story| {
        let Some(docker) = Docker::of(&story) else {
            return;
        };
        let server = Server::started(&story).await;
        let proxy = Proxy::new(&registry).await;
        let runner = Runner::started_in(&story, &server, Some(&docker)).await;
        let client = server.client();
        let image = format!("{}/busybox:1", proxy.address());

        proxy.set(Mode::Swallow);
        let stopped = pulling(&story, &client, &image).await;
        client.stop(&stopped).await;
        client.finished(&stopped).await.expect("stopped");
        assert_eq!(story.read("starts"), "");
        nothing_is_left(&docker, &runner).await;

        proxy.set(Mode::Delay(Duration::from_millis(100)));
        let run = pulling(&story, &client, &image).await;
        proxy.set(Mode::Open);
        client.finished(&run).await.expect("succeeded");
        let log = client.text(&run).await;
        assert!(
            log.contains(&format!("hybrid-runner: pulled image `{image}` in ")),
            "{log}"
        );
        assert!(log.contains("output\n"), "{log}");
        assert_eq!(story.read("starts"), "started\n");
        // Its container goes once the outcome is acknowledged, and holds the image until then.
        nothing_is_left(&docker, &runner).await;
        let removed = docker
            .ask(Method::DELETE, &format!("/images/{image}"))
            .await;
        assert!(removed.is_ok_and(|(status, _)| status.is_success()));
    })
    .await;
}
