//! What the engine and init say of a run, in the words of the contract.

use hybrid_runner_core::RunId;
use hybrid_runner_core::run::{Failure, FailureClass, Outcome, State, Status, Times};
use hybrid_runner_helper::container::End;
use hybrid_runner_helper::end::{How, SpawnFailure, Step};
use hybrid_runner_helper::report::exit;
use jiff::Timestamp;

use super::look::{Container, Phase};
use crate::ending;

/// Where a run stands.
#[derive(Debug)]
pub(super) enum Level {
    /// The engine has nothing of it.
    Unknown,
    /// It was stopped before its start.
    Prevented,
    /// It is being made ready.
    Starting,
    /// The work runs.
    Running(Container),
    /// It is over. Without a record of the end, init was killed, or the engine lost its last words.
    Over {
        container: Container,
        end: Option<Box<End>>,
        /// A stop of ours was asked for, where the end may be one.
        stopped: bool,
    },
}

/// The status of a run at this level.
pub(super) fn of(run: RunId, level: &Level) -> Status {
    let (state, message) = match level {
        Level::Unknown => (finished(Outcome::lost(UNKNOWN)), None),
        Level::Prevented => (finished(Outcome::Stopped { by: None }), None),
        Level::Starting => (State::Starting, None),
        Level::Running(container) => {
            let paused = (container.phase == Phase::Paused)
                .then(|| "the container is paused: somebody has halted it".to_owned());
            (State::Running, paused)
        }
        Level::Over {
            container,
            end,
            stopped,
        } => {
            let outcome = match end {
                Some(end) => outcome(end, container, *stopped),
                None => untold(container, *stopped),
            };
            (finished(outcome), end.as_deref().and_then(left))
        }
    };
    let mut status = Status::new(run.attempt_number(), state);
    status.times = times(level);
    status.message = message;
    status
}

const UNKNOWN: &str =
    "the engine knows nothing of the run: its container was removed, or the engine lost its data";

fn finished(outcome: Outcome) -> State {
    State::Finished(outcome)
}

fn times(level: &Level) -> Times {
    let mut times = Times::default();
    (times.running, times.finished) = match level {
        Level::Running(container) => (time(container.started_at.as_ref()), None),
        Level::Over { end: Some(end), .. } => (end.started.and_then(micros), micros(end.ended)),
        Level::Over { container, .. } => (
            time(container.started_at.as_ref()),
            time(container.finished_at.as_ref()),
        ),
        _ => (None, None),
    };
    times
}

fn micros(time: i64) -> Option<Timestamp> {
    Timestamp::from_microsecond(time).ok()
}

/// The engine says the year 1 for never.
fn time(text: Option<&String>) -> Option<Timestamp> {
    let time: Timestamp = text?.parse().ok()?;
    (time > Timestamp::UNIX_EPOCH).then_some(time)
}

/// What a person should know although the run has ended.
fn left(end: &End) -> Option<String> {
    (end.left > 0).then(|| format!("{} processes could not be killed", end.left))
}

/// By what init recorded.
fn outcome(end: &End, container: &Container, stopped: bool) -> Outcome {
    match &end.how {
        How::Stopped { .. } if !stopped => Outcome::Failed(Failure::new(
            FailureClass::Killed,
            "the first process of the container was told to stop by a signal, and not by a stop of the run: by the work itself, or by `docker kill`",
        )),
        How::SpawnFailed(failure) => Outcome::Failed(not_spawned(failure)),
        How::Signaled(9) | How::Exited(137) if container.oom_killed => {
            Outcome::Failed(ending::out_of_memory())
        }
        How::Terminated { .. } => Outcome::Failed(
            Failure::new(
                FailureClass::Killed,
                "somebody else ended the container: `docker stop`, or the engine was shut down",
            )
            .with_source(format!(
                "the engine says: exit code {}",
                container.exit_code
            )),
        ),
        how => ending::outcome(how, end.oom_kills),
    }
}

/// By what the engine alone knows.
fn untold(container: &Container, stopped: bool) -> Outcome {
    let code = container.exit_code;
    let mut words = format!("the engine says: exit code {code}");
    if !container.error.is_empty() {
        words = format!("{words}, {}", container.error);
    }
    let failed = |class, message: &str| {
        Outcome::Failed(Failure::new(class, message).with_source(words.clone()))
    };
    if stopped {
        return Outcome::Stopped { by: None };
    }
    match code {
        0 => Outcome::Succeeded,
        code if code == i64::from(exit::NO_PAYLOAD) => failed(
            FailureClass::Backend,
            "the container ended before it was told what to run",
        ),
        // It is also true where only a child was killed, long before; and init is the last that the kernel takes.
        137 if container.oom_killed => failed(
            FailureClass::Killed,
            "somebody else killed the container (`docker kill`), or the kernel did: it has ended a process of the run for want of memory; if nobody killed it, raise `resources.limits.memory`",
        ),
        137 => failed(
            FailureClass::Killed,
            "somebody else killed the container: `docker kill`, an engine that was restarted without `live-restore`, or the kernel for want of memory",
        ),
        255 => failed(
            FailureClass::Killed,
            "the container ended with its engine or its host, which was restarted",
        ),
        code => Outcome::Failed(
            Failure::exit(i32::try_from(code).unwrap_or(i32::MAX)).with_source(words),
        ),
    }
}

fn not_spawned(failure: &SpawnFailure) -> Failure {
    let program = String::from_utf8_lossy(&failure.program);
    let words = std::io::Error::from_raw_os_error(failure.errno);
    let kind = words.kind();
    let (class, message) = match failure.step {
        Step::Program => program_failed(&program, failure.errno, kind),
        Step::Interpreter => (
            FailureClass::Spec,
            format!(
                "`{program}` is in the image, but the interpreter that it names is not: correct its first line, or the image"
            ),
        ),
        Step::PrivateFiles => (
            storage_or(kind, FailureClass::Backend),
            "the private files of the run could not be made in the container's memory".to_owned(),
        ),
        Step::Process => (
            FailureClass::Quota,
            format!(
                "no process could be made for `{program}`: raise `resources.limits.pids` or `memory`"
            ),
        ),
        _ => (
            FailureClass::Backend,
            format!("`{program}` could not be run"),
        ),
    };
    Failure::new(class, message).with_source(format!("{}: {words}", failure.step))
}

fn program_failed(program: &str, errno: i32, kind: std::io::ErrorKind) -> (FailureClass, String) {
    use std::io::ErrorKind;
    const ENOEXEC: i32 = 8;
    match kind {
        ErrorKind::NotFound | ErrorKind::NotADirectory => (
            FailureClass::Spec,
            format!("there is no program `{program}` in the image: correct `command`, or the image"),
        ),
        ErrorKind::PermissionDenied => (
            FailureClass::Denied,
            format!("the program `{program}` may not be executed by the container's user: check its mode and `user`"),
        ),
        ErrorKind::ArgumentListTooLong => (
            FailureClass::Spec,
            "the arguments and the environment are longer than the system takes: use `config` or `files`".to_owned(),
        ),
        _ if errno == ENOEXEC => (
            FailureClass::Spec,
            format!("`{program}` is no program for this engine's host: the image is of another architecture, or a script lacks a first line like `#!/bin/sh`"),
        ),
        _ => (
            FailureClass::Backend,
            format!("the program `{program}` could not be executed"),
        ),
    }
}

fn storage_or(kind: std::io::ErrorKind, other: FailureClass) -> FailureClass {
    match kind {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
            FailureClass::Storage
        }
        _ => other,
    }
}
