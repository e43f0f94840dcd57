//! Backends with names of their own: a start whose answer is lost is never made again, unless the run is found by its mark.

use std::time::Duration;

use futures::StreamExt as _;
use hybrid_runner_core::ErrorKind;
use hybrid_runner_core::RunId;
use hybrid_runner_core::executor::{Executor, Handle, Progress};
use hybrid_runner_core::kind::Context;
use hybrid_runner_core::run::{Outcome, RunSpec, State};
use hybrid_runner_core::secret::{SecretValue, Secrets};
use hybrid_runner_core::testing::{Script, Step};
use hybrid_runner_executors::command;
use serde_json::{Value, json};

use super::{ODD, Place, end, told};

fn spec(place: &Place) -> RunSpec {
    let script = Script::new()
        .then(Step::Evidence(place.path("evidence")))
        .exit(3);
    script.spec(RunId::generate().attempt(1))
}

fn began(place: &Place) -> usize {
    let text = std::fs::read_to_string(place.path("evidence")).unwrap_or_default();
    text.lines().count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_between_submit_and_answer_the_run_is_lost_and_never_started_again() {
    let mut lost = 0;
    for at in 1..40 {
        let place = Place::new();
        let counter = place.path("counter");
        std::fs::write(&counter, at.to_string()).unwrap();
        let plugin = place.plugin(&[ODD, "names-itself", counter.to_str().unwrap()]);
        let spec = spec(&place);
        let test = async {
            let started = loop {
                match plugin
                    .start(&spec, &Secrets::none(), &Progress::none())
                    .await
                {
                    Err(error) if error.is_transient() => {}
                    other => break other,
                }
            };
            // As a runner does: a conflict is told by the status.
            if let Err(error) = &started {
                assert_eq!(error.kind(), ErrorKind::Conflict, "{error:?}");
            }
            let outcome = end(&plugin, &Handle::of(spec.run)).await;
            assert_eq!(plugin.list().await.unwrap().len(), 1);
            outcome
        };
        let outcome = told(60, test).await;
        match outcome {
            Outcome::Lost { .. } => lost += 1,
            Outcome::Failed(failure) => {
                assert_eq!((failure.exit_code, began(&place)), (Some(3), 1), "at {at}");
            }
            other => panic!("killed at message {at}: {other}"),
        }
        assert!(began(&place) <= 1, "killed at message {at}: started twice");
        let left: i64 = std::fs::read_to_string(&counter)
            .unwrap()
            .trim()
            .parse()
            .unwrap();
        if left > 0 {
            break;
        }
    }
    // The request and the answer to it.
    assert!((1..=2).contains(&lost), "{lost} deaths made a run lost");
}

/// An executor of commands whose `start` submits and is killed before it answers, once.
fn commands(place: &Place, find: bool) -> std::sync::Arc<dyn Executor> {
    let batch = super::example("batch/batch.py");
    let start = format!(
        "#!/bin/sh\n\
         job=$(python3 -c 'import json,sys; r=json.load(sys.stdin); print(json.dumps(r[\"work\"]))')\n\
         answer=$(printf %s \"$job\" | BATCH_DIR={jobs} python3 {batch} submit '' \"$1\")\n\
         if [ ! -e {once} ]; then : > {once}; kill -9 $$; fi\n\
         printf %s \"$answer\"\n",
        jobs = place.path("jobs").display(),
        once = place.path("once").display(),
    );
    std::fs::write(place.path("start.sh"), start).unwrap();
    let with_folder = |command: &str| {
        let jobs = place.path("jobs").display().to_string();
        format!("BATCH_DIR={jobs} exec python3 {batch} {command}")
    };
    let mut settings = json!({
        "start": ["/bin/sh", "start.sh", "{run}"],
        "status": ["/bin/sh", "-c", with_folder("status \"$0\""), "{id}"],
        "interval": "50ms",
    });
    if find {
        settings["find"] = json!(["/bin/sh", "-c", with_folder("find \"$0\""), "{run}"]);
    }
    (command::KIND.build)(&context(place, settings)).unwrap()
}

fn context(place: &Place, settings: Value) -> Context {
    let mut context = place.context();
    context.settings = settings;
    context
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mark_restores_exactly_one_start() {
    let place = Place::new();
    let executor = commands(&place, true);
    let spec = spec(&place);
    let test = async {
        let handle = executor
            .start(&spec, &Secrets::none(), &Progress::none())
            .await
            .unwrap();
        let outcome = end(&*executor, &handle).await;
        assert!(matches!(outcome, Outcome::Failed(failure) if failure.exit_code == Some(3)));
        assert_eq!(began(&place), 1);
    };
    told(60, test).await;
}

/// An executor of commands whose backend names its jobs after what they are given; `status` waits for a file.
fn talkative(place: &Place, find: bool) -> std::sync::Arc<dyn Executor> {
    let script = "#!/bin/sh\ncase $1 in\n\
        start) if [ -e full ]; then echo 'no room' >&2; exit 2; fi; echo '{\"id\": \"job-of-kestrel-4711\"}';;\n\
        find) echo '{\"id\": \"job-of-kestrel-4711\"}';;\n\
        status) [ \"$2\" = job-of-kestrel-4711 ] || { echo 'no such job' >&2; exit 1; }\n\
        if [ -e over ]; then echo '{\"state\": \"succeeded\"}'; else echo '{\"state\": \"running\"}'; fi;;\n\
        esac\n";
    std::fs::write(place.path("batch.sh"), script).unwrap();
    let mut settings = json!({
        "start": ["/bin/sh", "batch.sh", "start"],
        "status": ["/bin/sh", "batch.sh", "status", "{id}"],
        "stop": ["/bin/true"],
        "interval": "50ms",
    });
    if find {
        settings["find"] = json!(["/bin/sh", "batch.sh", "find"]);
    }
    (command::KIND.build)(&context(place, settings)).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_holds_a_value_is_used_and_never_written_down() {
    for find in [true, false] {
        let place = Place::new();
        let (spec, values) = secretive(&place);
        let test = async {
            let executor = talkative(&place, find);
            let handle = executor.start(&spec, &values, &Progress::none()).await;
            let handle = handle.unwrap();
            let text = serde_json::to_string(&handle).unwrap();
            assert!(!text.contains("kestrel-4711"), "{text}");
            let mut levels = executor.watch(&handle);
            let level = levels.next().await.unwrap().unwrap();
            assert_eq!(level.state, State::Running, "{level:?}");
            drop(levels);
            let claim = std::fs::read_to_string(place.claim(spec.run)).unwrap();
            assert!(
                claim.contains("/a") && !claim.contains("kestrel-4711"),
                "{claim}"
            );
            std::fs::write(place.path("over"), "").unwrap();
            if find {
                assert_eq!(end(&*executor, &handle).await, Outcome::Succeeded);
            }
            drop(executor);
            // The next life finds the run by its mark, or says why it cannot.
            let later = talkative(&place, find);
            match end(&*later, &handle).await {
                Outcome::Succeeded if find => {}
                Outcome::Lost { why } if !find => {
                    assert!(why.contains("a value of the run stands in it"), "{why}");
                }
                other => panic!("{other}"),
            }
            later.remove(&handle).await.unwrap();
            assert!(later.list().await.unwrap().is_empty());
            assert_eq!(notes(&place), 0);
        };
        told(60, test).await;
    }
}

/// A run with a value, and the value.
fn secretive(place: &Place) -> (RunSpec, Secrets) {
    let mut spec = spec(place);
    spec.env.insert("VALUE".into(), "secret:/a".into());
    let mut values = Secrets::none();
    values.insert("/a", SecretValue::new("kestrel-4711"));
    (spec, values)
}

fn notes(place: &Place) -> usize {
    let folder = place.path("data").join("given-values");
    std::fs::read_dir(folder).map_or(0, Iterator::count)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_that_the_backend_took_is_no_end_of_a_run_that_is_to_be_found_again() {
    let place = Place::new();
    let (spec, values) = secretive(&place);
    let test = async {
        let executor = talkative(&place, true);
        let handle = executor.start(&spec, &values, &Progress::none()).await;
        let handle = handle.unwrap();
        executor
            .stop(&handle, Duration::from_mins(1))
            .await
            .unwrap();
        drop(executor);
        let later = talkative(&place, true);
        let level = later.watch(&handle).next().await.unwrap().unwrap();
        assert_eq!(level.state, State::Running, "it has not ended yet");
        std::fs::write(place.path("over"), "").unwrap();
        assert_eq!(end(&*later, &handle).await, Outcome::Succeeded);
        later.remove(&handle).await.unwrap();
        assert_eq!(notes(&place), 0);
    };
    told(60, test).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_run_was_given_is_forgotten_where_its_start_was_refused() {
    let place = Place::new();
    let (spec, values) = secretive(&place);
    std::fs::write(place.path("full"), "").unwrap();
    let test = async {
        let executor = talkative(&place, false);
        let refused = executor.start(&spec, &values, &Progress::none()).await;
        assert!(refused.unwrap_err().report().contains("no room"));
        assert_eq!(notes(&place), 0);
    };
    told(60, test).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_mark_the_run_is_lost_for_whoever_comes_later() {
    let place = Place::new();
    let spec = spec(&place);
    let test = async {
        let executor = commands(&place, false);
        let error = executor
            .start(&spec, &Secrets::none(), &Progress::none())
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict, "{error:?}");
        let later = commands(&place, false);
        // Whoever was at it may still be putting its things away.
        let outcome = end(&*later, &Handle::of(spec.run)).await;
        assert!(matches!(outcome, Outcome::Lost { .. }), "{outcome:?}");
        let again = later
            .start(&spec, &Secrets::none(), &Progress::none())
            .await;
        assert_eq!(again.unwrap_err().kind(), ErrorKind::Conflict);
        later.remove(&Handle::of(spec.run)).await.unwrap();
        assert!(later.list().await.unwrap().is_empty());
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(began(&place) <= 1);
    };
    told(60, test).await;
}
