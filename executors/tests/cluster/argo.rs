//! What only Workflows could get wrong.

use hybrid_runner_core::executor::Handle;
use hybrid_runner_core::run::{FailureClass, Outcome};
use serde_json::json;

use crate::bench::Bench;
use crate::over::Over;

/// What Argo would replace, or refuse, or take for an expression; and what JSON and Kubernetes have their own mind about.
const WORDS: [&str; 9] = [
    "{{workflow.name}}",
    "{{ pod.name }}",
    "{{=1+1}}",
    "{{{{inputs.parameters.x}}}}",
    "{{",
    "{\"a\":{\"b\":{}}}",
    "\\u007b\\u007b",
    "$(HOME) $$ $x",
    "\u{1f980} \u{2028}\"'\\",
];

#[tokio::test]
async fn placeholders_reach_the_work_unchanged() {
    let Some(bench) = Bench::new(Over::Workflows).await else {
        return;
    };
    let mut spec = bench.spec(r#"printf '%s\n' "$WORD" "$@"; cat "$WORKFLOW_CONFIG""#);
    spec.command
        .as_mut()
        .unwrap()
        .push("{{workflow.uid}}".into());
    spec.args = Some(WORDS.map(str::to_owned).to_vec());
    spec.env
        .insert("WORD".into(), "{{workflow.namespace}}".into());
    spec.config = Some("{{workflow.name}}\n".into());
    let run = bench.start(&spec).await;
    assert_eq!(bench.end(&run).await, Outcome::Succeeded);
    let expected = [
        &["{{workflow.namespace}}"][..],
        &WORDS,
        &["{{workflow.name}}", ""],
    ]
    .concat();
    assert_eq!(bench.log(&run, None).await.text(), expected.join("\n"));
    bench.remove(&run).await;
}

#[tokio::test]
async fn the_work_has_no_token_unless_the_section_gives_it() {
    let script = "ls /var/run/secrets/kubernetes.io/serviceaccount 2>/dev/null | grep -c token";
    for (mount, found) in [(false, "0\n"), (true, "1\n")] {
        let Some(bench) = Bench::with(Over::Workflows, json!({ "mount_token": mount })).await
        else {
            return;
        };
        let run = bench.begin(script).await;
        bench.end(&run).await;
        assert_eq!(bench.log(&run, None).await.text(), found, "{mount}");
        bench.remove(&run).await;
    }
}

#[tokio::test]
async fn an_account_that_is_not_there_is_named() {
    let section = json!({ "service_account": "nobody" });
    let Some(bench) = Bench::with(Over::Workflows, section).await else {
        return;
    };
    let failure = bench.failure_of(&bench.spec("true")).await;
    assert_eq!(failure.class, FailureClass::Spec, "{failure:?}");
    assert!(failure.message.contains("`service_account`"), "{failure:?}");
    let source = failure.source.unwrap();
    assert!(source.contains("nobody"), "{source}");
}

#[tokio::test]
async fn a_template_that_argo_refuses_is_said_to_be_wrong() {
    let section = json!({ "template": { "spec": { "onExit": "nothing" } } });
    let Some(bench) = Bench::with(Over::Workflows, section).await else {
        return;
    };
    let failure = bench.failure_of(&bench.spec("true")).await;
    assert_eq!(failure.class, FailureClass::Spec, "{failure:?}");
}

#[tokio::test]
async fn who_is_told_by_argo_to_stop_was_killed_by_somebody_else() {
    let Some(bench) = Bench::new(Over::Workflows).await else {
        return;
    };
    let run = bench.begin("sleep 600").await;
    bench.running(&run).await;
    let shutdown = json!({ "spec": { "shutdown": "Terminate" } });
    bench.place.patch(run.run, shutdown).await;
    let failure = bench.failure(&run).await;
    assert_eq!(failure.class, FailureClass::Killed, "{failure:?}");
    bench.remove(&Handle::of(run.run)).await;
}

#[tokio::test]
async fn without_the_right_to_report_the_work_still_counts() {
    let rbac = Over::Workflows.rbac();
    let rule = "resources: [workflowtaskresults], verbs: [create, patch]";
    assert!(rbac.contains(rule));
    let Some(path) = crate::place::kubeconfig() else {
        return;
    };
    let place = crate::place::Place::with(Over::Workflows, Some(path), json!({}));
    let rbac = rbac.replace(rule, "resources: [none], verbs: [none]");
    let bench = Bench::at(place.with_rbac(rbac)).await;
    let run = bench.begin("echo done").await;
    assert_eq!(bench.end(&run).await, Outcome::Succeeded);
    assert_eq!(bench.log(&run, None).await.text(), "done\n");
}

#[tokio::test]
async fn the_doctor_tells_the_version_once_a_pod_is_there() {
    let Some(bench) = Bench::new(Over::Workflows).await else {
        return;
    };
    // Whoever examines need not be the runner itself.
    let other = bench.place.executor_of("other").await;
    let told = async || {
        let findings = other.examine().await;
        let mut messages = findings.into_iter().map(|finding| finding.message);
        messages
            .find(|message| message.contains("Argo Workflows"))
            .unwrap()
    };
    assert!(told().await.contains("is installed"));
    let run = bench.begin("true").await;
    bench.end(&run).await;
    assert_eq!(told().await, "Argo Workflows v3.7.3");
    bench.remove(&run).await;
}

#[tokio::test]
async fn a_copy_of_the_log_is_argos_to_make_where_the_template_asks_for_it() {
    let archives = |objects: &[serde_json::Value]| objects[0]["spec"]["archiveLogs"].clone();
    let Some(bench) = Bench::new(Over::Workflows).await else {
        return;
    };
    let preview = async |bench: &Bench| {
        let spec = bench.spec("echo done");
        let secrets = hybrid_runner_core::secret::Secrets::none();
        bench.executor.preview(&spec, &secrets).await.unwrap()
    };
    assert_eq!(archives(&preview(&bench).await), false);
    let section = json!({ "template": { "spec": { "archiveLogs": true } } });
    let bench = Bench::with(Over::Workflows, section).await.unwrap();
    assert_eq!(archives(&preview(&bench).await), true);
    let findings = bench.executor.examine().await;
    let warns = |finding: &hybrid_runner_core::Finding| finding.message.contains("without masks");
    assert!(findings.iter().any(warns), "{findings:?}");
    // Nothing can be kept here: the work counts all the same.
    let run = bench.begin("echo done").await;
    assert_eq!(bench.end(&run).await, Outcome::Succeeded);
    assert_eq!(bench.log(&run, None).await.text(), "done\n");
    let objects = bench.place.objects().await;
    let object = objects.get(&bench.place.object(run.run)).await.unwrap();
    assert_eq!(object.data["spec"]["archiveLogs"], true);
    bench.remove(&run).await;
}
