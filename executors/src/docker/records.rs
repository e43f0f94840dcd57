//! The records of a container's log, as the engine gives them: one for each line, or for each part of a long one.

use bollard::container::LogOutput;
use bollard::query_parameters::LogsOptionsBuilder;
use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use hybrid_runner_core::error::{Error, ErrorKind, Result};
use hybrid_runner_core::log::Stream;
use jiff::Timestamp;

use super::Shared;

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) stream: Stream,
    /// When the engine took it, in nanoseconds since the epoch. All parts of one line have the same.
    pub(super) time: i64,
    pub(super) content: Bytes,
}

/// Which records are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Also those that are still to come.
    pub(super) follow: bool,
    /// Not those before this time, in whole seconds since the epoch; 0: all.
    pub(super) since: i32,
    /// Only so many of the last.
    pub(super) tail: Option<u32>,
}

/// Records as they arrive.
pub(super) type Records = BoxStream<'static, Result<Record>>;

impl Shared {
    /// Reads the log of a container.
    pub(super) fn records(&self, container: &str, wanted: Wanted) -> Result<Records> {
        let tail = wanted
            .tail
            .map_or_else(|| "all".to_owned(), |tail| tail.to_string());
        let options = LogsOptionsBuilder::default()
            .stdout(true)
            .stderr(true)
            .timestamps(true)
            .follow(wanted.follow)
            .since(wanted.since)
            .tail(&tail)
            .build();
        let address = self.engine.address();
        let outputs = self.engine.order()?.logs(container, Some(options));
        let engine = std::sync::Arc::clone(&self.engine);
        let records = outputs.map(move |output| match output {
            Ok(output) => record(output).ok_or_else(|| {
                Error::internal(format!(
                    "the engine at `{address}` gave a log record without a time"
                ))
            }),
            Err(error) => Err(engine.failed("read the log of the container", error)),
        });
        Ok(records.boxed())
    }
}

/// Whether a log cannot be read because its container is being removed, by somebody else or by us.
pub(super) fn is_gone(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Conflict)
}

/// `2026-11-28T11:25:09.957462890Z content`, by the engine's promise.
fn record(output: LogOutput) -> Option<Record> {
    let (stream, message) = match output {
        LogOutput::StdOut { message } => (Stream::Out, message),
        LogOutput::StdErr { message } => (Stream::Err, message),
        LogOutput::StdIn { message } | LogOutput::Console { message } => (Stream::Both, message),
    };
    let space = message.iter().take(64).position(|byte| *byte == b' ')?;
    let time: Timestamp = std::str::from_utf8(&message[..space]).ok()?.parse().ok()?;
    Some(Record {
        stream,
        time: i64::try_from(time.as_nanosecond()).ok()?,
        content: message.slice(space + 1..),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_has_its_time_and_its_content_as_written() {
        let message = Bytes::from_static(b"2026-11-28T11:25:09.957462890Z  two  spaces\xff\n");
        let record = record(LogOutput::StdErr { message }).unwrap();
        assert_eq!(record.stream, Stream::Err);
        assert_eq!(record.time, 1_795_865_109_957_462_890);
        assert_eq!(&record.content[..], b" two  spaces\xff\n");
        assert_eq!(
            super::record(LogOutput::StdOut {
                message: Bytes::from_static(b"nonsense")
            }),
            None
        );
    }
}
