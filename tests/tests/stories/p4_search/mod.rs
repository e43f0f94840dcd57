//! P4 by search: a run prints fifty values in each form that `docs/masking.md` promises, cut in two at each place, while
//! the store is rotated and the runner killed. Then no value is anywhere, and nothing else was masked.
//!
//! | file | holds |
//! |---|---|
//! | `values` | the secrets |
//! | `forms` | what encoders make of them, by encoders of the story's own |
//! | `script`, `workload.c` | what the workload does, and what must be seen of it |
//! | `places` | what is looked for |
//! | `cluster` | the search in a cluster |

mod cluster;
mod forms;
mod places;
mod script;
mod values;

use std::path::{Path, PathBuf};
use std::time::Duration;

use hybrid_runner_core::testing::Search;
use hybrid_runner_tests::processes::{holds, until};
use hybrid_runner_tests::{
    Capture, Client, Docker, Engine, Proxy, Runner, Server, Story, Workflow,
};
use serde_json::json;

use places::{found_nothing, processes, search_for, values_in};
use script::Script;
use values::{Value, values};

/// What the workload prints besides values: it must be found wherever its output is.
const CANARY: &str = "canary-that-everybody-may-see";
/// The number of its line.
const CANARY_LINE: usize = 2;
/// The variable by which its processes are told apart.
const MARK: &str = "SEARCHED_WORKLOAD=";
/// Too short to be masked.
const TINY: &str = "x9+";
const SAID: &str =
    "hybrid-runner: the value of secret `/tiny` is too short to be masked (under 4 characters)\n";

/// For a machine that is busy.
const PATIENCE: Duration = Duration::from_mins(5);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_value_of_a_process_is_found_anywhere_and_nothing_else_is_masked() {
    Story::told(600, async |story| search(&story, None).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_value_of_a_container_is_found_anywhere_and_nothing_else_is_masked() {
    let Some(engine) = Engine::started(&[]).await else {
        return;
    };
    Story::told(600, async |story| search(&story, Some(&engine)).await).await;
}

async fn search(story: &Story, engine: Option<&Engine>) {
    let docker = engine.map(|engine| Docker::at(story, engine.address()));
    let generations = [values(0), values(1)];
    let mut search = search_for(generations.iter().flatten());
    let first = first_attempt(story, &generations[0]);
    let second = second_attempt(story, &generations[1]);
    build_workload(story);
    lay(story, &generations[0]);
    let server = Server::started(story).await;
    let capture = Capture::default();
    let proxy = Proxy::recording(&server.address(), &capture).await;
    let mut runner = Runner::new(story, &server, "runner-1").await;
    runner.dials = proxy.address().to_owned();
    runner.run_in(docker.as_ref());
    runner.start().await;
    let client = server.client();
    let run = client
        .submit(&workflow(story, &generations[0]), "runner-1")
        .await;

    let reached = story.path("reached");
    until("the workload is at the gate", PATIENCE, move || {
        reached.exists().then_some(())
    })
    .await;
    client.follow(&run).lines(CANARY_LINE).await;
    for folder in kept_by(story, engine) {
        assert!(has_canary(&folder), "no output in `{}`", folder.display());
    }
    processes(&mut search, MARK);
    if let Some(docker) = &docker {
        let told = docker.container(&run).await.to_string();
        assert!(
            told.contains("io.hybrid-runner.run"),
            "the container is another: {told}"
        );
        search.look("docker inspect", told.as_bytes());
    }
    everywhere(&mut search, story, engine);
    lay(story, &generations[1]);
    runner.kill().await;
    runner.start().await;
    story.write("go", "");
    let end = client.finished(&run).await;

    let log = client.log(&run).await;
    let rest = second.compare(first.compare(&log));
    assert_eq!(rest.escape_ascii().to_string(), "");
    end.expect("succeeded");
    search.look("the log", &log);
    answers(&mut search, &client, &run, &runner).await;
    for stream in capture.streams() {
        search.look("the link", &stream);
    }
    let understood = capture.understood().concat();
    assert!(
        holds(&understood, CANARY.as_bytes()),
        "no output in what was captured"
    );
    search.look("the link, unmasked", &understood);
    processes(&mut search, MARK);
    everywhere(&mut search, story, engine);
    found_nothing(&search);
}

/// The store, as it is now.
fn lay(story: &Story, values: &[Value]) {
    story.write("secrets/tiny", TINY);
    for value in values {
        story.write(&format!("secrets/{}", value.name), &value.text);
    }
}

fn workflow(story: &Story, values: &[Value]) -> Workflow {
    let script =
        r#"exec "$STORY/workload" "$STORY/script.$WORKFLOW_ATTEMPT" $((2 - WORKFLOW_ATTEMPT))"#;
    let (mark, _) = MARK.split_once('=').expect("a variable and `=`");
    let mut workflow = story
        .sh("search", script)
        .env(mark, "yes")
        .env("TINY", "secret:/tiny")
        .env(
            "DATABASE",
            "mysql://u:${secret:/plain}@db/${secret:/json#password}",
        )
        .with(
            "files",
            json!({"KEY": "secret:/pem", "BOTH": "${secret:/lines} and ${secret:/control}"}),
        )
        .with(
            "config",
            json!({"source": {"password": "secret:/quotes", "url": "a-${secret:/unicode}-b"}}),
        )
        .with(
            "retries",
            json!({"limit": 1, "delay": "10ms", "on": ["exit"]}),
        );
    for value in values {
        workflow = workflow.env(&value.variable(), &format!("secret:/{}", value.name));
    }
    workflow
}

/// Each value in each form, whole and in two writes; once more behind the gate.
fn first_attempt(story: &Story, values: &[Value]) -> Script {
    let mut script = Script::default();
    script.said_before(SAID);
    script.check(values);
    script.plain(format!("{CANARY}\n").as_bytes());
    script.print(values);
    script.split(values);
    script.plain(&decoys(values));
    let path = |name: &str| story.path(name).display().to_string();
    script.gate(&path("reached"), &path("go"));
    script.print(values);
    story.write("script.1", script.file());
    script
}

/// What an attempt of its own has: the values of now.
fn second_attempt(story: &Story, values: &[Value]) -> Script {
    let mut script = Script::default();
    script.said_before(SAID);
    script.check(values);
    script.print(values);
    script.plain(&decoys(values));
    story.write("script.2", script.file());
    script
}

/// What is no value, and so must be seen: all bytes, what is too short, and what only resembles a value.
fn decoys(values: &[Value]) -> Vec<u8> {
    let plain = values[0].text.as_str();
    let mut text: Vec<u8> = (0..=u8::MAX).collect();
    text.extend(format!("\n{TINY} q~Z prefix- *** ** :add-mask::x\n").bytes());
    let near = [
        plain[1..].to_owned(),
        plain[..plain.len() - 1].to_owned(),
        plain.to_uppercase(),
        plain.replace('-', "_"),
        plain.chars().rev().collect(),
    ];
    for near in near {
        text.extend(format!("{near}\n").bytes());
    }
    text
}

fn build_workload(story: &Story) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stories/p4_search/workload.c");
    let mut compiler = std::process::Command::new("cc");
    let built = compiler
        .args(["-O2", "-static", "-o"])
        .arg(story.path("workload"))
        .arg(source)
        .status();
    assert!(
        built.is_ok_and(|status| status.success()),
        "`cc -static` is needed: Debian's build-essential"
    );
}

/// All files of the story but the store: the data of both programs, their configuration, their logs. All that the engine has.
fn everywhere(search: &mut Search, story: &Story, engine: Option<&Engine>) {
    let secrets = story.path("secrets");
    let but_secrets = |folder: &Path| folder == secrets;
    search.files(story.folder(), &but_secrets);
    if let Some(engine) = engine {
        search.files(engine.folder(), &but_secrets);
    }
    let laid = hybrid_runner_tests::files(&secrets, "").into_iter();
    let laid: Vec<u8> = laid
        .flat_map(|file| std::fs::read(file).unwrap_or_default())
        .collect();
    assert_eq!(
        values_in(search, &laid),
        values::COUNT,
        "what is in the store must be found there"
    );
}

/// Where output is kept, masked.
fn kept_by(story: &Story, engine: Option<&Engine>) -> Vec<PathBuf> {
    let server = story.path("server-server.data");
    let beside = match engine {
        Some(engine) => engine.folder().to_owned(),
        None => story.path("runner-1.data"),
    };
    vec![server, beside]
}

fn has_canary(folder: &Path) -> bool {
    let mut files = hybrid_runner_tests::files(folder, "").into_iter();
    files.any(|file| std::fs::read(file).is_ok_and(|bytes| holds(&bytes, CANARY.as_bytes())))
}

/// What both programs answer.
async fn answers(search: &mut Search, client: &Client, run: &str, runner: &Runner) {
    for path in [
        "/runs",
        &format!("/runs/{run}"),
        "/runners",
        "/runners/runner-1",
        "/tokens",
    ] {
        let answer = client.get(path).await.to_string();
        search.look(&format!("the answer to {path}"), answer.as_bytes());
    }
    for name in ["metrics", "healthz", "readyz"] {
        let (_, text) = runner.ask(name).await;
        search.look(&format!("the runner's /{name}"), text.as_bytes());
    }
    let mut follow = client.follow(run);
    follow.end().await;
    search.look("the followed log", &follow.log);
    for path in ["metrics", "openapi.json"] {
        let url = format!("{}/{path}", client.base());
        let answer = hybrid_runner_tests::rest::http()
            .get(url)
            .bearer_auth(client.token_text())
            .send()
            .await;
        let text = answer
            .expect("the server answers")
            .text()
            .await
            .unwrap_or_default();
        search.look(&format!("the server's /{path}"), text.as_bytes());
    }
}
