//! How the runner stands: for readiness, metrics and `status`.

use std::collections::BTreeMap;
use std::time::Duration;

use hybrid_runner_core::id::SectionName;
use hybrid_runner_core::run::State;
use jiff::Timestamp;

pub use super::health::LastError;
use super::shared::Shared;

/// How the runner stands at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Snapshot {
    /// Runs by state.
    pub runs: Counts,
    /// Slots in use.
    pub slots_used: u32,
    /// All slots.
    pub slots: u32,
    /// Whether no more runs are taken.
    pub draining: bool,
    /// How long the oldest outcome has waited for its acknowledgement.
    pub oldest_outcome: Option<Duration>,
    /// Each executor, with what is wrong with it, if anything.
    pub executors: BTreeMap<SectionName, Option<String>>,
    /// Why the journal cannot be written, if it cannot.
    pub journal: Option<String>,
    /// What went wrong lately, the newest last.
    pub last_errors: Vec<LastError>,
}

/// How many runs stand where. Those that have ended wait for their acknowledgement.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Accepted, or waiting for the next attempt.
    pub queued: u32,
    /// Being made ready.
    pub starting: u32,
    /// At work.
    pub running: u32,
    /// Ended.
    pub finished: u32,
}

impl Snapshot {
    /// Why no work can flow: nothing if it can.
    pub fn obstacles(&self) -> Vec<String> {
        let draining = self.draining.then(|| "the runner is draining".to_owned());
        let journal = self
            .journal
            .as_ref()
            .map(|why| format!("the journal cannot be written: {why}"));
        let executors = self.executors.iter().filter_map(|(name, wrong)| {
            Some(format!(
                "executor `{name}` cannot be used: {}",
                wrong.as_ref()?
            ))
        });
        draining
            .into_iter()
            .chain(journal)
            .chain(executors)
            .collect()
    }
}

pub(super) fn take(shared: &Shared) -> Snapshot {
    let mut runs = Counts::default();
    let mut oldest: Option<Timestamp> = None;
    for level in shared.registry.levels() {
        let count = match level.state {
            State::Starting => &mut runs.starting,
            State::Running => &mut runs.running,
            State::Finished(_) => &mut runs.finished,
            _ => &mut runs.queued,
        };
        *count += 1;
        if let (State::Finished(_), Some(at)) = (&level.state, level.times.finished) {
            oldest = Some(oldest.map_or(at, |oldest| oldest.min(at)));
        }
    }
    let (slots_used, slots) = shared.registry.slots();
    let wrong = shared.health.executors();
    let executors = shared
        .executors
        .keys()
        .map(|name| (name.clone(), wrong.get(name).cloned()));
    Snapshot {
        runs,
        slots_used,
        slots,
        draining: shared.registry.is_draining(),
        oldest_outcome: oldest
            .map(|at| Duration::try_from(Timestamp::now().duration_since(at)).unwrap_or_default()),
        executors: executors.collect(),
        journal: shared.health.journal(),
        last_errors: shared.health.last(),
    }
}
