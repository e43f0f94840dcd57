//! The levels of a run as a stream.

use std::sync::Arc;

use futures::stream::BoxStream;
use hybrid_runner_core::Status;
use hybrid_runner_core::error::Result;

use super::Shared;
use super::bell::{Ear, Listen};
use super::folder::Folder;
use super::status;
use crate::levels::{self, Source};

/// The present level, then each change.
pub(super) fn watch(shared: Arc<Shared>, folder: Folder) -> BoxStream<'static, Result<Status>> {
    levels::watch(Watched {
        shared,
        folder,
        ear: None,
    })
}

struct Watched {
    shared: Arc<Shared>,
    folder: Folder,
    /// From the second level on: a run that is over costs no watch.
    ear: Option<Ear>,
}

impl Source for Watched {
    async fn look(&mut self) -> Result<Status> {
        let level = self.shared.observe(&self.folder).await?;
        Ok(status::of(self.folder.run, &level))
    }

    async fn changed(&mut self) {
        match &mut self.ear {
            Some(ear) => {
                ear.changed().await;
            }
            None => {
                self.ear = Some(self.shared.bells.listen(&self.folder, Listen::ToLevels));
            }
        }
    }
}
