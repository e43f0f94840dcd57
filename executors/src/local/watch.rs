//! The levels of a run as a stream.

use std::sync::Arc;

use futures::stream::{self, BoxStream, StreamExt as _};
use hybrid_runner_core::Status;
use hybrid_runner_core::error::Result;

use super::Shared;
use super::bell::{Ear, Listen};
use super::folder::Folder;
use super::status;

/// The present level, then each change.
pub(super) fn watch(shared: Arc<Shared>, folder: Folder) -> BoxStream<'static, Result<Status>> {
    let watcher = Watcher {
        shared,
        folder,
        ear: None,
        rank: None,
        is_done: false,
    };
    stream::try_unfold(watcher, |mut watcher| async move {
        Ok(watcher.next().await?.map(|status| (status, watcher)))
    })
    .boxed()
}

struct Watcher {
    shared: Arc<Shared>,
    folder: Folder,
    /// From the second level on: a run that is over costs no watch.
    ear: Option<Ear>,
    /// Of the last level.
    rank: Option<u8>,
    is_done: bool,
}

impl Watcher {
    async fn next(&mut self) -> Result<Option<Status>> {
        while !self.is_done {
            if self.rank.is_some() {
                self.wait().await;
            }
            let level = self.shared.observe(&self.folder).await?;
            let status = status::of(self.folder.run, &level);
            let rank = status.state.rank();
            if self.rank.is_none_or(|last| rank > last) {
                self.rank = Some(rank);
                self.is_done = status.is_finished();
                return Ok(Some(status));
            }
        }
        Ok(None)
    }

    /// The first time it only begins to listen: what changed before that is found by looking again.
    async fn wait(&mut self) {
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
