//! P7: while the link is down, running work goes on, and nothing new is invented.

use std::time::Duration;

use hybrid_runner_tests::processes::until;
use hybrid_runner_tests::proxy::Mode;
use hybrid_runner_tests::{Proxy, Runner, Server, Story};
use serde_json::json;

const SOON: Duration = Duration::from_secs(30);

#[tokio::test]
async fn retries_go_on_without_a_link_and_nothing_else_starts() {
    Story::told(60, async |story| {
        let server = Server::started(&story).await;
        let proxy = Proxy::new(&server.address()).await;
        let mut runner = Runner::new(&story, &server, "runner-1").await;
        runner.dials = proxy.address().to_owned();
        runner.start().await;
        let client = server.client();
        let script = "echo $WORKFLOW_ATTEMPT >> $STORY/starts; echo attempt $WORKFLOW_ATTEMPT; \
                      [ $WORKFLOW_ATTEMPT = 1 ] && while [ ! -e $STORY/gate ]; do sleep 0.05; done; [ $WORKFLOW_ATTEMPT = 3 ]";
        let retries = json!({"limit": 2, "delay": "100ms", "on": ["exit"]});
        let run = client.submit(&story.sh("patient", script).with("retries", retries), "runner-1").await;
        client.follow(&run).lines(1).await;

        proxy.set(Mode::Refuse);
        proxy.cut();
        client.runner_is("runner-1", "away").await;
        let queued = client.submit(&story.sh("queued", "echo queued >> $STORY/starts"), "runner-1").await;
        story.write("gate", "");
        until("all attempts were made", SOON, || (story.read("starts") == "1\n2\n3\n").then_some(())).await;
        assert_eq!(client.show(&queued).await.state(), "queued");
        proxy.set(Mode::Open);

        let end = client.finished(&run).await;
        assert_eq!((end.state(), end.attempt()), ("succeeded", 3), "{}", end.0);
        assert_eq!(client.text(&run).await, "attempt 1\nattempt 2\nattempt 3\n");
        client.finished(&queued).await.expect("succeeded");
        assert_eq!(story.read("starts"), "1\n2\n3\nqueued\n");
    })
    .await;
}
