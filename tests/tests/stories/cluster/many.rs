//! Many runs at once on one node, where most of them wait for their turn.

use std::time::Duration;

use futures::future::join_all;
use hybrid_runner_tests::docker::BUSYBOX;
use hybrid_runner_tests::{Binary, Client, Cluster, Runner, Server, Story, skipped};
use tokio::time::{Instant, sleep};

use crate::p8_bounds::anonymous;

/// Until all have ended: a node of two processors begins one or two pods a second.
const PATIENCE: Duration = Duration::from_mins(20);
/// What the runner may grow by, in KiB, however many there are: each has a connection for its log, of some 60 KiB, and they are let go.
const GROWTH: u64 = 4 * 1024;
const EACH: u64 = 100;

#[tokio::test]
#[ignore = "scripts/test runs it once the cluster is up"]
async fn many_jobs_at_once_all_end_once() {
    at_once("kubernetes", 24).await;
}

/// Its pods take a node three times as long.
#[tokio::test]
#[ignore = "scripts/test runs it once the cluster is up"]
async fn many_workflows_of_argo_at_once_all_end_once() {
    at_once("argo", 8).await;
}

/// In a campaign 200.
async fn at_once(kind: &str, usually: usize) {
    let campaign = std::env::var_os("HYBRID_RUNNER_CAMPAIGN").is_some();
    let runs = if campaign { 200 } else { usually };
    if !Binary::Clouds.is_there() {
        return skipped("no build with the clusters: scripts/test makes one");
    }
    let Some(cluster) = Cluster::started().await else {
        return;
    };
    Story::told(if campaign { 1800 } else { 300 }, async |story| {
        all_end_once(&story, &cluster, kind, runs).await;
    })
    .await;
}

#[expect(clippy::print_stdout, reason = "a figure for docs/performance.md")]
async fn all_end_once(story: &Story, cluster: &Cluster, kind: &str, runs: usize) {
    let server = Server::started(story).await;
    let mut runner = Runner::new(story, &server, "runner-1").await;
    runner.binary = Binary::Clouds;
    runner.settings = vec![format!("max_runs = {runs}")];
    runner.executor = cluster.section_seeing(kind, BUSYBOX, story.folder()).await;
    runner.start().await;
    let client = server.client();
    let submit = async |number: usize| {
        let script = format!(
            "echo x >> $STORY/starts-{number}; echo up {number}; sleep 2; echo over {number}"
        );
        let workflow = story.sh(&format!("one-of-many-{number}"), &script);
        client.submit(&workflow, "runner-1").await
    };
    let before = anonymous(runner.program().pid());
    let submitted = join_all((0..runs).map(submit)).await;
    let mut most = before;

    // A runner that dies among them finds them all again.
    let halfway = |ended| ended >= runs / 2;
    most = most.max(until(&client, &submitted, halfway, &mut runner).await);
    runner.kill().await;
    runner.start().await;
    most = most.max(until(&client, &submitted, |ended| ended == runs, &mut runner).await);

    for (number, run) in submitted.iter().enumerate() {
        let end = client.show(run).await;
        end.expect("succeeded");
        assert_eq!(end.attempt(), 1, "{}", end.0);
        assert_eq!(
            client.text(run).await,
            format!("up {number}\nover {number}\n")
        );
        assert_eq!(
            story.read(&format!("starts-{number}")),
            "x\n",
            "run {number} started once"
        );
    }
    let bound = before + GROWTH + EACH * runs as u64;
    assert!(
        most < bound,
        "the runner grew from {before} KiB to {most} KiB with {runs} runs"
    );
    cluster
        .until("the end of all that was made", async || {
            cluster.workloads().await == 0
        })
        .await;
    println!(
        "{runs} runs at once ({kind}): the runner took {most} KiB anonymous at most, {before} KiB before"
    );
}

/// Waits until so many have ended; the most that the runner took meanwhile.
async fn until(
    client: &Client,
    runs: &[String],
    enough: impl Fn(usize) -> bool,
    runner: &mut Runner,
) -> u64 {
    let deadline = Instant::now() + PATIENCE;
    let mut most = 0;
    loop {
        let shown = join_all(runs.iter().map(|run| client.show(run))).await;
        most = most.max(anonymous(runner.program().pid()));
        let ended = shown.iter().filter(|run| run.is_finished()).count();
        if enough(ended) {
            return most;
        }
        assert!(
            Instant::now() < deadline,
            "{ended} of {} have ended",
            runs.len()
        );
        sleep(Duration::from_millis(300)).await;
    }
}
