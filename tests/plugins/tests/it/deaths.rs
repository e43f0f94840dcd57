//! Kill -9 of the plugin at each message of a run: nothing lost, nothing twice.

use std::time::Duration;

use futures::TryStreamExt as _;
use hybrid_runner_core::RunId;
use hybrid_runner_core::executor::{Executor as _, Handle, Progress};
use hybrid_runner_core::log::LogItem;
use hybrid_runner_core::run::Outcome;
use hybrid_runner_core::secret::Secrets;
use hybrid_runner_core::testing::{Script, Step};
use hybrid_runner_executors::plugin::Plugin;
use serde_json::json;

use super::{ODD, Place, end, log, told};

/// More messages than a run has; the walk ends before, and it is checked that it does.
const MOST: i64 = 80;

/// A whole run, as a runner goes through it: asked again after each error.
async fn run(place: &Place, plugin: &Plugin) -> (Outcome, String, usize) {
    let evidence = place.path("evidence");
    let script = Script::new()
        .then(Step::Evidence(evidence.clone()))
        .lines(5, Duration::from_millis(20))
        .exit(3);
    let spec = script.spec(RunId::generate().attempt(1));
    let none = Secrets::none();
    let handle = loop {
        match plugin.start(&spec, &none, &Progress::none()).await {
            Ok(handle) => break handle,
            Err(error) => assert!(error.is_transient(), "{error:?}"),
        }
    };
    let (outcome, text) = tokio::join!(end(plugin, &handle), log(plugin, &handle));
    while let Err(error) = plugin.remove(&handle).await {
        assert!(error.is_transient(), "{error:?}");
    }
    loop {
        match plugin.list().await {
            Ok(listed) => break assert!(listed.is_empty(), "{listed:?}"),
            Err(error) => assert!(error.is_transient(), "{error:?}"),
        }
    }
    let began = std::fs::read_to_string(evidence).unwrap_or_default();
    (outcome, text, began.lines().count())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_any_message_nothing_is_lost_and_nothing_twice() {
    let mut walked = 0;
    for at in 1..MOST {
        let place = Place::new();
        let counter = place.path("counter");
        std::fs::write(&counter, at.to_string()).unwrap();
        let plugin = place.plugin(&[ODD, "mortal", counter.to_str().unwrap()]);
        let (outcome, text, began) = told(60, run(&place, &plugin)).await;
        let code = match &outcome {
            Outcome::Failed(failure) => failure.exit_code,
            other => panic!("killed at message {at}: {other}"),
        };
        assert_eq!((code, began), (Some(3), 1), "killed at message {at}");
        let whole = (1..=5).fold(String::new(), |text, n| text + &format!("line {n}\n"));
        assert_eq!(text, whole, "killed at message {at}");
        let left: i64 = std::fs::read_to_string(&counter)
            .unwrap()
            .trim()
            .parse()
            .unwrap();
        if left > 0 {
            break;
        }
        walked = at;
    }
    assert!(
        (12..MOST - 1).contains(&walked),
        "{walked} messages were walked over"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_that_hangs_is_killed_and_its_run_goes_on() {
    let place = Place::new();
    let plugin = place.plugin_with(
        &[ODD, "local"],
        &json!({ "timeouts": { "heartbeat": "500ms" } }),
    );
    let spec = Script::new()
        .lines(30, Duration::from_millis(100))
        .exit(3)
        .spec(RunId::generate().attempt(1));
    let test = async {
        let handle = plugin
            .start(&spec, &Secrets::none(), &Progress::none())
            .await
            .unwrap();
        let process = plugin.host().process().await.unwrap();
        let stopped = i32::try_from(process)
            .ok()
            .and_then(rustix::process::Pid::from_raw)
            .unwrap();
        rustix::process::kill_process(stopped, rustix::process::Signal::STOP).unwrap();
        let (outcome, text) = tokio::join!(end(&plugin, &handle), log(&plugin, &handle));
        assert!(matches!(outcome, Outcome::Failed(failure) if failure.exit_code == Some(3)));
        assert_eq!(text.lines().count(), 30);
        assert_ne!(
            plugin.host().process().await,
            Some(process),
            "the same process"
        );
    };
    told(60, test).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newer_program_takes_over_while_runs_live() {
    let place = Place::new();
    let program = place.path("plugin");
    std::fs::copy(ODD, &program).unwrap();
    let plugin = place.plugin(&["./plugin", "local"]);
    let spec = Script::new()
        .lines(40, Duration::from_millis(100))
        .exit(3)
        .spec(RunId::generate().attempt(1));
    let test = async {
        let handle = plugin
            .start(&spec, &Secrets::none(), &Progress::none())
            .await
            .unwrap();
        let process = plugin.host().process().await;
        std::fs::copy(ODD, place.path("newer")).unwrap();
        std::fs::rename(place.path("newer"), &program).unwrap();
        // A stored handle, as a runner would have it.
        let handle: Handle =
            serde_json::from_value(serde_json::to_value(&handle).unwrap()).unwrap();
        // Neither stream breaks: nobody is warned of what was meant.
        let levels = plugin.watch(&handle).try_collect::<Vec<_>>();
        let chunks = plugin.logs(&handle, None).try_collect::<Vec<_>>();
        let following = async { tokio::join!(levels, chunks) };
        let replaced = async {
            while plugin.host().process().await == process {
                plugin.check().await.unwrap();
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        let ((levels, chunks), ()) = tokio::join!(following, replaced);
        let (levels, chunks) = (levels.unwrap(), chunks.unwrap());
        let outcome = levels.last().unwrap().outcome();
        assert!(matches!(outcome, Some(Outcome::Failed(failure)) if failure.exit_code == Some(3)));
        let bytes = chunks.iter().map(|chunk| match &chunk.item {
            LogItem::Data { bytes, .. } => String::from_utf8_lossy(bytes).into_owned(),
            gap => panic!("{gap:?}"),
        });
        let lines = (1..=40).fold(String::new(), |text, n| text + &format!("line {n}\n"));
        assert_eq!(bytes.collect::<String>(), lines);
    };
    told(60, test).await;
}
