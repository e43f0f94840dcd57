//! What can go wrong, in words a caller can act on.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use hybrid_runner_core as core;
use rusqlite::ErrorCode;

/// A result of the store.
pub type Result<T, E = Error> = std::result::Result<T, E>;

type Cause = Arc<dyn std::error::Error + Send + Sync>;

/// An error of the store. Cloned, because one failed commit answers a whole group.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Error {
    /// No room: the disk, or the quota of the file. The store works again once there is.
    Full(Cause),
    /// The file does not hold what it should.
    Corrupt(Cause),
    /// A newer program wrote this file.
    TooNew {
        /// The file.
        path: PathBuf,
        /// The version it has.
        found: i64,
        /// The newest version that this program knows.
        supported: i64,
    },
    /// Another process has the file open.
    Locked {
        /// The file.
        path: PathBuf,
        /// The process, where it said.
        by: Option<u32>,
    },
    /// The file system refused, for another reason than room.
    Io(Cause),
    /// SQLite refused the statement.
    Sql(Arc<rusqlite::Error>),
    /// The store was closed.
    Closed,
}

impl Error {
    /// Whether the disk is at fault (full or failing), not the request.
    pub fn is_storage(&self) -> bool {
        matches!(self, Self::Full(_) | Self::Io(_))
    }

    pub(crate) fn corrupt(message: impl Into<String>) -> Self {
        Self::Corrupt(Arc::from(Box::<dyn std::error::Error + Send + Sync>::from(
            message.into(),
        )))
    }
}

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::Full(Arc::new(error)),
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                Self::Corrupt(Arc::new(error))
            }
            Some(
                ErrorCode::SystemIoFailure
                | ErrorCode::CannotOpen
                | ErrorCode::ReadOnly
                | ErrorCode::PermissionDenied
                | ErrorCode::NoLargeFileSupport,
            ) => Self::Io(Arc::new(error)),
            _ => Self::Sql(Arc::new(error)),
        }
    }
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        use std::io::ErrorKind::{QuotaExceeded, StorageFull};
        match error.kind() {
            StorageFull | QuotaExceeded => Self::Full(Arc::new(error)),
            _ => Self::Io(Arc::new(error)),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full(_) => f.write_str("no room on the disk for the state file"),
            Self::Corrupt(_) => f.write_str("the state file is damaged"),
            Self::TooNew {
                path,
                found,
                supported,
            } => write!(
                f,
                "`{}` was written by a newer version (format {found}, this one knows up to {supported}); use that version",
                path.display()
            ),
            Self::Locked {
                path,
                by: Some(pid),
            } => {
                write!(f, "`{}` is in use by process {pid}", path.display())
            }
            Self::Locked { path, by: None } => {
                write!(f, "`{}` is in use by another process", path.display())
            }
            Self::Io(_) => f.write_str("failed to access the state file"),
            Self::Sql(_) => f.write_str("failed to run a statement on the state file"),
            Self::Closed => f.write_str("the store is closed"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Full(cause) | Self::Corrupt(cause) | Self::Io(cause) => Some(cause.as_ref()),
            Self::Sql(cause) => Some(cause.as_ref()),
            Self::TooNew { .. } | Self::Locked { .. } | Self::Closed => None,
        }
    }
}

impl From<Error> for core::Error {
    fn from(error: Error) -> Self {
        let kind = match error {
            Error::Full(_) | Error::Io(_) | Error::Closed => core::ErrorKind::Unavailable,
            Error::Locked { .. } => core::ErrorKind::Conflict,
            Error::TooNew { .. } => core::ErrorKind::Unsupported,
            Error::Corrupt(_) | Error::Sql(_) => core::ErrorKind::Internal,
        };
        let mut converted = Self::new(kind, error.to_string());
        if let Some(cause) = std::error::Error::source(&error) {
            converted = converted.with_source(cause.to_string());
        }
        converted
    }
}
