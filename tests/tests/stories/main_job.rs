//! A workflow arrives over the WebSocket, runs, and its status and log come back.

use hybrid_runner_tests::{Runner, Server, Story, Workflow};

#[tokio::test]
async fn a_run_is_submitted_runs_logs_in_order_and_succeeds() {
    Story::told(60, async |story| {
        let server = Server::started(&story).await;
        let _runner = Runner::started(&story, &server).await;
        let client = server.client();
        let script =
            "echo one; echo two; while [ ! -e $STORY/gate ]; do sleep 0.02; done; echo three";
        let run = client
            .submit(&story.sh("ordered", script), "runner-1")
            .await;

        let mut follow = client.follow(&run);
        follow.lines(2).await;
        client.running(&run).await;
        story.write("gate", "");
        let end = follow.end().await;

        end.expect("succeeded");
        assert_eq!(follow.text(), "one\ntwo\nthree\n");
        assert_eq!(client.text(&run).await, "one\ntwo\nthree\n");
        let order = ["queued", "starting", "running", "succeeded"];
        let places: Vec<_> = follow
            .states
            .iter()
            .map(|state| order.iter().position(|name| name == state))
            .collect();
        assert!(
            places.is_sorted() && places.last() == Some(&Some(3)),
            "{:?}",
            follow.states
        );
        for time in ["queued", "starting", "running", "finished"] {
            assert!(
                end.0["times"][time].is_string(),
                "no time for {time}: {}",
                end.0
            );
        }
    })
    .await;
}

#[tokio::test]
async fn both_outputs_arrive_and_are_told_apart() {
    Story::told(60, async |story| {
        let server = Server::started(&story).await;
        let _runner = Runner::started(&story, &server).await;
        let client = server.client();
        let workflow = Workflow::sh(
            "two-outputs",
            "echo out; echo err >&2; printf 'no final newline'",
        );
        let run = client.submit(&workflow, "runner-1").await;
        client.finished(&run).await.expect("succeeded");

        let text = |stream: &str| {
            let path = format!("/runs/{run}/logs?stream={stream}");
            let client = client.clone();
            async move {
                client
                    .get(&path)
                    .await
                    .as_str()
                    .unwrap_or_default()
                    .to_owned()
            }
        };
        assert_eq!(text("out").await, "out\nno final newline");
        assert_eq!(text("err").await, "err\n");
    })
    .await;
}

#[tokio::test]
async fn each_way_to_fail_has_its_class_and_says_what_to_do() {
    Story::told(60, async |story| {
        let server = Server::started(&story).await;
        let mut runner = Runner::new(&story, &server, "runner-1").await;
        runner.sections = "[policy]\ncommands = [\"/bin/sh\", \"/no/such/*\"]\n".to_owned();
        runner.start().await;
        let client = server.client();
        let marked = format!("touch {}", story.path("started").display());
        let submit = async |workflow: Workflow| client.submit(&workflow, "runner-1").await;

        let code = submit(Workflow::sh("code", "exit 3")).await;
        let signal = submit(Workflow::sh("signal", "kill -ABRT $$")).await;
        let missing = submit(Workflow::new("missing", &["/no/such/program"])).await;
        let stranger =
            submit(Workflow::sh("stranger", &marked).with("executor", "elsewhere")).await;
        let unresolved =
            submit(Workflow::sh("unresolved", &marked).env("A", "secret:/not/there")).await;
        let refused = submit(Workflow::new(
            "refused",
            &["/bin/touch", &story.path("started").display().to_string()],
        ))
        .await;

        let code = client.finished(&code).await;
        code.expect_failed("exit", &["3"]);
        assert_eq!(code.0["failure"]["exit_code"], 3);
        assert_eq!(code.0["failure"]["mender"], "author");
        let signal = client.finished(&signal).await;
        signal.expect_failed(signal.class(), &["signal 6"]);
        assert!(["exit", "killed"].contains(&signal.class()), "{}", signal.0);
        assert_eq!(signal.0["failure"]["signal"], 6);
        client
            .finished(&missing)
            .await
            .expect_failed("spec", &["/no/such/program"]);
        client
            .finished(&stranger)
            .await
            .expect_failed("spec", &["elsewhere", "`here`"]);
        client
            .finished(&unresolved)
            .await
            .expect_failed("secret", &["secret:/not/there", "files"]);
        let refused = client.finished(&refused).await;
        refused.expect_failed("policy", &["/bin/touch", "commands = [\"/bin/touch\"]"]);
        assert_eq!(refused.0["failure"]["mender"], "operator");
        assert!(
            !story.path("started").exists(),
            "a run that was refused has started"
        );
    })
    .await;
}

#[tokio::test]
async fn a_retry_is_the_next_attempt_of_the_same_run() {
    Story::told(60, async |story| {
        let server = Server::started(&story).await;
        let _runner = Runner::started(&story, &server).await;
        let client = server.client();
        let retries = serde_json::json!({"limit": 2, "delay": "100ms", "on": ["exit"]});
        let script = "echo attempt $WORKFLOW_ATTEMPT; [ $WORKFLOW_ATTEMPT = 3 ]";
        let workflow = Workflow::sh("retried", script).with("retries", retries);
        let run = client.submit(&workflow, "runner-1").await;

        let end = client.finished(&run).await;

        assert_eq!((end.state(), end.attempt()), ("succeeded", 3), "{}", end.0);
        assert_eq!(client.text(&run).await, "attempt 1\nattempt 2\nattempt 3\n");
    })
    .await;
}

#[tokio::test]
async fn submitting_twice_with_one_key_runs_once() {
    Story::told(60, async |story| {
        let server = Server::started(&story).await;
        let _runner = Runner::started(&story, &server).await;
        let client = server.client();
        let workflow = story.sh("keyed", "echo start >> $STORY/starts").to_value();
        let body = serde_json::json!({"workflow": workflow, "runner": "runner-1", "key": "once"});
        let (first, one) = client.insist(reqwest::Method::POST, "/runs", Some(&body)).await;
        let (second, two) = client.insist(reqwest::Method::POST, "/runs", Some(&body)).await;
        let other = serde_json::json!({"workflow": Workflow::sh("other", "true").to_value(), "runner": "runner-1", "key": "once"});
        let (third, refusal) = client.insist(reqwest::Method::POST, "/runs", Some(&other)).await;

        assert_eq!((first.as_u16(), second.as_u16(), third.as_u16()), (201, 200, 409));
        assert_eq!(one["id"], two["id"]);
        assert_eq!(refusal["error"]["kind"], "conflict");
        client.finished(one["id"].as_str().unwrap()).await.expect("succeeded");
        assert_eq!(story.read("starts"), "start\n");
    })
    .await;
}

#[tokio::test]
async fn bytes_arrive_as_they_were_written() {
    Story::told(60, async |story| {
        let server = Server::started(&story).await;
        let _runner = Runner::started(&story, &server).await;
        let client = server.client();
        let script = "head -c 300000 /dev/urandom > $STORY/random; \
                      { printf 'ünï\\302'; cat $STORY/random; printf '\\n\\000\\r\\n'; \
                        head -c 1000000 /dev/zero | tr '\\0' y; } > $STORY/written; cat $STORY/written";
        let run = client.submit(&story.sh("bytes", script), "runner-1").await;
        let mut follow = client.follow(&run);
        follow.end().await.expect("succeeded");

        let written = std::fs::read(story.path("written")).unwrap();
        assert!(written.len() > 1_300_000, "{}", written.len());
        assert!(client.log(&run).await == written, "what is stored differs");
        assert!(follow.log == written, "what the follower was told differs");
        let quiet = client.submit(&Workflow::sh("quiet", "true"), "runner-1").await;
        let mut follow = client.follow(&quiet);
        follow.end().await.expect("succeeded");
        assert_eq!(follow.text(), "");
    })
    .await;
}
