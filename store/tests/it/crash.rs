//! `kill -9` at any moment.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::{add, begin, hold, lines, opened, within};

const DIRECTORY: &str = "STORE_TEST_DIRECTORY";

/// Runs one of the ignored tests below as a process of its own.
fn child(name: &str, directory: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("has a path"));
    command.args([
        "--exact",
        &format!("crash::{name}"),
        "--ignored",
        "--nocapture",
        "--test-threads=1",
    ]);
    command
        .env(DIRECTORY, directory)
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    command
}

fn said(child: &mut Child) -> impl Iterator<Item = String> + use<> {
    let lines = BufReader::new(child.stdout.take().expect("is piped"))
        .lines()
        .map_while(Result::ok);
    // The harness may write on the same line before us.
    lines.filter_map(|line| {
        line.split_once("committed ")
            .map(|(_, text)| text.to_owned())
    })
}

/// Says a line at once, whole.
fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    out.write_all(format!("committed {text}\n").as_bytes())
        .and_then(|()| out.flush())
        .expect("the parent listens");
}

#[tokio::test]
async fn kill_9_loses_nothing_that_write_returned() {
    within(async {
        let directory = TempDir::new().expect("makes a directory");
        let mut child = child("writes_until_killed", directory.path())
            .spawn()
            .expect("starts");
        let mut said = said(&mut child);
        // Past some checkpoints, so that the log was started over.
        let mut seen: Vec<_> = said.by_ref().take(3000).collect();
        child.kill().expect("kills");
        seen.extend(said);
        child.wait().expect("ends");
        let opened = opened(directory.path()).await;
        assert!(!opened.created && opened.set_aside.is_none());
        let found = lines(&opened.store).await;
        assert!(seen.len() >= 3000);
        assert_eq!(found[..seen.len()], seen);
        assert!(
            found.len() <= seen.len() + 1,
            "only the last one may have gone unsaid"
        );
    })
    .await;
}

#[tokio::test]
#[ignore = "the child of another test"]
async fn writes_until_killed() {
    let Some(directory) = std::env::var_os(DIRECTORY) else {
        return;
    };
    let store = opened(Path::new(&directory)).await.store;
    for number in 0.. {
        let text = format!("{number}");
        store.write(add(&text)).await.expect("commits");
        say(&text);
    }
}

#[tokio::test]
async fn dying_within_a_group_leaves_none_of_it() {
    within(async {
        let directory = TempDir::new().expect("makes a directory");
        let mut child = child("dies_within_a_group", directory.path())
            .spawn()
            .expect("starts");
        let seen: Vec<_> = said(&mut child).collect();
        assert!(!child.wait().expect("ends").success());
        assert_eq!(seen, ["first"]);
        let opened = opened(directory.path()).await;
        assert!(!opened.created && opened.set_aside.is_none());
        assert_eq!(lines(&opened.store).await, ["first"]);
    })
    .await;
}

#[tokio::test]
#[ignore = "the child of another test"]
async fn dies_within_a_group() {
    let Some(directory) = std::env::var_os(DIRECTORY) else {
        return;
    };
    let store = opened(Path::new(&directory)).await.store;
    store.write(add("first")).await.expect("commits");
    say("first");
    let open = hold(&store).await;
    let mut second = Box::pin(store.write(add("second")));
    let mut third = Box::pin(
        store.write(|_| -> hybrid_runner_store::rusqlite::Result<()> { std::process::abort() }),
    );
    begin(&mut second).await;
    begin(&mut third).await;
    drop(open);
    third.await.expect("does not come back");
}

/// Aborts at each durable step of a short life and looks at what is left.
#[cfg(feature = "_faults")]
#[tokio::test]
async fn dying_at_any_step_keeps_what_was_acknowledged() {
    within(async {
        let log = TempDir::new().expect("makes a directory");
        let log = log.path().join("steps");
        let run = |step: usize, directory: &Path| {
            let mut command = child("writes_three", directory);
            command
                .env("HYBRID_RUNNER_FAULT_STEP", step.to_string())
                .env("HYBRID_RUNNER_FAULT_LOG", &log);
            let mut child = command.spawn().expect("starts");
            let seen = said(&mut child).count();
            (seen, child.wait().expect("ends").success())
        };
        let whole = TempDir::new().expect("makes a directory");
        assert_eq!(run(0, whole.path()), (3, true));
        let steps = std::fs::read_to_string(&log)
            .expect("reads")
            .lines()
            .count();
        assert!(steps >= 12, "{steps}");
        for step in 1..=steps {
            let directory = TempDir::new().expect("makes a directory");
            let (seen, success) = run(step, directory.path());
            assert!(!success, "step {step}");
            let opened = opened(directory.path()).await;
            assert!(opened.set_aside.is_none(), "step {step}");
            let found = lines(&opened.store).await.len();
            assert!(
                found == seen || found == seen + 1,
                "step {step}: said {seen}, found {found}"
            );
        }
    })
    .await;
}

#[cfg(feature = "_faults")]
#[tokio::test]
#[ignore = "the child of another test"]
async fn writes_three() {
    let Some(directory) = std::env::var_os(DIRECTORY) else {
        return;
    };
    let store = opened(Path::new(&directory)).await.store;
    for text in ["one", "two", "three"] {
        store
            .write(add(text))
            .await
            .expect("commits")
            .synced()
            .await
            .expect("syncs");
        say(text);
    }
}
