//! How a Job looks, stands and ends.

use hybrid_runner_core::run::{Failure, FailureClass};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use serde_json::{Value, json};

use crate::cluster::config::Settings;
use crate::cluster::deleted;
use crate::cluster::object::{
    Archive, Bringer, Condition, End, Kind, KindNames, Object, Shell, Standing,
};
use crate::cluster::pod::{MAIN, seconds};
use crate::cluster::rights::Rights;

/// Jobs, as `batch/v1` has them.
#[derive(Debug)]
pub(super) struct Job;

impl Kind for Job {
    fn names(&self) -> &'static KindNames {
        &KindNames {
            group: "batch",
            version: "v1",
            kind: "Job",
            plural: "jobs",
        }
    }

    fn bringer(&self) -> Option<&'static Bringer> {
        None
    }

    fn needed(&self) -> &'static [Rights] {
        const VERBS: &[&str] = &["create", "get", "list", "watch", "patch", "delete"];
        &[("batch", "jobs", VERBS)]
    }

    fn spec(&self, shell: &Shell<'_>) -> Value {
        json!({ "template": { "spec": shell.pod } })
    }

    fn keep(&self, shell: &Shell<'_>) -> Value {
        json!({
            "spec": {
                "suspend": shell.is_held,
                "parallelism": 1,
                "completions": 1,
                // How it ended must be known for so long.
                "ttlSecondsAfterFinished": seconds(shell.settings.ttl),
                // Attempts are ours to make: by any of these the cluster would.
                "backoffLimit": 0,
                "backoffLimitPerIndex": null,
                "completionMode": null,
                "maxFailedIndexes": null,
                "podFailurePolicy": null,
                "successPolicy": null,
                "podReplacementPolicy": "Failed",
                "template": {
                    "metadata": { "labels": shell.labels },
                    "spec": { "restartPolicy": "Never" },
                },
            },
        })
    }

    fn never(&self, labels: &Value) -> Value {
        json!({
            "spec": {
                "suspend": true,
                "parallelism": 0,
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

    fn go(&self, _settings: &Settings) -> Value {
        json!({ "spec": { "suspend": false } })
    }

    /// Also if somebody lets it go again: then there is room for no pod.
    fn hold(&self) -> Value {
        json!({ "spec": { "suspend": true, "parallelism": 0 } })
    }

    fn queue(&self) -> Option<&'static str> {
        Some("kueue.x-k8s.io/queue-name")
    }

    fn puts_away(&self) -> bool {
        true
    }

    fn makes_others(&self) -> bool {
        false
    }

    fn has_first_process(&self) -> bool {
        false
    }

    fn archive(&self, _object: &Value, _name: &str, _from: u64) -> Archive {
        Archive::Nowhere
    }

    fn warning(&self, _settings: &Settings) -> Option<&'static str> {
        None
    }

    fn standing(&self, job: &Object) -> Standing {
        let is_suspended = job.spec.suspend == Some(true);
        let is_closed = job.spec.parallelism == 0;
        Standing {
            is_suspended,
            is_held: is_suspended || is_closed,
            is_closed,
            was_resumed: was_resumed(job),
            end: end(job),
            ..Standing::default()
        }
    }

    fn blame(&self, end: &End) -> Failure {
        match end.reason.as_str() {
            "DeadlineExceeded" => Failure::new(
                FailureClass::Timeout,
                "the Job ran longer than the `activeDeadlineSeconds` that a template gave it",
            ),
            _ => deleted(),
        }
    }
}

/// Whether the cluster let it go after it had been suspended, and the last word of that was not of who made it.
fn was_resumed(job: &Object) -> bool {
    let mut conditions = job.status.conditions.iter();
    let resumed = |it: &Condition| it.kind == "Suspended" && it.status == "False";
    let managers = job.metadata.managed_fields.iter().flatten();
    let manager_of = |field: &str| {
        let mut managers = managers.clone();
        let has = |it: &&ManagedFieldsEntry| {
            let fields = it.fields_v1.as_ref();
            fields.is_some_and(|fields| fields.0["f:spec"].get(field).is_some())
        };
        managers.find(has)?.manager.as_deref()
    };
    conditions.any(resumed) && manager_of("f:suspend") != manager_of("f:completions")
}

fn end(job: &Object) -> Option<End> {
    // It will fail, once its pod is gone; or it has ended.
    const KINDS: [&str; 3] = ["FailureTarget", "Complete", "Failed"];
    let last =
        job.status.conditions.iter().find(|condition| {
            KINDS.contains(&condition.kind.as_str()) && condition.status == "True"
        })?;
    Some(End {
        is_complete: last.kind == "Complete",
        never_began: false,
        reason: last.reason.clone().unwrap_or_default(),
        message: last.message.clone().unwrap_or_default(),
    })
}
