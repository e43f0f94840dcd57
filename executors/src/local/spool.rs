//! Reads a stretch of a spool and makes chunks of it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use bytes::Bytes;
use hybrid_runner_core::log::{GapReason, LogChunk, LogItem, MAX_CHUNK, Stream};
use hybrid_runner_helper::spool::{self, HEADER_LEN, Header, Kind, MAX_PAYLOAD};
use jiff::Timestamp;

use super::cursor::{Place, Tag};

/// Read at once; holds at least three whole records.
const STRETCH: usize = 256 << 10;
/// Records of one stream that were written within this many microseconds become one chunk, with the time of the first.
const TOGETHER: i64 = 5_000;

const _: () = assert!(MAX_PAYLOAD <= MAX_CHUNK && STRETCH > 2 * (MAX_PAYLOAD + HEADER_LEN));

/// What was read.
#[derive(Debug)]
pub(super) struct Stretch {
    pub(super) chunks: Vec<LogChunk>,
    /// Behind the last whole record.
    pub(super) place: Place,
    pub(super) rest: Rest,
}

/// What follows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rest {
    /// More records, probably.
    More,
    /// Nothing, or a record that is not whole, of so many bytes.
    Torn(u64),
    /// Bytes that are no record, so many up to the end.
    Damaged(u64),
}

/// Reads from `place` on.
pub(super) fn read(file: &File, mut place: Place, tag: Tag) -> io::Result<Stretch> {
    let bytes = fill(file, place.offset)?;
    let at_eof = bytes.len() < STRETCH;
    let start = place.offset;
    let mut open: Option<Open> = None;
    let mut chunks = Vec::new();
    let rest = loop {
        let at = usize::try_from(place.offset - start).expect("a stretch is short");
        let tail = &bytes[at..];
        let Some((head, after)) = tail.split_first_chunk::<HEADER_LEN>() else {
            break torn_or_more(at_eof, tail.len());
        };
        let Some(header) = Header::decode(*head) else {
            let end = file.metadata()?.len();
            break Rest::Damaged(end.saturating_sub(place.offset));
        };
        let length = header.len as usize;
        if after.len() < length {
            break torn_or_more(at_eof, tail.len());
        }
        place = Place::behind(place.offset, (HEADER_LEN + length) as u64, head);
        let from = at + HEADER_LEN;
        let stream = match header.kind {
            Kind::Out => Stream::Out,
            Kind::Err => Stream::Err,
            Kind::Gap => {
                chunks.extend(open.take().map(|open| open.close(tag)));
                chunks.push(LogChunk {
                    item: gap(&after[..length]),
                    next: place.to_cursor(tag),
                });
                continue;
            }
        };
        let payload = bytes.slice(from..from + length);
        match &mut open {
            Some(open) if open.takes(stream, &header) => open.add(&payload, place),
            _ => {
                let next = Open::new(stream, &header, payload, place);
                chunks.extend(open.replace(next).map(|open| open.close(tag)));
            }
        }
    };
    chunks.extend(open.map(|open| open.close(tag)));
    Ok(Stretch {
        chunks,
        place,
        rest,
    })
}

fn torn_or_more(at_eof: bool, left: usize) -> Rest {
    if at_eof {
        Rest::Torn(left as u64)
    } else {
        Rest::More
    }
}

fn fill(file: &File, offset: u64) -> io::Result<Bytes> {
    // Many wait at the end of their spools: no room is made for nothing.
    let waiting = file.metadata()?.len().saturating_sub(offset);
    let mut bytes = vec![0; usize::try_from(waiting).unwrap_or(STRETCH).min(STRETCH)];
    let mut filled = 0;
    while filled < bytes.len() {
        match file.read_at(&mut bytes[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(filled);
    Ok(bytes.into())
}

fn gap(payload: &[u8]) -> LogItem {
    let bytes = payload
        .first_chunk()
        .map(|bytes| u64::from_le_bytes(*bytes))
        .filter(|bytes| *bytes != u64::MAX);
    let why = match payload.get(8).copied().map(spool::GapReason::from_code) {
        Some(spool::GapReason::DiskFull) => GapReason::DiskFull,
        Some(spool::GapReason::Limit) => GapReason::Limit,
        _ => GapReason::Damaged,
    };
    LogItem::Gap { bytes, why }
}

/// A chunk that may still grow. One record alone is not copied.
#[derive(Debug)]
struct Open {
    stream: Stream,
    time: i64,
    first: Bytes,
    more: Vec<u8>,
    place: Place,
}

impl Open {
    fn new(stream: Stream, header: &Header, payload: Bytes, place: Place) -> Self {
        Self {
            stream,
            time: header.time,
            first: payload,
            more: Vec::new(),
            place,
        }
    }

    fn takes(&self, stream: Stream, header: &Header) -> bool {
        let length = self.first.len().max(self.more.len()) + header.len as usize;
        stream == self.stream
            && length <= MAX_CHUNK
            && (0..=TOGETHER).contains(&(header.time.saturating_sub(self.time)))
    }

    fn add(&mut self, payload: &Bytes, place: Place) {
        if self.more.is_empty() {
            self.more.extend_from_slice(&self.first);
        }
        self.more.extend_from_slice(payload);
        self.place = place;
    }

    fn close(self, tag: Tag) -> LogChunk {
        let bytes = if self.more.is_empty() {
            self.first
        } else {
            self.more.into()
        };
        LogChunk {
            item: LogItem::Data {
                stream: self.stream,
                time: Timestamp::from_microsecond(self.time).ok(),
                bytes,
            },
            next: self.place.to_cursor(tag),
        }
    }
}
