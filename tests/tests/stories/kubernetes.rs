//! Runners whose work is in a cluster: one that keeps nothing, and two that share a name and a namespace.

use std::fs;
use std::time::Duration;

use hybrid_runner_tests::processes::until;
use hybrid_runner_tests::workflow::{numbered, numbered_lines};
use hybrid_runner_tests::{
    Binary, Client, Cluster, Runner, Server, Story, Workflow, files, skipped,
};
use serde_json::json;

/// A namespace, if there are a cluster and a build for it.
async fn cluster() -> Option<Cluster> {
    if !Binary::Clouds.is_there() {
        skipped("no build with Kubernetes: scripts/test makes it");
        return None;
    }
    Cluster::started().await
}

async fn runner(story: &Story, server: &Server, cluster: &Cluster) -> Runner {
    let mut runner = Runner::new(story, server, "runner-1").await;
    runner.binary = Binary::Clouds;
    runner.executor = cluster.section();
    runner.start().await;
    runner
}

/// A control plane, its client, and a runner.
async fn begun(story: &Story, cluster: &Cluster) -> (Server, Client, Runner) {
    let server = Server::started(story).await;
    let runner = runner(story, &server, cluster).await;
    let client = server.client();
    (server, client, runner)
}

/// `kill -9`, and nothing is left of what it had written down.
async fn lose(runner: &mut Runner) {
    runner.kill().await;
    fs::remove_dir_all(&runner.data_dir).expect("the data of the runner can be removed");
}

/// All that a control plane knows of.
async fn known(client: &Client) -> Vec<String> {
    let listed = client.get("/runs").await;
    let runs = listed["runs"].as_array().into_iter().flatten();
    runs.map(|run| run["id"].as_str().unwrap_or_default().to_owned())
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "scripts/test runs it once the cluster is up"]
async fn without_a_disk_each_restart_finds_its_runs_in_the_cluster() {
    let Some(cluster) = cluster().await else {
        return;
    };
    Story::told(240, async |story| {
        let (_server, client, mut runner) = begun(&story, &cluster).await;
        let long = Workflow::sh("long", &numbered(200, 100, "exit 3"));
        let long = client.submit(&long, "runner-1").await;
        let short = Workflow::sh("short", &numbered(40, 100, "exit 0"));
        let short = client.submit(&short, "runner-1").await;
        client.running(&long).await;
        client.running(&short).await;

        lose(&mut runner).await;
        // The one ends while nobody looks.
        cluster
            .until("the end of the short run", async || {
                let pods = cluster.objects().await;
                let pods = pods.iter().find(|(kind, _)| kind == "pods");
                pods.is_some_and(|(_, pods)| pods.to_string().contains("\"phase\":\"Succeeded\""))
            })
            .await;
        runner.start().await;
        client.finished(&short).await.expect("succeeded");

        lose(&mut runner).await;
        runner.start().await;
        let end = client.finished(&long).await;
        end.expect_failed("exit", &["3"]);
        assert_eq!(end.attempt(), 1);
        for (run, lines) in [(&long, 200), (&short, 40)] {
            assert_eq!(client.text(run).await, numbered_lines(lines));
        }
        // What was acknowledged is removed, also by one that did not make it.
        cluster
            .until("the removal of the Jobs", async || {
                let all = cluster.objects().await;
                let jobs = all.iter().find(|(kind, _)| kind == "jobs");
                jobs.is_some_and(|(_, jobs)| jobs["items"].as_array().is_some_and(Vec::is_empty))
            })
            .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "scripts/test runs it once the cluster is up"]
async fn without_a_disk_a_run_is_tried_again_all_the_same() {
    let Some(cluster) = cluster().await else {
        return;
    };
    Story::told(240, async |story| {
        let (_server, client, mut runner) = begun(&story, &cluster).await;
        let retries = json!({ "limit": 2, "delay": "5s", "on": ["exit"] });
        let script = "echo attempt $WORKFLOW_ATTEMPT; sleep 3; test $WORKFLOW_ATTEMPT = 3";
        let workflow = Workflow::sh("retried", script).with("retries", retries);
        let run = client.submit(&workflow, "runner-1").await;
        client.running(&run).await;
        // While the first attempt runs.
        lose(&mut runner).await;
        runner.start().await;
        client.reached(&run, 2).await;
        // In the pause before the second.
        lose(&mut runner).await;
        runner.start().await;
        let end = client.finished(&run).await;
        end.expect("succeeded");
        assert_eq!(end.attempt(), 3);
        let text = client.text(&run).await;
        assert_eq!(text, "attempt 1\nattempt 2\nattempt 3\n");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "scripts/test runs it once the cluster is up"]
async fn what_was_written_while_the_control_plane_was_away_is_there_though_the_pod_is_gone() {
    let Some(cluster) = cluster().await else {
        return;
    };
    Story::told(240, async |story| {
        let (mut server, client, mut runner) = begun(&story, &cluster).await;
        let long = Workflow::sh("long", &numbered(50, 100, "exit 0"));
        let deleted = client.submit(&long, "runner-1").await;
        client.running(&deleted).await;
        server.kill().await;
        // Nobody but the runner itself reads it any more.
        let copied = || {
            let copy = files(&runner.data_dir.join("spool"), ".log")
                .into_iter()
                .next()?;
            let copy = fs::read_to_string(copy).ok()?;
            copy.contains("{\"end\":true}").then_some(())
        };
        until("the whole log is copied", Duration::from_mins(1), copied).await;
        for name in cluster.pods("hybrid-runner.io/run").await {
            cluster.delete_pod(&name).await;
        }
        // Nor is its memory needed.
        runner.kill().await;
        runner.spawn();
        server.start().await;
        client.finished(&deleted).await.expect("succeeded");
        assert_eq!(client.text(&deleted).await, numbered_lines(50));
        let forgotten = || {
            files(&runner.data_dir.join("spool"), ".log")
                .is_empty()
                .then_some(())
        };
        until("the copy is deleted", Duration::from_mins(1), forgotten).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "scripts/test runs it once the cluster is up"]
async fn two_runners_of_one_name_in_one_namespace_leave_each_other_alone() {
    let Some(cluster) = cluster().await else {
        return;
    };
    Story::told(240, async |story| {
        let other = Story::new();
        let servers = [Server::started(&story).await, Server::started(&other).await];
        let clients = [servers[0].client(), servers[1].client()];
        let mut mine = runner(&story, &servers[0], &cluster).await;
        let theirs = runner(&other, &servers[1], &cluster).await;
        let script = numbered(150, 100, "exit 0");
        let stopped = clients[0]
            .submit(&Workflow::sh("mine", &script), "runner-1")
            .await;
        let whole = clients[1]
            .submit(&Workflow::sh("theirs", &script), "runner-1")
            .await;
        clients[0].running(&stopped).await;
        clients[1].running(&whole).await;

        // One that knows of nothing asks the cluster what is its own.
        lose(&mut mine).await;
        mine.start().await;
        clients[0].stop(&stopped).await;
        clients[0].finished(&stopped).await.expect("stopped");

        clients[1].finished(&whole).await.expect("succeeded");
        assert_eq!(clients[1].text(&whole).await, numbered_lines(150));
        assert_eq!(known(&clients[0]).await, [stopped]);
        assert_eq!(known(&clients[1]).await, [whole]);
        drop((mine, theirs));
    })
    .await;
}
