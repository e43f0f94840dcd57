//! The real input of the main job: `openmetadata-ingestion` reads a SQLite database; and with `resolve = "workload"` its token too.

use std::path::Path;

use hybrid_runner_tests::processes::holds;
use hybrid_runner_tests::{
    Binary, Capture, Cluster, Docker, Proxy, Runner, Server, Story, skipped,
};
use serde_json::Value;

use super::clouds::{lay, stores};

const TOKEN: &str = "aaaaaaaa.bbbbbbbb.cccccccc";
const SINK: &str = "entities.json";

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
        let example = example(&story, Some(&metadata));
        brings_its_entities(&story, &server, &mut runner, &example).await;
    })
    .await;
}

/// The example's own server keeps what whoever asks it is authorized by.
const KEEPING: &str = r#"
        def do_GET(self):
            with open(os.environ["STORY"] + "/asked", "a") as asked:
                print(self.headers["Authorization"], file=asked)
"#;

#[tokio::test]
async fn the_work_reads_its_token_in_the_store_itself_and_the_runner_never_has_it() {
    let (Some(metadata), Some(stores)) = (std::env::var_os("HYBRID_RUNNER_METADATA"), stores())
    else {
        return skipped("no openmetadata-ingestion, or no secret stores: scripts/services/all up");
    };
    Story::told(240, async |story| {
        let text = |pointer: &str| {
            let text = stores.pointer(pointer).and_then(Value::as_str);
            text.expect("it is in stores.json")
        };
        let path = format!("/story{}/openmetadata/token", std::process::id());
        let value = "header.of-the-store.signature";
        lay(&stores, &path, value).await;
        let server = Server::started(&story).await;
        let capture = Capture::default();
        let proxy = Proxy::recording(&server.address(), &capture).await;
        let mut runner = Runner::new(&story, &server, "runner-1").await;
        runner.dials = proxy.address().to_owned();
        // The default build: it can read no such store, and has no identity there.
        runner.settings.push("resolve = \"workload\"".to_owned());
        let default = ("HYBRID_RUNNER__RUNNER__SECRETS", "prod");
        runner.environment = vec![(default.0.to_owned(), default.1.to_owned())];
        runner.sections = format!(
            "[secrets.prod]\nkind = \"aws\"\nregion = \"{}\"\n",
            text("/aws/region")
        );

        // The identity is the work's own.
        let keys = [text("/aws/reader/id"), text("/aws/reader/secret_key")];
        let keys = format!(
            "[default]\naws_access_key_id = {}\naws_secret_access_key = {}\n",
            keys[0], keys[1]
        );
        let keys = story.write("aws-credentials", keys);
        let env = format!(
            "\nenv:\n  AWS_SHARED_CREDENTIALS_FILE: {}\n  AWS_ENDPOINT_URL: {}\n",
            keys.display(),
            text("/aws/url")
        );
        let example = example(&story, Some(&Path::new(&metadata).display().to_string()))
            .replace("secret:/openmetadata/token", &format!("secret:{path}"))
            .replace("\n        def do_GET(self):\n", KEEPING)
            .replace("\nenv:\n", &env);
        let run = brings_its_entities(&story, &server, &mut runner, &example).await;

        let asked = story.read("asked");
        assert!(asked.lines().count() > 1, "{asked}");
        let bearer = format!("Bearer {value}");
        assert!(asked.lines().all(|line| line == bearer), "{asked}");
        let streams = capture.understood().into_iter().chain(capture.streams());
        for stream in streams {
            assert!(!holds(&stream, value.as_bytes()), "it was on the link");
        }
        let shown = server.client().show(&run).await.0.to_string();
        assert!(!shown.contains(value), "{shown}");
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
        let example = example(&story, None);
        let run = brings_its_entities(&story, &server, &mut runner, &example).await;
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
        let example = example(&story, None);
        brings_its_entities(&story, &server, &mut runner, &example).await;
        cluster
            .until("the end of the Workflow and its Secret", async || {
                cluster.workloads().await == 0 && cluster.secrets().await.is_empty()
            })
            .await;
    })
    .await;
}

/// Where the example works: the sink, and where it finds its program if not in its `PATH`; otherwise as it is.
fn example(story: &Story, metadata: Option<&str>) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the crate lies in the workspace");
    let example = std::fs::read_to_string(root.join("examples/workflows/sqlite-metadata.yaml"));
    let example = example.expect("the example is there");
    let program = metadata.map(|metadata| format!("  METADATA: {metadata}\n"));
    let env = format!(
        "\nenv:\n  STORY: {}\n{}",
        story.folder().display(),
        program.unwrap_or_default()
    );
    let sink = format!("filename: {}", story.path(SINK).display());
    example
        .replace("filename: entities.json", &sink)
        .replace("\nenv:\n", &env)
}

/// Starts the runner and submits the example.
async fn brings_its_entities(
    story: &Story,
    server: &Server,
    runner: &mut Runner,
    example: &str,
) -> String {
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
    let entities = std::fs::read_to_string(story.path(SINK)).expect("the sink was written");
    for table in ["orders", "customers"] {
        assert!(
            entities.contains(table),
            "no `{table}` among the entities:\n{entities}"
        );
    }
    run.to_owned()
}
