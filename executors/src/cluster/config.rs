//! The section of an executor over a cluster: `[executors.NAME] kind = "kubernetes"` or `"argo"`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use hybrid_runner_core::error::{Error, Result};
use hybrid_runner_core::kind::Context;
use hybrid_runner_core::run::Resources;
use hybrid_runner_core::unit::Period;
use k8s_openapi::api::core::v1::PodSpec;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::access::Access;
use super::names::{PREFIX, is_dns_label, is_label_value, is_object_name, is_qualified_name};
use super::pod::PodSettings;
use super::template;
use crate::settings;

/// The settings of an executor over a cluster, as they are written. All have defaults.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct ClusterConfig {
    /// The namespace of the runs: `namespace = "ingestion"`. Absent: that of the runner's own pod, or of the kubeconfig.
    pub namespace: Option<String>,
    /// A kubeconfig: `kubeconfig = "/etc/hybrid-runner/kubeconfig"`. Absent: the variable `KUBECONFIG`, `~/.kube/config`, or
    /// the account of the runner's own pod.
    pub kubeconfig: Option<PathBuf>,
    /// The context in it: `context = "production"`. Absent: its current one.
    pub context: Option<String>,
    /// The variable of the runner with a token for the API server: `token_env = "CLUSTER_TOKEN"`. Absent: the account of the runner's own pod.
    pub token_env: Option<String>,
    /// A PEM file of the authority that signed the API server's certificate: `ca = "ca.pem"`. Absent: that of the kubeconfig.
    pub ca: Option<PathBuf>,
    /// The way there: `proxy = "http://proxy:3128"`, or `"none"`. Absent: the `proxy-url` of the kubeconfig, else the usual
    /// variables.
    pub proxy: Option<String>,
    /// The image of workflows that name none: `image = "openmetadata/ingestion-base:1.13.3"`.
    pub image: Option<String>,
    /// When nodes pull images: `pull = "missing"`, `"always"` or `"never"`. Absent: always for `:latest`, else missing.
    pub pull: Option<PullPolicy>,
    /// Secrets of the namespace with passwords of registries: `pull_secrets = ["registry"]`.
    pub pull_secrets: Vec<String>,
    /// The account of the pods: `service_account = "ingestion"`. Absent: the namespace's default.
    pub service_account: Option<String>,
    /// Whether the work gets that account's token: `mount_token = true`. Absent: it does not.
    pub mount_token: bool,
    /// The number of the user that the work is: `user = 1000`. Absent: as the image says, which must be a number.
    pub user: Option<i64>,
    /// The number of its group, to which volumes belong too: `group = 1000`.
    pub group: Option<i64>,
    /// Whether pods keep the profile `restricted` of the pod security standards: `restricted = false`. Absent: they do.
    pub restricted: Option<bool>,
    /// Whether the image's file system is read-only: `read_only = true`. `/tmp` can still be written.
    pub read_only: bool,
    /// Of workflows that ask for none: `resources = { requests = { cpu = "500m" }, limits = { memory = "4Gi" } }`.
    pub resources: Resources,
    /// Labels of the nodes that may be taken: `node_selector = { pool = "batch" }`.
    pub node_selector: BTreeMap<String, String>,
    /// `priority_class = "low"`.
    pub priority_class: Option<String>,
    /// Labels for all Jobs or Workflows, and their pods: `labels = { team = "data" }`.
    pub labels: BTreeMap<String, String>,
    /// Annotations for all Jobs or Workflows: `annotations = { "example.com/owner" = "data" }`.
    pub annotations: BTreeMap<String, String>,
    /// Variables of the runner that a workload also gets, readable in the pod's description: `env = ["no_proxy"]`.
    pub env: Vec<String>,
    /// How long what has ended stays if nobody removes it, at least a week: `ttl = "8d"`.
    pub ttl: Option<Period>,
    /// A partial `spec` of a pod, merged into that of each: `pod = { tolerations = [{ operator = "Exists" }] }`. Lists of things with
    /// a `name` are merged by it; the container of the work is called `main`.
    pub pod: Map<String, Value>,
    /// More of `pod` for runs of a type of OpenMetadata's, which their variable or label `pipelineType` says:
    /// `types = { automation = { priorityClassName = "high" } }`.
    pub types: BTreeMap<String, Map<String, Value>>,
    /// A partial Job or Workflow, merged into each: `template = { metadata = { finalizers = ["example.com/audit"] } }`.
    pub template: Map<String, Value>,
    /// What a workflow may ask for in vain: `ignore = ["pids", "stall_timeout"]`.
    pub ignore: Vec<Ignorable>,
}

/// When nodes pull images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum PullPolicy {
    /// Where the node does not have them.
    Missing,
    /// Before each start.
    Always,
    /// Never: an image that is missing fails the run.
    Never,
}

/// What a workflow may ask for although a pod cannot have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Ignorable {
    /// `resources.limits.pids`.
    Pids,
    /// `stall_timeout`.
    StallTimeout,
}

/// The runner knows its own runs for so long after they were removed.
const LEAST_TTL: Duration = Duration::from_hours(7 * 24);
const TTL: Duration = Duration::from_hours(8 * 24);

/// The settings after the checks.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(super) access: Access,
    pub(super) pod: PodSettings,
    pub(crate) labels: BTreeMap<String, String>,
    pub(super) annotations: BTreeMap<String, String>,
    pub(crate) ttl: Duration,
    pub(crate) template: Value,
    /// Of the pod.
    pub(super) pod_template: Value,
    /// More of it, by the type of the run.
    pub(super) types: BTreeMap<String, Value>,
}

impl Settings {
    /// Reads and checks the section. `variable` looks up the runner's environment.
    pub(crate) fn read(
        context: &Context,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self> {
        let config: ClusterConfig = settings::read(context)?;
        let wrong = |key: &str, why: String| settings::wrong(context, key).with_source(why);
        let access = Access {
            namespace: config.namespace.clone(),
            kubeconfig: config.kubeconfig.clone(),
            context: config.context.clone(),
            token_env: config.token_env.clone(),
            ca: config.ca.clone(),
            proxy: config.proxy.clone(),
        };
        access
            .check()
            .map_err(|error| settings::wrong(context, "proxy").with_source(error))?;
        if config.token_env.is_some() && (config.kubeconfig.is_some() || config.context.is_some()) {
            let why = "it is for a runner in a pod; a kubeconfig names its user itself";
            return Err(wrong("token_env", why.to_owned()));
        }
        check_names(&config, &wrong)?;
        if let Some(namespace) = config.namespace.as_ref().filter(|name| !is_dns_label(name)) {
            let what = "is no name of a namespace: at most 63 lower-case letters, digits and `-`";
            return Err(wrong("namespace", format!("`{namespace}` {what}")));
        }
        for (key, names) in [
            ("service_account", config.service_account.as_slice()),
            ("pull_secrets", &config.pull_secrets),
            ("priority_class", config.priority_class.as_slice()),
        ] {
            if let Some(name) = names.iter().find(|name| !is_object_name(name)) {
                let what =
                    "is no name of an object: at most 253 lower-case letters, digits, `-` and `.`";
                return Err(wrong(key, format!("`{name}` {what}")));
            }
        }
        let ttl = config.ttl.map_or(TTL, Period::get);
        if ttl < LEAST_TTL {
            return Err(wrong(
                "ttl",
                "it is less than 7 days: how a run ended must be known until the runner has told it".to_owned(),
            ));
        }
        for (key, id) in [("user", config.user), ("group", config.group)] {
            if id.is_some_and(|id| i32::try_from(id).is_err() || id < 0) {
                let why = format!("it is no number from 0 to {}", i32::MAX);
                return Err(wrong(key, why));
            }
        }
        for key in ["metadata", "spec"] {
            let member = config.template.get(key);
            if member.is_some_and(|member| !member.is_object() && !member.is_null()) {
                return Err(wrong(
                    &format!("template.{key}"),
                    "it is no table".to_owned(),
                ));
            }
        }
        let env = config.env.iter();
        let env = env.filter_map(|name| Some((name.clone(), variable(name)?)));
        Ok(Self {
            access,
            labels: config.labels.clone(),
            annotations: config.annotations.clone(),
            ttl,
            template: Value::Object(config.template.clone()),
            pod_template: Value::Object(config.pod.clone()),
            types: config
                .types
                .iter()
                .map(|(name, pod)| (name.clone(), Value::Object(pod.clone())))
                .collect(),
            pod: PodSettings {
                env: env.collect(),
                secret_env: context.env.clone(),
                image: config.image,
                pull: config.pull.map(PullPolicy::word),
                pull_secrets: config.pull_secrets,
                service_account: config.service_account,
                mount_token: config.mount_token,
                user: config.user,
                group: config.group,
                restricted: config.restricted.unwrap_or(true),
                read_only: config.read_only,
                resources: config.resources,
                node_selector: config.node_selector,
                priority_class: config.priority_class,
                ignore_pids: config.ignore.contains(&Ignorable::Pids),
                ignore_stall: config.ignore.contains(&Ignorable::StallTimeout),
            },
        })
    }
}

/// What becomes names and labels must be such.
fn check_names(config: &ClusterConfig, wrong: &dyn Fn(&str, String) -> Error) -> Result<()> {
    let names = "letters, digits, `-`, `_` and `.`, and before that perhaps a DNS name and `/`";
    for (key, labels, has_values) in [
        ("labels", &config.labels, true),
        ("annotations", &config.annotations, false),
        ("node_selector", &config.node_selector, true),
    ] {
        for (name, value) in labels {
            if name.starts_with(PREFIX) && key != "node_selector" {
                return Err(wrong(key, format!("`{name}` is set by the runner")));
            }
            if !is_qualified_name(name) {
                let what = format!("`{name}` is no name that Kubernetes takes: {names}");
                return Err(wrong(key, what));
            }
            if has_values && !is_label_value(value) {
                let what = "is no value of a label: at most 63 letters, digits, `-`, `_` and `.`";
                return Err(wrong(key, format!("`{value}` of `{name}` {what}")));
            }
        }
    }
    let is_name = |name: &&String| !name.is_empty() && !name.contains('=');
    if let Some(name) = config.env.iter().find(|name| !is_name(name)) {
        let what = "is no name of a variable; its value is that which the runner has";
        return Err(wrong("env", format!("`{name}` {what}")));
    }
    Ok(())
}

impl Settings {
    /// Partial pods, and where they stand.
    fn pods(&self) -> impl Iterator<Item = (String, &Value)> {
        let types = self.types.iter();
        let types = types.map(|(name, pod)| (format!("types.{name}"), pod));
        std::iter::once(("pod".to_owned(), &self.pod_template)).chain(types)
    }

    /// What of `pod` and `types` no cluster takes: the API server does not look at it in a Workflow.
    pub(super) fn refused(&self) -> impl Iterator<Item = String> {
        self.pods().filter_map(|(key, pod)| {
            let path = template::wrong_amount(pod)?;
            Some(format!(
                "`{key}.{path}` is no quantity of Kubernetes, as `500m` or `1Gi`: runs will fail"
            ))
        })
    }

    /// What of `pod` and `types` is none of a pod's: the API server says nothing of it in a Workflow.
    pub(super) fn unread(&self) -> impl Iterator<Item = String> {
        self.pods().filter_map(|(key, pod)| {
            let path = template::unread::<PodSpec>(pod)?;
            Some(format!(
                "`{key}.{path}` is nothing that a pod has, or has like this, as far as is known: it will be refused, or not be read"
            ))
        })
    }
}

impl PullPolicy {
    /// Kubernetes' own word.
    fn word(self) -> &'static str {
        match self {
            Self::Missing => "IfNotPresent",
            Self::Always => "Always",
            Self::Never => "Never",
        }
    }
}

#[cfg(test)]
mod tests;
