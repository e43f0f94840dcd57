//! How the helper's record of an end reads in the words of the contract, wherever the helper works.

use hybrid_runner_core::run::{Failure, FailureClass, Outcome};
use hybrid_runner_helper::end::How;

/// The outcome, but for what only the place of the work can tell.
pub(crate) fn outcome(how: &How, oom_kills: u64) -> Outcome {
    let failed = |class, message: &str| Outcome::Failed(Failure::new(class, message));
    match how {
        How::Exited(0) => Outcome::Succeeded,
        How::Exited(code) => Outcome::Failed(Failure::exit(i32::from(*code))),
        How::Signaled(signal) => Outcome::Failed(signaled(i32::from(*signal), oom_kills)),
        How::TimedOut => failed(
            FailureClass::Timeout,
            "the command ran longer than `timeout` and was ended",
        ),
        How::Stalled => failed(
            FailureClass::Stalled,
            "the command wrote nothing for `stall_timeout` and was ended",
        ),
        How::Stopped { by } => Outcome::Stopped { by: by.clone() },
        How::OutOfMemory => Outcome::Failed(out_of_memory()),
        _ => failed(
            FailureClass::Backend,
            "the command ended in a way that this version does not know",
        ),
    }
}

/// The command was killed, and the kernel has killed: whether it was the command that it killed is not told.
pub(crate) fn out_of_memory() -> Failure {
    Failure::new(
        FailureClass::Oom,
        "the command was killed, and the kernel has ended a process of the run for want of memory; raise `resources.limits.memory`",
    )
}

/// `SIGKILL` comes from outside: the workload could not have sent it to itself by a fault.
fn signaled(signal: i32, oom_kills: u64) -> Failure {
    const SIGKILL: i32 = 9;
    if signal != SIGKILL {
        return Failure::signal(FailureClass::Exit, signal);
    }
    let mut failure = Failure::signal(FailureClass::Killed, signal);
    if oom_kills == 0 {
        "the command was killed (signal 9) by somebody else: an operator, or the kernel for want of memory".clone_into(&mut failure.message);
    }
    failure
}
