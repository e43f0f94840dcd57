//! Records that belong together, as chunks.

use std::collections::VecDeque;

use bytes::BytesMut;
use hybrid_runner_core::RunId;
use hybrid_runner_core::log::{LogChunk, LogItem, MAX_CHUNK, Stream};
use jiff::Timestamp;

use super::super::place::Place;
use super::super::records::Record;

/// Records of one stream, as one chunk.
#[derive(Default)]
pub(super) struct Joined {
    bytes: BytesMut,
    first: Option<(Stream, i64)>,
    place: Option<Place>,
}

impl Joined {
    /// Adds a record; `places` are those before and behind it.
    pub(super) fn push(
        &mut self,
        record: &Record,
        places: [Place; 2],
        run: RunId,
        queue: &mut VecDeque<LogChunk>,
    ) {
        let [before, behind] = places;
        let mut pieces = record.content.chunks(MAX_CHUNK).peekable();
        while let Some(piece) = pieces.next() {
            let fits = self.bytes.len() + piece.len() <= MAX_CHUNK;
            if !fits
                || self
                    .first
                    .is_some_and(|(stream, _)| stream != record.stream)
            {
                self.flush(run, queue);
            }
            self.first.get_or_insert((record.stream, record.time));
            self.bytes.extend_from_slice(piece);
            // Within a record there is no place to come back to.
            self.place = Some(if pieces.peek().is_none() {
                behind
            } else {
                before
            });
        }
    }

    pub(super) fn flush(&mut self, run: RunId, queue: &mut VecDeque<LogChunk>) {
        let (Some((stream, time)), Some(place)) = (self.first.take(), self.place.take()) else {
            return;
        };
        queue.push_back(LogChunk {
            item: LogItem::Data {
                stream,
                time: Timestamp::from_nanosecond(i128::from(time)).ok(),
                bytes: self.bytes.split().freeze(),
            },
            next: place.to_cursor(run),
        });
    }
}
