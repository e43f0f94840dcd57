//! What changes while the runner runs: its token in a secret store, its configuration in its file.

use std::time::Duration;

use hybrid_runner_tests::{Client, Proxy, Runner, Server, Story};
use reqwest::Method;

use crate::admission::not_ready;

/// A store is asked for a refused token, and the file is looked at, every few seconds.
const SOON: Duration = Duration::from_secs(40);

async fn revoke(client: &Client, id: &str) {
    let path = format!("/tokens/{id}");
    let (status, answer) = client.insist(Method::DELETE, &path, None).await;
    assert_eq!(status.as_u16(), 204, "{answer}");
}

#[tokio::test]
async fn a_token_of_a_secret_store_is_taken_up_when_it_is_rotated_before_or_after_the_old_one_ends()
{
    Story::told(150, async |story| {
        let server = Server::started(&story).await;
        let client = server.client();
        let (first, token) = client.token("runner", Some("runner-1")).await;
        let proxy = Proxy::new(&server.address()).await;
        let mut runner = Runner::with_token(&story, proxy.address(), "runner-1", "hr_not-this-one");
        runner.token = "{ secret = \"secret:files:/runner/token#value\" }".to_owned();
        let lay = |token: &str| {
            let text = serde_json::json!({"value": token}).to_string();
            // As whoever rotates does it: never half of it.
            let fresh = story.write("secrets/runner/fresh", text);
            std::fs::rename(fresh, story.path("secrets/runner/token")).unwrap();
        };
        lay(&token);
        runner.start().await;
        let script = "echo up; while [ ! -e $STORY/gate ]; do sleep 0.05; done; echo down";
        let run = client
            .submit(&story.sh("going-on", script), "runner-1")
            .await;
        client.follow(&run).lines(1).await;

        // The store has the new one already when the old one ends: nobody waits.
        let (second, token) = client.token("runner", Some("runner-1")).await;
        lay(&token);
        revoke(&client, &first).await;
        let links = proxy.taken();
        runner.program().says("disconnected", SOON).await;
        runner.ready().await;
        assert!(
            proxy.taken() - links <= 2,
            "{} connects for one token",
            proxy.taken() - links
        );

        // The old one ends first: it is refused until the store has another.
        revoke(&client, &second).await;
        not_ready(&runner, &["token"]).await;
        let (_, token) = client.token("runner", Some("runner-1")).await;
        lay(&token);
        runner.program().says("the token changed", SOON).await;
        runner.ready().await;
        story.write("gate", "");
        client.finished(&run).await.expect("succeeded");
        assert_eq!(client.text(&run).await, "up\ndown\n");
        let said = runner.program().errors();
        assert!(!said.contains(&token), "the token is in the log");
    })
    .await;
}

#[tokio::test]
async fn a_file_of_configuration_that_changes_is_read_again_without_a_signal() {
    Story::told(150, async |story| {
        let server = Server::started(&story).await;
        let mut runner = Runner::started(&story, &server).await;
        let client = server.client();
        story.write("other/password", "correct-horse");
        let workflow = story
            .sh("change", "[ \"$A\" = correct-horse ]")
            .env("A", "secret:later:/password");
        let run = client.submit(&workflow, "runner-1").await;
        let end = client.finished(&run).await;
        end.expect_failed("secret", &["later", "files"]);

        let other = story.path("other").display().to_string();
        runner.sections = format!("[secrets.later]\nkind = \"file\"\npath = \"{other}\"\n");
        runner.settings = vec!["max_runs = 63".to_owned()];
        runner.config();
        runner
            .program()
            .says("read the configuration again", SOON)
            .await;
        runner.program().says("need a restart", SOON).await;
        assert!(runner.program().errors().contains("runner.max_runs"));
        let run = client.submit(&workflow, "runner-1").await;
        client.finished(&run).await.expect("succeeded");

        // What is wrong changes nothing.
        runner.sections = "[secrets.later]\nkind = \"fil\"\n".to_owned();
        runner.config();
        runner.program().says("the last one stays", SOON).await;
        runner.program().says("did you mean `file`?", SOON).await;
        let run = client.submit(&workflow, "runner-1").await;
        client.finished(&run).await.expect("succeeded");
    })
    .await;
}
