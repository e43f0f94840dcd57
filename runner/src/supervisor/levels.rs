//! The levels of a run as its watchers see them.

use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use hybrid_runner_core::Status;
use hybrid_runner_core::error::Result;
use tokio::sync::watch;

use super::registry::View;
use super::shared::shut_down;

/// The present level, then each change, ending after the outcome.
///
/// A reader that is slow skips levels; nothing is kept for it.
pub(super) fn watch(view: watch::Receiver<View>) -> BoxStream<'static, Result<Status>> {
    struct Watcher {
        view: watch::Receiver<View>,
        told: Option<Status>,
    }
    let next = |watcher: Option<Watcher>| async {
        let Watcher { mut view, told } = watcher?;
        let news = |view: &View| view.level.is_some() && view.level != told;
        let Some(level) = view
            .wait_for(news)
            .await
            .ok()
            .and_then(|view| view.level.clone())
        else {
            return Some((Err(shut_down()), None));
        };
        let rest = (!level.is_finished()).then(|| Watcher {
            view,
            told: Some(level.clone()),
        });
        Some((Ok(level), rest))
    };
    stream::unfold(Some(Watcher { view, told: None }), next).boxed()
}
