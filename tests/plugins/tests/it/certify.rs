//! What `plugin test` says of programs that are not what they should be, and of stores.

use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use hybrid_runner::conformance::{self, Candidate, Options, Report, junit};
use hybrid_runner_core::ErrorKind;
use hybrid_runner_core::plugin::Contract;
use hybrid_runner_core::plugin::host::{Host, Launch, PluginStore};
use hybrid_runner_core::secret::{SecretName, SecretProvider as _};
use hybrid_runner_executors::command;
use serde_json::{Value, json};

use super::{ODD, Place, has, python, told};

/// A store that does not look at what it is asked to be, gives each name as its value, and ends when it is asked for `/poison`.
const STORE: &str = r#"
import json, os, sys, threading
def say(id, result):
    print(json.dumps({"jsonrpc": "2.0", "id": id, "result": result}), flush=True)
for line in sys.stdin:
    asked = json.loads(line)
    params = asked.get("params", {})
    if asked["method"] == "hello":
        say(asked["id"], {"version": params["versions"][0], "software": "careless 1"})
    elif asked["method"] != "get":
        say(asked["id"], {})
    elif params["name"] == "/poison":
        os._exit(9)
    else:
        answer = (asked["id"], {"value": {"text": params["name"]}})
        threading.Timer(0.1, say, answer).start()
"#;

fn options(place: &Place, contract: Option<Contract>) -> Options {
    let mut options = Options::new(place.path("trial"));
    std::fs::create_dir_all(&options.folder).unwrap();
    options.contract = contract;
    options
}

async fn tried(settings: Value, contract: Option<Contract>, only: &str) -> (Report, Candidate) {
    let place = Place::new();
    let settings = serde_json::from_value(settings).unwrap();
    let candidate = Candidate::program(settings, options(&place, contract));
    let only = [only.to_owned()];
    let report = conformance::run(candidate.clone(), &only, |_| {}).await;
    (report.unwrap(), candidate)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_is_held_to_the_contract_of_stores_whatever_it_answers_to_hello() {
    if !has(&["python3"]) {
        return;
    }
    let settings = json!({ "command": [python(), "-c", STORE] });
    for contract in [None, Some(Contract::Secrets)] {
        let only = "check answers without side effects";
        let (report, candidate) = told(60, tried(settings.clone(), contract, only)).await;
        assert_eq!(report.contract, Contract::Secrets);
        assert_eq!((report.passed, report.failed), (1, 0), "{report:#?}");
        let hellos = candidate.frames().holding(r#""contract":"secrets""#);
        assert!(!hellos.is_empty());
    }
    let (report, _) = told(60, tried(settings, Some(Contract::Executor), "check")).await;
    let came = report.cases[0].came.as_deref().unwrap();
    assert!(came.contains("`capabilities`"), "{came}");
}

/// What is said of a program that cannot be used.
async fn complaint(command: &[&str]) -> String {
    let settings = json!({ "command": command, "timeouts": { "hello": "700ms" } });
    let (report, _) = told(60, tried(settings, None, "check")).await;
    assert_eq!((report.passed, report.failed), (0, 1), "{report:#?}");
    let case = &report.cases[0];
    assert_eq!(
        (case.name.as_str(), case.verdict),
        ("it_can_be_used", "failed")
    );
    let xml = junit(&report);
    assert!(
        xml.contains("failures=\"1\"") && xml.contains("it_can_be_used"),
        "{xml}"
    );
    case.came.clone().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_used_is_a_failed_promise_that_says_why() {
    let place = Place::new();
    let script = place.path("script");
    std::fs::write(&script, "echo no interpreter\n").unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let (script, folder) = (script.to_str().unwrap(), place.path(""));
    let answer = r#"read line; echo '{"jsonrpc":"2.0","id":1,"result":{"version":"v1-preview","capabilities":{"logs":"forever","streams":false,"resources":false,"images":false,"contained":false}}}'; cat >&2"#;
    let newer = r#"read line; echo '{"jsonrpc":"2.0","id":1,"result":{"version":"v9","capabilities":{"logs":{"until":"removed"}}}}'; cat >&2"#;
    for (command, words) in [
        (&["/no/such/program"][..], "is it there"),
        (&[script], "#!/bin/sh"),
        (&[folder.to_str().unwrap()], "it is a folder"),
        (
            &["sh", "-c", "echo Starting; exec sleep 60"],
            "no message: `Starting`",
        ),
        (&["sh", "-c", "echo Usage; exit 2"], "no message: `Usage`"),
        (&["cat"], "writes back what it is told"),
        (&["sh", "-c", answer], "`capabilities.logs`"),
        (&["sh", "-c", newer], "use a newer hybrid-runner"),
    ] {
        let came = complaint(command).await;
        assert!(came.contains(words), "{command:?}: {came}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_neighbours_of_a_question_under_which_a_store_ends_are_answered() {
    if !has(&["python3"]) {
        return;
    }
    let place = Place::new();
    let settings = serde_json::from_value(json!({ "command": [python(), "-c", STORE] })).unwrap();
    let launch = Launch::new(Contract::Secrets, &place.context(), &settings, |name| {
        std::env::var_os(name)
    });
    let store = PluginStore::new(Host::new(launch.unwrap()));
    let names: Vec<SecretName> = (0..6)
        .map(|n| SecretName::new(format!("/neighbour-{n}")))
        .collect();
    let poison = SecretName::new("/poison");
    let neighbours = futures::future::join_all(names.iter().map(|name| store.get(name)));
    let all = async { futures::join!(neighbours, store.get(&poison)) };
    let (neighbours, poisoned) = told(60, all).await;
    for (name, answer) in names.iter().zip(neighbours) {
        assert_eq!(answer.unwrap().value.expose(), name.name.as_bytes());
    }
    assert_eq!(poisoned.unwrap_err().kind(), ErrorKind::Unavailable);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_promise_that_four_commands_break_shows_what_was_said_in_the_words_of_the_wire() {
    let place = Place::new();
    let settings = json!({
        "start": ["sh", "-c", r#"cat > /dev/null; echo '{"id":"4711"}'"#],
        "status": ["sh", "-c", r#"echo '{"state":"succeeded"}'"#],
        "interval": "50ms",
    });
    let mut options = options(&place, None);
    options.patience = Duration::from_secs(5);
    let candidate = Candidate::section(command::KIND, settings, options);
    let only = ["exit codes are told as they were".to_owned()];
    let report = told(60, conformance::run(candidate, &only, |_| {}))
        .await
        .unwrap();
    let case = &report.cases[0];
    assert_eq!(case.came.as_deref(), Some("\"succeeded\""), "{case:#?}");
    let said = case.messages.join("\n");
    assert!(said.contains("-> start {"), "{said}");
    assert!(said.contains(r#"<- start {"id":"4711"}"#), "{said}");
    assert!(
        said.contains(r#"<- status {"state":"succeeded"}"#),
        "{said}"
    );
    assert!(
        said.contains(r#""work":"***""#) && !said.contains("argv"),
        "{said}"
    );
}

#[tokio::test]
async fn a_word_that_no_promise_has_is_an_error() {
    let place = Place::new();
    let settings = serde_json::from_value(json!({ "command": [ODD, "local"] })).unwrap();
    let candidate = Candidate::program(settings, options(&place, None));
    let only = ["no such promise".to_owned()];
    let error = conformance::run(candidate, &only, |_| {})
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.message().contains("no_such_promise"), "{error}");
}
