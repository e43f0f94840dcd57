//! The log of a run, masked by the values in its Secret.

use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::{self, BoxStream};
use futures::{FutureExt as _, StreamExt as _};
use hybrid_runner_core::error::Result;
use hybrid_runner_core::masked::{is_ours, masked};
use hybrid_runner_core::{LogChunk, LogCursor, RunId};

use super::archive::{self, Archived};
use super::board::{Ear, Seen};
use super::client::Connected;
use super::delivery::patterns;
use super::logs::{self, Source, Stand};
use super::object::ObjectSeen;
use super::runs::Shared;
use super::seen::Container;
use super::status::Level;

pub(super) fn follow(
    shared: Arc<Shared>,
    run: RunId,
    from: Option<LogCursor>,
) -> BoxStream<'static, Result<LogChunk>> {
    let opened = async move {
        match open(shared, run, from).await {
            Ok(chunks) => chunks,
            Err(error) => stream::once(async { Err(error) }).boxed(),
        }
    };
    // What opens a log is put away with its own box.
    opened.boxed().flatten_stream().boxed()
}

async fn open(
    shared: Arc<Shared>,
    run: RunId,
    from: Option<LogCursor>,
) -> Result<BoxStream<'static, Result<LogChunk>>> {
    let mut ear = shared.listen(run);
    let object = shared.first(run, &mut ear).await?.object;
    drop(ear);
    let patterns = match object {
        Some(object) if object.is_to_be_masked() => {
            let connected = shared.cluster.connected().await?;
            let name = shared.names.object(run);
            let Some(patterns) = patterns(connected, &name).await? else {
                tracing::warn!(%run, "the Secret `{name}` is gone, so that the output of the run cannot be masked: it is held back");
                return Ok(logs::held_back(run, from.as_ref()));
            };
            Some(patterns)
        }
        // A run that is not let go yet has no output; one that never will be has none ever.
        Some(object) if object.has_secret && object.may_go() => {
            let chunks = later(shared, run, from);
            return Ok(chunks);
        }
        _ => None,
    };
    let read = move |from| {
        let ear = None;
        logs::follow(Follower { shared, run, ear }, run, from)
    };
    if patterns.is_none() && !from.as_ref().is_some_and(is_ours) {
        return Ok(read(from));
    }
    Ok(masked(run, patterns, from, read))
}

/// The log once the object is let go: its Secret is there by then.
fn later(
    shared: Arc<Shared>,
    run: RunId,
    from: Option<LogCursor>,
) -> BoxStream<'static, Result<LogChunk>> {
    let opened = async move {
        let mut ear = shared.listen(run);
        loop {
            let seen = shared.glance(run).await;
            let waits = seen
                .as_ref()
                .is_ok_and(|seen| seen.object.as_ref().is_some_and(ObjectSeen::may_go));
            if !waits {
                return follow(shared, run, from);
            }
            ear.changed().await;
        }
    };
    opened.boxed().flatten_stream().boxed()
}

/// How a run stands, for its log.
struct Follower {
    shared: Arc<Shared>,
    run: RunId,
    ear: Option<Ear>,
}

#[async_trait]
impl Source for Follower {
    async fn stand(&mut self) -> Result<Stand> {
        let seen = if self.ear.is_some() {
            self.shared.glance(self.run).await?
        } else {
            // Made before the look, so that nothing is missed.
            let ear = self.ear.insert(self.shared.listen(self.run));
            self.shared.first(self.run, ear).await?
        };
        Ok(stand(&self.shared, &seen))
    }

    async fn changed(&mut self) {
        match &mut self.ear {
            Some(ear) => ear.changed().await,
            None => self.ear = Some(self.shared.listen(self.run)),
        }
    }

    async fn connected(&self) -> Result<&Connected> {
        self.shared.cluster.connected().await
    }

    fn archived(&self, from: u64) -> Archived {
        archive::read(&self.shared, self.run, from)
    }

    fn has_first_process(&self) -> bool {
        self.shared.kind.has_first_process()
    }
}

fn stand(shared: &Shared, seen: &Seen) -> Stand {
    let level = shared.level(seen);
    let is_over = matches!(level, Level::Over(_));
    let is_gone =
        seen.gone.is_some() || seen.object.as_ref().is_some_and(|object| object.had_begun);
    match (level, seen.pod().filter(|_| !is_gone)) {
        (Level::Unknown, _) => Stand::Unknown,
        (_, Some(pod)) if pod.has_begun() => Stand::Begun {
            is_over: is_over || matches!(pod.main, Container::Over(_)),
            pod: Box::new(pod.clone()),
        },
        (Level::Over(_), Some(_)) => Stand::Empty,
        (Level::Over(outcome), None) => {
            let never_began =
                seen.had_vain || seen.object.as_ref().is_some_and(ObjectSeen::never_began);
            tracing::trace!(%outcome, never_began, "no pod to read from");
            if never_began {
                Stand::Empty
            } else {
                Stand::Gone
            }
        }
        _ => Stand::Waiting,
    }
}
