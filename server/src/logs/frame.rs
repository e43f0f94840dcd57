//! How an item of a log stands in a file.
//!
//! ```text
//! length u32 | kind u8 | stream or reason u8 | has a time u8 | 0 u8 | attempt u32 | time i64 (ns) | data
//! ```
//!
//! Numbers are little endian. The data of a gap is the number of missing bytes (u64), if it is known.

use bytes::{Buf as _, BufMut as _, Bytes};
use hybrid_runner_core::log::{GapReason, LogItem, MAX_CHUNK, Stream};
use jiff::Timestamp;

/// Bytes before the data.
const HEADER: usize = 20;
const DATA: u8 = 0;
const GAP: u8 = 1;

/// An item and the attempt that wrote it (0: not told).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) attempt: u32,
    pub(super) item: LogItem,
}

/// What stands there is no frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Damaged;

/// How far an item moves the position.
pub(super) fn size(item: &LogItem) -> u64 {
    match item {
        LogItem::Data { bytes, .. } => bytes.len() as u64,
        _ => 1,
    }
}

/// Appends an item.
pub(super) fn encode(attempt: u32, item: &LogItem, out: &mut Vec<u8>) {
    let missing;
    let (kind, detail, time, data): (u8, u8, Option<Timestamp>, &[u8]) = match item {
        LogItem::Data {
            stream,
            time,
            bytes,
        } => (DATA, stream_code(*stream), *time, bytes),
        LogItem::Gap { bytes, why } => {
            missing = bytes.map(u64::to_le_bytes);
            (
                GAP,
                reason_code(*why),
                None,
                missing.as_ref().map_or(&[], |bytes| &bytes[..]),
            )
        }
        // An item of a kind that this build does not know is at least visible.
        _ => (GAP, reason_code(GapReason::Damaged), None, &[]),
    };
    let nanos = time.and_then(|time| i64::try_from(time.as_nanosecond()).ok());
    out.reserve(HEADER + data.len());
    out.put_u32_le(u32::try_from(data.len()).expect("a chunk is at most 64 KiB"));
    out.put_slice(&[kind, detail, u8::from(nanos.is_some()), 0]);
    out.put_u32_le(attempt);
    out.put_i64_le(nanos.unwrap_or(0));
    out.put_slice(data);
}

/// Takes the next item off, `None` at the end.
pub(super) fn decode(bytes: &mut Bytes) -> Result<Option<Frame>, Damaged> {
    if bytes.is_empty() {
        return Ok(None);
    }
    if bytes.len() < HEADER {
        return Err(Damaged);
    }
    let length = bytes.get_u32_le() as usize;
    let (kind, detail, has_time) = (bytes.get_u8(), bytes.get_u8(), bytes.get_u8());
    bytes.advance(1);
    let attempt = bytes.get_u32_le();
    let nanos = bytes.get_i64_le();
    if length > MAX_CHUNK || bytes.len() < length {
        return Err(Damaged);
    }
    let mut data = bytes.split_to(length);
    let item = match kind {
        DATA => LogItem::Data {
            stream: stream(detail)?,
            time: (has_time == 1)
                .then(|| Timestamp::from_nanosecond(nanos.into()).unwrap_or_default()),
            bytes: data,
        },
        GAP => LogItem::Gap {
            bytes: (data.len() == 8).then(|| data.get_u64_le()),
            why: reason(detail)?,
        },
        _ => return Err(Damaged),
    };
    Ok(Some(Frame { attempt, item }))
}

fn stream_code(stream: Stream) -> u8 {
    match stream {
        Stream::Out => 1,
        Stream::Err => 2,
        _ => 3,
    }
}

fn stream(code: u8) -> Result<Stream, Damaged> {
    match code {
        1 => Ok(Stream::Out),
        2 => Ok(Stream::Err),
        3 => Ok(Stream::Both),
        _ => Err(Damaged),
    }
}

fn reason_code(reason: GapReason) -> u8 {
    match reason {
        GapReason::Rotated => 1,
        GapReason::Limit => 2,
        GapReason::DiskFull => 3,
        GapReason::Crashed => 4,
        GapReason::HeldBack => 6,
        GapReason::Refused => 7,
        _ => 5,
    }
}

fn reason(code: u8) -> Result<GapReason, Damaged> {
    match code {
        1 => Ok(GapReason::Rotated),
        2 => Ok(GapReason::Limit),
        3 => Ok(GapReason::DiskFull),
        4 => Ok(GapReason::Crashed),
        5 => Ok(GapReason::Damaged),
        6 => Ok(GapReason::HeldBack),
        7 => Ok(GapReason::Refused),
        _ => Err(Damaged),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_are_read_as_they_were_written() {
        let items = [
            LogItem::Data {
                stream: Stream::Err,
                time: Some(Timestamp::UNIX_EPOCH),
                bytes: Bytes::from_static(b"\xff\n"),
            },
            LogItem::Data {
                stream: Stream::Both,
                time: None,
                bytes: Bytes::new(),
            },
            LogItem::Gap {
                bytes: Some(7),
                why: GapReason::Limit,
            },
            LogItem::Gap {
                bytes: None,
                why: GapReason::Rotated,
            },
            LogItem::Gap {
                bytes: None,
                why: GapReason::HeldBack,
            },
        ];
        let mut out = Vec::new();
        for item in &items {
            encode(2, item, &mut out);
        }
        let mut bytes = Bytes::from(out);
        for item in items {
            assert_eq!(decode(&mut bytes), Ok(Some(Frame { attempt: 2, item })));
        }
        assert_eq!(decode(&mut bytes), Ok(None));
    }

    #[test]
    fn what_is_no_frame_is_told() {
        for wrong in [&[0_u8; 5][..], &[0xff; 40], &[0; 20]] {
            assert_eq!(decode(&mut Bytes::copy_from_slice(wrong)), Err(Damaged));
        }
    }
}
