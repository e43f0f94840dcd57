//! What is missing in the Role is named, by the doctor and by who runs into it.

use hybrid_runner_core::Health;
use hybrid_runner_core::error::ErrorKind;
use hybrid_runner_core::secret::Secrets;
use serde_json::json;

use crate::bench::Bench;
use crate::place::{Place, RBAC, kubeconfig};

async fn without(rule: &str, other: &str) -> Option<Bench> {
    assert!(RBAC.contains(rule));
    let place = Place::with(Some(kubeconfig()?), json!({}));
    Some(Bench::at(place.with_rbac(RBAC.replace(rule, other))).await)
}

#[tokio::test]
async fn under_the_role_that_we_ship_all_is_well() {
    let Some(bench) = Bench::new().await else {
        return;
    };
    bench.executor.check().await.unwrap();
    for finding in bench.executor.examine().await {
        assert_eq!(finding.health, Health::Ok, "{finding:?}");
    }
}

#[tokio::test]
async fn each_missing_rule_is_named_by_the_doctor() {
    for (rule, resource) in [
        (
            "resources: [pods], verbs: [list, watch, patch, delete]",
            "pods",
        ),
        ("resources: [pods/log], verbs: [get]", "pods/log"),
        (
            "resources: [secrets], verbs: [create, get, delete]",
            "secrets",
        ),
        (
            "resources: [jobs], verbs: [create, get, list, watch, patch, delete]",
            "jobs",
        ),
    ] {
        let Some(bench) = without(rule, "resources: [none], verbs: [none]").await else {
            return;
        };
        let findings = bench.executor.examine().await;
        let named = format!("resources: [\"{resource}\"]");
        let found = findings
            .iter()
            .any(|finding| finding.health == Health::Failed && finding.message.contains(&named));
        assert!(found, "{resource}: {findings:?}");
        let error = bench.executor.check().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied);
    }
}

#[tokio::test]
async fn a_start_without_the_right_names_the_rule() {
    let without_create = "resources: [secrets], verbs: [get, delete]";
    let rule = "resources: [secrets], verbs: [create, get, delete]";
    let Some(bench) = without(rule, without_create).await else {
        return;
    };
    let mut spec = bench.spec("true");
    spec.config = Some(json!({}));
    let error = bench.try_start(&spec, &Secrets::none()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    let rule = r#"{apiGroups: [""], resources: ["secrets"], verbs: ["create"]}"#;
    assert!(error.message().contains(rule), "{error}");
}
