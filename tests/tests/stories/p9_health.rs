//! P9: readiness fails when work cannot flow and says why; it never fails for another reason.

use std::time::Duration;

use hybrid_runner_tests::rest::http;
use hybrid_runner_tests::{Runner, Server, Story};
use tokio::time::{Instant, sleep};

/// Asks the runner until it is ready or not, as wanted; gives its words.
async fn until_ready_is(runner: &Runner, wanted: bool) -> String {
    let deadline = Instant::now() + Duration::from_secs(40);
    loop {
        let (code, words) = runner.ask("readyz").await;
        if (code == 200) == wanted {
            return words;
        }
        assert!(Instant::now() < deadline, "still {code}: {words}");
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn readiness_follows_the_link_and_says_why() {
    Story::told(110, async |story| {
        let mut server = Server::started(&story).await;
        let runner = Runner::started(&story, &server).await;
        assert_eq!(runner.ask("healthz").await.0, 200);

        server.kill().await;
        let words = until_ready_is(&runner, false).await;
        assert!(words.contains("not connected"), "{words}");
        // Being alive is another question.
        assert_eq!(runner.ask("healthz").await.0, 200);

        server.start().await;
        until_ready_is(&runner, true).await;
        let metrics = runner.ask("metrics").await;
        assert_eq!(metrics.0, 200);
        assert!(metrics.1.contains("# TYPE"), "{}", metrics.1);
    })
    .await;
}

#[tokio::test]
async fn a_full_house_is_ready_and_a_draining_one_is_not() {
    Story::told(60, async |story| {
        let server = Server::started(&story).await;
        let mut runner = Runner::new(&story, &server, "runner-1").await;
        runner.settings = vec!["max_runs = 1".to_owned()];
        runner.start().await;
        let client = server.client();
        let run = client
            .submit(&story.sh("full", "echo up; exec sleep 600"), "runner-1")
            .await;
        client.follow(&run).lines(1).await;
        assert_eq!(runner.ask("readyz").await.0, 200);
        let http = http();
        for path in ["healthz", "readyz"] {
            let answer = http
                .get(format!("{}/{path}", server.url()))
                .send()
                .await
                .unwrap();
            assert_eq!(answer.status().as_u16(), 200, "{path} of the server");
        }
        let metrics = http
            .get(format!("{}/metrics", server.url()))
            .send()
            .await
            .unwrap();
        assert_eq!(metrics.status().as_u16(), 401, "only health is open");
    })
    .await;
}
