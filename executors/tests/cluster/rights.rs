//! What is missing in the Role is named, by the doctor and by who runs into it.

use hybrid_runner_core::Health;
use hybrid_runner_core::error::ErrorKind;
use hybrid_runner_core::secret::Secrets;
use serde_json::json;

use crate::bench::Bench;
use crate::over::{Over, over_both};
use crate::place::{Place, kubeconfig};

over_both!(
    under_the_role_that_we_ship_all_is_well,
    each_missing_rule_is_named_by_the_doctor,
    a_start_without_the_right_names_the_rule,
);

async fn without(over: Over, rule: &str, other: &str) -> Option<Bench> {
    let rbac = over.rbac();
    assert!(rbac.contains(rule));
    let place = Place::with(over, Some(kubeconfig()?), json!({}));
    Some(Bench::at(place.with_rbac(rbac.replace(rule, other))).await)
}

async fn under_the_role_that_we_ship_all_is_well(over: Over) {
    let Some(bench) = Bench::new(over).await else {
        return;
    };
    bench.executor.check().await.unwrap();
    for finding in bench.executor.examine().await {
        assert_eq!(finding.health, Health::Ok, "{finding:?}");
    }
}

async fn each_missing_rule_is_named_by_the_doctor(over: Over) {
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
        match over {
            Over::Jobs => (
                "resources: [jobs], verbs: [create, get, list, watch, patch, delete]",
                "jobs",
            ),
            Over::Workflows => (
                "resources: [workflows], verbs: [create, get, list, watch, patch, delete]",
                "workflows",
            ),
        },
    ] {
        let Some(bench) = without(over, rule, "resources: [none], verbs: [none]").await else {
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

async fn a_start_without_the_right_names_the_rule(over: Over) {
    let without_create = "resources: [secrets], verbs: [get, delete]";
    let rule = "resources: [secrets], verbs: [create, get, delete]";
    let Some(bench) = without(over, rule, without_create).await else {
        return;
    };
    let mut spec = bench.spec("true");
    spec.config = Some(json!({}));
    let error = bench.try_start(&spec, &Secrets::none()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    let rule = r#"{apiGroups: [""], resources: ["secrets"], verbs: ["create"]}"#;
    assert!(error.message().contains(rule), "{error}");
}
