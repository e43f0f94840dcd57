//! The whole contract, and the promises of the pipe, at each plugin that is meant to keep them.

use hybrid_runner::conformance::{self, Candidate, Options, Report};
use hybrid_runner_executors::command;
use serde_json::json;

use super::{ODD, Place, example, has, python, told};

/// What comes of the whole suite.
async fn report(candidate: Candidate) -> Report {
    conformance::run(candidate, &[], |_| {}).await.unwrap()
}

fn program(place: &Place, command: &[&str]) -> Candidate {
    let settings = serde_json::from_value(json!({ "command": command })).unwrap();
    Candidate::program(settings, options(place))
}

fn options(place: &Place) -> Options {
    let mut options = Options::new(place.path("trial"));
    std::fs::create_dir_all(&options.folder).unwrap();
    options.patience = std::time::Duration::from_secs(30);
    options
}

/// Fails unless every promise was kept, at least so many.
fn certified(report: &Report, least: usize) {
    let failed: Vec<_> = report
        .cases
        .iter()
        .filter(|case| case.verdict == "failed")
        .collect();
    assert!(failed.is_empty(), "{failed:#?}");
    assert!(
        report.passed >= least,
        "{} passed: {report:#?}",
        report.passed
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_local_executor_keeps_the_contract_through_the_pipe() {
    let place = Place::new();
    certified(
        &told(300, report(program(&place, &[ODD, "local"]))).await,
        75,
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_fake_keeps_the_contract_through_the_pipe() {
    let place = Place::new();
    let settings = serde_json::from_value(json!({ "command": [ODD, "fake"] })).unwrap();
    let mut options = options(&place);
    options.one_process = true;
    let candidate = Candidate::program(settings, options);
    let report = told(300, report(candidate)).await;
    // It lives in its process: what kills that kills its runs.
    let failed = |case: &&conformance::Outcome| {
        case.verdict == "failed" && case.name != "a_run_survives_the_plugin"
    };
    let failed: Vec<_> = report.cases.iter().filter(failed).collect();
    assert!(failed.is_empty(), "{failed:#?}");
    assert!(report.passed >= 65, "{report:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_example_in_python_keeps_the_contract() {
    if has(&["python3"]) {
        let place = Place::new();
        let executor = example("custom-executor-python/executor.py");
        certified(
            &told(900, report(program(&place, &[&python(), &executor]))).await,
            70,
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_example_in_node_keeps_the_contract() {
    if has(&["node", "python3"]) {
        let place = Place::new();
        let executor = example("custom-executor-node/executor.mjs");
        certified(&told(900, report(program(&place, &[&executor]))).await, 70);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_commands_keep_the_contract() {
    if has(&["python3"]) {
        let place = Place::new();
        let (python, batch) = (python(), example("custom-executor-command/batch"));
        let settings = json!({
            "start": [python, batch, "start"], "status": [python, batch, "status"], "logs": [python, batch, "logs", "{id}", "{offset}"],
            "stop": [python, batch, "stop", "{id}", "{grace}"], "remove": [python, batch, "remove", "{id}"],
            "raw_logs": true, "interval": "200ms", "settings": { "folder": place.path("jobs") },
        });
        let candidate = Candidate::section(command::KIND, settings, options(&place));
        certified(&told(900, report(candidate)).await, 50);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_store_keeps_its_contract_through_the_pipe() {
    let place = Place::new();
    let settings =
        json!({ "command": [ODD, "store"], "settings": { "path": place.path("secrets") } });
    std::fs::create_dir(place.path("secrets")).unwrap();
    let settings = serde_json::from_value(settings).unwrap();
    let candidate = Candidate::program(settings, options(&place));
    certified(&told(120, report(candidate)).await, 12);
}
