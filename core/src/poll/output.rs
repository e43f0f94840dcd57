//! The output of a run, asked for again and again.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};

use crate::error::{Error, Result};
use crate::id::RunId;
use crate::log::{LogChunk, LogCursor, LogItem, MAX_CHUNK, Stream};
use crate::run::Status;

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

/// The log of a backend that keeps none: nothing, until the run has ended.
pub fn no_logs(levels: BoxStream<'static, Result<Status>>) -> BoxStream<'static, Result<LogChunk>> {
    levels
        .filter_map(|level| async { level.err().map(Err) })
        .boxed()
}
