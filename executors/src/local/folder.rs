//! The folder of a run: what is in it says how the run stands.
//!
//! `<data_dir>/runs/<owner>/<attempt>/` holds, besides the files of the helper ([`hybrid_runner_helper::files`]):
//!
//! | name | what | made by |
//! |---|---|---|
//! | `spec.json` | the spec, references only: for people, and for the name in a handle | start |
//! | `work/` | where the workload starts, if nothing else is said | start |
//! | `lost` | the record that nobody knows how it ended | [`super::settle`] |
//!
//! Nothing here is synced: what is in the folder survives the death of any process, and after the loss of power the
//! boot id tells that the run is lost anyway.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use hybrid_runner_core::RunId;
use hybrid_runner_core::error::{Error, ErrorKind, Result};
use hybrid_runner_core::processes;
use hybrid_runner_helper::end::End;
use hybrid_runner_helper::files;
use hybrid_runner_helper::started::Started;
use hybrid_runner_helper::stop::Stop;
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

pub(super) const SPEC: &str = "spec.json";
pub(super) const WORK: &str = "work";
pub(super) const LOST: &str = "lost";
pub(super) const PRIVATE: &str = "private";

/// The folder of one run, whether it is there or not.
#[derive(Debug, Clone)]
pub(super) struct Folder {
    pub(super) run: RunId,
    pub(super) path: PathBuf,
}

/// How a run stands, as its folder tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Level {
    /// There is no folder.
    Unknown,
    /// Claimed, and not known to have started.
    Starting,
    /// The helper lives.
    Running(Started),
    /// The helper is dead and left no record of the end: to be settled. `None`: its record is unreadable.
    Dead(Option<Started>),
    /// It ended.
    Ended(End),
    /// It ended, and nobody knows how.
    Lost(Lost),
    /// It was stopped before it started, and never will.
    Prevented,
}

impl Level {
    /// Whether nothing can change any more.
    pub(super) fn is_over(&self) -> bool {
        matches!(
            self,
            Self::Unknown | Self::Ended(_) | Self::Lost(_) | Self::Prevented
        )
    }
}

/// The record of a run of which nobody knows how it ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Lost {
    /// What is known, for a person.
    pub(super) why: String,
    /// When that was found out, in microseconds since the epoch.
    pub(super) found: i64,
    /// When the workload had started, if it is known to have.
    #[serde(default)]
    pub(super) started: Option<i64>,
}

impl Folder {
    /// Looks. Never changes anything.
    pub(super) fn level(&self) -> Result<Level> {
        if let Some(over) = self.over()? {
            return Ok(over);
        }
        let Some(started) = self.read(files::STARTED)? else {
            return self.level_before_start();
        };
        // Torn while the helper writes the child into it; what follows decides anyway.
        let started = Started::parse(&started).ok();
        let same_boot = started.as_ref().is_none_or(|started| started.boot == *BOOT);
        if same_boot && self.helper_lives()? {
            return Ok(started.map_or(Level::Starting, Level::Running));
        }
        // The end is recorded before the lock is let go.
        Ok(self.over()?.unwrap_or(Level::Dead(started)))
    }

    /// The record of the end, if there is one.
    pub(super) fn over(&self) -> Result<Option<Level>> {
        if let Some(bytes) = self.read(files::END)? {
            return match End::parse(&bytes) {
                Ok(end) => Ok(Some(Level::Ended(end))),
                Err(error) => Err(self.damaged(files::END, error)),
            };
        }
        let Some(bytes) = self.read(LOST)? else {
            return Ok(None);
        };
        match serde_json::from_slice(&bytes) {
            Ok(lost) => Ok(Some(Level::Lost(lost))),
            Err(error) => Err(self.damaged(LOST, error)),
        }
    }

    fn level_before_start(&self) -> Result<Level> {
        if self.has(files::STOP)? {
            // A helper that lives will find the request and record the end.
            let lives = self.helper_lives()?;
            return Ok(match self.over()? {
                Some(over) => over,
                None if lives => Level::Starting,
                None => Level::Prevented,
            });
        }
        Ok(if self.exists()? {
            Level::Starting
        } else {
            Level::Unknown
        })
    }

    /// Whether a helper holds the lock.
    fn helper_lives(&self) -> Result<bool> {
        match self.lock(FlockOperation::NonBlockingLockShared) {
            Ok(_) => Ok(false),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(self.failed("look at", error)),
        }
    }

    /// Takes the lock that a living helper holds; given back on drop.
    pub(super) fn lock(&self, how: FlockOperation) -> io::Result<File> {
        let log = File::open(self.path.join(files::LOG))?;
        rustix::fs::flock(&log, how)?;
        Ok(log)
    }

    pub(super) fn exists(&self) -> Result<bool> {
        self.path
            .try_exists()
            .map_err(|error| self.failed("look at", error))
    }

    pub(super) fn has(&self, name: &str) -> Result<bool> {
        self.path
            .join(name)
            .try_exists()
            .map_err(|error| self.failed("look at", error))
    }

    /// Makes the folder, and those above it; success if it is there.
    pub(super) fn create(&self) -> Result<()> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.path)
            .map_err(|error| self.failed("make", error))
    }

    /// The content of a file; `None` if it is not there.
    pub(super) fn read(&self, name: &str) -> Result<Option<Vec<u8>>> {
        match fs::read(self.path.join(name)) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.failed("read", error)),
        }
    }

    /// Writes a file as a whole, or not at all.
    pub(super) fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        // Two may write at the same time.
        let nonce = random().map_err(|error| self.failed("write", error))?;
        let unfinished = self
            .path
            .join(format!("{name}.{:016x}", u64::from_ne_bytes(nonce)));
        let written = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&unfinished)
            .and_then(|mut file| file.write_all(bytes))
            .and_then(|()| fs::rename(&unfinished, self.path.join(name)));
        if written.is_err() {
            fs::remove_file(&unfinished).ok();
        }
        written.map_err(|error| self.failed("write", error))
    }

    pub(super) fn stop_request(&self) -> Result<Option<Stop>> {
        Ok(self
            .read(files::STOP)?
            .and_then(|bytes| Stop::parse(&bytes).ok()))
    }

    /// An error of the system about this folder.
    pub(super) fn failed(&self, what: &str, error: io::Error) -> Error {
        io_error(&format!("{what} the folder of the run"), &self.path, error)
    }

    fn damaged(
        &self,
        name: &str,
        error: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Error {
        Error::internal(format!(
            "the record `{}` cannot be read",
            self.path.join(name).display()
        ))
        .with_source(error)
    }
}

/// An error of the system, by what the caller can do about it.
pub(super) fn io_error(what: &str, path: &Path, error: io::Error) -> Error {
    let path = path.display();
    let (kind, why) = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            (ErrorKind::Unavailable, ": no space left on the disk")
        }
        io::ErrorKind::PermissionDenied => (ErrorKind::Denied, ""),
        io::ErrorKind::ReadOnlyFilesystem => (ErrorKind::Denied, ": the file system is read-only"),
        _ => (ErrorKind::Unavailable, ""),
    };
    Error::new(kind, format!("failed to {what} `{path}`{why}")).with_source(error)
}

/// The kernel's boot id.
pub(super) static BOOT: LazyLock<String> =
    LazyLock::new(|| processes::boot_id().unwrap_or_default());

/// Bytes that nobody can guess.
pub(super) fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(bytes)
}

/// Bytes of a record as a path.
pub(super) fn path_of(bytes: &[u8]) -> PathBuf {
    std::ffi::OsStr::from_bytes(bytes).into()
}

/// Microseconds since the epoch.
pub(super) fn now() -> i64 {
    jiff::Timestamp::now().as_microsecond()
}
