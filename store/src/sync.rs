//! When a commit survives power loss: one `fdatasync` for all who wait.

use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hybrid_runner_core::fault;
use tokio::sync::watch;

use crate::error::{Error, Result};

/// The group that stands for what opening wrote or found in the log: it is not durable yet either.
const OPENING: u64 = 1;

/// A committed group, to wait for its durability later or elsewhere.
#[derive(Debug, Clone)]
pub struct Commit {
    group: u64,
    syncer: Arc<Syncer>,
}

impl Commit {
    pub(crate) fn latest(syncer: &Arc<Syncer>) -> Self {
        Self {
            group: syncer.committed.load(Ordering::SeqCst),
            syncer: Arc::clone(syncer),
        }
    }

    /// Waits until this commit, and all before it, survives power loss.
    ///
    /// # Cancel safety
    /// Dropping the future stops the waiting, not the sync.
    pub async fn synced(&self) -> Result<()> {
        let mut progress = self.syncer.progress.subscribe();
        Syncer::want(&self.syncer, self.group);
        let reached =
            |progress: &Progress| progress.synced >= self.group || progress.failed.is_some();
        let progress = progress
            .wait_for(reached)
            .await
            .map_err(|_| Error::Closed)?;
        match &progress.failed {
            Some(error) if progress.synced < self.group => Err(error.clone()),
            _ => Ok(()),
        }
    }
}

/// Syncs the log while somebody waits for it.
#[derive(Debug)]
pub(crate) struct Syncer {
    log: File,
    /// The last group committed.
    committed: AtomicU64,
    syncs: AtomicU64,
    wish: Mutex<Wish>,
    progress: watch::Sender<Progress>,
}

#[derive(Debug, Default)]
struct Wish {
    running: bool,
    /// The last group that somebody waits for.
    wanted: u64,
    files: Vec<Arc<File>>,
    /// Until the first sync: the log's name must become durable too.
    directory: Option<File>,
}

#[derive(Debug, Default)]
struct Progress {
    synced: u64,
    /// Stays: see the crate's docs about a failed `fdatasync`.
    failed: Option<Error>,
}

impl Syncer {
    pub(crate) fn new(log: File, directory: File) -> Self {
        Self {
            log,
            committed: AtomicU64::new(OPENING),
            syncs: AtomicU64::new(0),
            wish: Mutex::new(Wish {
                directory: Some(directory),
                ..Wish::default()
            }),
            progress: watch::Sender::new(Progress::default()),
        }
    }

    /// Counts one more committed group.
    pub(crate) fn committed(self: &Arc<Self>) -> Commit {
        let group = self.committed.fetch_add(1, Ordering::SeqCst) + 1;
        Commit {
            group,
            syncer: Arc::clone(self),
        }
    }

    pub(crate) fn add(&self, file: Arc<File>) {
        let mut wish = self.wish();
        if !wish.files.iter().any(|known| Arc::ptr_eq(known, &file)) {
            wish.files.push(file);
        }
    }

    /// The size of the log's file; it shrinks when the log starts over.
    pub(crate) fn log_bytes(&self) -> u64 {
        self.log.metadata().map_or(0, |found| found.len())
    }

    pub(crate) fn counts(&self) -> (u64, u64) {
        (
            self.committed.load(Ordering::SeqCst) - OPENING,
            self.syncs.load(Ordering::Relaxed),
        )
    }

    /// Syncs what nobody waits for yet; for closing.
    pub(crate) fn finish(&self) {
        let target = self.committed.load(Ordering::SeqCst);
        let (synced, failed) = {
            let progress = self.progress.borrow();
            (progress.synced, progress.failed.is_some())
        };
        if synced < target && !failed {
            self.sync();
        }
    }

    fn want(this: &Arc<Self>, group: u64) {
        let mut wish = this.wish();
        wish.wanted = wish.wanted.max(group);
        if !wish.running && this.is_behind(&wish) {
            wish.running = true;
            let this = Arc::clone(this);
            drop(tokio::task::spawn_blocking(move || this.run()));
        }
    }

    fn is_behind(&self, wish: &Wish) -> bool {
        let progress = self.progress.borrow();
        progress.synced < wish.wanted && progress.failed.is_none()
    }

    fn run(&self) {
        loop {
            {
                let mut wish = self.wish();
                if !self.is_behind(&wish) {
                    wish.running = false;
                    return;
                }
            }
            self.sync();
        }
    }

    /// One sync, of all that is committed when it begins.
    fn sync(&self) {
        // In this order: whoever registered a file before its commit finds both in one sync.
        let target = self.committed.load(Ordering::SeqCst);
        let (files, directory) = {
            let mut wish = self.wish();
            (std::mem::take(&mut wish.files), wish.directory.take())
        };
        fault::step("store.sync");
        let result = self.sync_files(&files, directory.as_ref());
        drop(files);
        fault::step("store.synced");
        self.syncs.fetch_add(1, Ordering::Relaxed);
        self.progress.send_modify(|progress| match result {
            Ok(()) => progress.synced = progress.synced.max(target),
            Err(error) => {
                tracing::error!(%error, "failed to sync the state file; nothing is called durable until it is opened anew");
                progress.failed = Some(error.into());
            }
        });
    }

    fn sync_files(&self, files: &[Arc<File>], directory: Option<&File>) -> io::Result<()> {
        for file in files {
            file.sync_data()?;
        }
        self.log.sync_data()?;
        directory.map_or(Ok(()), File::sync_all)
    }

    fn wish(&self) -> MutexGuard<'_, Wish> {
        self.wish.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
