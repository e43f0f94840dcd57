//! One run as the fake backend keeps it.

use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::error::{Error, Result};
use crate::id::RunId;
use crate::log::{GapReason, LogChunk, LogCursor, LogItem, MAX_CHUNK, Stream};
use crate::run::{Outcome, State, Status};

/// One run: a record that whoever waits for a change can watch.
#[derive(Debug)]
pub(super) struct Run {
    id: RunId,
    record: watch::Sender<Record>,
}

#[derive(Debug)]
struct Record {
    status: Status,
    /// Whether the work was begun; a run that was made and not begun is a half-done start.
    begun: bool,
    stop: Option<Stop>,
    /// Whether its processes ignore SIGTERM.
    stubborn: bool,
    /// What it writes when it is asked to end.
    farewell: Vec<u8>,
    last_output: Instant,
    /// What the backend still has of the log.
    log: Vec<Written>,
    /// How many pieces were dropped before it, and how many bytes they had.
    dropped: usize,
    dropped_bytes: u64,
}

/// That the run was asked to stop.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stop {
    /// The shortest grace that was asked for.
    pub(super) grace: Duration,
    /// When it is ended by force.
    pub(super) at: Instant,
}

#[derive(Debug, Clone)]
struct Written {
    stream: Stream,
    time: Timestamp,
    bytes: Bytes,
}

impl Run {
    pub(super) fn new(id: RunId) -> Self {
        let mut status = Status::new(id.attempt_number().max(1), State::Starting);
        status.times.starting = Some(Timestamp::now());
        let record = Record {
            status,
            begun: false,
            stop: None,
            stubborn: false,
            farewell: Vec::new(),
            last_output: Instant::now(),
            log: Vec::new(),
            dropped: 0,
            dropped_bytes: 0,
        };
        let record = watch::Sender::new(record);
        Self { id, record }
    }

    pub(super) fn id(&self) -> RunId {
        self.id
    }
    pub(super) fn status(&self) -> Status {
        self.record.borrow().status.clone()
    }
    pub(super) fn stop(&self) -> Option<Stop> {
        self.record.borrow().stop
    }
    pub(super) fn is_stubborn(&self) -> bool {
        self.record.borrow().stubborn
    }
    pub(super) fn has_begun(&self) -> bool {
        self.record.borrow().begun
    }
    pub(super) fn last_output(&self) -> Instant {
        self.record.borrow().last_output
    }

    /// What the backend still has of the output of `stream`, or of all.
    pub(super) fn output(&self, of: Option<Stream>) -> Vec<u8> {
        let record = self.record.borrow();
        let wanted = |piece: &&Written| of.is_none_or(|stream| piece.stream == stream);
        let pieces = record.log.iter().filter(wanted);
        pieces
            .flat_map(|piece| piece.bytes.iter().copied())
            .collect()
    }

    /// Waits until the run is as `condition` says.
    async fn until(&self, condition: impl Fn(&Record) -> bool + Send + Sync) {
        let mut changes = self.record.subscribe();
        let seen = changes.wait_for(|record| condition(record)).await;
        drop(seen.expect("`self` holds the sender"));
    }
    pub(super) async fn until_begun(&self) {
        self.until(|record| record.begun).await;
    }
    pub(super) async fn until_stop_asked(&self) {
        self.until(|record| record.stop.is_some()).await;
    }
    pub(super) async fn until_finished(&self) {
        self.until(|record| record.status.is_finished()).await;
    }
    /// Waits until a stop before `at` is asked for.
    pub(super) async fn until_stop_before(&self, at: Instant) {
        self.until(|record| record.stop.is_some_and(|stop| stop.at < at))
            .await;
    }

    /// Marks the work as begun; `false` if it was already, or must not be any more.
    pub(super) fn claim(&self) -> bool {
        self.record.send_if_modified(|record| {
            let free = !record.begun && record.stop.is_none() && !record.status.is_finished();
            if free {
                record.begun = true;
                record.last_output = Instant::now();
                record.status.state = State::Running;
                record.status.times.running = Some(Timestamp::now());
            }
            free
        })
    }

    pub(super) fn set_stubborn(&self) {
        self.record.send_modify(|record| record.stubborn = true);
    }

    pub(super) fn set_farewell(&self, words: Vec<u8>) {
        self.record.send_modify(|record| record.farewell = words);
    }

    pub(super) fn say_farewell(&self) {
        let words = self.record.borrow().farewell.clone();
        self.write(Stream::Out, &words);
    }

    pub(super) fn set_message(&self, message: &str) {
        self.record
            .send_modify(|record| record.status.message = Some(message.to_owned()));
    }

    /// Writes output, in pieces that fit a chunk. Nothing is written after the end.
    pub(super) fn write(&self, stream: Stream, bytes: &[u8]) {
        self.record.send_if_modified(|record| {
            let living = !record.status.is_finished();
            if living {
                record.last_output = Instant::now();
                let time = Timestamp::now();
                let pieces = bytes.chunks(MAX_CHUNK).map(|piece| Written {
                    stream,
                    time,
                    bytes: Bytes::copy_from_slice(piece),
                });
                record.log.extend(pieces);
            }
            living
        });
    }

    /// Drops all but the last `keep` pieces of the log.
    pub(super) fn rotate(&self, keep: usize) {
        self.record.send_modify(|record| {
            let gone = record.log.len().saturating_sub(keep);
            record.dropped += gone;
            let bytes = record.log.drain(..gone).map(|piece| piece.bytes.len());
            record.dropped_bytes += bytes.sum::<usize>() as u64;
        });
    }

    /// Ends the run; the first end stays.
    pub(super) fn finish(&self, outcome: Outcome) {
        self.record.send_if_modified(|record| {
            let first = !record.status.is_finished();
            if first {
                record.status.state = State::Finished(outcome);
                record.status.times.finished = Some(Timestamp::now());
            }
            first
        });
    }

    /// Asks it to end. One that never began has ended with that, for ever.
    pub(super) fn ask_to_stop(&self, grace: Duration) {
        self.record.send_if_modified(|record| {
            if record.status.is_finished() {
                return false;
            }
            let at = Instant::now() + grace;
            let sooner = record.stop.is_none_or(|stop| at < stop.at);
            if sooner {
                record.stop = Some(Stop { grace, at });
            }
            if !record.begun {
                record.status.state = State::Finished(Outcome::Stopped { by: None });
                record.status.times.finished = Some(Timestamp::now());
            }
            sooner
        });
    }

    /// The present level, then each change, to the end.
    pub(super) fn statuses(&self) -> BoxStream<'static, Result<Status>> {
        let next = |state: Option<(watch::Receiver<Record>, Option<Status>)>| async move {
            let (mut changes, told) = state?;
            let status = {
                let differs = |record: &Record| Some(&record.status) != told.as_ref();
                changes.wait_for(differs).await.ok()?.status.clone()
            };
            let rest = (!status.is_finished()).then(|| (changes, Some(status.clone())));
            Some((Ok(status), rest))
        };
        stream::unfold(Some((self.record.subscribe(), None)), next).boxed()
    }

    /// The log from a cursor, followed to the end.
    pub(super) fn chunks(
        &self,
        from: Option<&LogCursor>,
    ) -> Result<BoxStream<'static, Result<LogChunk>>> {
        let at = match from {
            None => 0,
            Some(cursor) => self.place(cursor)?,
        };
        let id = self.id;
        let next = move |(mut changes, at): (watch::Receiver<Record>, usize)| async move {
            let found = {
                let more = |record: &Record| record.end() > at || record.status.is_finished();
                changes.wait_for(more).await.ok()?.piece(at)
            };
            let (item, at) = found?;
            let next = cursor(id, at);
            Some((Ok(LogChunk { item, next }), (changes, at)))
        };
        Ok(stream::unfold((self.record.subscribe(), at), next).boxed())
    }

    fn place(&self, cursor: &LogCursor) -> Result<usize> {
        let at = cursor.as_str().strip_prefix(&format!("{}:", self.id));
        let at = at.and_then(|at| at.parse().ok());
        at.filter(|at| *at <= self.record.borrow().end())
            .ok_or_else(|| {
                Error::invalid(format!(
                    "the log cursor is not one of the run `{}`; read from the beginning",
                    self.id
                ))
            })
    }
}

impl Record {
    /// How many pieces there have been.
    fn end(&self) -> usize {
        self.dropped + self.log.len()
    }

    /// The piece at a place and the place behind it; a gap if it was dropped.
    fn piece(&self, at: usize) -> Option<(LogItem, usize)> {
        let Some(index) = at.checked_sub(self.dropped) else {
            let bytes = (at == 0).then_some(self.dropped_bytes);
            let why = GapReason::Rotated;
            return Some((LogItem::Gap { bytes, why }, self.dropped));
        };
        let piece = self.log.get(index)?.clone();
        let item = LogItem::Data {
            stream: piece.stream,
            time: Some(piece.time),
            bytes: piece.bytes,
        };
        Some((item, at + 1))
    }
}

fn cursor(run: RunId, at: usize) -> LogCursor {
    let text = format!("{run}:{at}");
    text.parse().expect("short printable text is a cursor")
}
