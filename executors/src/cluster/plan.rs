//! The object that a run becomes.

use hybrid_runner_core::RunId;
use hybrid_runner_core::error::Result;
use hybrid_runner_core::run::RunSpec;
use hybrid_runner_core::secret::Secrets;
use serde_json::{Map, Value, json};

use super::delivery::Delivery;
use super::names::WORKFLOW;
use super::object::{GOES, GONE, HELD, SECRET, STOPPED, Shell, TIMEOUT};
use super::pod;
use super::runs::Shared;
use super::template::merge;

/// The variable, or the label, that says which of OpenMetadata's types of pipelines a run is of.
pub(super) const TYPE: &str = "pipelineType";

/// What a run becomes.
pub(super) struct Plan {
    /// As it is sent.
    pub(super) object: Value,
    /// What travels in a Secret, if anything does: then the object is held back at first.
    pub(super) delivery: Option<Delivery>,
}

impl Plan {
    /// Puts the values in place. Refuses what cannot be run, before anything is made.
    pub(super) fn of(shared: &Shared, spec: &RunSpec, secrets: &Secrets) -> Result<Self> {
        let settings = &shared.settings;
        let name = shared.names.object(spec.run);
        let pod::Plan { mut pod, delivery } = pod::Plan::of(spec, secrets, &settings.pod, &name)?;
        merge(&mut pod, &settings.pod_template);
        if let Some(more) = type_of(spec).and_then(|name| settings.types.get(name)) {
            merge(&mut pod, more);
        }
        // Attempts are ours to make.
        pod["restartPolicy"] = "Never".into();
        let labels = json!(shared.names.all_labels(spec, &settings.labels));
        let mut annotations = Map::new();
        for (name, text) in &settings.annotations {
            annotations.insert(name.clone(), json!(text));
        }
        annotations.insert(WORKFLOW.to_owned(), json!(spec.name));
        if let Some(timeout) = pod::timeout_of(spec) {
            annotations.insert(TIMEOUT.to_owned(), timeout.into());
        }
        let is_held = delivery.is_some();
        let goes = if is_held { HELD } else { GONE };
        annotations.insert(GOES.to_owned(), goes.into());
        if is_held {
            annotations.insert(SECRET.to_owned(), name.clone().into());
        }
        let shell = Shell {
            settings,
            labels: &labels,
            pod: &pod,
            is_held,
        };
        let mut object = head(shared, &name, &labels, &annotations);
        object["spec"] = shared.kind.spec(&shell);
        merge(&mut object, &settings.template);
        // By it a run is found, and runs once.
        merge(&mut object, &head(shared, &name, &labels, &annotations));
        merge(&mut object, &shared.kind.keep(&shell));
        Ok(Self { object, delivery })
    }
}

/// Which of OpenMetadata's types of pipelines a run is of: as its own images are told it, or as a label.
fn type_of(spec: &RunSpec) -> Option<&str> {
    let name = spec.env.get(TYPE).or_else(|| spec.labels.get(TYPE));
    name.map(String::as_str)
}

fn head(shared: &Shared, name: &str, labels: &Value, annotations: &Map<String, Value>) -> Value {
    let names = shared.kind.names();
    json!({
        "apiVersion": names.api_version(),
        "kind": names.kind,
        "metadata": {
            "name": name,
            "namespace": null,
            "generateName": null,
            "labels": labels,
            "annotations": annotations,
        },
    })
}

/// An object that never runs: the mark of a stop that came before the start.
pub(super) fn tombstone(shared: &Shared, run: RunId) -> Value {
    let mut annotations = Map::new();
    annotations.insert(STOPPED.to_owned(), "before its start".into());
    let labels = json!(shared.names.labels(run));
    let mut object = shared.kind.never(&labels);
    merge(
        &mut object,
        &head(shared, &shared.names.object(run), &labels, &annotations),
    );
    object
}
