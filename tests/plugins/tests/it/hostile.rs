//! Programs that do not keep to the protocol: clear errors, bounded memory, other executors unaffected.

use std::time::Duration;

use futures::StreamExt as _;
use hybrid_runner_core::ErrorKind;
use hybrid_runner_core::RunId;
use hybrid_runner_core::error::Error;
use hybrid_runner_core::executor::{Executor as _, Handle};
use serde_json::json;
use tokio::time::{Instant, timeout};

use super::{ODD, Place, told};

/// What the program may cost us, however much it writes.
const MOST_MEMORY: u64 = 64 << 20;

fn impatient() -> serde_json::Value {
    json!({ "timeouts": { "hello": "3s", "check": "4s", "watch": "4s", "heartbeat": "1s" } })
}

fn memory() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib << 10
}

/// What comes of a question to a hostile program, while another plugin goes on answering.
async fn asked(name: &str) -> Error {
    let (place, other) = (Place::new(), Place::new());
    let hostile = place.plugin_with(&[ODD, name], impatient());
    let good = other.plugin(&[ODD, "local"]);
    good.check().await.unwrap();
    let before = memory();
    let error = tokio::join!(
        async {
            let checked = timeout(Duration::from_secs(20), hostile.check()).await;
            checked.unwrap().unwrap_err()
        },
        async {
            for _ in 0..20 {
                let began = Instant::now();
                good.check().await.unwrap();
                assert!(
                    began.elapsed() < Duration::from_secs(2),
                    "{name} keeps others from work"
                );
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    );
    let grown = memory().saturating_sub(before);
    assert!(grown < MOST_MEMORY, "{name} cost {grown} bytes");
    error.0
}

async fn says(name: &str, words: &[&str]) {
    let error = told(60, asked(name)).await;
    let report = error.report();
    assert!(
        words.iter().any(|word| report.contains(word)),
        "{name}: {report}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_garbage_ends_the_session() {
    says("floods", &["malformed messages"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_messages_that_nobody_asked_for_ends_the_session() {
    says("floods-messages", &["nobody asked for"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_line_of_a_gigabyte_is_refused_before_it_is_read() {
    says("endless-line", &["longer than 1 MiB"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_that_are_no_text_end_the_session() {
    says("not-text", &["malformed messages"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_that_nests_deep_gets_an_error() {
    says("deep", &["not of its form", "malformed"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_that_never_reads_is_killed() {
    says("deaf", &["silent for two heartbeats", "did not answer"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_that_never_answers_is_given_up() {
    says("mute", &["no answer to `hello`", "silent"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_that_closes_early_is_named_with_its_end() {
    says("closes", &["exit status: 0"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_of_another_version_is_told_both_versions() {
    let error = told(30, asked("newer")).await;
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    let report = error.report();
    assert!(
        report.contains("v1-preview") && report.contains("v9"),
        "{report}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_on_stderr_disturbs_nothing() {
    let place = Place::new();
    let plugin = place.plugin_with(
        &[ODD, "floods-stderr"],
        json!({ "timeouts": { "check": "30s" } }),
    );
    let before = memory();
    told(60, plugin.check()).await.unwrap();
    assert!(memory().saturating_sub(before) < MOST_MEMORY);
}

#[tokio::test]
async fn a_program_that_is_missing_or_cannot_be_run_is_named() {
    let place = Place::new();
    std::fs::write(place.path("not-executable"), "#!/bin/sh\n").unwrap();
    for (program, words) in [
        ("./missing", "is it there"),
        ("./not-executable", "is it executable"),
    ] {
        let plugin = place.plugin(&[program]);
        let error = told(10, plugin.check()).await.unwrap_err();
        assert!(error.is_transient(), "{error:?}");
        let report = error.report();
        assert!(
            report.contains(program) && report.contains(words),
            "{report}"
        );
        let mut levels = plugin.watch(&Handle::of(RunId::generate()));
        let level = told(10, levels.next()).await.unwrap();
        assert!(level.is_err(), "a plugin that cannot be run knows no run");
    }
}

#[tokio::test]
async fn a_program_that_ends_at_once_is_not_started_without_end() {
    let place = Place::new();
    let counted = place.path("starts");
    let script = format!(
        "#!/bin/sh\necho x >> {}\necho why it ends >&2\nexit 7\n",
        counted.display()
    );
    std::fs::write(place.path("ends.sh"), script).unwrap();
    let plugin = place.plugin(&["/bin/sh", "ends.sh"]);
    let asked = async {
        let mut last = String::new();
        for _ in 0..40 {
            last = plugin.check().await.unwrap_err().report();
        }
        last
    };
    let last = told(60, asked).await;
    let starts = std::fs::read_to_string(counted).unwrap().lines().count();
    assert!(starts < 10, "{starts} starts for 40 questions");
    assert!(
        last.contains("exit status: 7") && last.contains("why it ends"),
        "{last}"
    );
}
