//! Who is known right now: one entry a run, behind one lock that is never held across an await.
//!
//! What an entry shows is written by the run's task alone, through its [`View`].

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use hybrid_runner_core::error::{Error, Result};
use hybrid_runner_core::id::SectionName;
use hybrid_runner_core::run::RunSpec;
use hybrid_runner_core::{Handle, RunId, Status};
use tokio::sync::{mpsc, oneshot, watch};

use super::record::{Phase, Record, Stop, handle_of};

/// Requests to one run that wait: each is answered within a write, so more than a few means a caller that hammers.
pub(super) const COMMANDS: usize = 8;

/// What a run's task is asked to do. It answers when that is durable.
#[derive(Debug)]
pub(super) enum Command {
    Stop(Stop, Answer),
    /// The spec of an adopted run, now that somebody knows it.
    Spec(Box<RunSpec>, Answer),
    /// Somebody follows an adopted run: whoever knows more of it has told that before.
    Followed,
}

pub(super) type Answer = oneshot::Sender<Result<()>>;

/// What others see of a run.
#[derive(Debug, Clone)]
pub(super) struct View {
    pub(super) executor: SectionName,
    /// The level; absent until the run is in the journal.
    pub(super) level: Option<Status>,
    /// The attempts that the backend took.
    pub(super) attempts: Vec<Handle>,
    /// The highest attempt that the backend may know.
    pub(super) reached: u32,
    pub(super) stop_asked: bool,
    pub(super) has_spec: bool,
}

impl View {
    pub(super) fn of(executor: &SectionName, has_spec: bool, record: &Record) -> Self {
        let mut level = record.status.clone();
        level.cut();
        Self {
            executor: executor.clone(),
            level: Some(level),
            attempts: record.attempts.clone(),
            reached: record.reached,
            stop_asked: record.is_stop_asked(),
            has_spec,
        }
    }

    /// Tells those who look, from where the record cannot be reached.
    pub(super) fn say(&mut self, message: String) {
        if let Some(level) = &mut self.level {
            level.message = Some(message);
            level.cut();
        }
    }

    pub(super) fn is_finished(&self) -> bool {
        self.level.as_ref().is_some_and(Status::is_finished)
    }

    /// The handle of an attempt: the backend's own, or what is known without it.
    pub(super) fn handle(&self, run: RunId, attempt: u32) -> Handle {
        handle_of(&self.attempts, run, attempt)
    }
}

/// One known run.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) view: watch::Receiver<View>,
    pub(super) commands: mpsc::Sender<Command>,
    /// Its outcome is acknowledged: for the outside it is gone.
    pub(super) removing: bool,
}

impl Entry {
    /// Asks the run's task, and waits for its answer. `None`: the task has ended.
    pub(super) async fn ask(&self, command: impl FnOnce(Answer) -> Command) -> Option<Result<()>> {
        let (answer, answered) = oneshot::channel();
        self.commands.send(command(answer)).await.ok()?;
        answered.await.ok()
    }
}

/// All known runs.
#[derive(Debug)]
pub(super) struct Registry(Mutex<Inner>);

#[derive(Debug)]
struct Inner {
    runs: HashMap<RunId, Entry>,
    live: u32,
    max_runs: u32,
    draining: bool,
}

impl Registry {
    pub(super) fn new(max_runs: u32) -> Self {
        let inner = Inner {
            runs: HashMap::new(),
            live: 0,
            max_runs,
            draining: false,
        };
        Self(Mutex::new(inner))
    }

    /// The run, unless it is gone for the outside.
    pub(super) fn find(&self, run: RunId) -> Option<Entry> {
        self.lock()
            .runs
            .get(&run)
            .filter(|entry| !entry.removing)
            .cloned()
    }

    /// The run, gone or not.
    pub(super) fn find_even_removing(&self, run: RunId) -> Option<Entry> {
        self.lock().runs.get(&run).cloned()
    }

    /// Claims a slot for a new run. Whether somebody was faster: then nothing is claimed.
    pub(super) fn claim(&self, run: RunId, entry: Entry) -> Result<bool> {
        let mut inner = self.lock();
        if inner.runs.contains_key(&run) {
            return Ok(true);
        }
        if inner.draining {
            return Err(Error::unavailable(
                "the runner is draining and takes no more runs",
            ));
        }
        if inner.live >= inner.max_runs {
            let (live, max) = (inner.live, inner.max_runs);
            return Err(Error::unavailable(format!(
                "no free slot ({live} of {max})"
            )));
        }
        inner.live += 1;
        inner.runs.insert(run, entry);
        Ok(false)
    }

    /// Adds a run that is there already, whatever the slots say. `false`: it is known.
    pub(super) fn add(&self, run: RunId, entry: Entry, live: bool) -> bool {
        let mut inner = self.lock();
        if inner.runs.contains_key(&run) {
            return false;
        }
        inner.live += u32::from(live);
        inner.runs.insert(run, entry);
        true
    }

    /// Gives a run's slot back: it has ended.
    pub(super) fn ended(&self) {
        let mut inner = self.lock();
        inner.live = inner.live.saturating_sub(1);
    }

    /// Marks a run as gone for the outside. `false`: it is so already, or not known.
    pub(super) fn begin_removal(&self, run: RunId) -> bool {
        let mut inner = self.lock();
        match inner.runs.get_mut(&run) {
            Some(entry) if !entry.removing => {
                entry.removing = true;
                true
            }
            _ => false,
        }
    }

    /// Takes a removal back that could not be written down.
    pub(super) fn undo_removal(&self, run: RunId) {
        if let Some(entry) = self.lock().runs.get_mut(&run) {
            entry.removing = false;
        }
    }

    pub(super) fn forget(&self, run: RunId) {
        self.lock().runs.remove(&run);
    }

    pub(super) fn drain(&self) {
        self.lock().draining = true;
    }

    pub(super) fn is_draining(&self) -> bool {
        self.lock().draining
    }

    /// Slots in use, and slots.
    pub(super) fn slots(&self) -> (u32, u32) {
        let inner = self.lock();
        (inner.live, inner.max_runs)
    }

    /// Where all runs stand that are not gone.
    pub(super) fn levels(&self) -> Vec<Status> {
        let inner = self.lock();
        let shown = inner.runs.values().filter(|entry| !entry.removing);
        shown
            .filter_map(|entry| entry.view.borrow().level.clone())
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The entry of a run that is in the journal, and what its task needs.
pub(super) fn entry_of(
    executor: &SectionName,
    has_spec: bool,
    record: &Record,
) -> (Entry, watch::Sender<View>, mpsc::Receiver<Command>) {
    let (entry, view, commands) = open_entry(View::of(executor, has_spec, record));
    let removing = record.phase == Phase::Removing;
    (Entry { removing, ..entry }, view, commands)
}

/// The entry of a run that is about to be written down.
pub(super) fn new_entry(
    executor: &SectionName,
) -> (Entry, watch::Sender<View>, mpsc::Receiver<Command>) {
    open_entry(View {
        executor: executor.clone(),
        level: None,
        attempts: Vec::new(),
        reached: 0,
        stop_asked: false,
        has_spec: true,
    })
}

fn open_entry(view: View) -> (Entry, watch::Sender<View>, mpsc::Receiver<Command>) {
    let (sender, view) = watch::channel(view);
    let (commands, requests) = mpsc::channel(COMMANDS);
    (
        Entry {
            view,
            commands,
            removing: false,
        },
        sender,
        requests,
    )
}
