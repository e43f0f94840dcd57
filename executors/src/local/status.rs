//! What a run's folder says, in the words of the contract.

use std::io;

use hybrid_runner_core::RunId;
use hybrid_runner_core::run::{Failure, FailureClass, Outcome, State, Status, Times};
use hybrid_runner_helper::end::{End, How, SpawnFailure, Step};
use jiff::Timestamp;
use rustix::io::Errno;

use super::folder::{Level, Lost};
use crate::ending;

/// The status of a run whose folder stands like this.
pub(super) fn of(run: RunId, level: &Level) -> Status {
    let (state, message) = match level {
        Level::Unknown => (finished(Outcome::lost(UNKNOWN)), None),
        Level::Starting | Level::Dead(_) => (State::Starting, None),
        Level::Running(started) if started.child.is_none() => (State::Starting, None),
        Level::Running(_) => (State::Running, None),
        Level::Ended(end) => (finished(outcome(end)), dropped(end)),
        Level::Lost(lost) => (finished(Outcome::lost(lost.why.as_str())), None),
        Level::Prevented => (finished(Outcome::Stopped { by: None }), None),
    };
    let mut status = Status::new(run.attempt_number(), state);
    status.times = times(level);
    status.message = message;
    status
}

const UNKNOWN: &str =
    "this machine knows nothing of the run: it was removed, or its folder was lost";

fn finished(outcome: Outcome) -> State {
    State::Finished(outcome)
}

fn times(level: &Level) -> Times {
    let mut times = Times::default();
    (times.running, times.finished) = match level {
        Level::Running(started) => (started.child.and_then(|child| time(child.time)), None),
        Level::Ended(End { started, ended, .. }) => (started.and_then(time), time(*ended)),
        Level::Lost(Lost { started, found, .. }) => (started.and_then(time), time(*found)),
        _ => (None, None),
    };
    times
}

fn time(micros: i64) -> Option<Timestamp> {
    Timestamp::from_microsecond(micros).ok()
}

/// What a person should know although the run has ended.
fn dropped(end: &End) -> Option<String> {
    let mut notes = Vec::new();
    if end.over_limit > 0 {
        notes.push(format!(
            "{} bytes of output were dropped at the limit of the log",
            end.over_limit
        ));
    }
    if end.disk_full > 0 {
        notes.push(format!(
            "{} bytes of output were dropped because the disk was full",
            end.disk_full
        ));
    }
    if end.left > 0 {
        notes.push(format!("{} processes could not be killed", end.left));
    }
    (!notes.is_empty()).then(|| notes.join("; "))
}

fn outcome(end: &End) -> Outcome {
    match &end.how {
        How::SpawnFailed(failure) => Outcome::Failed(not_spawned(failure)),
        how => ending::outcome(how, end.oom_kills),
    }
}

fn not_spawned(failure: &SpawnFailure) -> Failure {
    let program = String::from_utf8_lossy(&failure.program);
    let errno = Errno::from_raw_os_error(failure.errno);
    let (class, message) = match failure.step {
        Step::Program => program_failed(&program, errno),
        Step::Interpreter => (
            FailureClass::Spec,
            format!(
                "`{program}` is there, but the interpreter that it names is not: correct its first line, or install the interpreter"
            ),
        ),
        Step::WorkingDirectory => working_directory_failed(errno),
        Step::PrivateFiles => (
            storage_or(errno, FailureClass::Backend),
            "the private files of the run could not be made: see `private_dir` of the executor"
                .to_owned(),
        ),
        Step::Process => (
            storage_or(errno, FailureClass::Quota),
            format!(
                "no process could be made for `{program}`: the machine is short of processes, descriptors or memory"
            ),
        ),
        Step::Cgroup => (
            FailureClass::Backend,
            "the command could not enter its control group; `cgroup = \"off\"` does without"
                .to_owned(),
        ),
        _ => (
            FailureClass::Backend,
            format!("`{program}` could not be run"),
        ),
    };
    let words = io::Error::from_raw_os_error(failure.errno);
    Failure::new(class, message).with_source(format!("{}: {words}", failure.step))
}

fn program_failed(program: &str, errno: Errno) -> (FailureClass, String) {
    match errno {
        Errno::NOENT | Errno::NOTDIR if program.contains('/') => (
            FailureClass::Spec,
            format!("there is no program `{program}` on this machine: install it, or correct `command`"),
        ),
        Errno::NOENT | Errno::NOTDIR => (
            FailureClass::Spec,
            format!("the program `{program}` was not found: install it on this machine, set `PATH` in `env`, or write its absolute path in `command`"),
        ),
        Errno::ACCESS | Errno::PERM => (
            FailureClass::Denied,
            format!("the program `{program}` may not be executed: check its mode (chmod +x) and that of the folders above it"),
        ),
        Errno::NOEXEC => (
            FailureClass::Spec,
            format!("`{program}` is no program for this machine: a script needs a first line like `#!/bin/sh`"),
        ),
        Errno::TOOBIG => (
            FailureClass::Spec,
            "the arguments and the environment are longer than the system takes: use `config` or `files`".to_owned(),
        ),
        _ => (FailureClass::Backend, format!("the program `{program}` could not be executed")),
    }
}

fn working_directory_failed(errno: Errno) -> (FailureClass, String) {
    match errno {
        Errno::NOENT | Errno::NOTDIR => (
            FailureClass::Spec,
            "the folder in `workdir` is not on this machine: make it, or leave `workdir` out"
                .to_owned(),
        ),
        Errno::ACCESS | Errno::PERM => (
            FailureClass::Denied,
            "the folder in `workdir` may not be entered".to_owned(),
        ),
        _ => (
            FailureClass::Backend,
            "the folder in `workdir` could not be entered".to_owned(),
        ),
    }
}

fn storage_or(errno: Errno, other: FailureClass) -> FailureClass {
    match errno {
        Errno::NOSPC | Errno::DQUOT => FailureClass::Storage,
        _ => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(how: How) -> Failure {
        let end = End {
            how,
            started: None,
            ended: 0,
            spool: 0,
            masked: 0,
            over_limit: 0,
            disk_full: 0,
            oom_kills: 0,
            left: 0,
        };
        match outcome(&end) {
            Outcome::Failed(failure) => failure,
            other => panic!("{other} is no failure"),
        }
    }

    #[test]
    fn each_way_of_not_starting_names_its_class_and_the_program() {
        for (step, errno, class, word) in [
            (
                Step::Program,
                Errno::NOENT,
                FailureClass::Spec,
                "`metadata`",
            ),
            (Step::Program, Errno::ACCESS, FailureClass::Denied, "chmod"),
            (
                Step::Program,
                Errno::NOEXEC,
                FailureClass::Spec,
                "#!/bin/sh",
            ),
            (
                Step::Interpreter,
                Errno::NOENT,
                FailureClass::Spec,
                "first line",
            ),
            (
                Step::WorkingDirectory,
                Errno::NOENT,
                FailureClass::Spec,
                "workdir",
            ),
            (
                Step::PrivateFiles,
                Errno::NOSPC,
                FailureClass::Storage,
                "private_dir",
            ),
            (
                Step::Process,
                Errno::AGAIN,
                FailureClass::Quota,
                "processes",
            ),
        ] {
            let failure = failure(How::SpawnFailed(SpawnFailure {
                step,
                errno: errno.raw_os_error(),
                program: b"metadata".to_vec(),
            }));
            assert_eq!(failure.class, class, "{failure:?}");
            assert!(failure.message.contains(word), "{failure:?}");
        }
    }

    #[test]
    fn a_kill_from_outside_is_told_from_a_fault_of_the_command() {
        assert_eq!(failure(How::Signaled(9)).class, FailureClass::Killed);
        assert_eq!(failure(How::Signaled(11)).class, FailureClass::Exit);
        assert_eq!(failure(How::Signaled(11)).signal, Some(11));
    }
}
