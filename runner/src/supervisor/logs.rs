//! The log of a run: those of its attempts, one after the other.
//!
//! A cursor is `<attempt>:<the executor's cursor>`, or `<attempt>:gone` behind a log that went before it was read.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use hybrid_runner_core::error::{Error, ErrorKind, Result};
use hybrid_runner_core::log::{GapReason, LogChunk, LogCursor, LogItem};
use hybrid_runner_core::run::{Outcome, Status};
use hybrid_runner_core::{Handle, RunId};
use tokio::sync::watch;
use tokio::time::timeout;

use super::registry::View;
use super::shared::{Shared, shut_down};

/// Behind the log of an attempt that went before it was read. No executor is asked for what is behind this.
const GONE: &str = "gone";
/// A backend that knows nothing of an attempt has told so by then.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where a reader stands.
struct Reader {
    shared: Arc<Shared>,
    run: RunId,
    view: watch::Receiver<View>,
    /// The attempt that is read, or the first that may be.
    attempt: u32,
    /// Where in it.
    from: Option<LogCursor>,
    open: Option<BoxStream<'static, Result<LogChunk>>>,
}

/// The log from `from`, followed to the run's end.
pub(super) fn read(
    shared: Arc<Shared>,
    run: RunId,
    view: watch::Receiver<View>,
    from: Option<&LogCursor>,
) -> BoxStream<'static, Result<LogChunk>> {
    let (attempt, from) = match from
        .map(|cursor| place(run, &view.borrow(), cursor))
        .transpose()
    {
        Ok(None) => (1, None),
        Ok(Some((attempt, cursor))) => (attempt, Some(cursor)),
        Err(error) => return stream::once(async { Err(error) }).boxed(),
    };
    let reader = Reader {
        shared,
        run,
        view,
        attempt,
        from,
        open: None,
    };
    let next = |mut reader: Reader| async {
        let chunk = reader.next().await?;
        Ok(chunk.map(|chunk| (chunk, reader)))
    };
    stream::try_unfold(reader, next).boxed()
}

impl Reader {
    async fn next(&mut self) -> Result<Option<LogChunk>> {
        loop {
            let Some(open) = &mut self.open else {
                let is_told = self.is_behind_gone();
                if is_told {
                    self.from = None;
                    self.attempt += 1;
                }
                let Some(handle) = self.next_attempt().await? else {
                    if !is_told && self.view.borrow().is_lost_from(self.attempt) {
                        // It may have run in an earlier life, of which nothing is left.
                        return self.gone().map(Some);
                    }
                    return Ok(None);
                };
                self.open(&handle)?;
                continue;
            };
            match open.next().await {
                Some(Ok(chunk)) => return self.outer(chunk).map(Some),
                Some(Err(error)) if error.kind() == ErrorKind::NotFound => {
                    let is_over = self.is_over().await;
                    let has_begun = self.from.is_some();
                    if is_over && (has_begun || !self.was_stopped()) {
                        self.open = None;
                        return self.gone().map(Some);
                    }
                    // An attempt that was stopped before the backend made anything has no log.
                    if has_begun {
                        return Err(error);
                    }
                }
                Some(Err(error)) => return Err(error),
                None => {}
            }
            self.open = None;
            self.from = None;
            self.attempt += 1;
        }
    }

    /// The next attempt that the backend took; none once the run has ended.
    async fn next_attempt(&mut self) -> Result<Option<Handle>> {
        let first = self.attempt;
        let has_more = |view: &View| view.is_finished() || view.first_attempt_from(first).is_some();
        let view = self
            .view
            .wait_for(has_more)
            .await
            .map_err(|_| shut_down())?;
        Ok(view.first_attempt_from(first).cloned())
    }

    fn open(&mut self, handle: &Handle) -> Result<()> {
        let name = self.view.borrow().executor.clone();
        let executor = self.shared.executor(&name).ok_or_else(|| {
            Error::unavailable(format!(
                "the log is at executor `{name}`, which is not configured any more"
            ))
        })?;
        let attempt = handle.run.attempt_number();
        if attempt != self.attempt {
            (self.attempt, self.from) = (attempt, None);
        }
        self.open = Some(executor.logs(handle, self.from.clone()));
        Ok(())
    }

    /// Whether the attempt, of which the backend knows nothing any more, has ended.
    async fn is_over(&mut self) -> bool {
        let attempt = self.attempt;
        let is_over = |view: &View| {
            let present = view.level.as_ref().map_or(0, |level| level.attempt);
            view.is_finished() || present > attempt
        };
        let ended = self.view.wait_for(is_over);
        matches!(timeout(PATIENCE, ended).await, Ok(Ok(_)))
    }

    /// Whether the run ended by a stop in this attempt.
    fn was_stopped(&self) -> bool {
        let view = self.view.borrow();
        let stopped = |level: &&Status| matches!(level.outcome(), Some(Outcome::Stopped { .. }));
        let level = view.level.as_ref().filter(stopped);
        level.is_some_and(|level| level.attempt == self.attempt)
    }

    /// The gap in the place of what was not read.
    fn gone(&mut self) -> Result<LogChunk> {
        let item = LogItem::Gap {
            bytes: None,
            why: GapReason::Rotated,
        };
        let next = GONE.parse()?;
        self.outer(LogChunk { item, next })
    }

    fn is_behind_gone(&self) -> bool {
        self.from.as_ref().is_some_and(|from| from.as_str() == GONE)
    }

    fn outer(&mut self, chunk: LogChunk) -> Result<LogChunk> {
        let text = format!("{}:{}", self.attempt, chunk.next);
        let next = text.parse().map_err(|error: Error| {
            Error::internal(format!(
                "the executor's log cursor of the run `{}` is too long",
                self.run
            ))
            .with_source(error)
        })?;
        self.from = Some(chunk.next);
        Ok(LogChunk {
            item: chunk.item,
            next,
        })
    }
}

impl View {
    /// Whether it is lost, and may have come to this attempt, of which nothing here has seen anything.
    fn is_lost_from(&self, attempt: u32) -> bool {
        let lost = |level: &&Status| matches!(level.outcome(), Some(Outcome::Lost { .. }));
        let came_to = |level: &Status| self.attempts.is_empty() || level.attempt >= attempt;
        let level = self.level.as_ref().filter(lost);
        level.is_some_and(came_to) && self.first_attempt_from(attempt).is_none()
    }

    fn first_attempt_from(&self, first: u32) -> Option<&Handle> {
        self.attempts
            .iter()
            .find(|handle| handle.run.attempt_number() >= first)
    }
}

/// The place that a cursor means; refused if it is none of this run.
fn place(run: RunId, view: &View, cursor: &LogCursor) -> Result<(u32, LogCursor)> {
    let parts = cursor.as_str().split_once(':');
    let place =
        parts.and_then(|(attempt, inner)| Some((attempt.parse().ok()?, inner.parse().ok()?)));
    let highest = view
        .attempts
        .last()
        .map_or(0, |last| last.run.attempt_number());
    let known = |attempt: &u32| {
        let taken = |handle: &Handle| handle.run.attempt_number() == *attempt;
        // A journal that was put back takes the later attempts up again: their logs are waited for.
        view.attempts.iter().any(taken) || (!view.is_finished() && *attempt > highest)
    };
    let is_known = |(attempt, place): &(u32, LogCursor)| {
        known(attempt) || place.as_str() == GONE || view.is_lost_from(*attempt)
    };
    place.filter(is_known).ok_or_else(|| {
        Error::invalid(format!(
            "the log cursor is not one of the run `{run}`; read from the beginning"
        ))
    })
}
