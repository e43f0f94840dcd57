//! Many containers, much output: slots are kept, and the runner's memory is bounded.

use std::time::Duration;

use futures::future::join_all;
use hybrid_runner_tests::docker::Docker;
use hybrid_runner_tests::processes::until;
use hybrid_runner_tests::proxy::Mode;
use hybrid_runner_tests::{Client, Proxy, Runner, Server, Story};

use crate::p8_bounds::anonymous;

const PATIENCE: Duration = Duration::from_mins(3);
const MIB: u64 = 1 << 20;

/// So many run at once, and some more wait.
const SLOTS: usize = 50;
const RUNS: usize = 56;

#[tokio::test]
async fn fifty_containers_run_at_once_and_no_more_than_the_slots() {
    Story::told(300, async |story| {
        let Some(docker) = Docker::of(&story) else {
            return;
        };
        let server = Server::started(&story).await;
        let mut runner = Runner::new(&story, &server, "runner-1").await;
        runner.settings = vec![format!("max_runs = {SLOTS}")];
        runner.run_in(Some(&docker));
        runner.start().await;
        let client = server.client();
        let events = docker.events();
        let script = "echo x >> $STORY/starts; echo up; while [ ! -e $STORY/gate ]; do sleep 1; done; echo over";
        let submit = async |number: usize| {
            let workflow = story.sh(&format!("one-of-many-{number}"), script);
            client.submit(&workflow, "runner-1").await
        };
        let runs = join_all((0..RUNS).map(submit)).await;
        let started = || story.read("starts").lines().count();
        let look = {
            let story = story.clone();
            move || (story.read("starts").lines().count() == SLOTS).then_some(())
        };
        until("all slots are taken", PATIENCE, look).await;
        let states = states(&client, &runs).await;
        let waiting = states.iter().filter(|state| *state == "queued").count();
        assert_eq!(waiting, RUNS - SLOTS, "{states:?}");
        assert_eq!(started(), SLOTS);

        // A runner that dies now finds them all again.
        runner.kill().await;
        runner.start().await;
        story.write("gate", "");
        for run in &runs {
            client.finished(run).await.expect("succeeded");
            assert_eq!(client.text(run).await, "up\nover\n");
            assert_eq!(events.made(run), 1, "{:?}", events.of(run));
        }
        assert_eq!(started(), RUNS);
        assert_eq!(events.most_at_once(), SLOTS);
        docker.nothing_of(&docker.owner_of(&runner.id)).await;
    })
    .await;
}

async fn states(client: &Client, runs: &[String]) -> Vec<String> {
    let shown = runs.iter().map(|run| client.show(run));
    let shown = join_all(shown).await;
    shown.iter().map(|run| run.state().to_owned()).collect()
}

/// The bound that docs/docker.md declares for a runner whose reader is slower than its runs.
const BOUND: u64 = 32 * 1024;

#[tokio::test]
async fn a_flood_out_of_a_container_does_not_grow_runner_or_server() {
    // In a campaign 1 GiB.
    let campaign = std::env::var_os("HYBRID_RUNNER_CAMPAIGN").is_some();
    let size = if campaign { 1024 * MIB } else { 100 * MIB };
    Story::told(if campaign { 900 } else { 170 }, async |story| {
        let Some(docker) = Docker::of(&story) else {
            return;
        };
        let mut server = Server::started(&story).await;
        let proxy = Proxy::new(&server.address()).await;
        let mut runner = Runner::new(&story, &server, "runner-1").await;
        runner.dials = proxy.address().to_owned();
        runner.executor = format!("{}log = {{ max_size = \"2GiB\" }}\n", docker.section());
        runner.start().await;
        let client = server.client();
        let pids = (runner.program().pid(), server.program().pid());
        let before = (anonymous(pids.0), anonymous(pids.1));
        let script = format!(
            "head -c {size} /dev/zero | tr '\\0' 'x' | fold -w 1000; echo; echo all > $STORY/written"
        );
        // First the reader is slower than the run, then it catches up.
        proxy.set(Mode::Delay(Duration::from_millis(20)));
        let run = client.submit(&story.sh("flood", &script), "runner-1").await;
        let written = story.path("written");
        let mut most = before;
        let look = move || {
            most = (most.0.max(anonymous(pids.0)), most.1.max(anonymous(pids.1)));
            written.exists().then_some(most)
        };
        let mut most = until("the workload has written all", PATIENCE * 2, look).await;
        proxy.set(Mode::Open);
        while !client.show(&run).await.is_finished() {
            most = (most.0.max(anonymous(pids.0)), most.1.max(anonymous(pids.1)));
        }
        client.finished(&run).await.expect("succeeded");

        for (name, before, most) in [("runner", before.0, most.0), ("server", before.1, most.1)] {
            assert!(most < before + BOUND, "the {name} grew from {before} KiB to {most} KiB");
        }
        assert_eq!(client.log(&run).await.len() as u64, size + size.div_ceil(1000));
    })
    .await;
}
