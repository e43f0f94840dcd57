//! The runner's side of a plugin: one process for all runs of a section, started when it is first needed.
//!
//! | file | holds |
//! |---|---|
//! | [`settings`] | the section of a plugin |
//! | `launch` | what is started, and how: program, folder, environment, first exchange |
//! | `life` | one process from its start to its end |
//! | [`Starts`] | those that go on although nobody waits for them |
//! | `stderr` | its standard error, into our log |
//! | [`Values`], `masking` | values of live runs in what it says, and in the output of runs |
//! | `given` | which values runs were given, on disk, by store and version |
//! | `held` | a log that cannot be shown, because they cannot be had again |
//! | [`trace`] | its messages, for whoever looks for a fault |
//! | `renewed` | streams that go on in a newer program |
//! | `executor`, `store` | the two contracts through it |
//!
//! # What is kept
//!
//! A process that ends is started again when it is next needed, later each time. Requests under way are made again if the
//! contract says that asking twice is asking once. One that does not answer pings is killed. Whatever it writes, its
//! messages are at most 1 MiB, streams flow under credit, and stderr is cut to lines and a rate.

mod executor;
mod given;
mod held;
mod launch;
mod life;
mod masking;
mod renewed;
pub mod settings;
mod starts;
mod stderr;
mod store;
pub mod trace;
mod values;

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::hello::PluginWelcome;
use crate::error::{Error, Result};
use crate::program::outlet::{self, Holders};
use crate::session::Session;

pub use executor::{PluginExecutor, Submitted};
pub use launch::Launch;
pub use settings::{PluginSettings, Timeouts};
pub use starts::Starts;
pub use store::PluginStore;
pub use trace::{Frame, Trace, Way};
pub use values::{Values, caution};

use life::Life;
use masking::Masking;

/// The pause before the second start in a row; four times longer each time.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Whoever would have to wait longer than this for a restart is told so instead.
const PATIENCE: Duration = Duration::from_secs(2);
/// A process that lived so long is no failure when it ends.
const LIVED: Duration = Duration::from_secs(10);

/// A plugin as it is configured, with the process that runs it now, if one does. Cheap to clone.
#[derive(Clone)]
pub struct Host(Arc<Shared>);

struct Shared {
    launch: Launch,
    slot: tokio::sync::Mutex<Slot>,
    masking: Arc<Masking>,
    /// Each process has a task that attends to it; they end with the host.
    attendants: Mutex<JoinSet<()>>,
}

/// What there is of a process.
#[derive(Default)]
struct Slot {
    life: Option<Life>,
    /// Lives in a row that ended early.
    failures: u32,
    not_before: Option<Instant>,
    why: String,
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Host").field(&self.0.launch.program).finish()
    }
}

impl Host {
    /// A plugin. Nothing is started yet.
    pub fn new(launch: Launch) -> Self {
        Self(Arc::new(Shared {
            launch,
            slot: tokio::sync::Mutex::default(),
            masking: Arc::default(),
            attendants: Mutex::default(),
        }))
    }

    /// What the plugin said of itself.
    pub async fn welcome(&self) -> Result<Arc<PluginWelcome>> {
        Ok(self.life().await?.welcome)
    }

    /// Whether the last process ended by itself, once it has ended.
    pub async fn left_by_itself(&self) -> bool {
        let life = self.0.slot.lock().await.life.clone();
        match life {
            Some(life) => !life.obituary().await.contains("killed"),
            None => true,
        }
    }

    /// The session with the process that runs, for questions that no contract has.
    pub async fn session(&self) -> Result<Session> {
        Ok(self.life().await?.session)
    }

    /// The number of the process that runs now.
    pub async fn process(&self) -> Option<u32> {
        let slot = self.0.slot.lock().await;
        slot.life.as_ref().and_then(|life| life.process)
    }

    fn timeouts(&self) -> &Timeouts {
        &self.0.launch.timeouts
    }

    fn masking(&self) -> &Arc<Masking> {
        &self.0.masking
    }

    fn values(&self) -> Values {
        let launch = self.launch();
        Values::new(
            Arc::clone(self.masking()),
            &launch.hello.data_dir,
            launch.mask,
            launch.references.clone(),
        )
    }

    fn launch(&self) -> &Launch {
        &self.0.launch
    }

    /// The process that runs, or a new one.
    ///
    /// # Cancel safety
    ///
    /// Dropped while a process begins, that process is ended.
    async fn life(&self) -> Result<Life> {
        let mut slot = self.0.slot.lock().await;
        if let Some(life) = &slot.life {
            if life.is_outdated() {
                tracing::info!(plugin = %self.0.launch.name(), "the plugin's program was replaced: the new one takes over");
                life.replace();
                slot.life = None;
            } else if !life.session.is_closed() {
                return Ok(life.clone());
            }
        }
        if let Some(life) = slot.life.take() {
            let why = life.obituary().await;
            slot.bury(life.age(), why);
        }
        let waited = slot.wait(self.0.launch.shown()).await;
        waited.map_err(|why| why.with_source(self.0.masking.text(&slot.why)))?;
        match self.begin().await {
            Ok(life) => {
                slot.life = Some(life.clone());
                Ok(life)
            }
            Err(error) => {
                slot.bury(Duration::ZERO, error.report());
                Err(self.0.masking.error(error))
            }
        }
    }

    /// Who is still there that is not the process which runs now: of before, or of an earlier life of ours.
    async fn others(&self) -> Result<Option<Vec<(PathBuf, Holders)>>> {
        let Some(folder) = &self.0.launch.outlets else {
            return Ok(None);
        };
        let now = {
            let slot = self.0.slot.lock().await;
            let lives = slot.life.as_ref().filter(|life| !life.session.is_closed());
            lives.and_then(|life| life.outlet.clone())
        };
        let held = outlet::after_a_moment(|| outlet::any_holders(folder, now.as_deref())).await;
        held.map_err(|error| {
            Error::unavailable(format!("failed to look into `{}`", folder.display()))
                .with_source(error)
        })
    }

    /// Lets the process end, and waits for that. One that is asked for afterwards is started again.
    pub async fn close(&self) {
        let life = self.0.slot.lock().await.life.take();
        if let Some(life) = life {
            life.session.close();
            life.obituary().await;
        }
    }

    fn attendants(&self) -> MutexGuard<'_, JoinSet<()>> {
        let attendants = self.0.attendants.lock();
        let mut attendants = attendants.unwrap_or_else(PoisonError::into_inner);
        while attendants.try_join_next().is_some() {}
        attendants
    }

    /// The answer to a question that goes on as long as the host does, whether or not somebody waits for it.
    fn hear<T: Send + 'static>(
        &self,
        answer: impl Future<Output = Result<T>> + Send + 'static,
    ) -> BoxFuture<'static, Result<T>> {
        starts::to_its_end(&mut self.attendants(), answer)
    }

    async fn begin(&self) -> Result<Life> {
        if let Some(folder) = &self.0.launch.outlets {
            // What is left of others is put away.
            drop(outlet::any_holders(folder, None));
        }
        let begun = life::spawn(&self.0.launch, &self.0.masking, &mut self.attendants())?;
        begun.greet(&self.0.launch, &self.0.masking).await
    }
}

impl Slot {
    /// Notes the end of a life, and when the next may begin.
    fn bury(&mut self, age: Duration, why: String) {
        self.failures = if age > LIVED { 1 } else { self.failures + 1 };
        let steps = self.failures.saturating_sub(1).min(10);
        let pause = FIRST_PAUSE.saturating_mul(4_u32.saturating_pow(steps));
        self.not_before = Some(Instant::now() + pause.min(LONGEST_PAUSE));
        self.why = why;
    }

    /// Waits for the next start, unless that takes too long. Why the last life ended may hold a value, and is not told.
    async fn wait(&self, program: &str) -> Result<()> {
        let Some(at) = self.not_before else {
            return Ok(());
        };
        let left = at.saturating_duration_since(Instant::now());
        if left > PATIENCE {
            return Err(Error::unavailable(format!(
                "the plugin `{program}` is started again in {} s: it ended {} times in a row",
                left.as_secs() + 1,
                self.failures
            )));
        }
        tokio::time::sleep_until(at).await;
        Ok(())
    }
}
