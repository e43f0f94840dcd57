//! What `hybrid-runner check` is told by plugins: by those that answer more than they must, and by those that do not.

use hybrid_runner_core::RunId;
use hybrid_runner_core::executor::{Executor as _, Progress};
use hybrid_runner_core::finding::Health;
use hybrid_runner_core::plugin::Contract;
use hybrid_runner_core::plugin::host::{Host, PluginStore};
use hybrid_runner_core::secret::{SecretProvider as _, SecretValue, Secrets};
use hybrid_runner_core::testing::Script;
use serde_json::json;

use super::{ODD, Place, end, example, has, python, told};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_plugin_finds_is_told_without_values() {
    let place = Place::new();
    let plugin = place.plugin(&[ODD, "leaks"]);
    let mut spec = Script::new().spec(RunId::generate().attempt(1));
    spec.env.insert("VALUE".into(), "secret:/a".into());
    let mut values = Secrets::none();
    values.insert("/a", SecretValue::new("kestrel-umbrella-4711-quartz"));
    let test = async {
        let started = plugin.start(&spec, &values, &Progress::none()).await;
        let handle = started.unwrap();
        let findings = plugin.examine().await;
        end(&plugin, &handle).await;
        findings
    };
    let findings = told(30, test).await;
    let given = findings.last().unwrap();
    assert_eq!(
        (given.health, given.message.as_str()),
        (Health::Warning, "it was given `***`")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_with_names_of_its_own_is_examined_too() {
    let place = Place::new();
    let plugin = place.plugin(&[ODD, "names-itself"]);
    let findings = told(30, plugin.examine()).await;
    assert_eq!(findings[0].message, "reachable", "{findings:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_plugin_that_names_no_examine_its_check_and_its_notes_are_told() {
    if has(&["python3"]) {
        let place = Place::new();
        let executor = example("custom-executor-python/executor.py");
        let plugin = place.plugin(&[&python(), &executor]);
        let findings = told(30, plugin.examine()).await;
        let words: Vec<&str> = findings.iter().map(|one| one.message.as_str()).collect();
        assert_eq!(words[..2], ["reachable", "an example"]);
        // It does not mask: what that means after a restart of the runner is known beforehand.
        assert!(
            words[2].contains("after a restart") && words.len() == 3,
            "{words:?}"
        );
    }
}

#[tokio::test]
async fn a_plugin_that_cannot_be_started_is_what_is_found() {
    let place = Place::new();
    let findings = told(30, place.plugin(&["./gone"]).examine()).await;
    assert_eq!((findings.len(), findings[0].health), (1, Health::Failed));
    assert!(findings[0].message.contains("`./gone`"), "{findings:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_says_as_whom_it_sees_us() {
    let place = Place::new();
    std::fs::create_dir(place.path("secrets")).unwrap();
    let settings = json!({ "settings": { "path": place.path("secrets") } });
    let mut launch = place.launch(&[ODD, "store"], &settings);
    launch.hello.contract = Contract::Secrets;
    let store = PluginStore::new(Host::new(launch));
    let identity = told(30, store.identity()).await.unwrap();
    assert_eq!(identity.as_deref(), Some("role ingestion"));
}
