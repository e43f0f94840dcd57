//! The records of a container's log, as the engine gives them: one for each line, or for each part of a long one.

use std::sync::Arc;
use std::time::Duration;

use bollard::container::LogOutput;
use bollard::query_parameters::LogsOptionsBuilder;
use bytes::{Buf as _, Bytes, BytesMut};
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use hybrid_runner_core::error::{Error, ErrorKind, Result};
use hybrid_runner_core::log::Stream;
use jiff::Timestamp;
use tokio::time::timeout;

use super::Shared;
use super::engine::Engine;
use crate::answer::Answer;

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

/// What the engine has arrives without a pause as long as this; one that is followed may be silent.
const PAUSE: Duration = Duration::from_secs(10);
/// What is done here, for errors.
const READING: &str = "read the log of the container";

impl Shared {
    /// Reads the log of a container.
    pub(super) fn records(&self, container: &str, wanted: Wanted) -> Records {
        let reader = Reader {
            engine: Arc::clone(&self.engine),
            source: Source::Asked(container.to_owned(), wanted),
            frames: Frames::default(),
        };
        stream::try_unfold(reader, move |mut reader| async move {
            let next = reader.next();
            let next = if wanted.follow {
                next.await?
            } else {
                timeout(PAUSE, next).await.map_err(|_| stalled())??
            };
            Ok(next.map(|record| (record, reader)))
        })
        .boxed()
    }
}

struct Reader {
    engine: Arc<Engine>,
    source: Source,
    frames: Frames,
}

enum Source {
    /// Not yet: the log of this container.
    Asked(String, Wanted),
    Own(Answer),
    /// For an engine over TLS.
    Library(BoxStream<'static, Result<LogOutput, bollard::errors::Error>>),
}

impl Reader {
    async fn next(&mut self) -> Result<Option<Record>> {
        loop {
            let frame = self
                .frames
                .next()
                .map_err(|length| oversized(&self.engine, length))?;
            if let Some(frame) = frame {
                return record(&self.engine, frame).map(Some);
            }
            let engine = &self.engine;
            match &mut self.source {
                // In a box of its own: whoever reads mostly waits, which takes less room.
                Source::Asked(container, wanted) => {
                    self.source = Box::pin(ask(engine, container, *wanted)).await?;
                }
                Source::Library(outputs) => {
                    return match outputs.next().await {
                        Some(Ok(output)) => record(engine, output.into()).map(Some),
                        Some(Err(error)) => Err(engine.failed(READING, error)),
                        None => Ok(None),
                    };
                }
                Source::Own(answer) => {
                    let read = answer.next(&mut self.frames.bytes).await;
                    if !read.map_err(|error| engine.broke(READING, error))? {
                        let is_whole = self.frames.bytes.is_empty();
                        return is_whole.then_some(None).ok_or_else(|| broke_off(engine));
                    }
                }
            }
        }
    }
}

async fn ask(engine: &Engine, container: &str, wanted: Wanted) -> Result<Source> {
    let tail = wanted
        .tail
        .map_or_else(|| "all".to_owned(), |tail| tail.to_string());
    let target = format!(
        "/containers/{container}/logs?stdout=1&stderr=1&timestamps=1&follow={}&since={}&tail={tail}",
        u8::from(wanted.follow),
        wanted.since,
    );
    if let Some(answer) = engine.get(&target, READING).await? {
        return Ok(Source::Own(answer));
    }
    let options = LogsOptionsBuilder::default()
        .stdout(true)
        .stderr(true)
        .timestamps(true)
        .follow(wanted.follow)
        .since(wanted.since)
        .tail(&tail)
        .build();
    Ok(Source::Library(
        engine.order()?.logs(container, Some(options)).boxed(),
    ))
}

/// One message of the engine; its first byte tells of which stream.
struct Frame {
    kind: u8,
    message: Bytes,
}

/// The output, and what the engine itself has to say among it.
const OUT: u8 = 1;
const ERR: u8 = 2;
const SYSTEM: u8 = 3;
/// None of the engine's.
const BROKEN: u8 = u8::MAX;
/// The head of a frame: its kind, three zeros, the length of the message in big endian.
const HEAD: usize = 8;
/// No message is longer: the engine cuts lines into parts of 16 KiB.
const LONGEST: usize = 1 << 20;

impl From<LogOutput> for Frame {
    fn from(output: LogOutput) -> Self {
        let (kind, message) = match output {
            LogOutput::StdIn { message } => (0, message),
            LogOutput::StdOut { message } => (OUT, message),
            LogOutput::StdErr { message } => (ERR, message),
            // With its head, as the library knows no such kind.
            LogOutput::Console { mut message } if message.first() == Some(&SYSTEM) => {
                message.advance(message.len().min(HEAD));
                (SYSTEM, message)
            }
            LogOutput::Console { message } => (BROKEN, message),
        };
        Self { kind, message }
    }
}

/// Takes frames out of the bytes of an answer.
#[derive(Default)]
struct Frames {
    bytes: BytesMut,
}

impl Frames {
    /// The next one that is whole, or the length of one that cannot be.
    fn next(&mut self) -> Result<Option<Frame>, usize> {
        let Some((head, rest)) = self.bytes.split_first_chunk::<HEAD>() else {
            return Ok(None);
        };
        let [kind, .., a, b, c, d] = *head;
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        if length > LONGEST {
            return Err(length);
        }
        if rest.len() < length {
            return Ok(None);
        }
        self.bytes.advance(HEAD);
        let message = self.bytes.split_to(length).freeze();
        if self.bytes.is_empty() {
            // Else it would keep what the message is a part of.
            self.bytes = BytesMut::new();
        }
        Ok(Some(Frame { kind, message }))
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

fn oversized(engine: &Engine, length: usize) -> Error {
    Error::unavailable(format!(
        "the engine at `{}` tells of a record of {length} bytes, and no more than {LONGEST} are taken: is something between us and it?",
        engine.address()
    ))
}

/// What is there arrives without a pause, and does not.
pub(super) fn stalled() -> Error {
    Error::unavailable("the engine stopped in the middle of a log")
}

fn broke_off(engine: &Engine) -> Error {
    Error::unavailable(format!(
        "the engine at `{}` broke off in the middle of a log",
        engine.address()
    ))
}

/// `2026-11-28T11:25:09.957462890Z content`, by the engine's promise. What has no time is the engine's own word about why it
/// cannot go on, or a record that broke off with the connection.
fn record(engine: &Engine, frame: Frame) -> Result<Record> {
    let Frame { kind, message } = frame;
    let stream = match kind {
        OUT => Stream::Out,
        ERR => Stream::Err,
        SYSTEM => {
            let words = String::from_utf8_lossy(&message);
            return Err(Error::internal(format!(
                "the engine at `{}` cannot read the log of the container",
                engine.address()
            ))
            .with_source(words.trim().to_owned()));
        }
        BROKEN => return Err(broke_off(engine)),
        _ => Stream::Both,
    };
    let (time, space) = time(&message).ok_or_else(|| broke_off(engine))?;
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

    fn engine() -> Engine {
        Engine::new(Host::Unix("/a".to_owned()))
    }

    fn frame(kind: u8, message: &[u8]) -> Vec<u8> {
        let length = u32::try_from(message.len()).unwrap().to_be_bytes();
        [&[kind, 0, 0, 0][..], &length, message].concat()
    }

    #[test]
    fn a_record_has_its_time_and_its_content_as_written() {
        let message = Bytes::from_static(b"2026-11-28T11:25:09.957462890Z  two  spaces\xff\n");
        let record = record(&engine(), Frame { kind: ERR, message }).unwrap();
        assert_eq!(record.stream, Stream::Err);
        assert_eq!(record.time, 1_795_865_109_957_462_890);
        assert_eq!(&record.content[..], b" two  spaces\xff\n");
    }

    #[test]
    fn frames_are_the_same_however_they_are_cut() {
        let given = [
            (OUT, &b"one"[..]),
            (ERR, b""),
            (OUT, b"two\n"),
            (SYSTEM, b"three"),
        ];
        let all: Vec<u8> = given
            .iter()
            .flat_map(|(kind, message)| frame(*kind, message))
            .collect();
        for size in 1..=all.len() {
            let mut frames = Frames::default();
            let mut taken = Vec::new();
            for piece in all.chunks(size) {
                frames.bytes.extend_from_slice(piece);
                taken.extend(std::iter::from_fn(|| frames.next().unwrap()));
            }
            let taken: Vec<_> = taken
                .iter()
                .map(|frame| (frame.kind, &frame.message[..]))
                .collect();
            assert_eq!(taken, given, "in pieces of {size}");
        }
    }

    #[test]
    fn a_length_that_cannot_be_is_not_waited_for() {
        let mut frames = Frames::default();
        frames
            .bytes
            .extend_from_slice(&[OUT, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]);
        assert_eq!(frames.next().err(), Some(0xffff_ffff));
    }

    #[test]
    fn what_the_engine_says_itself_is_told_from_a_record_that_broke_off() {
        let words = Bytes::from_static(b"error grabbing logs: no space left\n");
        let head = [SYSTEM, 0, 0, 0, 0, 0, 0, 35];
        let by_library = LogOutput::Console {
            message: [&head[..], &words].concat().into(),
        };
        for told in [
            by_library.into(),
            Frame {
                kind: SYSTEM,
                message: words,
            },
        ] {
            let told = record(&engine(), told).unwrap_err();
            assert!(is_unreadable(&told));
            assert!(
                told.report()
                    .ends_with(": error grabbing logs: no space left"),
                "{told:?}"
            );
        }
        for half in [&b"\x01\0\0\0\0\0"[..], b"nonsense"] {
            let half = LogOutput::Console {
                message: Bytes::from_static(half),
            };
            let broken = record(&engine(), half.into()).unwrap_err();
            assert_eq!(broken.kind(), ErrorKind::Unavailable);
        }
        let untimed = Frame {
            kind: OUT,
            message: Bytes::from_static(b"no time\n"),
        };
        assert_eq!(
            record(&engine(), untimed).unwrap_err().kind(),
            ErrorKind::Unavailable
        );
    }
}
