//! P6: stop wins over what has not happened, never over an end that already has.

use std::time::Duration;

use futures::future::join_all;
use hybrid_runner_tests::processes::{self, until};
use hybrid_runner_tests::{Runner, Server, Story, Workflow};

const SOON: Duration = Duration::from_secs(30);

/// What the processes of one run are found by.
pub(super) fn mark() -> String {
    format!("mark-{}", uuid::Uuid::new_v4())
}

/// A tree of processes that ignore SIGTERM: a child, a grandchild, one in a session of its own, and its parent.
pub(super) fn stubborn(story: &Story, mark: &str) -> Workflow {
    let script = "trap '' TERM; echo $$ >> $STORY/starts; \
                  (trap '' TERM; (trap '' TERM; sleep 601; sleep 602) & sleep 603; sleep 604) & \
                  setsid sh -c \"trap '' TERM; sleep 605; sleep 606\" & \
                  echo up; while :; do sleep 1; done";
    story
        .sh("stubborn", script)
        .env("MARK", mark)
        .with("grace", "500ms")
}

#[tokio::test]
async fn a_running_tree_that_ignores_sigterm_is_gone_within_grace() {
    Story::told(60, async |story| {
        let server = Server::started(&story).await;
        let _runner = Runner::started(&story, &server).await;
        let client = server.client();
        let mark = mark();
        let run = client.submit(&stubborn(&story, &mark), "runner-1").await;
        client.follow(&run).lines(1).await;
        processes::appear(&mark, 5, SOON).await;

        client.stop(&run).await;

        let end = client.finished(&run).await;
        end.expect("stopped");
        assert!(!end.0["stopped_by"].is_null(), "by whom: {}", end.0);
        processes::gone(&mark, Duration::from_secs(5)).await;
        assert_eq!(client.text(&run).await, "up\n");
    })
    .await;
}

#[tokio::test]
async fn a_polite_workload_may_clean_up_before_it_ends() {
    Story::told(60, async |story| {
        let server = Server::started(&story).await;
        let _runner = Runner::started(&story, &server).await;
        let client = server.client();
        let script = "trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.05; done";
        let run = client.submit(&story.sh("polite", script), "runner-1").await;
        client.follow(&run).lines(1).await;
        client.stop(&run).await;
        client.finished(&run).await.expect("stopped");
        // The shell may tell of its `sleep` too.
        assert!(client.text(&run).await.starts_with("up\nbye\n"));
    })
    .await;
}

#[tokio::test]
async fn runs_stopped_while_they_start_or_finish_end_once_and_leave_nothing() {
    Story::told(90, async |story| {
        let server = Server::started(&story).await;
        let _runner = Runner::started(&story, &server).await;
        let client = server.client();
        let mark = mark();
        let ends = join_all((0..24_u64).map(|number| {
            let (client, story, mark) = (client.clone(), story.clone(), mark.clone());
            async move {
                // Half are stopped as they start, half as they finish.
                let name = format!("race-{number}");
                let script = format!(
                    "echo $$ >> $STORY/{name}.starts; exec sleep {}",
                    if number % 2 == 0 { "600" } else { "0.1" }
                );
                let workflow = story
                    .sh(&name, &script)
                    .env("MARK", &mark)
                    .with("grace", "2s");
                let run = client.submit(&workflow, "runner-1").await;
                if number % 2 == 1 {
                    client.wait(&run, "running").await;
                }
                tokio::time::sleep(Duration::from_millis(number * 6)).await;
                client.stop(&run).await;
                let end = client.finished(&run).await;
                (name, run, end)
            }
        }))
        .await;
        for (name, run, end) in ends {
            assert!(
                ["stopped", "succeeded"].contains(&end.state()),
                "{name}: {}",
                end.0
            );
            assert!(
                name.ends_with(['1', '3', '5', '7', '9']) || end.state() == "stopped",
                "{name}: {}",
                end.0
            );
            assert!(
                story.read(&format!("{name}.starts")).lines().count() <= 1,
                "{name} was started twice"
            );
            assert_eq!(
                client.show(&run).await.state(),
                end.state(),
                "{name} changed its end"
            );
        }
        processes::gone(&mark, Duration::from_secs(5)).await;
    })
    .await;
}

#[tokio::test]
async fn a_run_stopped_while_the_runner_is_away_is_stopped_when_it_comes_back() {
    Story::told(60, async |story| {
        let server = Server::started(&story).await;
        let mut runner = Runner::started(&story, &server).await;
        let client = server.client();
        let mark = mark();
        let run = client.submit(&stubborn(&story, &mark), "runner-1").await;
        client.follow(&run).lines(1).await;
        runner.kill().await;
        client.runner_is("runner-1", "away").await;

        client.stop(&run).await;
        let queued = client
            .submit(&story.sh("queued", "touch $STORY/started"), "runner-1")
            .await;
        client.stop(&queued).await;

        // What was never sent is stopped at once; what runs, as soon as it can be reached.
        client.finished(&queued).await.expect("stopped");
        assert!(!client.show(&run).await.is_finished());
        assert!(!processes::marked(&mark).is_empty());
        runner.start().await;
        client.finished(&run).await.expect("stopped");
        processes::gone(&mark, Duration::from_secs(5)).await;
        assert_eq!(story.read("starts").lines().count(), 1);
        assert!(!story.path("started").exists());
    })
    .await;
}

#[tokio::test]
async fn a_stop_after_the_end_changes_nothing() {
    Story::told(60, async |story| {
        let server = Server::started(&story).await;
        let _runner = Runner::started(&story, &server).await;
        let client = server.client();
        let run = client
            .submit(&Workflow::sh("ended", "exit 4"), "runner-1")
            .await;
        client.finished(&run).await.expect_failed("exit", &["4"]);
        client.stop(&run).await;
        client.finished(&run).await.expect_failed("exit", &["4"]);
    })
    .await;
}

#[tokio::test]
async fn a_time_limit_stops_the_tree_although_the_runner_is_away() {
    Story::told(60, async |story| {
        let server = Server::started(&story).await;
        let mut runner = Runner::started(&story, &server).await;
        let client = server.client();
        let mark = mark();
        let run = client
            .submit(&stubborn(&story, &mark).with("timeout", "3s"), "runner-1")
            .await;
        client.follow(&run).lines(1).await;
        runner.kill().await;
        processes::gone(&mark, SOON).await;
        runner.start().await;
        client
            .finished(&run)
            .await
            .expect_failed("timeout", &["`timeout`"]);
    })
    .await;
}

#[tokio::test]
async fn nothing_of_a_run_is_accepted_after_its_end() {
    Story::told(60, async |story| {
        let server = Server::started(&story).await;
        let mut runner = Runner::started(&story, &server).await;
        let client = server.client();
        // Its child holds the output open and writes after the end, were it let live.
        let script = "echo up; (trap '' TERM HUP; while :; do echo late; echo x >> $STORY/late; sleep 0.02; done) & \
                      while [ ! -e $STORY/late ]; do sleep 0.02; done; exit 0";
        let run = client.submit(&story.sh("fenced", script), "runner-1").await;
        client.finished(&run).await.expect("succeeded");
        let log = client.text(&run).await;
        runner.kill().await;
        runner.start().await;
        let next = client.submit(&Workflow::sh("next", "echo next"), "runner-1").await;
        client.finished(&next).await.expect("succeeded");
        assert_eq!(client.text(&run).await, log);
        let written = story.read("late").len();
        until("the child is gone", SOON, || processes::marked("STORY=").iter().all(|process| !process.mentions(&story.folder().display().to_string()) || process.line().contains("hybrid-runner")).then_some(())).await;
        assert!(story.read("late").len() >= written);
    })
    .await;
}
