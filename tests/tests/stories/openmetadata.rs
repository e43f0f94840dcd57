//! The real input of the main job: `openmetadata-ingestion` reads a SQLite database.

use std::path::Path;

use hybrid_runner_tests::{Runner, Server, Story, skipped};
use serde_json::Value;

#[tokio::test]
async fn the_openmetadata_example_brings_its_entities_to_the_sink() {
    let Some(metadata) = std::env::var_os("HYBRID_RUNNER_METADATA") else {
        return skipped(
            "openmetadata-ingestion is not installed; scripts/services/openmetadata-ingestion up",
        );
    };
    Story::told(240, async |story| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .expect("the crate lies in the workspace");
        let example =
            std::fs::read_to_string(root.join("examples/workflows/sqlite-metadata.yaml")).unwrap();
        // As it is, but for where it works.
        let metadata = Path::new(&metadata);
        let sink = story.path("entities.json");
        let example = example
            .replace(
                "filename: entities.json",
                &format!("filename: {}", sink.display()),
            )
            .replace(
                "\nenv:\n",
                &format!(
                    "\nenv:\n  METADATA: {}\n  STORY: {}\n",
                    metadata.display(),
                    story.folder().display()
                ),
            );
        let file = story
            .write("sqlite-metadata.yaml", example)
            .display()
            .to_string();
        story.write("secrets/openmetadata/token", "aaaaaaaa.bbbbbbbb.cccccccc");
        let server = Server::started(&story).await;
        let _runner = Runner::started(&story, &server).await;
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
            .unwrap();
        let mut follow = client.follow(run);
        let end = follow.end().await;

        assert_eq!(end.state(), "succeeded", "{}\n{}", end.0, follow.text());
        assert!(!follow.text().contains("aaaaaaaa.bbbbbbbb.cccccccc"));
        let entities = std::fs::read_to_string(&sink).unwrap();
        for table in ["orders", "customers"] {
            assert!(
                entities.contains(table),
                "no `{table}` among the entities:\n{entities}"
            );
        }
    })
    .await;
}
