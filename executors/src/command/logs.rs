//! Output, read again and again from where it was left.
//!
//! A cursor is `<run>@<offset>`.

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use hybrid_runner_core::error::{Error, Result};
use hybrid_runner_core::executor::Handle;
use hybrid_runner_core::log::{LogChunk, LogCursor, LogItem, MAX_CHUNK, Stream};
use serde_json::json;

use super::script::Step;
use super::{Command, answers};

/// How often nothing must have come after the end before that is all.
const QUIET: u32 = 2;

struct Reader {
    backend: Command,
    run: Handle,
    offset: u64,
    bytes: Bytes,
    /// How often nothing came since the run has ended.
    quiet: u32,
}

/// The output from `from`, followed to the run's end.
pub(super) fn follow(
    backend: Command,
    run: Handle,
    from: Option<LogCursor>,
) -> BoxStream<'static, Result<LogChunk>> {
    let offset = match from.map(|from| offset(&run, &from)).transpose() {
        Ok(offset) => offset.unwrap_or(0),
        Err(error) => return stream::iter([Err(error)]).boxed(),
    };
    let reader = Reader {
        backend,
        run,
        offset,
        bytes: Bytes::new(),
        quiet: 0,
    };
    stream::unfold(Some(reader), |reader| async {
        let mut reader = reader?;
        match reader.next().await {
            Ok(Some(chunk)) => Some((Ok(chunk), Some(reader))),
            Ok(None) => None,
            Err(error) => Some((Err(error), None)),
        }
    })
    .boxed()
}

fn offset(run: &Handle, cursor: &LogCursor) -> Result<u64> {
    let foreign = || Error::invalid(format!("the cursor is not of the log of `{}`", run.run));
    let (of, offset) = cursor.as_str().split_once('@').ok_or_else(foreign)?;
    if of != run.run.to_string() {
        return Err(foreign());
    }
    offset.parse().map_err(|_| foreign())
}

impl Reader {
    async fn next(&mut self) -> Result<Option<LogChunk>> {
        while self.bytes.is_empty() {
            let has_ended = self.backend.status(&self.run).await?.is_finished();
            self.bytes = self.read().await?.into();
            if self.bytes.is_empty() {
                if has_ended {
                    self.quiet += 1;
                }
                if self.quiet >= QUIET {
                    return Ok(None);
                }
                tokio::time::sleep(self.backend.0.settings.interval.get()).await;
            }
        }
        let bytes = self.bytes.split_to(self.bytes.len().min(MAX_CHUNK));
        self.offset += bytes.len() as u64;
        let next = format!("{}@{}", self.run.run, self.offset).parse()?;
        let item = LogItem::Data {
            stream: Stream::Both,
            time: None,
            bytes,
        };
        Ok(Some(LogChunk { item, next }))
    }

    async fn read(&self) -> Result<Vec<u8>> {
        let place = Command::place(&self.run)?;
        let settings = &self.backend.0.settings;
        let request = json!({ "run": self.run.run, "id": place.id, "offset": self.offset, "settings": settings.settings });
        let step = Step::new(self.run.run).id(&place.id).offset(self.offset);
        let printed = self.backend.0.scripts.run("logs", &step, &request).await;
        let values = &self.backend.0.values;
        let printed = printed.map_err(|error| values.error(error))?;
        if settings.raw_logs {
            return Ok(printed);
        }
        answers::read::<answers::Output>("logs", &printed)?.bytes()
    }
}
