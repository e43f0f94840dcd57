//! Plugins that are wrong on purpose, each caught by the promise that is meant for it.

use hybrid_runner::conformance::{self, Candidate, Options, Report};
use serde_json::json;

use super::{ODD, Place, told};

/// What is wrong, and the promise that finds it.
const WRONG: &[(&str, &str)] = &[
    ("starts-twice", "starting_twice_starts_once"),
    ("loses-the-last-line", "the_last_words_are_delivered"),
    ("forgets", "a_new_executor_watches_by_the_id_alone"),
    ("ends-without-status", "watch_ends_after_finished"),
    ("is-slow", "questions_are_answered_soon"),
    ("writes-garbage", "check_answers_without_side_effects"),
    ("leaks", "a_value_in_a_variable_arrives_and_is_masked"),
    ("leaks-in-its-handle", "a_value_stands_in_no_message"),
    ("leaves-grandchildren", "stop_ends_the_whole_tree"),
    (
        "ignores-credit",
        "a_stream_stops_when_its_credit_is_used_up",
    ),
];

async fn tried(name: &str, promise: &str) -> Report {
    let place = Place::new();
    let mut options = Options::new(place.path("trial"));
    std::fs::create_dir_all(&options.folder).unwrap();
    options.patience = std::time::Duration::from_secs(8);
    let settings = serde_json::from_value(json!({ "command": [ODD, name] })).unwrap();
    let candidate = Candidate::program(settings, options);
    // Garbage is found by what is looked for at the end of all.
    let only = [promise.to_owned(), "stdout_holds_messages_only".to_owned()];
    conformance::run(candidate, &only, |_| {}).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_wrong_plugin_is_caught_by_its_promise() {
    for (name, promise) in WRONG {
        let report = told(120, tried(name, promise)).await;
        let promise = match *name {
            "writes-garbage" => "stdout_holds_messages_only",
            _ => promise,
        };
        let failed: Vec<_> = report
            .cases
            .iter()
            .filter(|case| case.verdict == "failed")
            .collect();
        let names: Vec<_> = failed.iter().map(|case| case.name.as_str()).collect();
        assert_eq!(names, [promise], "{name}: {failed:#?}");
        assert!(failed[0].expected.is_some() && failed[0].came.is_some());
        if promise != "stdout_holds_messages_only" {
            assert!(
                !failed[0].messages.is_empty(),
                "{name}: without its messages"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_right_plugin_fails_none_of_these_promises() {
    for (_, promise) in WRONG {
        let report = told(120, tried("local", promise)).await;
        assert_eq!(
            (report.failed, report.not_offered),
            (0, 0),
            "{promise}: {report:#?}"
        );
    }
}
