//! The same in a cluster: a pod prints fifty values, and no object but the run's Secret holds one, nor anything after it.
//!
//! What a pod prints is in its node's own log as it was printed, which is outside; so is the cluster's database, where Secrets lie.

use hybrid_runner_tests::{Binary, Cluster};

use super::*;

/// Each value as it is, in base64 and in hexadecimal digits, and the files. Then it waits to be stopped.
const PRINT: &str = r#"
for name in $(env | sed -n 's/^\(V_[A-Z_]*\)=.*/\1/p'); do
  eval "value=\$$name"
  printf '%s\n' "$value"
  printf '%s' "$value" | base64
  printf '%s' "$value" | od -An -v -tx1 | tr -d ' \n'; echo
done
cat "$WORKFLOW_CONFIG" "$KEY" "$BOTH"; echo
echo "database: $DATABASE"
echo canary-that-everybody-may-see
exec sleep 3600
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "scripts/test runs it once the cluster is up"]
async fn no_value_of_a_pod_is_found_anywhere_but_in_the_secret_of_its_run() {
    if !Binary::Clouds.is_there() {
        return hybrid_runner_tests::skipped("no build with the clouds: scripts/test makes one");
    }
    let Some(cluster) = Cluster::started().await else {
        return;
    };
    Story::told(600, async |story| in_a_pod(&story, &cluster).await).await;
}

async fn in_a_pod(story: &Story, cluster: &Cluster) {
    let values = values(0);
    let mut search = search_for(&values);
    lay(story, &values);
    let server = Server::started(story).await;
    let capture = Capture::default();
    let proxy = Proxy::recording(&server.address(), &capture).await;
    let mut runner = Runner::new(story, &server, "runner-1").await;
    runner.binary = Binary::Clouds;
    runner.dials = proxy.address().to_owned();
    runner.executor = cluster.section();
    runner.start().await;
    let client = server.client();
    let command = json!(["/bin/sh", "-c", PRINT]);
    let run = workflow(story, &values)
        .with("command", command)
        .with("grace", "2s");
    let run = client.submit(&run, "runner-1").await;
    cluster
        .until("what the pod prints", async || {
            client.text(&run).await.contains(CANARY)
        })
        .await;

    // While it lives: one Secret has them all, and nothing else has one.
    in_objects(&mut search, cluster, 1).await;
    processes(&mut search, MARK);
    everywhere(&mut search, story, None);
    runner.kill().await;
    runner.start().await;
    client.stop(&run).await;
    cluster
        .until("the end of the run", async || {
            client.show(&run).await.is_finished()
        })
        .await;
    client.finished(&run).await.expect("stopped");
    let text = client.text(&run).await;
    assert!(text.contains("database: mysql://u:***@db/***"), "{text}");

    // After it: not even that.
    cluster
        .until("the end of the run's Secret", async || {
            cluster.secrets().await.is_empty()
        })
        .await;
    in_objects(&mut search, cluster, 0).await;
    search.look("the log", &client.log(&run).await);
    answers(&mut search, &client, &run, &runner).await;
    for stream in capture.streams() {
        search.look("the link", &stream);
    }
    search.look("the link, unmasked", &capture.understood().concat());
    processes(&mut search, MARK);
    everywhere(&mut search, story, None);
    found_nothing(&search);
}

/// All objects of the namespace, as the API gives them, but for this number of Secrets, where values are found.
async fn in_objects(search: &mut Search, cluster: &Cluster, secrets: usize) {
    let there = cluster.secrets().await;
    assert_eq!(there.len(), secrets);
    for secret in there {
        assert!(values_in(search, secret.to_string().as_bytes()) >= 45);
    }
    let objects = cluster.objects().await;
    let kinds: Vec<_> = objects.iter().map(|(kind, _)| kind.as_str()).collect();
    for kind in ["pods", "jobs", "events", "configmaps", "serviceaccounts"] {
        assert!(kinds.contains(&kind), "no {kind} among {kinds:?}");
    }
    let held = objects.iter().filter(|(kind, _)| kind != "secrets");
    for (kind, all) in held {
        search.look(
            &format!("the {kind} of the namespace"),
            all.to_string().as_bytes(),
        );
    }
    if secrets > 0 {
        let pods = objects.iter().find(|(kind, _)| kind == "pods");
        let text = pods.map(|(_, pods)| pods.to_string()).unwrap_or_default();
        assert!(text.contains("secretKeyRef"), "the pod is another: {text}");
    }
}
