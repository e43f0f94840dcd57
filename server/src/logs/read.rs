//! From a position on, item by item.

use bytes::Bytes;
use hybrid_runner_core::log::GapReason;
use hybrid_runner_core::{LogChunk, LogItem};
use hybrid_runner_store::rusqlite::{self, Connection};

use super::frame::{self, Frame};
use super::index::{self, Extent};
use super::segment::Segments;

/// An item as a reader gets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Chunk {
    /// The attempt that wrote it; 0 if that is not known.
    pub(crate) attempt: u32,
    pub(crate) item: LogItem,
    /// The position behind it.
    pub(crate) next: u64,
}

impl Chunk {
    /// The chunk as clients get it: the cursor is ours.
    pub(crate) fn into_wire(self) -> LogChunk {
        let next = self.next.to_string().parse().expect("a number is a cursor");
        LogChunk {
            item: self.item,
            next,
        }
    }
}

/// Reads one run's log. Blocking: to be used on a reader's connection.
#[derive(Debug)]
pub(crate) struct Reader {
    run: i64,
    /// What was delivered already.
    position: u64,
    /// Nothing from here on is delivered.
    end: u64,
    /// Where to go on inside an extent, which may have grown.
    inside: Option<Inside>,
}

#[derive(Debug, Clone, Copy)]
struct Inside {
    number: u64,
    byte: u64,
    position: u64,
}

impl Reader {
    /// A reader of what is behind a position.
    pub(crate) fn new(run: i64, position: u64) -> Self {
        Self {
            run,
            position,
            end: u64::MAX,
            inside: None,
        }
    }

    /// A reader that stops at a position.
    pub(crate) fn until(self, end: u64) -> Self {
        Self { end, ..self }
    }

    /// The position behind what was delivered.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// The next items: of about one extent; none when everything is delivered.
    pub(crate) fn read(
        &mut self,
        tx: &Connection,
        segments: &Segments,
    ) -> rusqlite::Result<Vec<Chunk>> {
        let mut chunks = Vec::new();
        while chunks.is_empty() && self.position < self.end {
            let Some((extent, from)) = self.next_extent(tx)? else {
                break;
            };
            if extent.start > self.position && from.byte == 0 {
                self.gap(extent.start, GapReason::Rotated, &mut chunks);
            }
            self.read_extent(segments, &extent, from, &mut chunks);
        }
        Ok(chunks)
    }

    fn next_extent(&self, tx: &Connection) -> rusqlite::Result<Option<(Extent, Inside)>> {
        let found = match self.inside {
            None => index::holding(tx, self.run, self.position)?,
            Some(inside) => match index::numbered(tx, self.run, inside.number)? {
                Some(extent) if extent.length > inside.byte => return Ok(Some((extent, inside))),
                Some(extent) => index::numbered(tx, self.run, extent.number + 1)?,
                // Retention took it, or recovery cut it off.
                None => index::holding(tx, self.run, self.position)?,
            },
        };
        Ok(found.map(|extent| {
            let inside = Inside {
                number: extent.number,
                byte: 0,
                position: extent.start,
            };
            (extent, inside)
        }))
    }

    fn read_extent(
        &mut self,
        segments: &Segments,
        extent: &Extent,
        from: Inside,
        chunks: &mut Vec<Chunk>,
    ) {
        let length = usize::try_from(extent.length - from.byte).unwrap_or(usize::MAX);
        let end = extent.start + extent.size;
        let bytes = segments.read(extent.segment, extent.offset + from.byte, length);
        let sound = |bytes: &Bytes| {
            bytes.len() == length && (from.byte > 0 || crc32fast::hash(bytes) == extent.crc)
        };
        self.inside = Some(Inside {
            number: extent.number,
            byte: extent.length,
            position: end,
        });
        let Some(mut bytes) = bytes.ok().filter(sound) else {
            return self.gap(end, GapReason::Damaged, chunks);
        };
        let mut position = from.position;
        loop {
            match frame::decode(&mut bytes) {
                Ok(Some(frame)) => {
                    let next = position + frame::size(&frame.item);
                    self.deliver(frame, position, next, chunks);
                    position = next;
                }
                Ok(None) => return,
                Err(frame::Damaged) => return self.gap(end, GapReason::Damaged, chunks),
            }
        }
    }

    /// Delivers what of the item is behind the position.
    fn deliver(&mut self, frame: Frame, position: u64, next: u64, chunks: &mut Vec<Chunk>) {
        if next <= self.position || position >= self.end {
            return;
        }
        let next = next.min(self.end);
        let length = usize::try_from(next - position).unwrap_or(usize::MAX);
        let known = usize::try_from(self.position.saturating_sub(position)).unwrap_or(usize::MAX);
        let item = match frame.item {
            LogItem::Data {
                stream,
                time,
                bytes,
            } => LogItem::Data {
                stream,
                time,
                bytes: bytes.slice(known..length.min(bytes.len())),
            },
            item => item,
        };
        self.position = next;
        chunks.push(Chunk {
            attempt: frame.attempt,
            item,
            next,
        });
    }

    fn gap(&mut self, next: u64, why: GapReason, chunks: &mut Vec<Chunk>) {
        if next > self.position {
            let item = LogItem::Gap {
                bytes: Some(next - self.position),
                why,
            };
            chunks.push(Chunk {
                attempt: 0,
                item,
                next,
            });
            self.position = next;
        }
    }
}

/// All items of an extent with the positions before them, for who reads backwards. None if it is damaged.
pub(super) fn whole(segments: &Segments, extent: &Extent) -> Option<Vec<(u64, Frame)>> {
    let length = usize::try_from(extent.length).ok()?;
    let mut bytes = segments.read(extent.segment, extent.offset, length).ok()?;
    if bytes.len() != length || crc32fast::hash(&bytes) != extent.crc {
        return None;
    }
    let mut items = Vec::new();
    let mut position = extent.start;
    while let Some(frame) = frame::decode(&mut bytes).ok()? {
        let next = position + frame::size(&frame.item);
        items.push((position, frame));
        position = next;
    }
    Some(items)
}
