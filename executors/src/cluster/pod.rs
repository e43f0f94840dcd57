//! The pod that a run becomes: what the workflow says, what the section says, and what holds for all.
//!
//! Kubernetes replaces `$(NAME)` in commands, arguments and variables; we have replaced what is ours, so that each `$` is doubled
//! and arrives as it was written. All processes of the pod share one pid namespace, whose first process is the pod's own: the work is
//! no first process, which a signal would not end unless it asks for it, and orphans are reaped.

use std::time::Duration;

use hybrid_runner_core::error::{Error, Result};
use hybrid_runner_core::run::{Amounts, Rendered, Resources, RunSpec, render};
use hybrid_runner_core::secret::{SecretValue, Secrets, Template};
use hybrid_runner_core::unit::Period;
use serde_json::{Map, Value, json};

use super::delivery::Delivery;
use crate::private::{config_name, file_name};

/// The container of the work.
pub(crate) const MAIN: &str = "main";
/// Where the private files are, on a file system in memory.
pub(crate) const FOLDER: &str = "/run/hybrid-runner";
/// The volume of the private files.
const VOLUME: &str = "hybrid-runner-private";
/// How long a pod may be pending if nobody says: its deadline counts from there, and is shortened once the work begins.
const PENDING: Duration = Duration::from_hours(24);
/// Readable by whoever the work is: a Secret's files belong to root, and only this pod has them.
const MODE: u32 = 0o444;

/// What the section says about all pods.
#[derive(Debug, Clone, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent keys of a section"
)]
pub(crate) struct PodSettings {
    pub(crate) image: Option<String>,
    pub(crate) pull: Option<&'static str>,
    pub(crate) pull_secrets: Vec<String>,
    pub(crate) service_account: Option<String>,
    pub(crate) mount_token: bool,
    pub(crate) user: Option<i64>,
    pub(crate) group: Option<i64>,
    /// Whether the pod keeps the profile `restricted` of the pod security standards.
    pub(crate) restricted: bool,
    pub(crate) read_only: bool,
    pub(crate) resources: Resources,
    pub(crate) node_selector: std::collections::BTreeMap<String, String>,
    pub(crate) priority_class: Option<String>,
    /// The runner's variables that are passed on.
    pub(crate) env: Vec<(String, String)>,
    /// Variables for each workload, whose values are secret.
    pub(crate) secret_env: Vec<(String, SecretValue)>,
    pub(crate) ignore_pids: bool,
    pub(crate) ignore_stall: bool,
}

/// What a run becomes.
pub(crate) struct Plan {
    /// A pod's `spec`.
    pub(crate) pod: Value,
    /// What travels in a Secret, if anything does.
    pub(crate) delivery: Option<Delivery>,
}

impl Plan {
    /// Puts the values in place. Refuses what cannot be run, before anything is made. `secret` is the name of the run's Secret.
    pub(crate) fn of(
        spec: &RunSpec,
        secrets: &Secrets,
        settings: &PodSettings,
        secret: &str,
    ) -> Result<Self> {
        let image = crate::settings::image(spec, settings.image.as_ref())?;
        refuse(spec, settings)?;
        let config = config_name(spec);
        let rendered = render(spec, secrets, &format!("{FOLDER}/{config}"))?;
        let mut delivery = Delivery::new(secret);
        let env = environment(spec, secrets, &rendered, settings, &mut delivery)?;
        if let Some(content) = &rendered.config {
            delivery.file(config, config, content.clone());
        }
        for (at, (variable, content)) in rendered.files.iter().enumerate() {
            let name = file_name(variable, at);
            delivery.file(&format!("file.{name}"), &name, content.clone());
        }
        let delivery = delivery.filled(secrets)?;
        let pod = pod(spec, settings, &image, &rendered, env, delivery.as_ref());
        Ok(Self { pod, delivery })
    }
}

/// Refuses what a pod cannot have.
fn refuse(spec: &RunSpec, settings: &PodSettings) -> Result<()> {
    let has_pids = spec.resources.limits.pids.is_some() || spec.resources.requests.pids.is_some();
    if has_pids && !settings.ignore_pids {
        return Err(Error::unsupported(
            "`resources.limits.pids` cannot be set for one pod, the kubelet limits all alike (`podPidsLimit`); to run without it set `ignore = [\"pids\"]` in the section of the executor",
        ));
    }
    if spec.limits.stall_timeout.limit().is_some() && !settings.ignore_stall {
        return Err(Error::unsupported(
            "`stall_timeout` cannot be kept by a cluster, which does not tell when a pod last wrote; to run without it set `ignore = [\"stall_timeout\"]` in the section of the executor",
        ));
    }
    if deadline(spec).is_some_and(|seconds| seconds > LONGEST) {
        return Err(Error::unsupported(
            "`timeout` is longer than a cluster can count: at most 68 years, together with `start_timeout`",
        ));
    }
    Ok(())
}

/// The runner's variables that are passed on, then those that it was given for each workload, then the run's own: the later wins. What
/// holds a value comes out of the Secret.
fn environment(
    spec: &RunSpec,
    secrets: &Secrets,
    rendered: &Rendered,
    settings: &PodSettings,
    delivery: &mut Delivery,
) -> Result<Vec<Value>> {
    let is_own = |name: &str| {
        rendered.env.iter().any(|(own, _)| own == name) || spec.files.contains_key(name)
    };
    let is_given = |name: &str| settings.secret_env.iter().any(|(given, _)| given == name);
    let mut env: Vec<Value> = settings
        .env
        .iter()
        .filter(|(name, _)| !is_own(name) && !is_given(name))
        .map(|(name, value)| json!({ "name": name, "value": as_written(value) }))
        .collect();
    for (name, value) in settings.secret_env.iter().filter(|(name, _)| !is_own(name)) {
        env.push(delivery.variable(name, value.clone()));
        delivery.hide(value.clone());
    }
    for (name, value) in &rendered.env {
        let is_config = spec.config_env.as_ref() == Some(name);
        if is_config || has_references(spec, secrets, name)? {
            // Into the Secret; a variable is text.
            value.expose_text().map_err(|error| {
                Error::unsupported(format!(
                    "the value of variable `{name}` is binary; use `files`"
                ))
                .with_source(error)
            })?;
            env.push(delivery.variable(name, value.clone()));
        } else {
            // Written in the workflow, as it is: no value of a store stands in it.
            env.push(json!({ "name": name, "value": as_written(value.expose_text()?) }));
        }
    }
    for (at, (variable, _)) in rendered.files.iter().enumerate() {
        let path = format!("{FOLDER}/{}", file_name(variable, at));
        env.push(json!({ "name": variable, "value": path }));
    }
    Ok(env)
}

fn has_references(spec: &RunSpec, secrets: &Secrets, name: &str) -> Result<bool> {
    if secrets.are_left_to_the_workload() {
        return Ok(false);
    }
    let Some(text) = spec.env.get(name) else {
        return Ok(false);
    };
    Ok(Template::parse(text)?.references().next().is_some())
}

/// So that Kubernetes replaces nothing in it.
fn as_written(text: &str) -> String {
    text.replace('$', "$$")
}

fn pod(
    spec: &RunSpec,
    settings: &PodSettings,
    image: &str,
    rendered: &Rendered,
    env: Vec<Value>,
    delivery: Option<&Delivery>,
) -> Value {
    let mut main = Map::new();
    main.insert("name".to_owned(), json!(MAIN));
    main.insert("image".to_owned(), json!(image));
    let words = |words: &Option<Vec<String>>| {
        let words = words.as_ref()?.iter().map(|word| as_written(word));
        Some(words.collect::<Vec<_>>())
    };
    let mut put = |key: &str, value: Option<Value>| {
        if let Some(value) = value {
            main.insert(key.to_owned(), value);
        }
    };
    put("command", words(&rendered.command).map(Value::from));
    put("args", words(&rendered.args).map(Value::from));
    put("workingDir", spec.workdir.as_ref().map(|path| json!(path)));
    put("imagePullPolicy", settings.pull.map(Value::from));
    put("env", Some(env.into()));
    put("resources", resources(spec, settings));
    put("securityContext", Some(container_security(settings)));
    let mut mounts = Vec::new();
    let mut volumes = Vec::new();
    if let Some(items) = delivery
        .map(Delivery::items)
        .filter(|items| !items.is_empty())
    {
        mounts.push(json!({ "name": VOLUME, "mountPath": FOLDER, "readOnly": true }));
        let name = delivery.map(Delivery::name);
        let secret = json!({ "secretName": name, "defaultMode": MODE, "items": items });
        volumes.push(json!({ "name": VOLUME, "secret": secret }));
    }
    if settings.read_only {
        mounts.push(json!({ "name": "tmp", "mountPath": "/tmp" }));
        volumes.push(json!({ "name": "tmp", "emptyDir": {} }));
    }
    put("volumeMounts", (!mounts.is_empty()).then(|| mounts.into()));
    let mut pod = json!({
        "restartPolicy": "Never",
        "enableServiceLinks": false,
        "shareProcessNamespace": true,
        "automountServiceAccountToken": settings.mount_token,
        "terminationGracePeriodSeconds": seconds(spec.limits.grace.get()).max(1),
        "securityContext": pod_security(settings),
        "containers": [main],
        "volumes": volumes,
    });
    let mut put = |key: &str, value: Option<Value>| {
        if let Some(value) = value {
            pod[key] = value;
        }
    };
    put("activeDeadlineSeconds", deadline(spec).map(Value::from));
    put(
        "serviceAccountName",
        settings.service_account.as_ref().map(|name| json!(name)),
    );
    put(
        "priorityClassName",
        settings.priority_class.as_ref().map(|name| json!(name)),
    );
    let selector = &settings.node_selector;
    put(
        "nodeSelector",
        (!selector.is_empty()).then(|| json!(selector)),
    );
    let named = settings
        .pull_secrets
        .iter()
        .map(|name| json!({ "name": name }));
    let named: Vec<Value> = named.collect();
    put(
        "imagePullSecrets",
        (!named.is_empty()).then(|| named.into()),
    );
    pod
}

/// Of seconds: Kubernetes refuses more, and Argo miscounts.
const LONGEST: u64 = i32::MAX as u64;

/// Until it is known when the work began, so long as it may take from the node's acceptance.
fn deadline(spec: &RunSpec) -> Option<u64> {
    let timeout = spec.limits.timeout.limit()?;
    let pending = spec.limits.start_timeout.limit().unwrap_or(PENDING);
    Some(seconds(timeout.saturating_add(pending)))
}

/// In whole seconds, no less.
pub(crate) fn seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}

/// The run's time limit, for whoever finds its object.
pub(crate) fn timeout_of(spec: &RunSpec) -> Option<String> {
    let timeout: Period = spec.limits.timeout;
    timeout.limit().map(|limit| limit.as_millis().to_string())
}

fn resources(spec: &RunSpec, settings: &PodSettings) -> Option<Value> {
    let usual = &settings.resources;
    let limits = amounts(&spec.resources.limits, &usual.limits);
    let requests = amounts(&spec.resources.requests, &usual.requests);
    (!limits.is_empty() || !requests.is_empty())
        .then(|| json!({ "limits": limits, "requests": requests }))
}

/// The workflow's own; where it says nothing, those of the section.
fn amounts(own: &Amounts, usual: &Amounts) -> Map<String, Value> {
    let mut amounts = Map::new();
    if let Some(cpu) = own.cpu.or(usual.cpu) {
        amounts.insert("cpu".to_owned(), format!("{}m", cpu.millis()).into());
    }
    if let Some(memory) = own.memory.or(usual.memory) {
        amounts.insert("memory".to_owned(), memory.get().to_string().into());
    }
    amounts
}

fn pod_security(settings: &PodSettings) -> Value {
    let mut security = Map::new();
    if settings.restricted {
        security.insert("runAsNonRoot".to_owned(), true.into());
        security.insert(
            "seccompProfile".to_owned(),
            json!({ "type": "RuntimeDefault" }),
        );
    }
    if let Some(user) = settings.user {
        security.insert("runAsUser".to_owned(), user.into());
    }
    if let Some(group) = settings.group {
        security.insert("runAsGroup".to_owned(), group.into());
        // Volumes belong to it, too.
        security.insert("fsGroup".to_owned(), group.into());
    }
    security.into()
}

fn container_security(settings: &PodSettings) -> Value {
    let mut security = json!({ "readOnlyRootFilesystem": settings.read_only });
    if settings.restricted {
        security["allowPrivilegeEscalation"] = false.into();
        security["capabilities"] = json!({ "drop": ["ALL"] });
    }
    security
}

#[cfg(test)]
mod tests;
