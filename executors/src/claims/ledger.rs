//! One file for each run: records behind each other, the last counts.
//!
//! Whoever is busy with a run holds the lock on its file, which the system releases when a process dies. A record is synced
//! before anybody acts on it: the backend lives longer than this machine.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use hybrid_runner_core::RunId;
use hybrid_runner_core::error::{Error, Result};
use hybrid_runner_core::executor::Handle;
use hybrid_runner_core::run::RunSpec;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// How often a file that somebody is busy with is tried. The system has no event for an unlocked file.
const TRY: Duration = Duration::from_millis(10);
/// The ending of the files.
const ENDING: &str = ".claim";

/// What is known of a run.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Record {
    /// Of this format.
    #[serde(default)]
    pub(super) version: u16,
    /// What was asked for; absent if it was stopped before. References only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) spec: Option<Box<RunSpec>>,
    /// What the backend answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) handle: Option<Handle>,
    #[serde(default)]
    pub(super) stopped: bool,
    /// It was stopped while somebody may have been at work on its start: what comes of that is stopped, too. Whoever is at work
    /// then is ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) awaited: Option<Timestamp>,
    /// Nobody can tell whether the backend has it.
    #[serde(default)]
    pub(super) lost: bool,
    /// The backend has it under a handle that may not be written, because a value stands in it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) unwritten: bool,
}

#[derive(Debug)]
pub(super) struct Ledger {
    folder: PathBuf,
}

/// A run that we are busy with, and nobody else.
#[derive(Debug)]
pub(super) struct Claim {
    path: PathBuf,
    file: File,
    pub(super) record: Record,
}

impl Ledger {
    pub(super) fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    fn path(&self, run: RunId) -> PathBuf {
        self.folder.join(format!("{run}{ENDING}"))
    }

    /// Claims the run of a spec; whether nobody had before.
    pub(super) async fn claim(&self, spec: &RunSpec) -> Result<(Claim, bool)> {
        let record = Record {
            version: 1,
            spec: Some(Box::new(spec.clone())),
            ..Record::default()
        };
        self.open_or_make(spec.run, record).await
    }

    /// Stops a run that nobody claimed before, or opens it.
    pub(super) async fn stop(&self, run: RunId) -> Result<(Claim, bool)> {
        let record = Record {
            version: 1,
            stopped: true,
            ..Record::default()
        };
        self.open_or_make(run, record).await
    }

    async fn open_or_make(&self, run: RunId, record: Record) -> Result<(Claim, bool)> {
        let made = self.lock(run, true).await?;
        let mut claim = made.ok_or_else(|| Error::internal("a claim that was made is gone"))?;
        if claim.record.version != 0 {
            return Ok((claim, false));
        }
        claim.record = record;
        claim.write().await?;
        Ok((claim, true))
    }

    /// The run's file, once nobody else is busy with it; none if there is none.
    pub(super) async fn find(&self, run: RunId) -> Result<Option<Claim>> {
        let found = self.lock(run, false).await?;
        // One that was made and never written is none.
        Ok(found.filter(|claim| claim.record.version != 0))
    }

    /// Whether somebody is busy with it.
    pub(super) async fn is_busy(&self, run: RunId) -> Result<bool> {
        let path = self.path(run);
        blocking(&self.path(run), move || match open(&path, false)? {
            Some(file) => Ok(matches!(file.try_lock(), Err(TryLockError::WouldBlock))),
            None => Ok(false),
        })
        .await
    }

    async fn lock(&self, run: RunId, make: bool) -> Result<Option<Claim>> {
        loop {
            let path = self.path(run);
            let tried = blocking(&self.path(run), move || try_lock(path, make)).await?;
            match tried {
                Tried::Locked(claim) => return Ok(Some(claim)),
                Tried::NotThere => return Ok(None),
                Tried::Busy => tokio::time::sleep(TRY).await,
            }
        }
    }

    /// All runs that have a file.
    pub(super) async fn list(&self) -> Result<Vec<Handle>> {
        let folder = self.folder.clone();
        blocking(&self.folder, move || {
            let entries = match std::fs::read_dir(&folder) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
                entries => entries?,
            };
            let mut handles = Vec::new();
            for entry in entries {
                let name = entry?.file_name();
                let name = name.to_str().and_then(|name| name.strip_suffix(ENDING));
                let Some(run) = name.and_then(|name| name.parse::<RunId>().ok()) else {
                    continue;
                };
                let record = open(&folder.join(format!("{run}{ENDING}")), false)?;
                let record = record.map(|mut file| last_record(&mut file)).transpose()?;
                // One that was made and never written is none.
                let record = record.filter(|record| record.version != 0);
                handles
                    .extend(record.map(|record| record.handle.unwrap_or_else(|| Handle::of(run))));
            }
            Ok(handles)
        })
        .await
    }

    /// Whether files could be made.
    pub(super) async fn check(&self) -> Result<()> {
        let folder = self.folder.clone();
        blocking(&self.folder, move || std::fs::create_dir_all(folder)).await
    }
}

enum Tried {
    Locked(Claim),
    NotThere,
    Busy,
}

fn open(path: &Path, make: bool) -> io::Result<Option<File>> {
    let mut options = OpenOptions::new();
    options.read(true).append(true).create(make).mode(0o600);
    match options.open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound && !make => Ok(None),
        Err(error) => Err(error),
    }
}

fn try_lock(path: PathBuf, make: bool) -> io::Result<Tried> {
    if make && let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let Some(mut file) = open(&path, make)? else {
        return Ok(Tried::NotThere);
    };
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(Tried::Busy),
        Err(TryLockError::Error(error)) => return Err(error),
    }
    if file.metadata()?.nlink() == 0 {
        // Removed while we waited: another may be there now.
        return Ok(Tried::Busy);
    }
    let record = last_record(&mut file)?;
    Ok(Tried::Locked(Claim { path, file, record }))
}

/// The last record that was written whole.
fn last_record(file: &mut File) -> io::Result<Record> {
    // Bytes: a full disk cuts a record anywhere, within a character too.
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let whole = bytes
        .split_inclusive(|byte| *byte == b'\n')
        .filter(|line| line.ends_with(b"\n"));
    let mut records = whole
        .rev()
        .filter_map(|line| serde_json::from_slice(line).ok());
    Ok(records.next().unwrap_or_default())
}

impl Claim {
    /// Writes the record, synced.
    pub(super) async fn write(&mut self) -> Result<()> {
        let mut line = serde_json::to_vec(&self.record)
            .map_err(|error| Error::internal("failed to write a claim").with_source(error))?;
        line.push(b'\n');
        // Behind half of a line, this one is whole again.
        line.insert(0, b'\n');
        let mut file = self
            .file
            .try_clone()
            .map_err(|error| failed(&self.path, error))?;
        let path = self.path.clone();
        blocking(&self.path, move || {
            file.write_all(&line)?;
            file.sync_all()?;
            path.parent()
                .map_or(Ok(()), |folder| File::open(folder)?.sync_all())
        })
        .await
    }

    /// Forgets the run.
    pub(super) async fn remove(self) -> Result<()> {
        let path = self.path.clone();
        blocking(&self.path, move || std::fs::remove_file(path)).await
    }
}

fn failed(path: &Path, error: io::Error) -> Error {
    Error::unavailable(format!("failed to use the claim `{}`", path.display())).with_source(error)
}

async fn blocking<T: Send + 'static>(
    path: &Path,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(io::Error::other)
        .flatten()
        .map_err(|error| failed(path, error))
}
