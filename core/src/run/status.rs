//! How a run stands and how it ended.

use std::fmt;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::de::value::{self, StrDeserializer};
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind};

/// A level: how a run stands now. Later levels never go back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct Status {
    /// The attempt this is about, counted from 1; 0 before the first.
    pub attempt: u32,
    /// Where it stands.
    pub state: State,
    /// When it came to each state.
    #[serde(default)]
    pub times: Times,
    /// One line for a person: what it is waiting for, what it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

impl Status {
    /// A status of an attempt in a state, times unknown.
    pub fn new(attempt: u32, state: State) -> Self {
        Self {
            attempt,
            state,
            times: Times::default(),
            message: None,
        }
    }

    /// Cuts its texts, so that they fit into a message: whoever made them too long is not to keep the run from being told of.
    pub fn cut(&mut self) {
        self.message.iter_mut().for_each(cut);
        match &mut self.state {
            State::Finished(Outcome::Failed(failure)) => {
                cut(&mut failure.message);
                failure.source.iter_mut().for_each(cut);
            }
            State::Finished(Outcome::Lost { why }) => cut(why),
            State::Finished(Outcome::Stopped { by }) => by.iter_mut().for_each(cut),
            _ => {}
        }
    }

    /// The outcome, if it has ended.
    pub fn outcome(&self) -> Option<&Outcome> {
        match &self.state {
            State::Finished(outcome) => Some(outcome),
            _ => None,
        }
    }

    /// Whether it has ended.
    pub fn is_finished(&self) -> bool {
        self.outcome().is_some()
    }
}

/// The longest text of a status, in bytes. Six times as much in JSON is far from a message's limit.
const LONGEST: usize = 16 << 10;

fn cut(text: &mut String) {
    if text.len() > LONGEST {
        let kept = text.floor_char_boundary(LONGEST - 40);
        let left = text.len() - kept;
        text.truncate(kept);
        *text = format!("{text}… ({left} bytes more)");
    }
}

/// When a run came to each state. Times are the backend's where it has them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct Times {
    /// Accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub queued: Option<Timestamp>,
    /// Handed to the backend.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub starting: Option<Timestamp>,
    /// The work began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub running: Option<Timestamp>,
    /// The work ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub finished: Option<Timestamp>,
}

/// Where a run stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum State {
    /// Accepted, waits for its turn.
    Queued,
    /// Being made ready: secrets, image, place.
    Starting,
    /// The work runs.
    Running,
    /// It has ended.
    Finished(Outcome),
}

impl State {
    /// The state's name: `queued`, `starting`, `running`, `succeeded`, `failed`, `stopped`, `lost`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Finished(outcome) => outcome.name(),
        }
    }

    /// Its place in the order of levels.
    pub fn rank(&self) -> u8 {
        match self {
            Self::Queued => 0,
            Self::Starting => 1,
            Self::Running => 2,
            Self::Finished(_) => 3,
        }
    }
}

/// How a run ended. There is exactly one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Outcome {
    /// The work ended with exit code 0.
    Succeeded,
    /// It failed, and this is how.
    Failed(Failure),
    /// Somebody stopped it.
    Stopped {
        /// Who: a user's name or token, `timeout` never.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<String>,
    },
    /// Nobody can tell any more how it ended.
    Lost {
        /// What is known about it.
        why: String,
    },
}

impl Outcome {
    /// The name of the final state.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed(_) => "failed",
            Self::Stopped { .. } => "stopped",
            Self::Lost { .. } => "lost",
        }
    }

    /// A lost run, and what is known about it.
    pub fn lost(why: impl Into<String>) -> Self {
        Self::Lost { why: why.into() }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Succeeded => f.write_str("succeeded"),
            Self::Failed(failure) => write!(f, "failed ({}): {}", failure.class, failure.message),
            Self::Stopped { by: Some(by) } => write!(f, "stopped by {by}"),
            Self::Stopped { by: None } => f.write_str("stopped"),
            Self::Lost { why } => write!(f, "lost: {why}"),
        }
    }
}

/// What kind of failure it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FailureClass {
    /// The work ended with a code other than 0, or by a signal of its own.
    Exit,
    /// Out of memory.
    Oom,
    /// Ran longer than `timeout`.
    Timeout,
    /// Wrote nothing for `stall_timeout`.
    Stalled,
    /// A bad field, no such command.
    Spec,
    /// The image is missing or cannot be pulled.
    Image,
    /// A secret could not be resolved.
    Secret,
    /// The runner's own policy forbids it.
    Policy,
    /// The backend says we may not.
    Denied,
    /// A quota is used up.
    Quota,
    /// No space.
    Storage,
    /// The platform put it away.
    Evicted,
    /// Somebody else killed it.
    Killed,
    /// Did not begin within `start_timeout`.
    Pending,
    /// The backend failed.
    Backend,
}

impl FailureClass {
    /// The class's name as it stands on the wire and in `retries.on`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Exit => "exit",
            Self::Oom => "oom",
            Self::Timeout => "timeout",
            Self::Stalled => "stalled",
            Self::Spec => "spec",
            Self::Image => "image",
            Self::Secret => "secret",
            Self::Policy => "policy",
            Self::Denied => "denied",
            Self::Quota => "quota",
            Self::Storage => "storage",
            Self::Evicted => "evicted",
            Self::Killed => "killed",
            Self::Pending => "pending",
            Self::Backend => "backend",
        }
    }

    /// The class of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::deserialize(StrDeserializer::<value::Error>::new(name)).ok()
    }

    /// Who can mend it.
    pub fn mender(self) -> Mender {
        match self {
            Self::Exit | Self::Oom | Self::Timeout | Self::Stalled | Self::Spec | Self::Image => {
                Mender::Author
            }
            Self::Secret | Self::Policy | Self::Denied | Self::Quota | Self::Storage => {
                Mender::Operator
            }
            Self::Evicted | Self::Killed | Self::Pending | Self::Backend => Mender::Platform,
        }
    }

    /// Whether trying again, with nothing changed, can help.
    pub fn may_pass(self) -> bool {
        matches!(
            self,
            Self::Exit
                | Self::Timeout
                | Self::Stalled
                | Self::Storage
                | Self::Evicted
                | Self::Killed
                | Self::Pending
                | Self::Backend
        )
    }
}

impl fmt::Display for FailureClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Who can mend a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Mender {
    /// Who wrote the workflow.
    Author,
    /// Who runs the runner.
    Operator,
    /// Who runs the platform below.
    Platform,
}

/// How a run failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(from = "FailureAsTold")]
#[non_exhaustive]
pub struct Failure {
    /// The kind of failure.
    pub class: FailureClass,
    /// What happened and what to do, in one line without secrets.
    pub message: String,
    /// Who says so: the backend's own words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// The exit code, if the work ended with one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// The signal, if one ended the work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// Who can mend it.
    pub mender: Mender,
    /// Whether trying again, with nothing changed, can help.
    pub may_pass: bool,
}

/// As somebody else tells it: who can mend it and whether it may pass follow from the class, if they are left out.
#[derive(Deserialize, JsonSchema)]
struct FailureAsTold {
    class: FailureClass,
    message: String,
    #[serde(default)]
    source: Option<String>,
    #[serde(default)]
    exit_code: Option<i32>,
    #[serde(default)]
    signal: Option<i32>,
    #[serde(default)]
    mender: Option<Mender>,
    #[serde(default)]
    may_pass: Option<bool>,
}

impl From<FailureAsTold> for Failure {
    fn from(told: FailureAsTold) -> Self {
        Self {
            class: told.class,
            message: told.message,
            source: told.source,
            exit_code: told.exit_code,
            signal: told.signal,
            mender: told.mender.unwrap_or_else(|| told.class.mender()),
            may_pass: told.may_pass.unwrap_or_else(|| told.class.may_pass()),
        }
    }
}

impl Failure {
    /// A failure of a class.
    pub fn new(class: FailureClass, message: impl Into<String>) -> Self {
        Self {
            class,
            message: message.into(),
            source: None,
            exit_code: None,
            signal: None,
            mender: class.mender(),
            may_pass: class.may_pass(),
        }
    }

    /// The work ended with this code.
    pub fn exit(code: i32) -> Self {
        Self {
            exit_code: Some(code),
            ..Self::new(
                FailureClass::Exit,
                format!("the command ended with exit code {code}"),
            )
        }
    }

    /// The work was ended by this signal.
    pub fn signal(class: FailureClass, signal: i32) -> Self {
        Self {
            signal: Some(signal),
            ..Self::new(class, format!("the command was ended by signal {signal}"))
        }
    }

    /// Adds the backend's own words.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<String>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// An error of a start: of its class if it has one, with its causes as the source; else blamed by its kind.
    pub fn of_start(error: &Error) -> Self {
        if let Some(class) = error.class() {
            let mut failure = Self::new(class, error.message());
            failure.source = error.causes();
            return failure;
        }
        let class = match error.kind() {
            ErrorKind::Invalid | ErrorKind::Unsupported | ErrorKind::NotFound => FailureClass::Spec,
            ErrorKind::Denied => FailureClass::Denied,
            ErrorKind::Conflict | ErrorKind::Unavailable | ErrorKind::Internal => {
                FailureClass::Backend
            }
        };
        Self::new(class, error.report())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_fits_into_a_message_whatever_its_texts_are() {
        let long = "é\u{1}".repeat(1 << 20);
        let mut failure = Failure::new(FailureClass::Secret, long.clone());
        failure.source = Some(long.clone());
        for state in [
            State::Running,
            State::Finished(Outcome::Failed(failure)),
            State::Finished(Outcome::lost(long.clone())),
            State::Finished(Outcome::Stopped {
                by: Some(long.clone()),
            }),
        ] {
            let mut status = Status::new(1, state);
            status.message = Some(long.clone());
            status.cut();
            let text = serde_json::to_string(&status).unwrap();
            assert!(
                text.len() < crate::session::MAX_MESSAGE / 2,
                "{}",
                text.len()
            );
            assert!(text.contains("bytes more"));
            let cut = status.clone();
            status.cut();
            assert_eq!(status, cut, "once is enough");
        }
    }
}
