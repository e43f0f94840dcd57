//! The heart of the runner: it accepts runs, starts each attempt at most once, follows it to its end, and forgets
//! nothing that it has acknowledged, whoever dies and whenever.
//!
//! | file | holds |
//! |---|---|
//! | `executor` | the runner as its server sees it: an [`Executor`] |
//! | `capabilities` | what all executors together can do, and whether they can be used |
//! | `acceptance` | what becomes of a start |
//! | `redelivery` | whether a run that nothing here knows may be started |
//! | `run` | one task a run, from acceptance to outcome: |
//! | `start`, `follow`, `requests` | handing an attempt over; following it to its end; what a run is asked meanwhile |
//! | `levels`, `logs` | what watchers and readers of a run get |
//! | `removal` | acknowledged outcomes |
//! | `recover` | what a new life finds: its journal, and what the backends still have |
//! | `journal`, `record` | what is on disk: the database, and the stored format of a run |
//! | `registry`, `shared`, `health`, `snapshot` | who is known, what all tasks share, how it all stands |
//!
//! # What is durable when
//!
//! | moment | survives `kill -9` | survives power loss |
//! |---|---|---|
//! | the executor's `start` is called | the acceptance does | not yet: the sync is under way |
//! | `start` is answered | | the acceptance does |
//! | a later attempt is begun | | the end of the one before, and that this one is due |
//! | `stop` is answered | | the wish does |
//! | `watch` shows an outcome | | the outcome does |
//! | `remove` is answered | the removal does | if not, the run shows up again, as ended |
//!
//! What the journal does not hold after a crash, the backend does: the next life asks it once (`recover`), and goes on.

mod acceptance;
mod backoff;
mod capabilities;
mod executor;
mod follow;
mod health;
mod journal;
mod levels;
mod logs;
mod record;
mod recover;
mod redelivery;
mod registry;
mod removal;
mod requests;
mod run;
mod shared;
mod snapshot;
mod start;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use hybrid_runner_core::error::{Error, Result};
use hybrid_runner_core::id::SectionName;
use hybrid_runner_core::incarnation::Incarnation;
use hybrid_runner_core::{AgentId, Executor, processes};
use hybrid_runner_secrets::Stores;
use hybrid_runner_secrets::workload::Workload;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::Resolve;
use crate::policy::Policy;
use crate::spool;
use journal::Journal;
use registry::Registry;
use shared::{Job, Shared};

pub(crate) use shared::Rules;

pub use snapshot::{Counts, LastError, Snapshot};

/// Tasks that wait to be owned: a handful, as the driver only has to take them over.
const JOBS: usize = 64;

/// What a runner is made of.
#[derive(Debug)]
pub struct Parts {
    /// Its name at the control plane.
    pub agent: AgentId,
    /// The configured executors.
    pub executors: BTreeMap<SectionName, Arc<dyn Executor>>,
    /// The one of runs that name none.
    pub default_executor: SectionName,
    /// The configured secret stores.
    pub stores: Arc<Stores>,
    /// What may run here.
    pub policy: Policy,
    /// Where the journal is kept.
    pub data_dir: PathBuf,
    /// Runs at the same time.
    pub max_runs: u32,
    /// Who resolves references.
    pub resolve: Resolve,
    /// What a workload that resolves them itself is given for it.
    pub workload: Option<Workload>,
}

/// A runner. Cheap to clone; all clones are the same.
///
/// To its server it is an [`Executor`]; its runs are named without an attempt.
#[derive(Clone)]
pub struct Runner {
    shared: Arc<Shared>,
}

/// Owns and drives all tasks of a runner; ends after [`Runner::drain`].
///
/// Dropping it ends them at once, as a crash would. The runs themselves go on either way.
#[must_use = "nothing happens unless it is polled"]
pub struct Driver(BoxFuture<'static, ()>);

impl Runner {
    /// Opens the journal, asks each backend what it still has, and goes on with every run.
    ///
    /// A backend that does not answer is asked again beside the work. Nothing moves until the driver is polled.
    ///
    /// # Errors
    ///
    /// `Conflict` if another process has the data directory, `Unsupported` if a newer version wrote the journal,
    /// `Unavailable` if the disk refuses. A journal that cannot be read is set aside, and no error.
    pub async fn open(parts: Parts) -> Result<(Self, Driver)> {
        let boot = boot_id();
        Self::open_in(parts, boot).await
    }

    /// Opens as if the machine's boot had that id.
    async fn open_in(parts: Parts, boot: String) -> Result<(Self, Driver)> {
        make_directory(&parts.data_dir).await?;
        let opened = Journal::open(&parts.data_dir).await?;
        if let Some(aside) = &opened.set_aside {
            tracing::error!(set_aside = %aside.display(), "the journal could not be read; going on from what the backends and the control plane know");
        }
        let rows = opened.journal.load().await?;
        spool::sweep(&parts.data_dir, &rows.iter().map(|row| row.run).collect());
        let (jobs, queue) = mpsc::channel(JOBS);
        let surveys = parts
            .executors
            .keys()
            .map(|name| (name.clone(), watch::Sender::new(None)));
        let shared = Arc::new(Shared {
            agent: parts.agent,
            surveys: surveys.collect(),
            executors: parts.executors,
            default_executor: parts.default_executor,
            stores: parts.stores,
            resolve: parts.resolve,
            rules: Mutex::new(Arc::new(Rules {
                policy: parts.policy,
                workload: parts.workload,
            })),
            journal: opened.journal,
            registry: Registry::new(parts.max_runs),
            health: health::Health::default(),
            surveyed_anew: tokio::sync::Mutex::default(),
            incarnation: Mutex::new(Incarnation::new(boot, opened.state, opened.seq)),
            shutdown: CancellationToken::new(),
            jobs,
        });
        let mut first = recover::reopen(&shared, rows);
        first.extend(recover::survey_all(&shared).await);
        let driver = Driver(drive(Arc::clone(&shared), first, queue).boxed());
        Ok((Self { shared }, driver))
    }

    /// The life that begins with the next connect: raises its number, and answers once that is durable.
    pub async fn incarnation(&self) -> Result<Incarnation> {
        let seq = self.shared.journal.raise().await?;
        let mut incarnation = self.shared.incarnation();
        incarnation.seq = seq;
        self.shared.set_incarnation(incarnation.clone());
        Ok(incarnation)
    }

    /// Whether nothing is left of a run, here and in its backend. A removal that fails is tried again until the driver ends.
    pub(crate) fn is_forgotten(&self, run: hybrid_runner_core::RunId) -> bool {
        self.shared.registry.find_even_removing(run).is_none()
    }

    /// Accepts nothing more, lets go of the runs (they go on without us), and lets the driver end.
    pub fn drain(&self) {
        self.shared.registry.drain();
        self.shared.shutdown.cancel();
    }

    /// Puts other rules in force, for whatever starts next.
    pub(crate) fn set_rules(&self, rules: Rules) {
        *self
            .shared
            .rules
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner) = Arc::new(rules);
    }

    /// How the runner stands now.
    pub fn snapshot(&self) -> Snapshot {
        snapshot::take(&self.shared)
    }

    /// The control plane that this runner belonged to last.
    pub async fn server(&self) -> Result<Option<String>> {
        self.shared.journal.meta("server").await
    }

    /// Remembers the control plane that this runner belongs to.
    pub async fn set_server(&self, server: &str) -> Result<()> {
        self.shared
            .journal
            .set_meta("server", server.to_owned())
            .await
    }
}

/// Runs all tasks until the shutdown, then waits for them and closes the journal.
async fn drive(shared: Arc<Shared>, first: Vec<Job>, mut queue: mpsc::Receiver<Job>) {
    let mut tasks = JoinSet::new();
    for job in first {
        tasks.spawn(job);
    }
    loop {
        tokio::select! {
            biased;
            () = shared.shutdown.cancelled() => break,
            Some(job) = queue.recv() => drop(tasks.spawn(job)),
            Some(ended) = tasks.join_next() => tell(ended),
        }
    }
    queue.close();
    while let Some(job) = queue.recv().await {
        tasks.spawn(job);
    }
    while let Some(ended) = tasks.join_next().await {
        tell(ended);
    }
    shared.journal.clone().close().await;
    let executors = shared.executors.values();
    futures::future::join_all(executors.map(|executor| executor.close())).await;
}

fn tell(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a task of the runner broke down; its run goes on after a restart of the runner");
    }
}

async fn make_directory(path: &Path) -> Result<()> {
    let made = tokio::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .await;
    made.map_err(|error| {
        Error::unavailable(format!(
            "failed to make the data directory `{}`",
            path.display()
        ))
        .with_source(error)
    })
}

/// The kernel's boot id; where there is none, one that nobody ever had, so that nothing is believed to be remembered.
fn boot_id() -> String {
    processes::boot_id().unwrap_or_else(|_| uuid::Uuid::new_v4().to_string())
}

impl fmt::Debug for Runner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runner")
            .field("agent", &self.shared.agent)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Driver")
    }
}

impl Future for Driver {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        self.0.poll_unpin(context)
    }
}
