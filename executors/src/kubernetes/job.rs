//! What we want to know of a Job, and the marks that we leave on it.

use std::time::Duration;

use hybrid_runner_core::RunId;
use hybrid_runner_core::run::Failure;
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;

use crate::cluster::board::Object;
use crate::cluster::names;
use crate::cluster::seen::time;

/// Annotation: a stop was asked for. It forbids a start for ever.
pub(super) const STOPPED: &str = "hybrid-runner.io/stopped";
/// Annotation: the run failed before its work began, in the words of the contract as JSON.
pub(super) const FAILED: &str = "hybrid-runner.io/failed";
/// Annotation: there is a Secret, without which the Job must not be let go.
pub(super) const SECRET: &str = "hybrid-runner.io/secret";
/// Annotation: the time limit in milliseconds, counted from the beginning of the work.
pub(super) const TIMEOUT: &str = "hybrid-runner.io/timeout-ms";

/// A Job of ours.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct JobSeen {
    pub(super) uid: String,
    pub(super) version: String,
    pub(super) created: Option<Timestamp>,
    /// Not let go yet, or held again by a stop.
    pub(super) is_suspended: bool,
    pub(super) is_stopped: bool,
    pub(super) failed: Option<Failure>,
    pub(super) has_secret: bool,
    pub(super) timeout: Option<Duration>,
    pub(super) end: Option<JobEnd>,
}

/// What the Job's controller says of its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct JobEnd {
    pub(super) is_complete: bool,
    pub(super) reason: String,
    pub(super) message: String,
}

impl JobSeen {
    pub(super) fn read(job: &Job) -> Self {
        let annotations = job.metadata.annotations.clone().unwrap_or_default();
        let failed = annotations.get(FAILED);
        let timeout = annotations.get(TIMEOUT).and_then(|text| text.parse().ok());
        Self {
            uid: job.metadata.uid.clone().unwrap_or_default(),
            version: job.metadata.resource_version.clone().unwrap_or_default(),
            created: time(job.metadata.creation_timestamp.as_ref()),
            is_suspended: job.spec.as_ref().and_then(|spec| spec.suspend) == Some(true),
            is_stopped: annotations.contains_key(STOPPED),
            failed: failed.and_then(|text| serde_json::from_str(text).ok()),
            has_secret: annotations.contains_key(SECRET),
            timeout: timeout.map(Duration::from_millis),
            end: end(job),
        }
    }
}

fn end(job: &Job) -> Option<JobEnd> {
    let conditions = job.status.as_ref()?.conditions.as_ref()?;
    let last = conditions.iter().find(|condition| {
        matches!(condition.type_.as_str(), "Complete" | "Failed") && condition.status == "True"
    })?;
    Some(JobEnd {
        is_complete: last.type_ == "Complete",
        reason: last.reason.clone().unwrap_or_default(),
        message: last.message.clone().unwrap_or_default(),
    })
}

impl Object for JobSeen {
    type Kind = Job;

    fn of(job: &Job) -> Option<(RunId, Self)> {
        let run = names::run_of(job.metadata.labels.as_ref())?;
        Some((run, Self::read(job)))
    }
}
