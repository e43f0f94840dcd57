//! What the journal keeps of a run: the stored format.
//!
//! JSON, tolerant of members it does not know. A change of meaning needs a new member or a new migration.

use std::sync::Arc;
use std::time::Duration;

use hybrid_runner_core::id::SectionName;
use hybrid_runner_core::run::{Failure, Outcome, RunSpec, State, Status};
use hybrid_runner_core::unit::Period;
use hybrid_runner_core::{Handle, RunId};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// One run in the journal.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) run: RunId,
    /// The executor's name in the configuration.
    pub(super) executor: SectionName,
    /// Absent: adopted from a backend after the journal was lost, or not loaded because the run has ended.
    pub(super) spec: Option<Arc<RunSpec>>,
    /// Whether the journal has a spec, loaded or not.
    pub(super) has_spec: bool,
    pub(super) accepted_at: Timestamp,
    pub(super) record: Record,
}

/// Where a run stands, as stored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Record {
    /// The level that the outside sees.
    pub(super) status: Status,
    /// What is to be done next.
    pub(super) phase: Phase,
    /// The attempts that the backend took, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) attempts: Vec<Handle>,
    /// The highest attempt that the backend may know; `remove` goes up to it.
    #[serde(default)]
    pub(super) reached: u32,
    /// That it is to end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) stop: Option<Stop>,
}

/// What is to be done next.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Phase {
    /// The attempt is being handed over. After a crash only the backend can tell whether it has it.
    Starting {
        attempt: u32,
        since: Timestamp,
        /// The kernel's boot in which this was written: after power loss a later line may be missing.
        boot: String,
    },
    /// The backend has the attempt: it is to be watched to its end.
    Started { attempt: u32, since: Timestamp },
    /// The attempt before failed; this one is due at that time and was never begun.
    Waiting { attempt: u32, at: Timestamp },
    /// The outcome stands in the status.
    Finished,
    /// The outcome is acknowledged; the backend is being cleaned.
    Removing,
}

/// That a run is to end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Stop {
    pub(super) grace: Period,
    pub(super) why: Why,
}

/// Why a run, or an attempt of it, is to end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Why {
    /// Somebody wants it: the run ends as stopped.
    Asked {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<String>,
    },
    /// The runner gives this attempt up: it ends with this failure.
    GaveUp(Failure),
}

impl Stop {
    pub(super) fn asked(grace: Duration, by: Option<String>) -> Self {
        Self {
            grace: grace.into(),
            why: Why::Asked { by },
        }
    }

    /// Whether somebody wants the run to end.
    pub(super) fn is_asked(&self) -> bool {
        matches!(self.why, Why::Asked { .. })
    }
}

impl Record {
    /// A run that was just accepted: its first attempt is about to be handed over.
    ///
    /// Accepting and beginning the first attempt are one line in the journal, because nothing durable
    /// lies between them.
    pub(super) fn accepted(now: Timestamp, boot: &str) -> Self {
        let mut status = Status::new(1, State::Queued);
        status.times.queued = Some(now);
        Self {
            status,
            phase: Phase::Starting {
                attempt: 1,
                since: now,
                boot: boot.to_owned(),
            },
            attempts: Vec::new(),
            reached: 0,
            stop: None,
        }
    }

    /// A run that a backend shows and the journal does not know.
    pub(super) fn adopted(now: Timestamp, attempts: Vec<Handle>) -> Self {
        let attempt = attempts
            .last()
            .map_or(1, |handle| handle.run.attempt_number());
        let mut status = Status::new(attempt, State::Starting);
        status.message = Some("adopted from the backend; the journal does not know it".to_owned());
        Self {
            status,
            phase: Phase::Started {
                attempt,
                since: now,
            },
            attempts,
            reached: attempt,
            stop: None,
        }
    }

    /// A run that is accepted only to say how it ended.
    pub(super) fn ended(now: Timestamp, outcome: Outcome) -> Self {
        let mut status = Status::new(0, State::Finished(outcome));
        status.times.queued = Some(now);
        status.times.finished = Some(now);
        Self {
            status,
            phase: Phase::Finished,
            attempts: Vec::new(),
            reached: 0,
            stop: None,
        }
    }

    /// Whether its end is not known yet.
    pub(super) fn is_live(&self) -> bool {
        !matches!(self.phase, Phase::Finished | Phase::Removing)
    }

    /// Whether somebody asked it to end.
    pub(super) fn is_stop_asked(&self) -> bool {
        self.stop.as_ref().is_some_and(Stop::is_asked)
    }

    /// The handle of an attempt: the backend's own, or what is known without it.
    pub(super) fn handle(&self, run: RunId, attempt: u32) -> Handle {
        handle_of(&self.attempts, run, attempt)
    }

    /// Notes that the backend has this attempt.
    pub(super) fn take(&mut self, handle: Handle) {
        let attempt = handle.run.attempt_number();
        self.reached = self.reached.max(attempt);
        self.attempts
            .retain(|known| known.run.attempt_number() != attempt);
        self.attempts.push(handle);
        self.attempts
            .sort_by_key(|handle| handle.run.attempt_number());
    }
}

/// The handle of an attempt out of those that the backend took, or one of its id alone.
pub(super) fn handle_of(taken: &[Handle], run: RunId, attempt: u32) -> Handle {
    let known = taken
        .iter()
        .find(|handle| handle.run.attempt_number() == attempt);
    known
        .cloned()
        .unwrap_or_else(|| Handle::of(run.attempt(attempt)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_read_as_it_was_written_and_strange_members_are_tolerated() {
        let now: Timestamp = "2026-11-01T00:00:00Z".parse().unwrap();
        let run = RunId::of_key("a");
        let mut record = Record::accepted(now, "boot");
        record.take(Handle::with_state(
            run.attempt(1),
            1,
            serde_json::json!({"a": 1}),
        ));
        record.stop = Some(Stop {
            grace: Period::seconds(1),
            why: Why::GaveUp(Failure::exit(3)),
        });
        let mut json = serde_json::to_value(&record).unwrap();
        insta::assert_json_snapshot!(json);
        json["later"] = serde_json::json!([1]);
        assert_eq!(serde_json::from_value::<Record>(json).unwrap(), record);
    }
}
