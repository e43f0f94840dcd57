//! What the cluster says of a run, in the words of the contract.

use hybrid_runner_core::RunId;
use hybrid_runner_core::run::{Failure, FailureClass, Outcome, State, Status};

use super::job::{JobEnd, JobSeen};
use crate::cluster::blame::{self, Delay};
use crate::cluster::board::Seen;
use crate::cluster::seen::PodSeen;

/// Where a run stands.
#[derive(Debug)]
pub(super) enum Level {
    /// The cluster has nothing of it.
    Unknown,
    /// It is being made ready: what it waits for.
    Starting(Option<String>),
    /// It cannot begin, and its Job does not say so yet.
    Hopeless(Failure),
    /// The work runs.
    Running,
    /// It is over.
    Over(Outcome),
}

/// Where a run stands by its Job and its pods.
pub(super) fn level(seen: &Seen<JobSeen>) -> Level {
    let Some(job) = &seen.object else {
        return Level::Unknown;
    };
    let pod = seen.pod();
    if let Some(pod) = pod {
        return of_pod(job, pod);
    }
    if let Some(failure) = &job.failed {
        return Level::Over(Outcome::Failed(failure.clone()));
    }
    if let Some(end) = &job.end {
        return Level::Over(without_pod(job, end));
    }
    if job.is_suspended && job.is_stopped {
        return Level::Over(Outcome::Stopped { by: None });
    }
    Level::Starting(None)
}

fn of_pod(job: &JobSeen, pod: &PodSeen) -> Level {
    match &job.failed {
        // Said when no pod is left that could still begin.
        Some(failure) if pod.is_over() => {
            return Level::Over(Outcome::Failed(failure.clone()));
        }
        Some(failure) if !pod.has_begun() => return Level::Starting(Some(failure.message.clone())),
        _ => {}
    }
    if pod.is_over() {
        return Level::Over(blame::outcome(pod, job.is_stopped));
    }
    if pod.has_begun() {
        return Level::Running;
    }
    match blame::delay(pod) {
        _ if job.is_stopped || pod.going.is_some() => Level::Starting(None),
        Delay::Waits(why) => Level::Starting(Some(why)),
        Delay::Hopeless(failure) => Level::Hopeless(failure),
    }
}

/// The Job is over, and its pod is gone.
fn without_pod(job: &JobSeen, end: &JobEnd) -> Outcome {
    if end.is_complete {
        return Outcome::Succeeded;
    }
    if job.is_stopped {
        return Outcome::Stopped { by: None };
    }
    let words = format!("{}: {}", end.reason, end.message);
    let failure = match end.reason.as_str() {
        "DeadlineExceeded" => Failure::new(
            FailureClass::Timeout,
            "the Job ran longer than the `activeDeadlineSeconds` that a template gave it",
        ),
        _ => blame::deleted(),
    };
    Outcome::Failed(failure.with_source(words))
}

const UNKNOWN: &str =
    "the cluster knows nothing of the run: its Job was deleted, or the cluster lost its data";

/// The status of a run at this level.
pub(super) fn of(run: RunId, level: &Level, seen: &Seen<JobSeen>) -> Status {
    let (state, message) = match level {
        Level::Unknown => (State::Finished(Outcome::lost(UNKNOWN)), None),
        Level::Starting(why) => (State::Starting, why.clone()),
        Level::Hopeless(failure) => (State::Starting, Some(failure.message.clone())),
        Level::Running => (State::Running, None),
        Level::Over(outcome) => (State::Finished(outcome.clone()), None),
    };
    let mut status = Status::new(run.attempt_number(), state);
    status.message = message;
    if let Some(pod) = seen.pod() {
        status.times.running = pod.began();
        status.times.finished = pod.ended();
    }
    status
}
