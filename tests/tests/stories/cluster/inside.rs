//! The runner as a pod in the cluster: the shipped Deployment and Role, the seed's five variables, a read-only root, no volume.

use hybrid_runner_tests::cluster::Cluster;
use hybrid_runner_tests::docker::BUSYBOX;
use hybrid_runner_tests::workflow::{numbered, numbered_lines};
use hybrid_runner_tests::{Server, Story, Workflow, skipped};

const ID: &str = "WestEu1Runner";
const VALUE: &str = "wJalrXUtnFEMI-bPxRfiCYEXAMPLEKEY";
const LINES: u32 = 60;

#[tokio::test]
#[ignore = "scripts/test runs it once the cluster is up"]
async fn a_runner_in_the_cluster_needs_the_seeds_five_variables_and_finds_its_run_again() {
    let Ok(image) = std::env::var("HYBRID_RUNNER_TEST_CLUSTER_RUNNER") else {
        return skipped("the cluster has no image of the runner: scripts/test makes one");
    };
    let Some(cluster) = Cluster::started().await else {
        return;
    };
    Story::told(200, async |story| inside(&story, &cluster, &image).await).await;
}

async fn inside(story: &Story, cluster: &Cluster, image: &str) {
    let mut server = Server::new(story, "server");
    server.listen_at(&cluster.host());
    server.start().await;
    let client = server.client();
    let (_, token) = client.token("runner", Some(ID)).await;
    cluster
        .give(include_str!("../../../../deploy/rbac/argo.yaml"))
        .await;
    cluster
        .give(&format!(
            "kind: Secret\nmetadata: {{name: hybrid-runner}}\nstringData: {{token: \"{token}\"}}\n"
        ))
        .await;
    let port = way(cluster, &server).await;
    cluster
        .give(&deployment(image, &cluster.node(), port))
        .await;
    client.runner_is(ID, "connected").await;

    let script = numbered(
        LINES,
        250,
        "echo it is $AWS_SECRET_ACCESS_KEY; cat $WORKFLOW_CONFIG; exit 3",
    );
    let workflow =
        Workflow::sh("orders", &script).with("config", serde_json::json!({ "source": 1 }));
    let run = client.submit(&workflow, ID).await;
    client.follow(&run).lines(5).await;
    let workflow = cluster.workflow_of(&run).await;
    let before = cluster.pods("app.kubernetes.io/name=hybrid-runner").await;
    assert_eq!(before.len(), 1);
    cluster.delete_pod(&before[0]).await;
    let end = client.finished(&run).await;
    end.expect_failed("exit", &["3"]);
    assert_eq!(end.attempt(), 1, "{}", end.0);
    let expected = format!("{}it is ***\n{{\"source\":1}}", numbered_lines(LINES));
    assert_eq!(client.text(&run).await, expected);
    let after = cluster.pods("app.kubernetes.io/name=hybrid-runner").await;
    assert!(
        !after.contains(&before[0]),
        "the runner is another: {after:?}"
    );
    assert!(!workflow.to_string().contains(VALUE));
}

/// Pods of this cluster reach their node alone. So one on its network passes on to the server on this machine; gives its port.
async fn way(cluster: &Cluster, server: &Server) -> u16 {
    let address = server.address();
    let (host, port) = address.rsplit_once(':').expect("host:port");
    cluster
        .give(&format!(
            "kind: Pod\nmetadata: {{name: way}}\nspec:\n  hostNetwork: true\n  containers:\n  - name: way\n    image: {BUSYBOX}\n    command: [nc, -ll, -p, \"{port}\", -e, nc, \"{host}\", \"{port}\"]\n"
        ))
        .await;
    port.parse().expect("a port")
}

/// The shipped one with what is one's own, and beside it in the pod a way to the node: a runner speaks without TLS on its loopback alone.
fn deployment(image: &str, node: &str, port: u16) -> String {
    let shipped = include_str!("../../../../deploy/kubernetes/runner.yaml");
    let mut ours = shipped.to_owned();
    for (from, to) in [
        ("image: hybrid-runner:latest ", format!("image: {image} ")),
        (
            "wss://runners.example.com",
            format!("ws://127.0.0.1:{port}"),
        ),
        ("openmetadata/ingestion-base:1.13.3", BUSYBOX.to_owned()),
        (
            "\"[]\"",
            format!("\"[AWS_REGION:eu-west-1, AWS_SECRET_ACCESS_KEY:{VALUE}]\""),
        ),
        (
            "      containers:\n",
            format!(
                "      containers:\n      - name: way\n        image: {BUSYBOX}\n        command: [nc, -ll, -p, \"{port}\", -e, nc, \"{node}\", \"{port}\"]\n"
            ),
        ),
    ] {
        assert_eq!(
            ours.matches(from).count(),
            1,
            "`{from}` in the shipped Deployment"
        );
        ours = ours.replace(from, &to);
    }
    assert!(ours.contains("readOnlyRootFilesystem: true") && !ours.contains("volumes:"));
    ours
}
