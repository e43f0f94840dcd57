//! The levels of a run as a stream: looked at anew whenever somebody says that they may have changed, and told where they
//! are higher than before.

use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use hybrid_runner_core::Status;
use hybrid_runner_core::error::Result;

/// Where the levels of one run come from.
pub(crate) trait Source: Send + 'static {
    /// How the run stands.
    fn look(&mut self) -> impl Future<Output = Result<Status>> + Send;

    /// Waits until it may stand otherwise. The first time it only begins to listen: what changed before that is found by
    /// looking again, so that nothing is missed, and a run that is over costs no listener.
    fn changed(&mut self) -> impl Future<Output = ()> + Send;
}

/// The present level, then each change, up to the end.
pub(crate) fn watch(source: impl Source) -> BoxStream<'static, Result<Status>> {
    let watcher = Watcher {
        source,
        rank: None,
        is_done: false,
    };
    stream::try_unfold(watcher, |mut watcher| async move {
        Ok(watcher.next().await?.map(|status| (status, watcher)))
    })
    .boxed()
}

struct Watcher<S> {
    source: S,
    /// Of the last level that was told.
    rank: Option<u8>,
    is_done: bool,
}

impl<S: Source> Watcher<S> {
    async fn next(&mut self) -> Result<Option<Status>> {
        while !self.is_done {
            if self.rank.is_some() {
                self.source.changed().await;
            }
            // In a box of its own, as a watcher mostly waits: the question takes much more room than that.
            let status = Box::pin(self.source.look()).await?;
            let rank = status.state.rank();
            if self.rank.is_none_or(|last| rank > last) {
                self.rank = Some(rank);
                self.is_done = status.is_finished();
                return Ok(Some(status));
            }
        }
        Ok(None)
    }
}
