//! Makes a `watch`, and a log, of a question that is asked again and again: for backends that only answer.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};

use crate::error::{Error, Result};
use crate::id::RunId;
use crate::log::{LogChunk, LogCursor, LogItem, MAX_CHUNK, Stream};
use crate::run::Status;

/// The levels of a run's status, asked for at an interval: what [`crate::Executor::watch`] promises.
///
/// The first answer comes at once; after it only changes; never a level that goes back; the end after `Finished`; an
/// error is the last item. Dropping the stream drops the question that is under way.
///
/// ```
/// # use futures::StreamExt as _;
/// # use std::time::Duration;
/// use hybrid_runner_core::run::{Outcome, State, Status};
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() {
/// let mut states = vec![State::Finished(Outcome::Succeeded), State::Running, State::Running];
/// let mut levels = hybrid_runner_core::poll::watch(Duration::from_secs(5), move || {
///     let state = states.pop().unwrap(); // ask the backend here
///     async { Ok(Status::new(1, state)) }
/// });
/// assert_eq!(levels.next().await.unwrap().unwrap().state.name(), "running");
/// assert_eq!(levels.next().await.unwrap().unwrap().state.name(), "succeeded");
/// assert!(levels.next().await.is_none());
/// # }
/// ```
pub fn watch<Ask, Answer>(every: Duration, ask: Ask) -> BoxStream<'static, Result<Status>>
where
    Ask: FnMut() -> Answer + Send + 'static,
    Answer: Future<Output = Result<Status>> + Send,
{
    let first = Watch {
        ask,
        every,
        last: None,
    };
    stream::unfold(Some(first), |watch| async { watch?.next().await }).boxed()
}

struct Watch<Ask> {
    ask: Ask,
    every: Duration,
    last: Option<Status>,
}

impl<Ask, Answer> Watch<Ask>
where
    Ask: FnMut() -> Answer + Send,
    Answer: Future<Output = Result<Status>> + Send,
{
    /// The next level, and what goes on asking unless it is the last.
    async fn next(mut self) -> Option<(Result<Status>, Option<Self>)> {
        loop {
            if self.last.is_some() {
                tokio::time::sleep(self.every).await;
            }
            let level = match (self.ask)().await {
                Ok(level) => level,
                Err(error) => return Some((Err(error), None)),
            };
            if self
                .last
                .as_ref()
                .is_some_and(|last| !is_news(last, &level))
            {
                continue;
            }
            if level.is_finished() {
                return Some((Ok(level), None));
            }
            self.last = Some(level.clone());
            return Some((Ok(level), Some(self)));
        }
    }
}

fn is_news(last: &Status, level: &Status) -> bool {
    let rank = |status: &Status| (status.attempt, status.state.rank());
    rank(level) > rank(last) || (rank(level) == rank(last) && level.message != last.message)
}

/// How often nothing must have come after the end before that is all: some backends write their last words late.
const QUIET: u32 = 2;

/// What a run wrote, from some byte on.
#[derive(Debug, Clone)]
pub struct Output {
    /// As much as there is, or as much as is handy; empty if there is no more yet.
    pub bytes: Bytes,
    /// Whether the run had ended **before** the bytes were read.
    pub ended: bool,
}

/// A log of a file of bytes that grows: what [`crate::Executor::logs`] promises. `read` gets the number of bytes before.
///
/// A cursor is `<run>@<offset>`.
pub fn logs<Read, Answer>(
    run: RunId,
    from: Option<LogCursor>,
    every: Duration,
    read: Read,
) -> BoxStream<'static, Result<LogChunk>>
where
    Read: FnMut(u64) -> Answer + Send + 'static,
    Answer: Future<Output = Result<Output>> + Send,
{
    let offset = match from.map(|from| offset(run, &from)).transpose() {
        Ok(offset) => offset.unwrap_or(0),
        Err(error) => return stream::iter([Err(error)]).boxed(),
    };
    let reader = Reader {
        read,
        run,
        every,
        offset,
        bytes: Bytes::new(),
        quiet: 0,
    };
    stream::unfold(Some(reader), |reader| async {
        let mut reader = reader?;
        match reader.next().await {
            Ok(chunk) => Some((Ok(chunk?), Some(reader))),
            Err(error) => Some((Err(error), None)),
        }
    })
    .boxed()
}

fn offset(run: RunId, cursor: &LogCursor) -> Result<u64> {
    let foreign = || Error::invalid(format!("the cursor is not of the log of `{run}`"));
    let (of, offset) = cursor.as_str().split_once('@').ok_or_else(foreign)?;
    if of != run.to_string() {
        return Err(foreign());
    }
    offset.parse().map_err(|_| foreign())
}

struct Reader<Read> {
    read: Read,
    run: RunId,
    every: Duration,
    offset: u64,
    bytes: Bytes,
    /// How often nothing came since the run has ended.
    quiet: u32,
}

impl<Read, Answer> Reader<Read>
where
    Read: FnMut(u64) -> Answer + Send,
    Answer: Future<Output = Result<Output>> + Send,
{
    async fn next(&mut self) -> Result<Option<LogChunk>> {
        while self.bytes.is_empty() {
            let output = (self.read)(self.offset).await?;
            self.bytes = output.bytes;
            if self.bytes.is_empty() {
                self.quiet += u32::from(output.ended);
                if self.quiet == QUIET {
                    return Ok(None);
                }
                tokio::time::sleep(self.every).await;
            }
        }
        let bytes = self.bytes.split_to(self.bytes.len().min(MAX_CHUNK));
        self.offset += bytes.len() as u64;
        let next = format!("{}@{}", self.run, self.offset).parse()?;
        let item = LogItem::Data {
            stream: Stream::Both,
            time: None,
            bytes,
        };
        Ok(Some(LogChunk { item, next }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use crate::run::State;

    #[tokio::test(start_paused = true)]
    async fn only_news_is_told_and_an_error_is_the_last() {
        let mut answers = vec![
            Err(Error::unavailable("away")),
            Ok(State::Starting),
            Ok(State::Running),
            Ok(State::Running),
            Ok(State::Starting),
        ];
        let levels = watch(Duration::from_secs(1), move || {
            let answer = answers.pop().unwrap();
            async { answer.map(|state| Status::new(1, state)) }
        });
        let told = levels.map(|level| level.map_or("error", |level| level.state.name()));
        let told: Vec<_> = told.collect().await;
        assert_eq!(told, ["starting", "running", "error"]);
    }
}
