//! What the cluster says of a run, in the words of the contract.

use hybrid_runner_core::RunId;
use hybrid_runner_core::run::{Failure, FailureClass, Outcome, State, Status};
use jiff::Timestamp;

use super::blame::{self, Delay};
use super::board::Seen;
use super::object::{End, Kind, ObjectSeen};
use super::seen::PodSeen;

/// Where a run stands.
#[derive(Debug)]
pub(super) enum Level {
    /// The cluster has nothing of it.
    Unknown,
    /// It is being made ready: what it waits for.
    Starting(Option<String>),
    /// It cannot begin, and its object does not say so yet.
    Hopeless(Failure),
    /// The work runs.
    Running,
    /// It is over.
    Over(Outcome),
}

/// Where a run stands by its object and its pods.
pub(super) fn level(kind: &dyn Kind, seen: &Seen) -> Level {
    let Some(object) = &seen.object else {
        return Level::Unknown;
    };
    if let Some(failure) = object.failed.as_ref().filter(|_| object.had_begun) {
        return Level::Over(Outcome::Failed(failure.clone()));
    }
    if let Some(gone) = seen.gone.as_ref().filter(|_| object.failed.is_none()) {
        // Its end is that of the run, whatever pod the cluster makes in its place.
        return Level::Over(end_of(kind, object, gone));
    }
    if let Some(pod) = seen.pod() {
        // The first pod is gone, or would be going.
        if object.goes_again() && pod.going.is_none() && !pod.is_over() {
            return Level::Over(Outcome::Failed(taken_back()));
        }
        return of_pod(kind, object, pod);
    }
    if let Some(failure) = &object.failed {
        return Level::Over(Outcome::Failed(failure.clone()));
    }
    if let Some(end) = &object.standing.end {
        return Level::Over(without_pod(kind, object, end));
    }
    if object.standing.is_held && object.is_stopped {
        return Level::Over(Outcome::Stopped { by: None });
    }
    if object.is_taken_back() {
        return Level::Over(Outcome::Failed(taken_back()));
    }
    let held = || {
        let what = "somebody else, as a queue, holds it back: it is suspended";
        object.is_held_by_others().then(|| what.to_owned())
    };
    Level::Starting(object.standing.waits.clone().or_else(held))
}

fn of_pod(kind: &dyn Kind, object: &ObjectSeen, pod: &PodSeen) -> Level {
    match &object.failed {
        // Said when no pod is left that could still begin.
        Some(failure) if pod.is_over() => {
            return Level::Over(Outcome::Failed(failure.clone()));
        }
        Some(failure) if !pod.has_begun() => return Level::Starting(Some(failure.message.clone())),
        _ => {}
    }
    if pod.is_over() {
        return Level::Over(end_of(kind, object, pod));
    }
    if pod.has_begun() {
        return Level::Running;
    }
    match blame::delay(pod) {
        _ if object.is_stopped || pod.going.is_some() => Level::Starting(None),
        Delay::Waits(why) => Level::Starting(Some(why)),
        Delay::Hopeless(failure) => Level::Hopeless(failure),
    }
}

/// The cluster deletes the pod of what is held back, and makes another if it is let go again.
fn taken_back() -> Failure {
    let what = "somebody else suspended the run, so that the cluster put its pod away";
    Failure::new(FailureClass::Killed, what)
}

/// How a pod ended. What somebody told the cluster to end does not say so itself.
fn end_of(kind: &dyn Kind, object: &ObjectSeen, pod: &PodSeen) -> Outcome {
    let outcome = blame::outcome(pod, object.is_stopped);
    let is_killed =
        matches!(&outcome, Outcome::Failed(failure) if failure.class == FailureClass::Killed);
    if is_killed && object.is_taken_back() {
        return Outcome::Failed(taken_back());
    }
    if is_killed && let Some(failure) = late(kind, object) {
        return Outcome::Failed(failure);
    }
    if is_killed && object.is_going {
        let what = format!("somebody else deleted the {} of the run", kind.names().kind);
        return Outcome::Failed(Failure::new(FailureClass::Killed, what));
    }
    if !object.standing.is_shut {
        return outcome;
    }
    if object.is_stopped {
        // The node counts in seconds.
        let stopped = object.stopped.map(Timestamp::as_second);
        let ended = pod.ended().map(Timestamp::as_second);
        return if stopped
            .zip(ended)
            .is_some_and(|(stopped, ended)| ended < stopped)
        {
            outcome
        } else {
            Outcome::Stopped { by: None }
        };
    }
    match outcome {
        Outcome::Failed(failure) if failure.class == FailureClass::Exit && pod.going.is_none() => {
            let what = "somebody else told the cluster to stop the run";
            let mut shut = Failure::new(FailureClass::Killed, what);
            shut.exit_code = failure.exit_code;
            Outcome::Failed(shut)
        }
        outcome => outcome,
    }
}

/// What the cluster says where it deleted the pod itself, since time was up for the object.
fn late(kind: &dyn Kind, object: &ObjectSeen) -> Option<Failure> {
    let end = object.standing.end.as_ref()?;
    let failure = kind.blame(end);
    (failure.class == FailureClass::Timeout).then(|| failure.with_source(words(end)))
}

fn words(end: &End) -> String {
    format!("{}: {}", end.reason, end.message)
}

/// The object is over, and its pod is gone.
fn without_pod(kind: &dyn Kind, object: &ObjectSeen, end: &End) -> Outcome {
    if end.is_complete {
        return Outcome::Succeeded;
    }
    if object.is_stopped {
        return Outcome::Stopped { by: None };
    }
    Outcome::Failed(kind.blame(end).with_source(words(end)))
}

const UNKNOWN: &str =
    "the cluster knows nothing of the run: its object was deleted, or the cluster lost its data";

/// The status of a run at this level.
pub(super) fn of(run: RunId, level: &Level, seen: &Seen) -> Status {
    let (state, message) = match level {
        Level::Unknown => (State::Finished(Outcome::lost(UNKNOWN)), None),
        Level::Starting(why) => (State::Starting, why.clone()),
        Level::Hopeless(failure) => (State::Starting, Some(failure.message.clone())),
        Level::Running => (State::Running, None),
        Level::Over(outcome) => (State::Finished(outcome.clone()), None),
    };
    let mut status = Status::new(run.attempt_number(), state);
    status.message = message;
    if let Some(pod) = seen.telling() {
        status.times.running = pod.began();
        status.times.finished = pod.ended();
    }
    status
}
