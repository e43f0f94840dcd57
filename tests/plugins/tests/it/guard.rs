//! What a plugin is given, and what is seen of it: a clean environment, values masked, traces without values.

use std::os::unix::fs::PermissionsExt as _;
use std::sync::{Arc, Mutex};

use hybrid_runner_core::RunId;
use hybrid_runner_core::executor::{Executor as _, Progress};
use hybrid_runner_core::plugin::Contract;
use hybrid_runner_core::plugin::host::{Host, Launch, PluginSettings, PluginStore, Trace, Way};
use hybrid_runner_core::secret::{SecretName, SecretProvider as _, SecretValue, Secrets};
use hybrid_runner_core::testing::{Script, Step};
use hybrid_runner_executors::plugin::Plugin;
use serde_json::json;

use super::{ODD, Place, end, has, log, told};

const VALUE: &str = "kestrel-umbrella-4711-quartz";

#[tokio::test]
async fn a_plugin_gets_nothing_of_our_environment_but_what_is_named() {
    let place = Place::new();
    let dump = place.path("environment");
    let script = format!("env > {}\nexit 1\n", dump.display());
    std::fs::write(place.path("dump.sh"), script).unwrap();
    let section = json!({ "command": ["/bin/sh", "dump.sh"], "env": ["WANTED"] });
    let settings: PluginSettings = serde_json::from_value(section).unwrap();
    let variable = |name: &str| match name {
        "PATH" => std::env::var_os("PATH"),
        "WANTED" | "AUTH_TOKEN" | "HYBRID_RUNNER__LINK__TOKEN" | "OTHER" => Some(name.into()),
        _ => None,
    };
    let launch = Launch::new(Contract::Executor, &place.context(), &settings, variable).unwrap();
    let plugin = Plugin::of(Host::new(launch), &place.context());
    told(20, plugin.check()).await.unwrap_err();
    let text = std::fs::read_to_string(dump).unwrap();
    let mut names: Vec<&str> = text
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(name, _)| name)
        .collect();
    names.retain(|name| !matches!(*name, "PWD" | "OLDPWD" | "SHLVL" | "_"));
    names.sort_unstable();
    assert_eq!(names, ["HYBRID_RUNNER_PROCESS", "PATH", "WANTED"]);
    let ours: PluginSettings =
        serde_json::from_value(json!({ "command": ["x"], "env": ["AUTH_TOKEN"] })).unwrap();
    let error = Launch::new(Contract::Executor, &place.context(), &ours, |_| None).unwrap_err();
    assert!(error.message().contains("`AUTH_TOKEN`"), "{error}");
}

/// A plugin that is well until there is a file `bad`: then it refuses `hello` with the words in it.
const MOODY: &str = r#"#!/bin/sh
read line
if [ -e bad ]; then
  printf '{"jsonrpc":"2.0","id":1,"error":{"code":-32000,"message":"%s","data":{"kind":"unavailable"}}}\n' "$(cat bad)"
  exit 1
fi
printf '{"jsonrpc":"2.0","id":1,"result":{"version":"v1-preview","software":"%s","capabilities":{"logs":"until_removed","streams":false,"resources":false,"images":false,"contained":false,"notes":["%s"]}}}\n' "$(cat notes)" "$(cat notes)"
read line
printf '{"jsonrpc":"2.0","id":2,"result":{"run":"%s"}}\n' "$(cat run)"
read line
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plugin_that_will_not_begin_and_what_it_says_of_itself_are_told_without_values() {
    let place = Place::new();
    let run = RunId::generate().attempt(1);
    for (name, text) in [
        ("moody.sh", MOODY),
        ("notes", VALUE),
        ("run", &run.to_string()),
    ] {
        std::fs::write(place.path(name), text).unwrap();
    }
    let plugin = place.plugin(&["/bin/sh", "moody.sh"]);
    let mut spec = Script::new().spec(run);
    spec.env.insert("VALUE".into(), "secret:/a".into());
    let mut values = Secrets::none();
    values.insert("/a", SecretValue::new(VALUE));
    let test = async {
        let started = plugin.start(&spec, &values, &Progress::none()).await;
        started.unwrap();
        let said = |what: String| {
            assert!(what.contains("***") && !what.contains(VALUE), "{what}");
        };
        said(format!("{:?}", plugin.capabilities().await.unwrap().notes));
        std::fs::write(place.path("bad"), format!("no: {VALUE}")).unwrap();
        // Until it is not even started any more.
        for _ in 0..200 {
            let Err(error) = plugin.list().await else {
                continue;
            };
            if error.report().contains("times in a row") {
                return said(error.report());
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        panic!("it was started again and again");
    };
    told(60, test).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leak_is_masked_in_the_log_the_handle_and_the_trace() {
    for fault in ["leaks", "leaks-in-its-handle"] {
        let place = Place::new();
        let trace = place.path("trace");
        let mut launch = place.launch(&[ODD, fault], &json!({}));
        launch.trace = Some(Trace::file(&trace).unwrap());
        let plugin = Plugin::of(Host::new(launch), &place.context());
        let mut values = Secrets::none();
        values.insert("/a", SecretValue::new(VALUE));
        let mut spec = Script::new()
            .then(Step::Variable("VALUE".into()))
            .spec(RunId::generate().attempt(1));
        spec.env.insert("VALUE".into(), "secret:/a".into());
        let test = async {
            let handle = plugin
                .start(&spec, &values, &Progress::none())
                .await
                .unwrap();
            assert!(
                !serde_json::to_string(&handle).unwrap().contains(VALUE),
                "{fault}"
            );
            end(&plugin, &handle).await;
            let text = log(&plugin, &handle).await;
            assert_eq!(text, "***\n", "{fault}");
            plugin.remove(&handle).await.unwrap();
        };
        told(30, test).await;
        let traced = std::fs::read_to_string(&trace).unwrap();
        assert!(!traced.contains(VALUE), "{fault}: {traced}");
        assert!(
            traced.contains(r#""/a":"***""#) && traced.contains("\"method\":\"start\""),
            "{traced}"
        );
        let mode = std::fs::metadata(&trace).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "others may read the trace");
    }
}

/// A store that speaks of a value before it answers with it, which takes longer than anybody waits.
const LATE: &str = r#"
import json, pathlib, sys, threading, time
root = pathlib.Path(__file__).parent
def say(id, result):
    print(json.dumps({"jsonrpc": "2.0", "id": id, "result": result}), flush=True)
def get(id):
    value = (root / "value").read_text()
    print("read", value, file=sys.stderr, flush=True)
    while not (root / "go").exists():
        time.sleep(0.02)
    say(id, {"value": {"text": value}})
    time.sleep(0.2)
    print("kept", value, file=sys.stderr, flush=True)
    (root / "done").touch()
for line in sys.stdin:
    message = json.loads(line)
    method, id = message.get("method"), message.get("id")
    if method == "hello":
        say(id, {"version": message["params"]["versions"][0], "software": "late"})
    elif method == "get":
        threading.Thread(target=get, args=(id,)).start()
    elif id is not None:
        say(id, {})
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_that_comes_when_nobody_waits_for_it_is_masked_all_the_same() {
    if !has(&["python3"]) {
        return;
    }
    let place = Place::new();
    std::fs::write(place.path("late.py"), LATE).unwrap();
    std::fs::write(place.path("value"), VALUE).unwrap();
    let settings = json!({ "command": ["python3", "late.py"], "timeouts": { "get": "500ms" } });
    let settings: PluginSettings = serde_json::from_value(settings).unwrap();
    let variable = |name: &str| std::env::var_os(name);
    let launch = Launch::new(Contract::Secrets, &place.context(), &settings, variable);
    let mut launch = launch.unwrap();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let words = Arc::clone(&heard);
    launch.trace = Some(Trace::to(move |frame| {
        if frame.way == Way::Stderr {
            words.lock().unwrap().push(frame.text.clone());
        }
    }));
    let store = PluginStore::new(Host::new(launch));
    told(60, async {
        let late = store.get(&SecretName::new("/a")).await.unwrap_err();
        assert!(late.is_transient(), "{late:?}");
        // Whatever else it is asked meanwhile.
        store.check().await.unwrap();
        std::fs::write(place.path("go"), "").unwrap();
        while heard.lock().unwrap().len() < 2 {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    })
    .await;
    assert_eq!(*heard.lock().unwrap(), ["read ***", "kept ***"]);
}
