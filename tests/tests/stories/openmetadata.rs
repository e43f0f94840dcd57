//! The real input of the main job: `openmetadata-ingestion` reads a SQLite database.

use std::path::Path;

use hybrid_runner_tests::{Binary, Cluster, Docker, Runner, Server, Story, skipped};
use serde_json::Value;

const TOKEN: &str = "aaaaaaaa.bbbbbbbb.cccccccc";

#[tokio::test]
async fn the_openmetadata_example_brings_its_entities_to_the_sink() {
    let Some(metadata) = std::env::var_os("HYBRID_RUNNER_METADATA") else {
        return skipped(
            "openmetadata-ingestion is not installed; scripts/services/openmetadata-ingestion up",
        );
    };
    Story::told(240, async |story| {
        let metadata = Path::new(&metadata).display().to_string();
        let server = Server::started(&story).await;
        let mut runner = Runner::new(&story, &server, "runner-1").await;
        brings_its_entities(&story, &server, &mut runner, Some(&metadata)).await;
    })
    .await;
}

#[tokio::test]
async fn the_openmetadata_example_does_the_same_in_a_container() {
    let Some(image) = std::env::var_os("HYBRID_RUNNER_TEST_DOCKER_PYTHON") else {
        return skipped("there is no image with openmetadata-ingestion; scripts/services/all up");
    };
    Story::told(240, async |story| {
        let Some(docker) = Docker::of(&story) else {
            return;
        };
        let server = Server::started(&story).await;
        let mut runner = Runner::new(&story, &server, "runner-1").await;
        runner.executor = docker.section_with(&image.to_string_lossy());
        let events = docker.events();
        let run = brings_its_entities(&story, &server, &mut runner, None).await;
        assert_eq!(events.made(&run), 1, "{:?}", events.of(&run));
    })
    .await;
}

#[tokio::test]
#[ignore = "scripts/test runs it once the cluster is up"]
async fn the_openmetadata_example_does_the_same_as_a_workflow_of_argo() {
    let Ok(image) = std::env::var("HYBRID_RUNNER_TEST_CLUSTER_PYTHON") else {
        return skipped(
            "the cluster has no image with openmetadata-ingestion; scripts/services/all up",
        );
    };
    if !Binary::Clouds.is_there() {
        return skipped("no build with Argo: scripts/test makes one");
    }
    let Some(cluster) = Cluster::started().await else {
        return;
    };
    Story::told(240, async |story| {
        let server = Server::started(&story).await;
        let mut runner = Runner::new(&story, &server, "runner-1").await;
        runner.binary = Binary::Clouds;
        runner.executor = cluster.section_seeing("argo", &image, story.folder()).await;
        brings_its_entities(&story, &server, &mut runner, None).await;
        cluster
            .until("the end of the Workflow and its Secret", async || {
                cluster.workloads().await == 0 && cluster.secrets().await.is_empty()
            })
            .await;
    })
    .await;
}

/// Submits the example as it is, but for where it works: the sink, and where it finds its program if not in its `PATH`.
async fn brings_its_entities(
    story: &Story,
    server: &Server,
    runner: &mut Runner,
    metadata: Option<&str>,
) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the crate lies in the workspace");
    let example = std::fs::read_to_string(root.join("examples/workflows/sqlite-metadata.yaml"));
    let example = example.expect("the example is there");
    let sink = story.path("entities.json");
    let program = metadata.map(|metadata| format!("  METADATA: {metadata}\n"));
    let env = format!(
        "\nenv:\n  STORY: {}\n{}",
        story.folder().display(),
        program.unwrap_or_default()
    );
    let example = example
        .replace(
            "filename: entities.json",
            &format!("filename: {}", sink.display()),
        )
        .replace("\nenv:\n", &env);
    let file = story
        .write("sqlite-metadata.yaml", example)
        .display()
        .to_string();
    story.write("secrets/openmetadata/token", TOKEN);
    runner.start().await;
    let (url, token) = (server.url(), server.admin_token());
    let client = server.client();

    let submitted = story
        .command_with(
            &["submit", &file, "--json"],
            &[
                ("HYBRID_RUNNER_SERVER", &url),
                ("HYBRID_RUNNER_TOKEN", &token),
            ],
        )
        .await;
    let submitted = submitted.expect(0).json();
    let run = submitted
        .pointer("/id")
        .or_else(|| submitted.pointer("/0/id"))
        .and_then(Value::as_str)
        .expect("what was submitted has an id");
    let mut follow = client.follow(run);
    let end = follow.end().await;

    assert_eq!(end.state(), "succeeded", "{}\n{}", end.0, follow.text());
    assert!(!follow.text().contains(TOKEN));
    let entities = std::fs::read_to_string(&sink).expect("the sink was written");
    for table in ["orders", "customers"] {
        assert!(
            entities.contains(table),
            "no `{table}` among the entities:\n{entities}"
        );
    }
    run.to_owned()
}
