//! A copy of each log that its backend may drop (`LogKeeping::Volatile`): what the work wrote is there when the control plane asks for
//! it, however long that was away, and though the pod is gone by then.
//!
//! | file | holds |
//! |---|---|
//! | `attempt` | one log: copied as it comes, and read from the copy |
//! | `file` | the copy on disk |
//! | `room` | what all of them may take |
//!
//! The copy is a window of the log. Whoever reads gets what is in it, and then what comes. What was read a MiB ago is given back. From a place
//! that is not in it, the backend is asked, and the copy begins anew there. Where there is no room, a chunk goes past the disk to whoever reads,
//! and if nobody does the backend waits. Cursors are the backend's own, so that a copy that is lost is no loss but that of what
//! the backend has dropped meanwhile.

mod attempt;
mod file;
mod room;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use futures::{FutureExt as _, StreamExt as _};
use hybrid_runner_core::error::Result;
use hybrid_runner_core::executor::LogKeeping;
use hybrid_runner_core::log::{LogChunk, LogCursor};
use hybrid_runner_core::run::{RunSpec, Status};
use hybrid_runner_core::{Capabilities, Executor, Finding, Handle, Progress, RunId, Secrets};
use tokio::sync::OnceCell;
use tokio::task::{AbortHandle, JoinSet};

use attempt::Attempt;
pub(crate) use room::Room;

/// In the data directory of the runner.
const FOLDER: &str = "spool";

/// An executor of whose logs copies are kept, if it does not keep them itself.
#[derive(Clone)]
pub(crate) struct Spooled {
    inner: Arc<dyn Executor>,
    folder: PathBuf,
    room: Room,
    is_volatile: Arc<OnceCell<bool>>,
    copies: Arc<Mutex<Copies>>,
}

/// The logs that are copied.
#[derive(Default)]
struct Copies {
    attempts: HashMap<RunId, (Arc<Attempt>, AbortHandle)>,
    /// End with it.
    tasks: JoinSet<()>,
}

impl Spooled {
    /// `name` is that of its section.
    pub(crate) fn new(inner: Arc<dyn Executor>, data_dir: &Path, name: &str, room: Room) -> Self {
        Self {
            inner,
            folder: data_dir.join(FOLDER).join(name),
            room,
            is_volatile: Arc::default(),
            copies: Arc::default(),
        }
    }

    /// Not as long as that is not known.
    async fn is_volatile(&self) -> bool {
        let ask = || async {
            let can = self.inner.capabilities().await;
            can.map(|can| can.logs == LogKeeping::Volatile)
        };
        self.is_volatile
            .get_or_try_init(ask)
            .await
            .is_ok_and(|is_volatile| *is_volatile)
    }

    /// The copy of an attempt's log, which is begun if there is none.
    fn copy(&self, handle: &Handle) -> Arc<Attempt> {
        let mut copies = self.copies();
        let Copies { attempts, tasks } = &mut *copies;
        let (attempt, _) = attempts.entry(handle.run).or_insert_with(|| {
            while tasks.try_join_next().is_some() {}
            let (inner, room) = (Arc::clone(&self.inner), self.room.clone());
            let path = self.path(handle.run);
            let attempt = Arc::new(Attempt::new(inner, handle.clone(), path, room));
            let task = tasks.spawn(Arc::clone(&attempt).copy());
            (attempt, task)
        });
        Arc::clone(attempt)
    }

    fn path(&self, run: RunId) -> PathBuf {
        self.folder.join(format!("{run}.log"))
    }

    fn copies(&self) -> MutexGuard<'_, Copies> {
        self.copies.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Spooled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Executor for Spooled {
    async fn capabilities(&self) -> Result<Capabilities> {
        self.inner.capabilities().await
    }

    async fn check(&self) -> Result<()> {
        self.inner.check().await
    }

    async fn examine(&self) -> Vec<Finding> {
        self.inner.examine().await
    }

    async fn preview(&self, spec: &RunSpec, secrets: &Secrets) -> Result<Vec<serde_json::Value>> {
        self.inner.preview(spec, secrets).await
    }

    async fn start(
        &self,
        spec: &RunSpec,
        secrets: &Secrets,
        progress: &Progress,
    ) -> Result<Handle> {
        let handle = self.inner.start(spec, secrets, progress).await?;
        if self.is_volatile().await {
            self.copy(&handle);
        }
        Ok(handle)
    }

    fn watch(&self, run: &Handle) -> BoxStream<'static, Result<Status>> {
        self.inner.watch(run)
    }

    fn logs(&self, run: &Handle, from: Option<LogCursor>) -> BoxStream<'static, Result<LogChunk>> {
        let (this, run) = (self.clone(), run.clone());
        let opened = async move {
            if this.is_volatile().await {
                this.copy(&run).read(from)
            } else {
                this.inner.logs(&run, from)
            }
        };
        opened.flatten_stream().boxed()
    }

    async fn stop(&self, run: &Handle, grace: Duration) -> Result<()> {
        self.inner.stop(run, grace).await
    }

    async fn remove(&self, run: &Handle) -> Result<()> {
        self.inner.remove(run).await?;
        let copied = self.copies().attempts.remove(&run.run);
        if let Some((attempt, task)) = copied {
            task.abort();
            attempt.forget();
        }
        if self.is_volatile.get() != Some(&false) {
            forget(&self.path(run.run));
        }
        Ok(())
    }

    /// A copy is made of whatever is found: who was away may have missed its end.
    async fn list(&self) -> Result<Vec<Handle>> {
        let handles = self.inner.list().await?;
        if !handles.is_empty() && self.is_volatile().await {
            for handle in &handles {
                self.copy(handle);
            }
        }
        Ok(handles)
    }

    async fn close(&self) {
        let mut copies = std::mem::take(&mut *self.copies());
        copies.tasks.shutdown().await;
        self.inner.close().await;
    }
}

/// Deletes copies of the logs of runs that nobody knows any more. Where none is known, that may be because the journal was lost.
pub(crate) fn sweep(data_dir: &Path, known: &HashSet<RunId>) {
    if known.is_empty() {
        return;
    }
    let of_run = |path: &Path| {
        let run: RunId = path.file_stem()?.to_str()?.parse().ok()?;
        Some(run.run())
    };
    let folders = std::fs::read_dir(data_dir.join(FOLDER));
    for folder in folders.into_iter().flatten().flatten() {
        let files = std::fs::read_dir(folder.path());
        for file in files.into_iter().flatten().flatten() {
            let path = file.path();
            if of_run(&path).is_some_and(|run| !known.contains(&run)) {
                forget(&path);
            }
        }
    }
}

fn forget(path: &Path) {
    if let Err(error) = file::remove(path) {
        tracing::warn!(path = %path.display(), %error, "failed to delete the copy of a log");
    }
}
