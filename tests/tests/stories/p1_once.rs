//! P1: we start an attempt at most once, and a run reaches exactly one end, whoever dies and whenever.

use std::time::Duration;

use futures::StreamExt as _;
use hybrid_runner_tests::story::{copy, replace};
use hybrid_runner_tests::{Binary, Client, Runner, Server, Story, Workflow, processes, skipped};
use serde_json::json;

/// Walks that go on at the same time. They mostly wait.
const TOGETHER: usize = 4;

/// The three runs of one walk: one that succeeds, one that fails twice, one that is stopped.
pub(super) struct Scenario {
    name: String,
    pub(super) runs: [String; 3],
}

impl Scenario {
    fn workflow(&self, story: &Story, name: &str, script: &str) -> Workflow {
        let name = format!("{}-{name}", self.name);
        let start = format!(
            "echo begin $WORKFLOW_ATTEMPT; echo $WORKFLOW_ATTEMPT >> $STORY/{name}.starts;"
        );
        story
            .sh(&name, &format!("{start} {script}"))
            .with("grace", "5s")
    }

    /// Submits them, and stops the third.
    pub(super) async fn play(story: &Story, client: &Client, runner: &str, name: &str) -> Self {
        let mut scenario = Self {
            name: name.to_owned(),
            runs: Default::default(),
        };
        let retries = json!({"limit": 1, "delay": "10ms", "on": ["exit"]});
        let good = scenario.workflow(story, "good", "echo end");
        let bad = scenario
            .workflow(story, "bad", "echo end; exit 3")
            .with("retries", retries);
        let endless = scenario.workflow(story, "endless", "exec sleep 600");
        scenario.runs[0] = client.submit(&good, runner).await;
        scenario.runs[1] = client.submit(&bad, runner).await;
        scenario.runs[2] = client.submit(&endless, runner).await;
        scenario
    }

    /// Stops the third run and waits for the ends; they must be the truth, told once.
    pub(super) async fn check(&self, story: &Story, client: &Client) {
        // Running is a process; that it has come to say so takes a moment more.
        let begun = format!("{}-endless.starts", self.name);
        processes::until(&begun, Duration::from_mins(1), || {
            (!story.read(&begun).is_empty()).then_some(())
        })
        .await;
        client.stop(&self.runs[2]).await;
        let [good, bad, endless] = &self.runs;
        let end = client.finished(good).await;
        assert_eq!(end.state(), "succeeded", "{}: {}", self.name, end.0);
        let end = client.finished(bad).await;
        assert_eq!(
            (end.state(), end.class(), end.attempt()),
            ("failed", "exit", 2),
            "{}: {}",
            self.name,
            end.0
        );
        let end = client.finished(endless).await;
        assert_eq!(end.state(), "stopped", "{}: {}", self.name, end.0);
        for (run, starts) in [("good", "1\n"), ("bad", "1\n2\n"), ("endless", "1\n")] {
            let file = format!("{}-{run}.starts", self.name);
            assert_eq!(story.read(&file), starts, "{file}");
        }
        assert_eq!(client.text(good).await, "begin 1\nend\n", "{}", self.name);
        assert_eq!(
            client.text(bad).await,
            "begin 1\nend\nbegin 2\nend\n",
            "{}",
            self.name
        );
        assert_eq!(client.text(endless).await, "begin 1\n", "{}", self.name);
    }
}

/// The steps that a log of steps names.
pub(super) fn steps(story: &Story, file: &str) -> Vec<String> {
    let log = story.read(file);
    log.lines()
        .filter_map(|line| Some(line.split_once(' ')?.1.to_owned()))
        .collect()
}

pub(super) fn fault_log(story: &Story, file: &str) -> Vec<(String, String)> {
    vec![(
        "HYBRID_RUNNER_FAULT_LOG".to_owned(),
        story.path(file).display().to_string(),
    )]
}

/// `step` is a number, or a name with the number among those of that name.
pub(super) fn fault_at(step: &impl ToString) -> Vec<(String, String)> {
    vec![("HYBRID_RUNNER_FAULT_STEP".to_owned(), step.to_string())]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_runner_killed_at_any_of_its_durable_steps_starts_nothing_twice_and_loses_no_end() {
    if !Binary::Faults.is_there() {
        return skipped("the binary for crash tests was not built; scripts/test builds it");
    }
    Story::told(500, async |story| {
        let server = Server::started(&story).await;
        let client = server.client();
        // Without a fault, to see which steps there are.
        let mut whole = Runner::new(&story, &server, "whole").await;
        whole.binary = Binary::Faults;
        whole.environment = fault_log(&story, "steps");
        whole.start().await;
        Scenario::play(&story, &client, "whole", "whole")
            .await
            .check(&story, &client)
            .await;
        whole.terminate().await;
        let steps = steps(&story, "steps");
        assert!(
            steps.len() > 20,
            "too few durable steps to walk over: {steps:?}"
        );

        let walked =
            futures::stream::iter(1..=steps.len()).map(|step| killed_at(&story, &server, step));
        let fired = walked
            .buffer_unordered(TOGETHER)
            .filter(|fired| std::future::ready(*fired))
            .count()
            .await;
        assert!(
            fired * 4 > steps.len() * 3,
            "only {fired} of {} walks came to their step",
            steps.len()
        );
    })
    .await;
}

/// One walk: a runner that aborts at `step`, and its next life. Whether it came to that step.
async fn killed_at(story: &Story, server: &Server, step: usize) -> bool {
    let client = server.client();
    let name = format!("at-{step}");
    let mut runner = Runner::new(story, server, &name).await;
    runner.binary = Binary::Faults;
    runner.environment = fault_at(&step);
    runner.spawn();
    let scenario = Scenario::play(story, &client, &name, &name).await;
    let check = scenario.check(story, &client);
    let lives = async {
        let ended = runner.program().end(Duration::from_mins(2)).await;
        assert!(!ended.success(), "{name}: a runner left by itself");
        runner.environment.clear();
        runner.start().await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = check => {}
        () = lives => {}
    }
    let fired = runner.environment.is_empty();
    runner.kill().await;
    fired
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_killed_at_any_of_its_durable_steps_starts_nothing_twice_and_loses_no_end() {
    if !Binary::Faults.is_there() {
        return skipped("the binary for crash tests was not built; scripts/test builds it");
    }
    Story::told(500, async |story| {
        let mut server = Server::new(&story, "whole");
        server.binary = Binary::Faults;
        server.environment = fault_log(&story, "steps");
        server.start().await;
        let begun = steps(&story, "steps").len();
        let client = server.client();
        let mut runner = Runner::started(&story, &server).await;
        Scenario::play(&story, &client, "runner-1", "whole")
            .await
            .check(&story, &client)
            .await;
        runner.kill().await;
        server.terminate().await;
        let steps = steps(&story, "steps");
        assert!(
            steps.len() > begun + 10,
            "too few durable steps to walk over: {steps:?}"
        );

        for step in 1..=begun {
            first_start_killed_at(&story, step).await;
        }
        let walked =
            futures::stream::iter(1..=steps.len()).map(|step| server_killed_at(&story, step));
        let fired = walked
            .buffer_unordered(TOGETHER)
            .filter(|fired| std::future::ready(*fired))
            .count()
            .await;
        assert!(
            fired * 4 > steps.len() * 3,
            "only {fired} of {} walks came to their step",
            steps.len()
        );
    })
    .await;
}

/// A server that dies while it makes its data: the next life has an admin's token and works.
async fn first_start_killed_at(story: &Story, step: usize) {
    let mut server = Server::new(story, &format!("first-{step}"));
    server.binary = Binary::Faults;
    server.environment = fault_at(&step);
    server.spawn();
    server.program().end(Duration::from_mins(1)).await;
    server.environment.clear();
    server.start().await;
    assert_eq!(server.client().get("/runs").await["runs"], json!([]));
    server.kill().await;
}

async fn server_killed_at(story: &Story, step: usize) -> bool {
    let name = format!("server-{step}");
    let mut server = Server::new(story, &name);
    server.binary = Binary::Faults;
    // The first life only makes the data; its own steps are walked apart.
    server.start().await;
    let client = server.client();
    let mut runner = Runner::new(story, &server, &name).await;
    server.terminate().await;
    server.environment = fault_at(&step);
    server.spawn();
    runner.spawn();
    let lives = async {
        let ended = server.program().end(Duration::from_mins(2)).await;
        assert!(!ended.success(), "{name}: a server left by itself");
        server.environment.clear();
        server.start().await;
        std::future::pending::<()>().await;
    };
    let check = async {
        let scenario = Scenario::play(story, &client, &name, &name).await;
        scenario.check(story, &client).await;
    };
    tokio::select! {
        () = check => {}
        () = lives => {}
    }
    let fired = server.environment.is_empty();
    runner.kill().await;
    server.kill().await;
    fired
}

/// A run that says how often it was started, and that is held until the story lets it go.
fn held(story: &Story) -> Workflow {
    let script = "echo start >> $STORY/starts; echo up; while [ ! -e $STORY/gate ]; do sleep 0.05; done; echo down";
    story.sh("held", script)
}

#[tokio::test]
async fn a_runner_whose_disk_was_lost_starts_nothing_again() {
    Story::told(60, async |story| {
        let server = Server::started(&story).await;
        let mut runner = Runner::started(&story, &server).await;
        let client = server.client();
        let run = client.submit(&held(&story), "runner-1").await;
        client.follow(&run).lines(1).await;

        // As a container whose writable layer is gone: the same boot, nothing on disk.
        runner.kill().await;
        std::fs::remove_dir_all(&runner.data_dir).unwrap();
        runner.start().await;

        let end = client.finished(&run).await;
        end.expect("lost");
        assert!(!end.why().is_empty(), "{}", end.0);
        assert_eq!(story.read("starts"), "start\n");
    })
    .await;
}

#[tokio::test]
async fn a_runner_restored_from_an_older_copy_starts_nothing_again() {
    Story::told(60, async |story| {
        let server = Server::started(&story).await;
        let mut runner = Runner::started(&story, &server).await;
        let client = server.client();
        runner.terminate().await;
        copy(&runner.data_dir, &story.path("older"));
        runner.start().await;
        let run = client.submit(&held(&story), "runner-1").await;
        client.follow(&run).lines(1).await;

        runner.kill().await;
        replace(&runner.data_dir, &story.path("older"));
        runner.start().await;

        client.finished(&run).await.expect("lost");
        assert_eq!(story.read("starts"), "start\n");
        let next = client
            .submit(&Workflow::sh("next", "echo fine"), "runner-1")
            .await;
        client.finished(&next).await.expect("succeeded");
    })
    .await;
}

#[tokio::test]
async fn a_server_restored_from_an_older_copy_adopts_what_its_runners_have() {
    Story::told(60, async |story| {
        let mut server = Server::started(&story).await;
        let mut runner = Runner::started(&story, &server).await;
        let client = server.client();
        server.terminate().await;
        copy(&server.data_dir(), &story.path("older"));
        server.start().await;
        runner.ready().await;
        let run = client.submit(&held(&story), "runner-1").await;
        client.follow(&run).lines(1).await;

        server.kill().await;
        replace(&server.data_dir(), &story.path("older"));
        server.start().await;
        client.adopted(&run).await;
        story.write("gate", "");

        client.finished(&run).await.expect("succeeded");
        assert_eq!(client.text(&run).await, "up\ndown\n");
        assert_eq!(story.read("starts"), "start\n");
    })
    .await;
}

#[tokio::test]
async fn a_run_given_up_for_lost_stays_lost_and_is_stopped_when_its_runner_returns() {
    Story::told(90, async |story| {
        let mut server = Server::new(&story, "server");
        server
            .settings
            .push("runner_lost_after = \"2s\"".to_owned());
        server.start().await;
        let mut runner = Runner::started(&story, &server).await;
        let client = server.client();
        let mark = format!("mark-{}", uuid::Uuid::new_v4());
        let run = client
            .submit(
                &held(&story).env("MARK", &mark).with("grace", "1s"),
                "runner-1",
            )
            .await;
        client.follow(&run).lines(1).await;

        runner.kill().await;
        let end = client.finished(&run).await;
        end.expect("lost");
        assert!(
            !processes::marked(&mark).is_empty(),
            "the work itself goes on"
        );
        runner.start().await;

        processes::gone(&mark, Duration::from_secs(30)).await;
        assert_eq!(client.show(&run).await.state(), "lost");
        assert_eq!(
            client.text(&run).await,
            "up\n",
            "nothing is accepted after the end"
        );
        assert_eq!(story.read("starts"), "start\n");
    })
    .await;
}
