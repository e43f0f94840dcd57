//! What people type, and how it exits.

use std::time::Duration;

use hybrid_runner_tests::processes::{self, until};
use hybrid_runner_tests::program::{Ended, Program, Start};
use hybrid_runner_tests::{Binary, Runner, Server, Story, Workflow};
use rustix::process::Signal;

const SOON: Duration = Duration::from_secs(30);

/// A server, a runner, and who types.
struct Typing {
    story: Story,
    server: Server,
    _runner: Runner,
}

impl Typing {
    async fn begin(story: &Story) -> Self {
        let server = Server::started(story).await;
        let runner = Runner::started(story, &server).await;
        Self {
            story: story.clone(),
            server,
            _runner: runner,
        }
    }

    fn start(&self, arguments: &[&str]) -> Start {
        let mut start = self.story.start("typed", Binary::Product, arguments);
        start
            .environment
            .insert("HYBRID_RUNNER_SERVER".to_owned(), self.server.url());
        start
            .environment
            .insert("HYBRID_RUNNER_TOKEN".to_owned(), self.server.admin_token());
        start
    }

    async fn types(&self, arguments: &[&str]) -> Ended {
        self.start(arguments).run(SOON).await
    }

    fn file(&self, workflow: &Workflow) -> String {
        let name = workflow.to_value()["name"]
            .as_str()
            .unwrap_or("workflow")
            .to_owned();
        self.story
            .write(&format!("{name}.yaml"), workflow.to_yaml())
            .display()
            .to_string()
    }
}

#[tokio::test]
async fn dev_once_runs_the_example_shows_its_mask_and_leaves_nothing() {
    Story::told(90, async |story| {
        let ended = story.command(&["dev", "--once"]).await;
        ended.expect(0);
        assert!(ended.text().contains("***"), "{}", ended.text());
        let left: Vec<_> = std::fs::read_dir(story.folder())
            .unwrap()
            .flatten()
            .map(|entry| entry.file_name())
            .collect();
        assert!(
            left.iter()
                .all(|name| name.to_string_lossy().starts_with("command.")),
            "{left:?}"
        );
        let here = story.folder().display().to_string();
        processes::gone(&here, SOON).await;
    })
    .await;
}

#[tokio::test]
async fn dev_once_exits_like_the_worst_of_its_runs() {
    Story::told(90, async |story| {
        let good = story
            .write("good.yaml", story.sh("good", "echo good").to_yaml())
            .display()
            .to_string();
        let bad = story
            .write("bad.yaml", story.sh("bad", "echo bad; exit 3").to_yaml())
            .display()
            .to_string();
        let ended = story.command(&["dev", "--once", &good, &bad]).await;
        ended.expect(1).says(&["failed", "exit"]);
        assert_eq!(ended.text(), "good\nbad\n");
    })
    .await;
}

#[tokio::test]
async fn dev_serves_until_it_is_interrupted_and_keeps_what_it_is_told_to_keep() {
    Story::told(90, async |story| {
        let data = story.path("kept").display().to_string();
        let good = story
            .write("good.yaml", story.sh("good", "echo good").to_yaml())
            .display()
            .to_string();
        let mut dev = story
            .start("dev", Binary::Product, &["dev", &good, "--data-dir", &data])
            .spawn();
        dev.says("ready for more", SOON).await;
        dev.signal(Signal::INT);
        assert_eq!(dev.end(SOON).await.code(), Some(0));
        assert!(story.path("kept").join("server").is_dir());
        // The same folder serves again.
        let mut dev = story
            .start("dev", Binary::Product, &["dev", &good, "--data-dir", &data])
            .spawn();
        dev.says("ready for more", SOON).await;
        dev.signal(Signal::TERM);
        assert_eq!(dev.end(SOON).await.code(), Some(0));
    })
    .await;
}

#[tokio::test]
async fn exec_exits_like_its_run_and_2_when_there_was_none() {
    Story::told(90, async |story| {
        let file = |name: &str, workflow: Workflow| {
            story.write(name, workflow.to_yaml()).display().to_string()
        };
        let good = file("good.yaml", story.sh("good", "echo out; echo err >&2"));
        let bad = file("bad.yaml", story.sh("bad", "exit 3"));
        let secret = file(
            "secret.yaml",
            story.sh("secret", "true").env("A", "secret:/missing"),
        );
        let ended = story.command(&["exec", &good]).await;
        ended.expect(0).says(&["succeeded"]);
        assert!(ended.text().contains("out\n"), "{}", ended.text());
        story
            .command(&["exec", &bad])
            .await
            .expect(1)
            .says(&["failed (exit)", "exit code 3"]);
        story
            .command(&["exec", &secret])
            .await
            .expect(1)
            .says(&["failed (secret)", "SECRET_MISSING"]);
        story
            .command(&["exec", &good, "--executor", "argo"])
            .await
            .expect(2)
            .says(&["argo"]);
        story
            .command(&["exec", "/no/such/file.yaml"])
            .await
            .expect(2)
            .says(&["/no/such/file.yaml"]);
        story.command(&["exec", &good, "--dry-run"]).await.expect(0);
        story
            .command(&["exec", &secret, "--dry-run"])
            .await
            .expect(1)
            .says(&["missing"]);
        story.command(&["exec"]).await.expect(2);
        story
            .command(&["run", &good])
            .await
            .expect(2)
            .says(&["did you mean `exec"]);
    })
    .await;
}

#[tokio::test]
async fn an_interrupted_exec_stops_its_run() {
    Story::told(60, async |story| {
        let mark = format!("mark-{}", uuid::Uuid::new_v4());
        let workflow = story
            .sh("endless", "echo up; exec sleep 600")
            .env("MARK", &mark)
            .with("grace", "2s");
        let file = story
            .write("endless.yaml", workflow.to_yaml())
            .display()
            .to_string();
        let mut exec = story
            .start("exec", Binary::Product, &["exec", &file])
            .spawn();
        until("the run is up", SOON, || {
            exec.output().contains("up").then_some(())
        })
        .await;
        exec.signal(Signal::INT);
        assert_eq!(exec.end(SOON).await.code(), Some(130));
        processes::gone(&mark, SOON).await;
    })
    .await;
}

/// An `exec` whose engine is not there, once it has said so.
async fn exec_without_its_backend(story: &Story) -> Program {
    let config = story.write(
        "away.toml",
        "[executors.here]\nkind = \"docker\"\nhost = \"unix:///no/such.sock\"\nimage = \"x\"\n",
    );
    let file = story.write("away.yaml", story.sh("away", "true").to_yaml());
    let (config, file) = (config.display().to_string(), file.display().to_string());
    let exec = story
        .start("exec", Binary::Product, &["exec", &file, "-c", &config])
        .spawn();
    exec.says("executor `here` does not answer", SOON).await;
    exec
}

#[tokio::test]
async fn an_interrupted_exec_ends_although_its_backend_is_away_and_says_what_may_be_left() {
    Story::told(90, async |story| {
        let mut exec = exec_without_its_backend(&story).await;
        exec.signal(Signal::INT);
        assert_eq!(exec.end(SOON).await.code(), Some(130));
        let said = exec.errors();
        for words in [
            "the backend does not answer, so the run could not be stopped",
            "container `hr-",
            "nobody will remove it",
            "/no/such.sock",
        ] {
            assert!(said.contains(words), "no `{words}` in {said}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_second_interrupt_of_exec_leaves_the_run_at_once_and_says_what_is_left() {
    Story::told(90, async |story| {
        let mut exec = exec_without_its_backend(&story).await;
        exec.signal(Signal::INT);
        exec.says("a second Ctrl-C leaves it", SOON).await;
        exec.signal(Signal::INT);
        assert_eq!(exec.end(SOON).await.code(), Some(130));
        let said = exec.errors();
        assert!(said.contains("left the run: container `hr-"), "{said}");
        assert!(!said.contains("could not be stopped"), "{said}");
    })
    .await;
}

#[tokio::test]
async fn a_run_is_submitted_followed_listed_shown_and_stopped() {
    Story::told(90, async |story| {
        let typing = Typing::begin(&story).await;
        let good = typing.file(&story.sh("good", "echo one; echo two"));
        let bad = typing.file(&story.sh("bad", "echo three; exit 3"));
        let endless = typing.file(&story.sh("endless", "echo up; exec sleep 600"));

        let followed = typing.types(&["submit", "-f", &good]).await;
        followed.expect(0).says(&["succeeded"]);
        assert_eq!(followed.text(), "one\ntwo\n");
        let followed = typing
            .types(&["submit", "--follow", "--runner", "runner-1", &bad])
            .await;
        followed.expect(1).says(&["failed (exit)"]);

        let submitted = typing.types(&["submit", &endless, "--key", "k"]).await;
        let run = submitted.expect(0).text().trim().to_owned();
        let again = typing.types(&["submit", &endless, "--key", "k"]).await;
        assert_eq!(again.expect(0).text().trim(), run, "one key, one run");
        typing.server.client().follow(&run).lines(1).await;

        // Without a runner's word about it, Ctrl-C leaves the run.
        let mut following = typing.start(&["logs", &run[..12], "-f"]).spawn();
        until("it follows", SOON, || {
            following.output().contains("up").then_some(())
        })
        .await;
        following.signal(Signal::INT);
        assert_eq!(following.end(SOON).await.code(), Some(130));
        assert!(
            following.errors().contains(&run[..12]),
            "{}",
            following.errors()
        );
        assert_eq!(typing.server.client().show(&run).await.state(), "running");

        let listed = typing.types(&["runs", "--json"]).await.expect(0).json();
        assert_eq!(listed.as_array().map(Vec::len), Some(3), "{listed}");
        let listed = typing
            .types(&["runs", "--state", "running", "--limit", "1"])
            .await;
        assert!(listed.expect(0).text().contains(&run), "{}", listed.text());
        let shown = typing
            .types(&["show", &run, "--json"])
            .await
            .expect(0)
            .json();
        assert_eq!(
            (&shown["state"], &shown["key"]),
            (&"running".into(), &"k".into())
        );
        typing.types(&["stop", &run]).await.expect(0);
        typing
            .types(&["logs", "-f", &run])
            .await
            .expect(1)
            .says(&["stopped"]);
        let shown = typing.types(&["show", &run]).await;
        assert!(
            shown.expect(0).text().contains("stopped"),
            "{}",
            shown.text()
        );
        let tail = typing.types(&["logs", &run, "--tail", "1"]).await;
        assert_eq!(tail.expect(0).text(), "up\n");
        let runners = typing.types(&["runners"]).await;
        assert!(runners.expect(0).text().contains("runner-1"));
    })
    .await;
}

#[tokio::test]
async fn what_is_unknown_unreachable_or_refused_has_its_own_exit_code() {
    Story::told(90, async |story| {
        let typing = Typing::begin(&story).await;
        let good = typing.file(&story.sh("good", "true"));
        let nobody = "0190aaaa-0000-7000-8000-000000000000";
        typing
            .types(&["show", nobody])
            .await
            .expect(1)
            .says(&[nobody]);
        typing.types(&["logs", nobody]).await.expect(1);
        typing.types(&["stop", nobody]).await.expect(1);
        typing.types(&["show", "not-an-id"]).await.expect(2);
        typing.types(&["--server", "x"]).await.expect(2);
        typing
            .types(&["submit", &good, "--server", "http://127.0.0.1:1"])
            .await
            .expect(3)
            .says(&["127.0.0.1:1"]);
        typing
            .types(&["submit", &good, "--token", "hr_garbage"])
            .await
            .expect(4)
            .says(&["token"]);
        typing
            .types(&["runs", "--token", ""])
            .await
            .expect(2)
            .says(&["HYBRID_RUNNER_TOKEN"]);
        typing
            .types(&["submit", &good, "--key", "same"])
            .await
            .expect(0);
        let other = typing.file(&story.sh("other", "false"));
        typing
            .types(&["submit", &other, "--key", "same"])
            .await
            .expect(4)
            .says(&["submitted before"]);
        story
            .command(&["runs"])
            .await
            .expect(2)
            .says(&["HYBRID_RUNNER_SERVER"]);
        assert_eq!(
            typing.server.client().get("/runs").await["runs"]
                .as_array()
                .map(Vec::len),
            Some(1)
        );
    })
    .await;
}

#[tokio::test]
async fn tokens_are_made_listed_and_revoked() {
    Story::told(60, async |story| {
        let typing = Typing::begin(&story).await;
        let made = typing
            .types(&["token", "create", "--role", "client", "--name", "people"])
            .await;
        let token = made.expect(0).text().trim().to_owned();
        assert!(token.starts_with("hr_"), "{token}");
        typing.types(&["runs", "--token", &token]).await.expect(0);
        typing
            .types(&["token", "list", "--token", &token])
            .await
            .expect(4)
            .says(&["admin"]);

        let listed = typing.types(&["token", "list", "--json"]).await;
        assert!(
            !listed.text().contains(&token),
            "a list holds the token itself"
        );
        let listed = listed.json();
        let mine = listed
            .as_array()
            .unwrap()
            .iter()
            .find(|row| row["name"] == "people")
            .unwrap()
            .clone();
        assert!(mine["revoked"].is_null());
        typing
            .types(&["token", "revoke", mine["id"].as_str().unwrap()])
            .await
            .expect(0);
        typing
            .types(&["runs", "--token", &token])
            .await
            .expect(4)
            .says(&["token"]);
        typing
            .types(&["token", "create", "--role", "runner"])
            .await
            .expect(2)
            .says(&["--runner"]);
    })
    .await;
}

#[tokio::test]
async fn version_names_the_features_and_completions_complete() {
    Story::told(60, async |story| {
        let flag = story.command(&["--version"]).await;
        assert!(
            flag.expect(0).text().starts_with("hybrid-runner "),
            "{}",
            flag.text()
        );
        let version = story.command(&["version"]).await;
        for word in [
            "hybrid-runner",
            env!("CARGO_PKG_VERSION"),
            "local",
            "server",
        ] {
            assert!(
                version.expect(0).text().contains(word),
                "{}",
                version.text()
            );
        }
        assert!(
            story
                .command(&["completions", "bash"])
                .await
                .expect(0)
                .text()
                .contains("hybrid-runner")
        );
        story.command(&[]).await.expect(2);
        story.command(&["--help"]).await.expect(0);
    })
    .await;
}

#[tokio::test]
async fn a_runner_needs_no_file_but_the_variables_of_the_seed() {
    Story::told(60, async |story| {
        let server = Server::started(&story).await;
        let client = server.client();
        let (_, token) = client.token("runner", Some("seed")).await;
        let mut start = story.start("seed", Binary::Product, &["run"]);
        for (name, value) in [
            ("AGENT_ID", "seed"),
            ("AUTH_TOKEN", &token),
            ("SERVER_URL", &server.url().replace("http", "ws")),
            ("ARGO_EXTRA_ENVS_NOOP", "[A:1, B:2]"),
            ("EXECUTOR_TYPE", "local"),
            (
                "HYBRID_RUNNER__RUNNER__DATA_DIR",
                &story.path("seed.data").display().to_string(),
            ),
            ("HYBRID_RUNNER__RUNNER__LISTEN", "none"),
        ] {
            start.environment.insert(name.to_owned(), value.to_owned());
        }
        let mut runner = start.spawn();
        client.runner_is("seed", "connected").await;
        let run = client
            .submit(&story.sh("seeded", "echo [$AUTH_TOKEN]"), "seed")
            .await;
        client.finished(&run).await.expect("succeeded");
        assert_eq!(
            client.text(&run).await,
            "[]\n",
            "the runner's own token reached a workload"
        );
        runner.signal(Signal::TERM);
        assert_eq!(runner.end(SOON).await.code(), Some(0));
        assert!(!runner.errors().contains(&token));
    })
    .await;
}
