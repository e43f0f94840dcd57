//! How a run stands, as a simple program tells it: `{"state": "failed", "exit_code": 3}`.

use serde::Deserialize;

use super::status::{Failure, FailureClass, Outcome, State, Status};
use crate::error::{Error, Result};
use crate::id::{RunId, shorten};

/// A status as a simple program tells it. Unknown members are tolerated.
#[derive(Debug, Clone, Deserialize)]
#[non_exhaustive]
pub struct Told {
    /// `queued`, `starting`, `running`, `succeeded`, `failed`, `stopped` or `lost`.
    pub state: String,
    /// Of a run that failed, if it ended with one.
    #[serde(default)]
    pub exit_code: Option<i32>,
    /// Of a run that failed, if one ended it.
    #[serde(default)]
    pub signal: Option<i32>,
    /// Of a run that failed; else `exit`.
    #[serde(default)]
    pub class: Option<FailureClass>,
    /// One line for a person.
    #[serde(default)]
    pub message: Option<String>,
}

impl Told {
    /// The status of an attempt.
    pub fn status(self, run: RunId) -> Result<Status> {
        let state = match self.state.as_str() {
            "queued" => State::Queued,
            "starting" => State::Starting,
            "running" => State::Running,
            "succeeded" => State::Finished(Outcome::Succeeded),
            "failed" => State::Finished(Outcome::Failed(self.failure())),
            "stopped" => State::Finished(Outcome::Stopped { by: None }),
            "lost" => {
                let why = self.message.as_deref().unwrap_or("the backend says so");
                State::Finished(Outcome::lost(why))
            }
            other => {
                return Err(Error::internal(format!(
                    "there is no state `{}`: there are queued, starting, running, succeeded, failed, stopped and lost",
                    shorten(other)
                )));
            }
        };
        let mut status = Status::new(run.attempt_number().max(1), state);
        status.message = self.message;
        Ok(status)
    }

    fn failure(&self) -> Failure {
        let class = self.class.unwrap_or(FailureClass::Exit);
        let mut failure = match (self.exit_code, self.signal) {
            (_, Some(signal)) => Failure::signal(class, signal),
            (Some(code), None) => Failure::exit(code),
            (None, None) => Failure::new(class, "the backend says that it failed"),
        };
        failure.class = class;
        (failure.mender, failure.may_pass) = (class.mender(), class.may_pass());
        if let Some(message) = &self.message {
            failure.message.clone_from(message);
        }
        failure
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_simple_program_is_understood_and_a_wrong_word_is_named() {
        let told = |text: &str| {
            let told: Told = serde_json::from_str(text).unwrap();
            told.status(RunId::generate().attempt(2))
        };
        let failed = told(r#"{"state":"failed","signal":9,"class":"oom"}"#).unwrap();
        assert_eq!(failed.attempt, 2);
        let Some(Outcome::Failed(failure)) = failed.outcome() else {
            panic!("{failed:?}");
        };
        assert_eq!(
            (failure.signal, failure.class),
            (Some(9), FailureClass::Oom)
        );
        let error = told(r#"{"state":"COMPLETED"}"#).unwrap_err();
        assert!(error.message().contains("`COMPLETED`"), "{error}");
    }
}
