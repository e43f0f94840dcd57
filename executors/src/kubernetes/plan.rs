//! The Job that a run becomes.

use hybrid_runner_core::RunId;
use hybrid_runner_core::error::Result;
use hybrid_runner_core::run::RunSpec;
use hybrid_runner_core::secret::Secrets;
use serde_json::{Map, Value, json};

use super::Shared;
use super::job::{SECRET, STOPPED, TIMEOUT};
use crate::cluster::delivery::Delivery;
use crate::cluster::names::WORKFLOW;
use crate::cluster::pod::{self, MAIN};
use crate::cluster::template::merge;

/// What a run becomes.
pub(super) struct Plan {
    /// As it is sent.
    pub(super) job: Value,
    /// What travels in a Secret, if anything does: then the Job is made suspended.
    pub(super) delivery: Option<Delivery>,
}

impl Plan {
    /// Puts the values in place. Refuses what cannot be run, before anything is made.
    pub(super) fn of(shared: &Shared, spec: &RunSpec, secrets: &Secrets) -> Result<Self> {
        let settings = &shared.settings;
        let name = shared.names.object(spec.run);
        let pod::Plan { pod, delivery } = pod::Plan::of(spec, secrets, &settings.pod, &name)?;
        let labels = json!(shared.names.all_labels(spec, &settings.labels));
        let mut annotations = Map::new();
        for (name, text) in &settings.annotations {
            annotations.insert(name.clone(), json!(text));
        }
        annotations.insert(WORKFLOW.to_owned(), json!(spec.name));
        if let Some(timeout) = pod::timeout_of(spec) {
            annotations.insert(TIMEOUT.to_owned(), timeout.into());
        }
        if delivery.is_some() {
            annotations.insert(SECRET.to_owned(), name.clone().into());
        }
        let is_suspended = delivery.is_some();
        let mut job = json!({
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": { "name": name, "labels": labels, "annotations": annotations },
            "spec": {
                "ttlSecondsAfterFinished": pod::seconds(settings.ttl),
                "template": { "metadata": { "labels": labels }, "spec": pod },
            },
        });
        merge(&mut job, &settings.template);
        keep(&mut job, &name, &labels, &annotations, is_suspended);
        Ok(Self { job, delivery })
    }
}

/// What no template may change: by it a run is found, and runs once.
fn keep(
    job: &mut Value,
    name: &str,
    labels: &Value,
    annotations: &Map<String, Value>,
    is_suspended: bool,
) {
    let annotations = Value::from(annotations.clone());
    merge(
        job,
        &json!({
            "metadata": { "name": name, "namespace": null, "generateName": null, "labels": labels, "annotations": annotations },
            "spec": {
                "suspend": is_suspended,
                "parallelism": 1,
                "completions": 1,
                // Attempts are ours to make.
                "backoffLimit": 0,
                "podReplacementPolicy": "Failed",
                "template": { "metadata": { "labels": labels }, "spec": { "restartPolicy": "Never" } },
            },
        }),
    );
}

/// A Job that never runs: the mark of a stop that came before the start.
pub(super) fn tombstone(shared: &Shared, run: RunId) -> Value {
    let labels = json!(shared.names.labels(run));
    json!({
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": shared.names.object(run),
            "labels": labels,
            "annotations": { STOPPED: "before its start" },
        },
        "spec": {
            "suspend": true,
            "backoffLimit": 0,
            "template": {
                "metadata": { "labels": labels },
                "spec": {
                    "restartPolicy": "Never",
                    "containers": [{ "name": MAIN, "image": "hybrid-runner.invalid/never-run" }],
                },
            },
        },
    })
}
