//! The values that runs were given: masked in all that their backend says, as long as they are known.
//!
//! They live in memory only. After a restart of the runner they are not known any more, so it is noted on disk which runs were
//! given any (not which): the log of such a run is held back unless its backend masks it itself.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::stream::BoxStream;

use super::masking::Masking;
use crate::error::{Error, Result};
use crate::executor::Handle;
use crate::finding::Finding;
use crate::id::RunId;
use crate::log::{LogChunk, LogCursor};
use crate::masked;
use crate::run::Status;
use crate::secret::Secrets;

/// The values of the live runs of one backend. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Values {
    masking: Arc<Masking>,
    /// A file for each run that was given values which its backend does not mask.
    folder: PathBuf,
    on: bool,
}

impl Values {
    /// Those of a backend that keeps its files here.
    pub fn of(data_dir: &Path) -> Self {
        Self::new(Arc::default(), data_dir, true)
    }

    pub(super) fn new(masking: Arc<Masking>, data_dir: &Path, on: bool) -> Self {
        let folder = data_dir.join("given-values");
        Self {
            masking,
            folder,
            on,
        }
    }

    /// Remembers what a run is about to be given. `masks`: whether its backend masks it as well.
    pub async fn give(&self, run: RunId, secrets: &Secrets, masks: bool) -> Result<()> {
        if secrets.is_empty() || !self.on {
            return Ok(());
        }
        if !masks {
            let (folder, mark) = (self.folder.clone(), self.mark(run));
            let made = blocking(move || {
                std::fs::create_dir_all(folder)?;
                std::fs::write(mark, b"")
            });
            made.await.map_err(|error| {
                let what = format!("failed to note that `{run}` is given values");
                Error::unavailable(what).with_source(error)
            })?;
        }
        let values = secrets.iter().map(|(_, value)| value.clone());
        self.masking.learn(run.to_string(), values.collect());
        Ok(())
    }

    /// Forgets what a run was given.
    pub async fn withdraw(&self, run: RunId) {
        self.masking.forget(&run.to_string());
        let mark = self.mark(run);
        match blocking(move || std::fs::remove_file(mark)).await {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::debug!(%run, %error, "failed to remove a mark");
            }
            _ => {}
        }
    }

    fn mark(&self, run: RunId) -> PathBuf {
        self.folder.join(run.to_string())
    }

    /// A run's output without its values; an error if they are needed and not known any more.
    pub async fn log(
        &self,
        run: RunId,
        masks: bool,
        from: Option<LogCursor>,
        open: impl FnOnce(Option<LogCursor>) -> BoxStream<'static, Result<LogChunk>>,
    ) -> Result<BoxStream<'static, Result<LogChunk>>> {
        let patterns = self.masking.of(&run.to_string());
        let mark = self.mark(run);
        if patterns.is_none() && !masks && blocking(move || mark.try_exists()).await.unwrap_or(true)
        {
            return Err(Error::unavailable(format!(
                "the log of `{run}` is held back: the runner was restarted, the values that the run was given are not known any more, and its backend does not mask them"
            )));
        }
        let ours = from.as_ref().is_some_and(masked::is_ours);
        Ok(match patterns {
            None if !ours => open(from),
            patterns => masked::masked(run, patterns, from, open),
        })
    }

    /// A text without any value.
    pub fn text(&self, text: &str) -> String {
        self.masking.text(text)
    }

    /// An error without any value.
    #[must_use]
    pub fn error(&self, error: Error) -> Error {
        self.masking.error(error)
    }

    /// A finding without any value.
    pub fn finding(&self, mut finding: Finding) -> Finding {
        finding.message = self.masking.text(&finding.message);
        finding
    }

    /// A level without any value.
    pub fn status(&self, status: Status) -> Status {
        self.masking.status(status)
    }

    /// A handle as it may be stored.
    #[must_use]
    pub fn handle(&self, handle: Handle) -> Handle {
        self.masking.handle(handle)
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> std::io::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(std::io::Error::other)?
}
