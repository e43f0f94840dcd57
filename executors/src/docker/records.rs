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
use super::engine::Engine;

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
        let outputs = self.engine.order()?.logs(container, Some(options));
        let engine = std::sync::Arc::clone(&self.engine);
        let records = outputs.map(move |output| match output {
            Ok(output) => record(output).map_err(|message| without_time(&engine, &message)),
            Err(error) => Err(engine.failed("read the log of the container", error)),
        });
        Ok(records.boxed())
    }
}

/// Whether a log cannot be read because its container is being removed, by somebody else or by us.
pub(super) fn is_gone(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Conflict)
}

/// Whether the engine is there and cannot read a log that it should have.
pub(super) fn is_unreadable(error: &Error) -> bool {
    error.kind() == ErrorKind::Internal
}

/// The first byte of what the engine itself has to say among the output, and how long its head is.
const SYSTEM: u8 = 3;
const HEAD: usize = 8;

/// What has no time is the engine's own word about why it cannot go on, or a record that broke off with the connection.
fn without_time(engine: &Engine, message: &[u8]) -> Error {
    if message.first() != Some(&SYSTEM) {
        return Error::unavailable(format!(
            "the engine at `{}` broke off in the middle of a log",
            engine.address()
        ));
    }
    let words = String::from_utf8_lossy(message.get(HEAD..).unwrap_or_default());
    Error::internal(format!(
        "the engine at `{}` cannot read the log of the container",
        engine.address()
    ))
    .with_source(words.trim().to_owned())
}

/// `2026-11-28T11:25:09.957462890Z content`, by the engine's promise; else the message as it came.
fn record(output: LogOutput) -> Result<Record, Bytes> {
    let (stream, message) = match output {
        LogOutput::StdOut { message } => (Stream::Out, message),
        LogOutput::StdErr { message } => (Stream::Err, message),
        LogOutput::StdIn { message } | LogOutput::Console { message } => (Stream::Both, message),
    };
    let Some((time, space)) = time(&message) else {
        return Err(message);
    };
    Ok(Record {
        stream,
        time,
        content: message.slice(space + 1..),
    })
}

/// The time that a message begins with, and where it ends.
fn time(message: &[u8]) -> Option<(i64, usize)> {
    let space = message.iter().take(64).position(|byte| *byte == b' ')?;
    let time: Timestamp = std::str::from_utf8(&message[..space]).ok()?.parse().ok()?;
    Some((i64::try_from(time.as_nanosecond()).ok()?, space))
}

#[cfg(test)]
mod tests {
    use super::super::config::Host;
    use super::*;

    #[test]
    fn a_record_has_its_time_and_its_content_as_written() {
        let message = Bytes::from_static(b"2026-11-28T11:25:09.957462890Z  two  spaces\xff\n");
        let record = record(LogOutput::StdErr { message }).unwrap();
        assert_eq!(record.stream, Stream::Err);
        assert_eq!(record.time, 1_795_865_109_957_462_890);
        assert_eq!(&record.content[..], b" two  spaces\xff\n");
    }

    #[test]
    fn what_the_engine_says_itself_is_told_from_a_record_that_broke_off() {
        let engine = Engine::new(Host::Unix("/a".to_owned()));
        let broken = |message: &'static [u8]| {
            let message = Bytes::from_static(message);
            without_time(
                &engine,
                &record(LogOutput::Console { message }).unwrap_err(),
            )
        };
        let told = broken(b"\x03\0\0\0\0\0\0\x13error grabbing logs: no space left\n");
        assert!(is_unreadable(&told));
        assert!(
            told.report()
                .ends_with(": error grabbing logs: no space left"),
            "{told:?}"
        );
        for half in [&b"\x01\0\0\0\0\0"[..], b"nonsense"] {
            assert_eq!(broken(half).kind(), ErrorKind::Unavailable);
        }
    }
}
