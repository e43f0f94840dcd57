//! The existing Helm chart's environment, exactly as its Deployment sets it, given to the real binary in a cluster.

use std::path::Path;

use hybrid_runner_tests::{Binary, Cluster, Story, skipped};

/// With Argo: the chart's values by default, and all that can be set besides.
const ARGO: &[(&str, &str)] = &[
    (
        "ARGO_PIPELINE_TYPE_CONFIGS",
        r#"{"automation":{"priorityClassName":"high-priority"}}"#,
    ),
    (
        "PIPELINE_SERVICE_CLIENT_ENDPOINT",
        "http://argo-workflows-server.argo-workflows.svc:2746",
    ),
    ("ARGO_SECONDS_AFTER_COMPLETION_TTL", "604800"),
    ("ARGO_SERVER_CERTIFICATE_PATH", "/certificates/argo.pem"),
    ("ARGO_TEST_CONNECTION_BACKOFF_TIME", "5"),
];

/// Without it, which is the chart's default.
const JOBS: &[(&str, &str)] = &[
    ("EXECUTOR_TYPE", "simpleK8s"),
    // Nothing was configured: the chart sets it all the same.
    ("SIMPLEK8S_PIPELINE_TYPE_CONFIGS", ""),
];

const BOTH: &[(&str, &str)] = &[
    ("INGESTION_SERVICE_ACCOUNT_NAME", "ingestion"),
    ("AGENT_ID", "RemoteRunner"),
    ("AUTH_TOKEN", "eyJhbGciOiJSUzI1NiJ9.e30.c2lnbmF0dXJl"),
    ("SERVER_URL", "wss://my-cluster.getcollate.io"),
    (
        "SERVER_HOST_API_URL",
        "https://my-cluster.getcollate.io/api",
    ),
    ("SECRETS_MANAGER", "kubernetes"),
    ("RECONNECT_DELAY_SECONDS", "5"),
    ("DYNAMIC_INGESTION_VERSION_ENABLED", "true"),
    (
        "INGESTION_IMAGE",
        "registry.example/ingestion-slim:om-1.13.3-cl-1.13.3",
    ),
    ("INGESTION_DISABLE_VERSION_VALIDATION", "true"),
    ("INGESTION_IMAGE_PULL_SECRETS", "omd-registry-credentials"),
    ("INGESTION_AUTOMOUNT_SA_TOKEN", "true"),
    (
        "INGESTION_EXTRA_ENVS",
        "[AWS_REGION:eu-west-1,AZURE_KEY_VAULT_NAME:vault]",
    ),
    ("INGESTION_CPU_LIMIT", "1000m"),
    ("INGESTION_MEMORY_LIMIT", "4096Mi"),
    ("INGESTION_CPU_REQUEST", "1000m"),
    ("INGESTION_MEMORY_REQUEST", "4096Mi"),
    ("INGESTION_AUTOMATION_WORKFLOW_CPU_LIMIT", "500m"),
    ("INGESTION_AUTOMATION_WORKFLOW_MEMORY_LIMIT", "512Mi"),
    ("INGESTION_AUTOMATION_WORKFLOW_CPU_REQUEST", "200m"),
    ("INGESTION_AUTOMATION_WORKFLOW_MEMORY_REQUEST", "256Mi"),
];

/// In both modes they do nothing here.
const IDLE: &[&str] = &[
    "RECONNECT_DELAY_SECONDS",
    "DYNAMIC_INGESTION_VERSION_ENABLED",
    "INGESTION_DISABLE_VERSION_VALIDATION",
];

/// A mode of the chart: its variables, the rules of its Role in it, and which of ours that Role lacks.
struct Mode {
    variables: &'static [(&'static str, &'static str)],
    /// Those that do nothing here, and are said to.
    idle: &'static [&'static str],
    rules: &'static str,
    lacks: &'static [&'static str],
}

const SECRETS: &str =
    "- {apiGroups: [\"\"], resources: [\"secrets\"], verbs: [create, get, delete]}";

const MODES: [Mode; 2] = [
    Mode {
        variables: ARGO,
        idle: &["PIPELINE_SERVICE_CLIENT_ENDPOINT", "ARGO_SERVER_CERTIFICATE_PATH", "ARGO_TEST_CONNECTION_BACKOFF_TIME"],
        rules: "\
- {apiGroups: [argoproj.io], resources: [workflows, cronworkflows], verbs: [list, watch, create, update, patch, get, delete]}
- {apiGroups: [\"\"], resources: [pods, pods/log], verbs: [list, watch, patch, get]}
- {apiGroups: [\"\"], resources: [events], verbs: [get, list]}
",
        lacks: &["- {apiGroups: [\"\"], resources: [\"pods\"], verbs: [delete]}", SECRETS],
    },
    Mode {
        variables: JOBS,
        idle: &[],
        rules: "\
- {apiGroups: [batch], resources: [jobs], verbs: [create, get, list, watch, delete, patch, update]}
- {apiGroups: [\"\"], resources: [pods, pods/log, pods/status], verbs: [create, get, list, watch, delete]}
- {apiGroups: [\"\"], resources: [configmaps], verbs: [create, get, list, update, patch, delete, watch]}
- {apiGroups: [\"\"], resources: [events], verbs: [get, list]}
",
        lacks: &["- {apiGroups: [\"\"], resources: [\"pods\"], verbs: [patch]}", SECRETS],
    },
];

/// An account with these rules, as the chart makes one for each mode.
fn account(name: &str, rules: &str) -> String {
    format!(
        "kind: ServiceAccount\nmetadata: {{name: {name}}}\n---\nkind: Role\nmetadata: {{name: {name}}}\nrules:\n{rules}---\n\
         kind: RoleBinding\nmetadata: {{name: {name}}}\nroleRef: {{apiGroup: rbac.authorization.k8s.io, kind: Role, name: {name}}}\n\
         subjects: [{{kind: ServiceAccount, name: {name}}}]\n"
    )
}

#[tokio::test]
#[ignore = "scripts/test runs it once the cluster is up"]
async fn every_variable_of_the_chart_is_understood_or_said_to_do_nothing() {
    if !Binary::Clouds.is_there() {
        return skipped("no build with the clusters: scripts/test makes one");
    }
    let Some(cluster) = Cluster::started().await else {
        return;
    };
    Story::told(120, async |story| {
        for (number, mode) in MODES.iter().enumerate() {
            let name = format!("charts-{number}");
            cluster.give(&account(&name, mode.rules)).await;
            understands(&story, &cluster, &name, mode).await;
        }
    })
    .await;
}

async fn understands(story: &Story, cluster: &Cluster, account: &str, mode: &Mode) {
    // `customConfig` of the chart: two files out of a ConfigMap.
    let container = story.write(
        "container-params.yaml",
        "env:\n- {name: TEAM, value: data}\n",
    );
    let workflow = story.write(
        "workflow-params.yaml",
        "tolerations:\n- {operator: Exists}\n",
    );
    let token = cluster.token(account).await;
    let kubeconfig = cluster.kubeconfig_of(story, &token);
    let text = |path: &Path| path.display().to_string();
    let mut own = vec![
        ("INGESTION_NAMESPACE", cluster.namespace.clone()),
        ("ARGO_INGESTION_CONTAINER_SPEC_FILE_PATH", text(&container)),
        ("ARGO_INGESTION_WORKFLOW_SPEC_FILE_PATH", text(&workflow)),
        // Of the test: it is outside of the cluster.
        ("KUBECONFIG", text(&kubeconfig)),
    ];
    if mode.variables == ARGO {
        own.push(("ARGO_TOKEN", token));
    }
    let own: Vec<_> = own
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    let all = [BOTH, mode.variables, &own].concat();

    let shown = story
        .command_of(Binary::Clouds, &["config", "env", "--json"], &all)
        .await;
    let shown = shown.expect(0).text();
    for (name, value) in all.iter().filter(|(name, _)| *name != "KUBECONFIG") {
        assert!(
            shown.contains(&format!("\"{name}\"")),
            "no `{name}` in:\n{shown}"
        );
        let is_secret = ["AUTH_TOKEN", "ARGO_TOKEN", "INGESTION_EXTRA_ENVS"].contains(name);
        assert!(
            !is_secret || !shown.contains(value),
            "the value of `{name}` in:\n{shown}"
        );
    }

    // The doctor takes all of it, says what does nothing, and which rules the chart's Role lacks.
    let said = story.command_of(Binary::Clouds, &["check"], &all).await;
    let text = said.expect(1).text();
    for idle in IDLE.iter().chain(mode.idle) {
        assert!(
            text.contains(&format!("variable {idle}")),
            "{idle}:\n{text}"
        );
    }
    let lacks: Vec<_> = text
        .lines()
        .map(str::trim)
        .filter(|line| line.starts_with("- {apiGroups: "))
        .collect();
    assert_eq!(lacks, mode.lacks, "{text}");
}
