//! A folder that is removed at the end.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use hybrid_runner_core::{Error, Result};

/// A private folder: given by the user and kept, or made here and removed.
#[derive(Debug)]
pub(crate) struct Scratch {
    path: PathBuf,
    ours: bool,
}

impl Scratch {
    /// The given folder, or a new one among the temporary ones.
    pub(crate) fn new(given: Option<PathBuf>, what: &str) -> Result<Self> {
        let ours = given.is_none();
        let path = given.map_or_else(|| fresh(what), Ok)?;
        let made = DirBuilder::new().recursive(!ours).mode(0o700).create(&path);
        made.map_err(|error| {
            Error::invalid(format!("failed to make `{}`", path.display())).with_source(error)
        })?;
        // The executors hand it to other programs, which have other working directories.
        let path = path.canonicalize().map_err(|error| {
            Error::invalid(format!("failed to find `{}`", path.display())).with_source(error)
        })?;
        Ok(Self { path, ours })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the user named it.
    #[cfg(feature = "server")]
    pub(crate) fn is_kept(&self) -> bool {
        !self.ours
    }
}

/// A name among the temporary folders that nobody can guess.
fn fresh(what: &str) -> Result<PathBuf> {
    let random = getrandom::u64().map_err(|error| {
        Error::internal("failed to get random bits").with_source(error.to_string())
    })?;
    Ok(std::env::temp_dir().join(format!("hybrid-runner-{what}-{random:016x}")))
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if self.ours
            && let Err(error) = std::fs::remove_dir_all(&self.path)
        {
            tracing::debug!(path = %self.path.display(), %error, "failed to remove the folder");
        }
    }
}
