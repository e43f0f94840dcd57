//! How a command ends: exit codes by name, and errors that carry one.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use hybrid_runner_core::{Error, ErrorKind, Outcome};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// How a command ends. 2 to 4 mean that no run was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Exit {
    /// Done; the run succeeded.
    Done,
    /// The answer is no: the run failed, was stopped or lost, a check failed, RUN is unknown.
    No,
    /// Usage, configuration or workflow file.
    Usage,
    /// The control plane, a backend or a store cannot be reached.
    Unreachable,
    /// The control plane, or a secret store, refused.
    Refused,
    /// A signal: 130 or 143.
    Interrupted(u8),
}

impl Exit {
    /// The process's exit code.
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::No => 1,
            Self::Usage => 2,
            Self::Unreachable => 3,
            Self::Refused => 4,
            Self::Interrupted(code) => code,
        }
    }

    /// The end of a run.
    pub(crate) fn of_outcome(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Succeeded => Self::Done,
            _ => Self::No,
        }
    }

    fn of_kind(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::Invalid | ErrorKind::Unsupported => Self::Usage,
            ErrorKind::Unavailable => Self::Unreachable,
            ErrorKind::Denied | ErrorKind::Conflict => Self::Refused,
            _ => Self::No,
        }
    }
}

/// Why a command could not do what it was asked.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    pub(crate) message: String,
}

impl Failure {
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self {
            exit,
            message: message.into(),
        }
    }

    /// What was typed is wrong.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }
}

/// What something of this machine answered: an address or a folder that somebody else holds, or that
/// cannot be written, is a matter of configuration here, and says nothing of a control plane.
pub(crate) fn local(error: Error) -> Failure {
    let failure = Failure::from(error);
    let exit = if matches!(failure.exit, Exit::Refused | Exit::Unreachable) {
        Exit::Usage
    } else {
        failure.exit
    };
    Failure { exit, ..failure }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::new(Exit::of_kind(error.kind()), error.report())
    }
}

impl From<crate::config::Error> for Failure {
    fn from(error: crate::config::Error) -> Self {
        Self::usage(error.to_string())
    }
}

/// Standard output is gone: whoever read it has enough.
impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            return Self::new(Exit::Done, "");
        }
        Self::new(Exit::No, format!("failed to write the output: {error}"))
    }
}

/// The first signal, as the commands see it.
#[derive(Debug, Default)]
pub struct Interrupt {
    token: CancellationToken,
    code: AtomicU8,
    minds_hangups: AtomicBool,
    hangup: Arc<Notify>,
    leaves: Mutex<Option<String>>,
}

impl Interrupt {
    /// A signal came; `code` is the exit code that it stands for.
    pub fn raise(&self, code: u8) {
        self.code.store(code, Ordering::SeqCst);
        self.token.cancel();
    }

    /// A hang-up came: whoever reads its configuration again does so now, everybody else is to leave.
    pub fn hang_up(&self, code: u8) {
        if self.minds_hangups.load(Ordering::SeqCst) {
            self.hangup.notify_one();
        } else {
            self.raise(code);
        }
    }

    /// What a second signal would leave behind from now on.
    pub(crate) fn would_leave(&self, what: Option<String>) {
        *self.leaves.lock().unwrap_or_else(PoisonError::into_inner) = what;
    }

    /// What is left behind if the process ends now.
    pub fn leaves(&self) -> Option<String> {
        let leaves = self.leaves.lock().unwrap_or_else(PoisonError::into_inner);
        leaves.clone()
    }

    /// From now on a hang-up means that the configuration is read again.
    pub(crate) fn mind_hangups(&self) -> Arc<Notify> {
        self.minds_hangups.store(true, Ordering::SeqCst);
        Arc::clone(&self.hangup)
    }

    /// Waits for the first signal.
    pub async fn raised(&self) {
        self.token.cancelled().await;
    }

    /// The exit that the signal stands for, if one came.
    pub(crate) fn exit(&self) -> Option<Exit> {
        let came = self.token.is_cancelled();
        came.then(|| Exit::Interrupted(self.code.load(Ordering::SeqCst)))
    }
}
