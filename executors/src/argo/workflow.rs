//! How a Workflow looks, stands and ends.
//!
//! It is held back by two things: `suspend`, and the label of a controller that does not exist, so that no controller looks at it. Argo
//! acts on a Workflow that is new to it at once, and on one that has changed after ten seconds: without the label, it is new.

use hybrid_runner_core::run::{Failure, FailureClass};
use serde_json::{Value, json};

use super::{archive, patch};
use crate::cluster::config::Settings;
use crate::cluster::deleted;
use crate::cluster::object::{
    Archive, Bringer, End, Kind, KindNames, Node, Object, Shell, Standing,
};
use crate::cluster::pod::{MAIN, seconds};
use crate::cluster::rights::Rights;

/// Label: which controller looks at it. Without it, the one that has no id.
pub(super) const INSTANCE: &str = "workflows.argoproj.io/controller-instanceid";
/// Of a controller that does not exist.
const NOBODY: &str = "hybrid-runner-held";

/// Workflows, as Argo has them.
#[derive(Debug)]
pub(super) struct Workflow;

impl Kind for Workflow {
    fn names(&self) -> &'static KindNames {
        &KindNames {
            group: "argoproj.io",
            version: "v1alpha1",
            kind: "Workflow",
            plural: "workflows",
        }
    }

    fn bringer(&self) -> Option<&'static Bringer> {
        Some(&Bringer {
            name: "Argo Workflows",
            install: "https://argo-workflows.readthedocs.io/en/latest/installation/",
            container: "wait",
            tried: &["v3.6.", "v3.7."],
        })
    }

    fn needed(&self) -> &'static [Rights] {
        const VERBS: &[&str] = &["create", "get", "list", "watch", "patch", "delete"];
        &[("argoproj.io", "workflows", VERBS)]
    }

    fn spec(&self, shell: &Shell<'_>) -> Value {
        let mut container = json!({ "image": patch::image(shell.pod) });
        let mounts = patch::mounts_of_workflow(shell.pod);
        if !mounts.is_empty() {
            // Argo gives the pod such volumes of the Workflow as it finds mounted here.
            container["volumeMounts"] = mounts.into();
        }
        let mut spec = json!({
            "archiveLogs": false,
            "templates": [{ "name": MAIN, "container": container }],
        });
        // By them Argo asks the registry for the command of an image.
        for (name, in_pod) in [
            ("serviceAccountName", "serviceAccountName"),
            ("imagePullSecrets", "imagePullSecrets"),
        ] {
            if let Some(value) = shell.pod.get(in_pod) {
                spec[name] = value.clone();
            }
        }
        if let Some(deadline) = shell.pod["activeDeadlineSeconds"].as_u64() {
            // That of the pod counts from its node's acceptance; this is the net below it, with as much again for the way there.
            spec["activeDeadlineSeconds"] = deadline.saturating_mul(2).into();
        }
        spec
    }

    fn keep(&self, shell: &Shell<'_>) -> Value {
        let volumes = &shell.settings.template["spec"]["volumes"];
        let text = patch::text(&patch::completed(shell.pod, volumes));
        let ttl = seconds(shell.settings.ttl);
        let mut kept = json!({
            "spec": {
                "entrypoint": MAIN,
                "suspend": null,
                "shutdown": null,
                "workflowTemplateRef": null,
                // Attempts are ours to make.
                "retryStrategy": null,
                // How it ended must be known for so long. The controller's own setting might take the pod, and its log, at once.
                "ttlStrategy": { "secondsAfterCompletion": ttl, "secondsAfterFailure": null, "secondsAfterSuccess": null },
                "podGC": { "strategy": "OnWorkflowCompletion", "deleteDelayDuration": format!("{ttl}s") },
                "templates": [{
                    "name": MAIN,
                    "metadata": { "labels": shell.labels },
                    "podSpecPatch": text,
                    "retryStrategy": null,
                }],
            },
        });
        if let Some(defaults) = shell.settings.template.pointer("/spec/templateDefaults")
            && defaults.get("retryStrategy").is_some()
        {
            kept["spec"]["templateDefaults"] = json!({ "retryStrategy": null });
        }
        if shell.is_held {
            kept["metadata"] = json!({ "labels": { INSTANCE: NOBODY } });
            kept["spec"]["suspend"] = true.into();
        }
        kept
    }

    fn never(&self, _labels: &Value) -> Value {
        json!({
            "metadata": { "labels": { INSTANCE: NOBODY } },
            "spec": {
                "suspend": true,
                "entrypoint": MAIN,
                "templates": [{ "name": MAIN, "suspend": {} }],
            },
        })
    }

    fn go(&self, settings: &Settings) -> Value {
        let of_template = &settings.template["metadata"]["labels"][INSTANCE];
        let own = settings.labels.get(INSTANCE);
        let instance = own.map_or_else(|| of_template.clone(), |id| json!(id));
        json!({
            "metadata": { "labels": { INSTANCE: instance } },
            "spec": { "suspend": null },
        })
    }

    fn hold(&self) -> Value {
        json!({ "spec": { "shutdown": "Terminate" } })
    }

    fn queue(&self) -> Option<&'static str> {
        None
    }

    fn puts_away(&self) -> bool {
        // The controller does, after ten seconds, if it runs.
        false
    }

    fn makes_others(&self) -> bool {
        // A pod that is gone before the controller saw it run counts as never made: it looks every ten seconds.
        true
    }

    fn has_first_process(&self) -> bool {
        true
    }

    fn archive(&self, object: &Value, name: &str, from: u64) -> Archive {
        archive::of(object, name, from)
    }

    fn warning(&self, settings: &Settings) -> Option<&'static str> {
        archive::is_asked_for(&settings.template).then_some(ARCHIVES)
    }

    fn standing(&self, workflow: &Object) -> Standing {
        let spec = &workflow.spec;
        let status = &workflow.status;
        let is_suspended = spec.suspend == Some(true);
        let is_shut = spec.shutdown.as_deref().is_some_and(|how| !how.is_empty());
        let is_taken = status
            .phase
            .as_deref()
            .is_some_and(|phase| !phase.is_empty());
        Standing {
            is_suspended,
            is_held: is_suspended || is_shut,
            is_shut,
            waits: waits(workflow),
            untaken: (!is_suspended && !is_taken).then_some(UNTAKEN),
            end: end(workflow),
            ..Standing::default()
        }
    }

    fn blame(&self, end: &End) -> Failure {
        let words = end.message.as_str();
        if let Some(failure) = exit(words) {
            return failure;
        }
        let known = CAUSES.iter().find(|(part, ..)| words.contains(part));
        match known {
            Some((_, class, what)) => Failure::new(*class, *what),
            None if words.contains("pod deleted") => deleted(),
            None if words.contains("deadline") || words.contains("Max duration") => late(end),
            None => Failure::new(FailureClass::Backend, "Argo could not run the Workflow"),
        }
    }
}

const ARCHIVES: &str = "`archiveLogs` makes Argo keep a copy of each log in the artifact repository of the namespace, which must be there: as the work wrote it, without masks; the runner reads it only where the pod is gone";

const UNTAKEN: &str = "no controller of Argo has looked at the Workflow yet: does it run, does it look after this namespace, and is it the one of the label `workflows.argoproj.io/controller-instanceid` (`labels` in the section)?";

const LIMIT_RANGE: &str = "a LimitRange of the namespace forbids the pod; see `resources`";

/// What Argo says of a Workflow whose pod it could not make: a part of its words, and what we say.
const CAUSES: [(&str, FailureClass, &str); 19] = [
    (
        "error looking up service account",
        FailureClass::Spec,
        "there is no such account in the namespace; correct `service_account`",
    ),
    (
        "failed to look-up entrypoint/cmd",
        FailureClass::Spec,
        "Argo could not ask the registry what an image runs; give `command` in the workflow, or in `pod` for a container beside it",
    ),
    (
        "cannot unmarshall spec",
        FailureClass::Spec,
        "Argo cannot read the Workflow; see `template`, or the file of `ARGO_INGESTION_WORKFLOW_SPEC_FILE_PATH`",
    ),
    (
        "not found in workflow spec",
        FailureClass::Spec,
        "a volume that is mounted is not there; see `pod`",
    ),
    (
        "exceeded quota",
        FailureClass::Quota,
        "a quota of the namespace is used up",
    ),
    (
        "for: init,wait",
        FailureClass::Quota,
        "a quota of the namespace asks for what Argo's own containers do not say; set `executor.resources` in its `workflow-controller-configmap`, or have a LimitRange with defaults",
    ),
    (
        "failed quota: ",
        FailureClass::Quota,
        "a quota of the namespace asks for what the pod does not say; set `resources`",
    ),
    (
        "no PriorityClass with name",
        FailureClass::Spec,
        "there is no such class in the cluster; correct `priority_class`",
    ),
    (
        "violates PodSecurity",
        FailureClass::Policy,
        "an admission policy of the namespace forbids the pod",
    ),
    (
        "admission webhook",
        FailureClass::Policy,
        "an admission webhook forbids the pod",
    ),
    (
        " denied request: ",
        FailureClass::Policy,
        "an admission policy of the cluster forbids the pod",
    ),
    (" per Container is ", FailureClass::Policy, LIMIT_RANGE),
    (" per Pod is ", FailureClass::Policy, LIMIT_RANGE),
    (
        "configmaps is forbidden",
        FailureClass::Spec,
        "command and arguments are longer than Argo takes unless its controller may make ConfigMaps; hand over a file instead",
    ),
    (
        " is forbidden: ",
        FailureClass::Denied,
        "the cluster forbids Argo to make the pod",
    ),
    (
        " is invalid: ",
        FailureClass::Spec,
        "the API server refuses the pod",
    ),
    (
        "applying PodSpecPatch",
        FailureClass::Spec,
        "Argo refuses `pod` of the section, or what an entry of `types` adds to it",
    ),
    (
        "invalid spec: ",
        FailureClass::Spec,
        "Argo refuses the Workflow; see `template` in the section",
    ),
    (
        "with strategy",
        FailureClass::Killed,
        "somebody else told Argo to stop the Workflow",
    ),
];

/// The end of the work, as Argo noted it when there was a pod: `main: Error (exit code 3)`. That the pod is gone, and its work was
/// ended by a signal, was one and the same thing.
fn exit(words: &str) -> Option<Failure> {
    const SIGNALS: [i32; 2] = [128 + 9, 128 + 15];
    let (before, rest) = words.split_once(" (exit code ")?;
    let code = rest.split_once(')')?.0.parse().ok()?;
    if before.ends_with("OOMKilled") {
        let mut failure = Failure::new(
            FailureClass::Oom,
            "the kernel ended the command for want of memory",
        );
        failure.exit_code = Some(code);
        return Some(failure);
    }
    if SIGNALS.contains(&code) {
        return Some(deleted());
    }
    before.contains("main").then(|| Failure::exit(code))
}

fn late(end: &End) -> Failure {
    if end.never_began {
        return Failure::new(
            FailureClass::Pending,
            "the work did not begin within the Workflow's deadline",
        );
    }
    Failure::new(
        FailureClass::Timeout,
        "the Workflow ran longer than its deadline",
    )
}

/// What it waits for, as long as it has no pod: a quota, or a lock that others hold.
fn waits(workflow: &Object) -> Option<String> {
    let status = &workflow.status;
    let of_node = pods(workflow).find_map(|node| node.message.as_ref());
    let is_pending = status.phase.as_deref() == Some("Pending");
    let of_workflow = status.message.as_ref().filter(|_| is_pending);
    of_node.or(of_workflow).cloned()
}

/// The steps that have a pod, or should have one.
fn pods(workflow: &Object) -> impl Iterator<Item = &Node> {
    let nodes = workflow.status.nodes.values();
    nodes.filter(|node| node.kind == "Pod")
}

fn is_end(phase: &str) -> bool {
    matches!(phase, "Succeeded" | "Failed" | "Error")
}

/// How the only step with a pod ended. For minutes after that Argo waits for the last report of a pod that is gone. With tries of its own
/// only the Workflow tells which was the last.
fn end_of_work(workflow: &Object) -> Option<&str> {
    let mut nodes = workflow.status.nodes.values();
    if nodes.any(|node| node.kind == "Retry") {
        return None;
    }
    let mut pods = pods(workflow);
    let (only, None) = (pods.next()?, pods.next()) else {
        return None;
    };
    only.phase.as_deref().filter(|phase| is_end(phase))
}

fn end(workflow: &Object) -> Option<End> {
    let status = &workflow.status;
    let of_itself = status.phase.as_deref().filter(|phase| is_end(phase));
    let phase = of_itself.or_else(|| end_of_work(workflow))?;
    let of_node = pods(workflow).find_map(|node| node.message.as_deref());
    let of_workflow = status.message.as_deref();
    let message = [of_node, of_workflow].into_iter().flatten();
    Some(End {
        is_complete: phase == "Succeeded",
        never_began: pods(workflow).all(|node| node.host_node_name.is_none()),
        reason: phase.to_owned(),
        message: message.collect::<Vec<_>>().join("; "),
    })
}

#[cfg(test)]
mod tests;
