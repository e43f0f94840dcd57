//! What a reader asked for: the last lines, one stream, since a time.

use hybrid_runner_core::{LogItem, Stream};
use hybrid_runner_store::rusqlite::{self, Connection};
use jiff::Timestamp;

use super::index;
use super::read::{self, Chunk};
use super::segment::Segments;

/// Which items a reader asked for.
#[derive(Debug, Clone, Default)]
pub(crate) struct View {
    pub(crate) attempt: Option<u32>,
    pub(crate) stream: Option<Stream>,
    /// Cleared by the first item that is not before it: items without a time belong to their neighbours.
    pub(crate) since: Option<Timestamp>,
}

impl View {
    /// Whether the reader asked for this item.
    pub(crate) fn admits(&mut self, chunk: &Chunk) -> bool {
        if !self.shows(chunk.attempt, &chunk.item) {
            return false;
        }
        let LogItem::Data { time, .. } = &chunk.item else {
            return self.since.is_none();
        };
        match (self.since, time) {
            (Some(since), Some(time)) if *time >= since => {
                self.since = None;
                true
            }
            (since, _) => since.is_none(),
        }
    }

    fn shows(&self, attempt: u32, item: &LogItem) -> bool {
        let in_attempt = attempt == 0 || self.attempt.is_none_or(|wanted| wanted == attempt);
        let in_stream = match item {
            LogItem::Data { stream, .. } => self.stream.is_none_or(|wanted| wanted == *stream),
            _ => true,
        };
        in_attempt && in_stream
    }
}

/// The position from which the last `lines` lines of what a view shows begin.
pub(crate) fn tail_start(
    tx: &Connection,
    segments: &Segments,
    run: i64,
    view: &View,
    lines: u64,
) -> rusqlite::Result<u64> {
    let (end, _) = index::place_of(tx, run)?;
    let mut count = LineCount {
        wanted: lines,
        seen: 0,
        at_end: true,
    };
    let mut position = end;
    while position > 0 && lines > 0 {
        let Some(extent) = index::ending_before(tx, run, position)? else {
            break;
        };
        for (start, frame) in read::whole(segments, &extent).into_iter().flatten().rev() {
            let LogItem::Data { bytes, .. } = &frame.item else {
                continue;
            };
            if start < position
                && view.shows(frame.attempt, &frame.item)
                && let Some(at) = count.backwards(bytes)
            {
                return Ok(start + at as u64);
            }
        }
        position = extent.start;
    }
    Ok(if lines == 0 { end } else { 0 })
}

/// Counts lines from the end.
struct LineCount {
    wanted: u64,
    seen: u64,
    /// A newline at the very end ends the last line and begins none.
    at_end: bool,
}

impl LineCount {
    /// Where in these bytes, which come before those seen, the wanted number of lines begins.
    fn backwards(&mut self, bytes: &[u8]) -> Option<usize> {
        for (at, byte) in bytes.iter().enumerate().rev() {
            let first = std::mem::take(&mut self.at_end);
            if *byte == b'\n' && !first {
                self.seen += 1;
                if self.seen == self.wanted {
                    return Some(at + 1);
                }
            }
        }
        None
    }
}
