//! What is wrong right now, and what went wrong lately: for readiness, metrics and `status`.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use hybrid_runner_core::error::Error;
use hybrid_runner_core::id::SectionName;
use jiff::Timestamp;

/// Errors kept for `status`: enough to see a pattern.
const KEPT: usize = 16;

/// Something that went wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LastError {
    /// When.
    pub at: Timestamp,
    /// What, in one line without secrets.
    pub message: String,
}

#[derive(Debug, Default)]
pub(super) struct Health(Mutex<State>);

#[derive(Debug, Default, Clone)]
struct State {
    executors: BTreeMap<SectionName, String>,
    journal: Option<String>,
    last: VecDeque<LastError>,
}

impl Health {
    /// An executor answered.
    pub(super) fn answered(&self, executor: &SectionName) {
        let mut state = self.lock();
        if state.executors.remove(executor).is_some() {
            tracing::info!(%executor, "executor answers again");
        }
    }

    /// An executor cannot be used.
    pub(super) fn failed(&self, executor: &SectionName, error: &Error) {
        let message = error.report();
        let mut state = self.lock();
        let before = state.executors.insert(executor.clone(), message.clone());
        if before.as_deref() != Some(message.as_str()) {
            tracing::warn!(%executor, error = message, "executor does not answer");
            state.note(format!("executor `{executor}`: {message}"));
        }
    }

    /// The journal was written.
    pub(super) fn written(&self) {
        let mut state = self.lock();
        if state.journal.take().is_some() {
            tracing::info!("the journal can be written again");
        }
    }

    /// The journal could not be written.
    pub(super) fn not_written(&self, error: &Error) {
        let message = error.report();
        let mut state = self.lock();
        if state.journal.as_deref() != Some(message.as_str()) {
            tracing::error!(
                error = message,
                "failed to write the journal; it is tried again"
            );
            state.note(format!("journal: {message}"));
            state.journal = Some(message);
        }
    }

    pub(super) fn executors(&self) -> BTreeMap<SectionName, String> {
        self.lock().executors.clone()
    }

    pub(super) fn journal(&self) -> Option<String> {
        self.lock().journal.clone()
    }

    pub(super) fn last(&self) -> Vec<LastError> {
        self.lock().last.iter().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn note(&mut self, message: String) {
        if self.last.len() == KEPT {
            self.last.pop_front();
        }
        self.last.push_back(LastError {
            at: Timestamp::now(),
            message,
        });
    }
}
