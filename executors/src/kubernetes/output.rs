//! The log of a run, masked by the values in its Secret.

use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::{self, BoxStream};
use futures::{FutureExt as _, StreamExt as _};
use hybrid_runner_core::error::Result;
use hybrid_runner_core::masked::masked;
use hybrid_runner_core::{LogChunk, LogCursor, RunId};

use super::Shared;
use super::job::JobSeen;
use super::status::{self, Level};
use crate::cluster::board::{Ear, Seen};
use crate::cluster::client::Connected;
use crate::cluster::delivery::patterns;
use crate::cluster::logs::{self, Source, Stand};
use crate::cluster::seen::Container;

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
    opened.flatten_stream().boxed()
}

async fn open(
    shared: Arc<Shared>,
    run: RunId,
    from: Option<LogCursor>,
) -> Result<BoxStream<'static, Result<LogChunk>>> {
    let job = shared.job(run).await?;
    let patterns = match job {
        Some(job) if job.has_secret && !job.is_suspended => {
            let connected = shared.cluster.connected().await?;
            Some(patterns(connected, &shared.names.object(run)).await?)
        }
        // A run that is not let go yet has no output; one that never will be has none ever.
        Some(job) if job.has_secret && !job.is_stopped && job.failed.is_none() => {
            let chunks = later(shared, run, from);
            return Ok(chunks);
        }
        _ => None,
    };
    Ok(masked(run, patterns, from, move |from| {
        let ear = None;
        logs::follow(Follower { shared, run, ear }, run, from)
    }))
}

/// The log once the Job is let go: its Secret is there by then.
fn later(
    shared: Arc<Shared>,
    run: RunId,
    from: Option<LogCursor>,
) -> BoxStream<'static, Result<LogChunk>> {
    let opened = async move {
        let mut ear = shared.listen(run);
        loop {
            let seen = shared.look(run).await;
            let waits = seen.as_ref().is_ok_and(|seen| {
                let job = seen.object.as_ref();
                job.is_some_and(|job| job.is_suspended && !job.is_stopped && job.failed.is_none())
            });
            if !waits {
                return follow(shared, run, from);
            }
            ear.changed().await;
        }
    };
    opened.flatten_stream().boxed()
}

/// How a run stands, for its log.
struct Follower {
    shared: Arc<Shared>,
    run: RunId,
    ear: Option<Ear<JobSeen>>,
}

#[async_trait]
impl Source for Follower {
    async fn stand(&mut self) -> Result<Stand> {
        if self.ear.is_none() {
            // Made before the look, so that nothing is missed.
            self.ear = Some(self.shared.listen(self.run));
            return Ok(stand(&self.shared.look(self.run).await?));
        }
        Ok(stand(&self.shared.glance(self.run).await?))
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
}

fn stand(seen: &Seen<JobSeen>) -> Stand {
    let level = status::level(seen);
    let is_over = matches!(level, Level::Over(_));
    match (level, seen.pod()) {
        (Level::Unknown, _) => Stand::Unknown,
        (_, Some(pod)) if pod.has_begun() => Stand::Begun {
            is_over: is_over || matches!(pod.main, Container::Over(_)),
            pod: Box::new(pod.clone()),
        },
        (Level::Over(_), Some(_)) => Stand::Empty,
        (Level::Over(outcome), None) => {
            let never_began = seen
                .object
                .as_ref()
                .is_some_and(|job| job.failed.is_some() || (job.end.is_none() && job.is_suspended));
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
