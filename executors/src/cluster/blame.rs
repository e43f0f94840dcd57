//! Whose fault it is that a pod does not begin, or how it ended, by its own words.

use hybrid_runner_core::run::{Failure, FailureClass, Outcome};

use super::seen::{Container, Over, Phase, PodSeen};

/// The node's word for a pod whose deadline is over.
const DEADLINE: &str = "DeadlineExceeded";

/// Why a pod has not begun.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Delay {
    /// It may pass: what it waits for, in one line.
    Waits(String),
    /// It will not begin, whoever waits for how long.
    Hopeless(Failure),
}

/// What a pod that has not begun waits for.
pub(crate) fn delay(pod: &PodSeen) -> Delay {
    if let Some((name, Container::Over(over))) = &pod.before {
        let message = format!(
            "the container `{name}`, which comes before the work, ended with exit code {}; what it said goes with the pod, and is in no log of the run",
            over.exit_code
        );
        return Delay::Hopeless(said(
            Failure::new(FailureClass::Backend, message),
            over.message.as_deref(),
        ));
    }
    let before = pod.before.as_ref().map(|(_, container)| container);
    let waiting = [before, Some(&pod.main)];
    let waiting = waiting
        .into_iter()
        .flatten()
        .find_map(|container| match container {
            Container::Waiting { reason, message } => Some((reason.as_str(), message.as_str())),
            _ => None,
        });
    match waiting {
        Some((reason, message)) if !matches!(reason, "ContainerCreating" | "PodInitializing") => {
            held_up(reason, message)
        }
        _ => Delay::Waits(waits(pod)),
    }
}

/// Whether a pod that its node has taken does not say what it waits for.
pub(crate) fn is_silent(pod: &PodSeen) -> bool {
    matches!(delay(pod), Delay::Waits(why) if why == MAKING_READY)
}

const MAKING_READY: &str = "the node is making the container ready";

fn waits(pod: &PodSeen) -> String {
    if let Some(why) = &pod.unschedulable {
        return format!("no node can take the pod: {}", lines_of(why));
    }
    if pod.accepted.is_none() {
        return "waiting for a node".to_owned();
    }
    MAKING_READY.to_owned()
}

/// A container that its node cannot make.
fn held_up(reason: &str, message: &str) -> Delay {
    let hopeless = |class, advice: &str| {
        Delay::Hopeless(said(
            Failure::new(class, advice),
            Some(&said_as(reason, message)),
        ))
    };
    match reason {
        "InvalidImageName" => hopeless(FailureClass::Image, "the name of the image is not valid"),
        "ErrImageNeverPull" => hopeless(
            FailureClass::Image,
            "the node does not have the image, and `pull = \"never\"` is set",
        ),
        "ErrImagePull" | "ImagePullBackOff" | "RegistryUnavailable" if is_final(message) => {
            hopeless(
                FailureClass::Image,
                "the image cannot be pulled; correct its name, or give `pull_secrets` that may read it",
            )
        }
        "CreateContainerConfigError"
            if message.contains("runAsNonRoot") || message.contains("run as root") =>
        {
            hopeless(
                FailureClass::Spec,
                "the image would run as root, or does not say as whom; set `user` in the section to the number of a user",
            )
        }
        "CreateContainerConfigError" if message.contains("breaks non-root policy") => hopeless(
            FailureClass::Spec,
            "the work may not run as root: set `user` in the section to another number than 0, or `restricted = false`",
        ),
        "CreateContainerError" | "RunContainerError" | "StartError" => match not_started(message) {
            // The node tries again, and may have been busy.
            failure if failure.class == FailureClass::Backend => {
                Delay::Waits(lines_of(&said_as(reason, message)))
            }
            failure => Delay::Hopeless(failure),
        },
        _ => Delay::Waits(lines_of(&said_as(reason, message))),
    }
}

/// Whether the registry has answered, so that to ask again is no use.
fn is_final(message: &str) -> bool {
    const ANSWERS: [&str; 8] = [
        ": not found",
        "manifest unknown",
        "name unknown",
        "repository does not exist",
        "unauthorized",
        "authorization failed",
        "denied",
        "no match for platform",
    ];
    ANSWERS.iter().any(|answer| message.contains(answer))
}

/// How the work of a pod that is over ended. `stopped`: a stop of ours was asked for before it ended.
pub(crate) fn outcome(pod: &PodSeen, stopped: bool) -> Outcome {
    if let Some(reason) = &pod.reason {
        return put_away(pod, reason, stopped);
    }
    if let Some((reason, message)) = &pod.disruption {
        return Outcome::Failed(disrupted(reason, message));
    }
    match (&pod.main, pod.phase) {
        (Container::Over(over), _) if over.never_began() => {
            Outcome::Failed(not_started(over.message.as_deref().unwrap_or_default()))
        }
        // It was asked to end and did so, whatever it says.
        (Container::Over(_), _) if pod.was_going() => killed_or_stopped(stopped),
        (Container::Over(over), Phase::Succeeded) if over.exit_code == 0 => Outcome::Succeeded,
        (Container::Over(over), _) => ended(over),
        (_, Phase::Succeeded) => Outcome::Succeeded,
        _ if pod.going.is_some() => killed_or_stopped(stopped),
        _ => match delay(pod) {
            Delay::Hopeless(failure) => Outcome::Failed(failure),
            Delay::Waits(why) => Outcome::Failed(
                Failure::new(
                    FailureClass::Backend,
                    "the pod failed before the work began",
                )
                .with_source(why),
            ),
        },
    }
}

fn killed_or_stopped(stopped: bool) -> Outcome {
    if stopped {
        return Outcome::Stopped { by: None };
    }
    Outcome::Failed(deleted())
}

/// The pod is gone, and nobody of us asked for that.
pub(crate) fn deleted() -> Failure {
    Failure::new(
        FailureClass::Killed,
        "somebody else deleted the pod of the run",
    )
}

/// Its node ended the pod as a whole.
fn put_away(pod: &PodSeen, reason: &str, stopped: bool) -> Outcome {
    let message = pod.message.as_deref().unwrap_or_default();
    let failed = |class, advice: &str| {
        let words = said_as(reason, message);
        Outcome::Failed(said(Failure::new(class, advice), Some(&words)))
    };
    match reason {
        // By way of the deadline a pod is stopped, too.
        DEADLINE if stopped => Outcome::Stopped { by: None },
        DEADLINE if pod.has_begun() => in_time(pod).unwrap_or_else(|| {
            failed(
                FailureClass::Timeout,
                "the command ran longer than its `timeout`, or than a template gives its pod, and was ended",
            )
        }),
        DEADLINE => failed(
            FailureClass::Pending,
            "the pod did not begin the work within its deadline",
        ),
        "Evicted" => failed(
            FailureClass::Evicted,
            "the node was short of something and put the pod away",
        ),
        "Preempting" | "Preempted" => failed(
            FailureClass::Evicted,
            "a pod of higher priority took the place of this one",
        ),
        "NodeLost" | "NodeShutdown" | "Terminated" | "Shutdown" | "NodeAffinity" => {
            failed(FailureClass::Evicted, "the node went away under the pod")
        }
        _ if reason.starts_with("OutOf") || reason == "UnexpectedAdmissionError" => failed(
            FailureClass::Evicted,
            "the node could not take the pod after all",
        ),
        _ => failed(FailureClass::Backend, "the node ended the pod"),
    }
}

/// How the work ended by itself, where its node put the pod away for its deadline
/// only after that. Times are in whole seconds: what
/// ended within that very second may have been told to.
fn in_time(pod: &PodSeen) -> Option<Outcome> {
    let Container::Over(over) = &pod.main else {
        return None;
    };
    let limit = pod.accepted?.as_second() + pod.deadline?;
    (over.finished?.as_second() < limit).then(|| ended(over))
}

/// The cluster ended the pod.
fn disrupted(reason: &str, message: &str) -> Failure {
    let what = match reason {
        "PreemptionByScheduler" => "a pod of higher priority took the place of this one",
        "DeletionByTaintManager" => "the node was lost, or tainted, under the pod",
        "EvictionByEvictionAPI" => "the pod was evicted, as when a node is drained",
        "DeletionByPodGC" => "the node of the pod is gone",
        _ => "the cluster put the pod away",
    };
    said(
        Failure::new(FailureClass::Evicted, what),
        Some(&said_as(reason, message)),
    )
}

/// The work itself ended.
fn ended(over: &Over) -> Outcome {
    const KILLED: i32 = 128 + 9;
    let code = over.exit_code;
    if over.reason == "OOMKilled" {
        let mut failure = Failure::new(
            FailureClass::Oom,
            "the kernel ended the command for want of memory; raise `resources.limits.memory`",
        );
        failure.exit_code = Some(code);
        return Outcome::Failed(failure);
    }
    match code {
        0 => Outcome::Succeeded,
        // Kubernetes does not tell a signal from such a code.
        KILLED => {
            let what = "the command ended with exit code 137: its own word, or it was killed by signal 9, by somebody else or by the kernel";
            let mut failure = Failure::new(FailureClass::Exit, what);
            failure.exit_code = Some(code);
            Outcome::Failed(failure)
        }
        code => Outcome::Failed(Failure::exit(code)),
    }
}

/// The container runtime could not begin the work.
fn not_started(message: &str) -> Failure {
    let (class, what) = if message.contains("no such file or directory")
        || message.contains("executable file not found")
    {
        (
            FailureClass::Spec,
            "there is no such program in the image: correct `command`, or the image",
        )
    } else if message.contains("permission denied") {
        (
            FailureClass::Denied,
            "the program may not be executed by the container's user: check its mode and `user`",
        )
    } else if message.contains("exec format error") {
        (
            FailureClass::Spec,
            "the program is none for the node: the image is of another architecture, or a script lacks a first line like `#!/bin/sh`",
        )
    } else if message.contains("Cwd must be an absolute path") {
        (
            FailureClass::Spec,
            "`workdir` must be a whole path, from `/` on",
        )
    } else if message.contains("no command specified") {
        (
            FailureClass::Spec,
            "the image names no command: give `command` in the workflow",
        )
    } else if message.contains("no space left on device") {
        (FailureClass::Storage, "the disk of the node is full")
    } else {
        (FailureClass::Backend, "the node could not begin the work")
    };
    said(Failure::new(class, what), Some(message))
}

fn said(failure: Failure, words: Option<&str>) -> Failure {
    match words.map(lines_of).filter(|words| !words.is_empty()) {
        Some(words) => failure.with_source(words),
        None => failure,
    }
}

fn said_as(reason: &str, message: &str) -> String {
    if message.is_empty() {
        reason.to_owned()
    } else {
        format!("{reason}: {message}")
    }
}

/// In one line, of at most 600 characters.
pub(crate) fn lines_of(words: &str) -> String {
    let line = words.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(600) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

#[cfg(test)]
mod tests;
