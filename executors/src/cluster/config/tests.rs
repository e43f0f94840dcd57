use hybrid_runner_core::id::Owner;
use serde_json::json;

use super::*;

fn read(settings: Value) -> Result<Settings> {
    let owner = Owner::of("server", &"agent".parse().unwrap());
    let context = Context::new(
        "here".parse().unwrap(),
        settings,
        "/nowhere",
        owner,
        1 << 30,
    );
    Settings::read(&context, |name| {
        (name == "no_proxy").then(|| "*".to_owned())
    })
}

fn refused(settings: Value) -> String {
    read(settings).unwrap_err().report()
}

#[test]
fn an_empty_section_is_restricted_and_keeps_ended_jobs_for_eight_days() {
    let settings = read(json!({})).unwrap();
    assert!(settings.pod.restricted && !settings.pod.mount_token);
    assert_eq!(settings.ttl, TTL);
    assert_eq!(settings.template, json!({}));
}

#[test]
fn the_runners_variables_are_passed_on_if_they_are_set() {
    let settings = read(json!({ "env": ["no_proxy", "unset"] })).unwrap();
    assert_eq!(settings.pod.env, [("no_proxy".to_owned(), "*".to_owned())]);
}

#[test]
fn what_is_wrong_names_section_and_key() {
    for (settings, key) in [
        (json!({ "ttl": "1d" }), "ttl"),
        (
            json!({ "labels": { "hybrid-runner.io/run": "x" } }),
            "labels",
        ),
        (
            json!({ "annotations": { "hybrid-runner.io/x": "x" } }),
            "annotations",
        ),
        (json!({ "labels": { "a b": "x" } }), "labels"),
        (json!({ "labels": { "a": "x y" } }), "labels"),
        (json!({ "annotations": { "a/b/c": "x y" } }), "annotations"),
        (
            json!({ "node_selector": { "pool": "a b" } }),
            "node_selector",
        ),
        (json!({ "env": ["A=B"] }), "env"),
        (json!({ "namespace": "Bad Name" }), "namespace"),
        (json!({ "user": -1 }), "user"),
        (json!({ "group": 2_147_483_648_u32 }), "group"),
        (json!({ "service_account": "A_b" }), "service_account"),
        (json!({ "pull_secrets": ["a", ""] }), "pull_secrets"),
        (json!({ "priority_class": "a b" }), "priority_class"),
        (json!({ "template": { "spec": 3 } }), "template.spec"),
        (json!({ "token_env": "T", "context": "c" }), "token_env"),
        (json!({ "proxy": "socks5://p" }), "proxy"),
        (json!({ "pull": "sometimes" }), "pull"),
        (json!({ "template": "x" }), "template"),
        (json!({ "imge": "x" }), "imge"),
    ] {
        let report = refused(settings);
        assert!(report.contains("[executors.here]"), "{report}");
        assert!(report.contains(&format!("`{key}`")), "{report}");
    }
}
