//! The levels of a run: looked at anew whenever the bell rings, and told where they are higher than before.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use hybrid_runner_core::error::Result;
use hybrid_runner_core::{RunId, Status};
use hybrid_runner_helper::container::End;
use hybrid_runner_helper::end::How;
use tokio::time::sleep;

use super::Shared;
use super::bell::Ear;
use super::lines::Lines;
use super::logs::vain::Vain;
use super::look::{Container, Seen, passing};
use super::records::{Wanted, is_gone, is_unreadable};
use super::status::{self, Level};
use crate::levels::{self, Source};

/// So many of the last records are looked through for the last words of init, which output of the other stream may
/// follow: as much as the pipes in between hold, in lines of one byte at worst.
const TAILS: [u32; 3] = [8, 2_000, 400_000];

/// Before a log that could not be read is asked for again, at first and at most.
const PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

pub(super) fn watch(shared: Arc<Shared>, run: RunId) -> BoxStream<'static, Result<Status>> {
    levels::watch(Watched {
        shared,
        run,
        ear: None,
    })
}

struct Watched {
    shared: Arc<Shared>,
    run: RunId,
    ear: Option<Ear>,
}

impl Source for Watched {
    async fn look(&mut self) -> Result<Status> {
        let level = self.shared.level(self.run).await.map_err(passing)?;
        Ok(status::of(self.run, &level))
    }

    async fn changed(&mut self) {
        self.shared.changed(&mut self.ear, self.run).await;
    }
}

impl Shared {
    /// Waits until somebody says that the run may stand otherwise; the first time it only begins to listen.
    pub(super) async fn changed(&self, ear: &mut Option<Ear>, run: RunId) {
        match ear {
            Some(ear) => ear.changed().await,
            None => *ear = Some(self.bells.listen(&self.engine, &self.names, run)),
        }
    }

    /// Where a run stands.
    pub(super) async fn level(&self, run: RunId) -> Result<Level> {
        Ok(match self.look(run).await? {
            Seen::Nothing => Level::Unknown,
            Seen::Stopped => Level::Prevented,
            Seen::Preparing(container) if container.is_prevented(self, run).await? => {
                Level::Prevented
            }
            Seen::Preparing(_) => Level::Starting,
            Seen::Claimed(container) if container.phase.is_alive() => {
                match self.is_begun(run, &container).await {
                    Ok(true) => Level::Running(container),
                    // Only the work, or a full disk, can have spoilt its log.
                    Err(error) if is_unreadable(&error) => Level::Running(container),
                    Ok(false) => Level::Starting,
                    Err(error) => return Err(error),
                }
            }
            Seen::Claimed(container) => {
                let end = self.end_of(&container).await?;
                // The work, too, can send init the signal of a stop.
                let may_be = |end: &End| matches!(end.how, How::Stopped { .. });
                let stopped = end.as_deref().is_none_or(may_be) && self.is_stopped(run).await?;
                Level::Over {
                    container,
                    end,
                    stopped,
                }
            }
        })
    }

    /// Whether the work of a claimed container has begun, which init says by its first line.
    pub(super) async fn is_begun(&self, run: RunId, container: &Container) -> Result<bool> {
        if self.begun().contains(&run) {
            return Ok(true);
        }
        let wanted = Wanted {
            follow: false,
            since: 0,
            tail: None,
        };
        let begun = match self.records(&container.id, wanted).next().await {
            None => false,
            Some(Err(error)) if is_gone(&error) => false,
            Some(first) => first.map(|_| true)?,
        };
        if begun {
            self.begun().insert(run);
        }
        Ok(begun)
    }

    /// Remembers that the work has begun, and tells who waits for it.
    pub(super) fn is_begun_now(&self, run: RunId) {
        self.begun().insert(run);
        self.bells.ring(run);
    }

    /// The last words of init, if the engine has them and can be brought to tell them.
    async fn end_of(&self, container: &Container) -> Result<Option<Box<End>>> {
        let mut vain = Vain::default();
        loop {
            let error = match self.last_words(container).await {
                Ok(end) => return Ok(end),
                Err(error) => error,
            };
            // An engine that is away is another thing than a log that is.
            let found = self.inspect(&container.id).await?;
            let tries = vain.count();
            let enough = if is_gone(&error) || is_unreadable(&error) {
                tries.are_some()
            } else {
                tries.are_enough()
            };
            if enough || found.is_none_or(|found| found.is_going) {
                return Ok(None);
            }
            sleep(tries.pause(PAUSE, LONGEST_PAUSE)).await;
        }
    }

    /// One try.
    async fn last_words(&self, container: &Container) -> Result<Option<Box<End>>> {
        for tail in TAILS {
            let wanted = Wanted {
                follow: false,
                since: 0,
                tail: Some(tail),
            };
            let mut lines = Lines::new(&container.mark);
            let mut records = self.records(&container.id, wanted);
            let mut seen = 0;
            while let Some(record) = records.next().await {
                lines.strip(record?);
                seen += 1;
            }
            if lines.end.is_some() || seen < tail {
                return Ok(lines.end);
            }
        }
        Ok(None)
    }
}

impl Container {
    /// Whether a container that has run nothing never will, because a stop came first.
    pub(super) async fn is_prevented(&self, shared: &Shared, run: RunId) -> Result<bool> {
        Ok(!self.phase.is_alive() && shared.is_stopped(run).await?)
    }
}
