//! Appends records to the spool, and keeps it whole on a full disk.
//!
//! The workload must not wait for a disk: what cannot be written is dropped and counted, and becomes one gap record as
//! soon as there is room again. A log never takes the last room: whoever shares the disk, the runner's journal before
//! all, must still be able to say how the run ended.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;

use crate::clock;
use crate::outlet::Outlet;
use crate::spool::{GapReason, HEADER_LEN, Header, Item, Kind, MAX_PAYLOAD, Record};
use crate::sys;

/// Length of a gap record.
const GAP: u64 = HEADER_LEN as u64 + 9;

/// So much of the disk is left to others, but no more than a sixteenth of it.
const LEFT_TO_OTHERS: u64 = 4 << 20;
/// After so many bytes the disk is looked at again.
const LOOK: u64 = 256 << 10;

/// Where records go.
pub(crate) trait Sink {
    /// Appends some of `bytes`, returns how many.
    fn append(&mut self, bytes: &[u8]) -> io::Result<usize>;
    /// Cuts to `len`.
    fn cut(&mut self, len: u64) -> io::Result<()>;
    /// How many bytes more may be written, if that is known.
    fn room(&self) -> Option<u64>;
}

impl Sink for File {
    fn append(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write(bytes)
    }

    fn cut(&mut self, len: u64) -> io::Result<()> {
        self.set_len(len)
    }

    fn room(&self) -> Option<u64> {
        let (free, all) = sys::room(self.as_fd()).ok()?;
        // Some file systems do not say.
        (all > 0).then(|| free.saturating_sub(LEFT_TO_OTHERS.min(all / 16)))
    }
}

/// Writes the spool of one run.
pub(crate) struct Writer<S> {
    sink: S,
    /// The end of the last whole record.
    len: u64,
    limit: u64,
    /// A write was cut, and the rest of it not removed yet.
    torn: bool,
    /// How many bytes may be written before the disk is looked at again.
    allowed: u64,
    /// How many bytes did not fit on the disk since the last record.
    lost: u64,
    limited: Limited,
    disk_full: u64,
    over_limit: u64,
}

/// Whether the spool is at its limit.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Limited {
    No,
    /// It is, and the record that says so is not written yet.
    Due,
    /// It is, and says so.
    Said,
}

impl<S: Sink> Writer<S> {
    /// Goes on behind `len` bytes that are there.
    pub(crate) fn new(sink: S, len: u64, limit: u64) -> Self {
        Self {
            sink,
            len,
            limit,
            torn: false,
            allowed: 0,
            lost: 0,
            limited: Limited::No,
            disk_full: 0,
            over_limit: 0,
        }
    }

    /// The length of the spool.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// How many bytes did not fit on the disk.
    pub(crate) fn disk_full(&self) -> u64 {
        self.disk_full
    }

    /// How many bytes were over the limit.
    pub(crate) fn over_limit(&self) -> u64 {
        self.over_limit
    }

    fn piece(&mut self, kind: Kind, time: i64, framed: &mut [u8]) {
        let payload = framed.len() - HEADER_LEN;
        // There is always room for a gap before this record, and one behind it.
        if self.limited == Limited::No && self.len + framed.len() as u64 + 2 * GAP > self.limit {
            self.limited = Limited::Due;
        }
        if self.limited != Limited::No {
            self.over_limit += payload as u64;
            self.settle();
            return;
        }
        let len = u32::try_from(payload).expect("at most 64 KiB");
        let fits = self.fits(framed.len() as u64 + GAP);
        framed[..HEADER_LEN].copy_from_slice(&Header { len, kind, time }.encode());
        let written = if !fits {
            false
        } else if self.lost == 0 {
            self.whole(framed)
        } else {
            // Together, so that a disk that stays nearly full is not filled up with gaps.
            let mut records = gap(Some(self.lost), GapReason::DiskFull);
            records.extend_from_slice(framed);
            self.whole(&records)
        };
        if written {
            self.lost = 0;
        } else {
            self.disk_full += payload as u64;
            self.lost += payload as u64;
        }
    }

    /// Whether so many bytes leave enough of the disk to others.
    fn fits(&mut self, bytes: u64) -> bool {
        if self.allowed < bytes {
            self.allowed = self.sink.room().map_or(LOOK, |room| room.min(LOOK));
        }
        let fits = self.allowed >= bytes;
        if fits {
            self.allowed -= bytes;
        }
        fits
    }

    /// Writes the gap records that are due; whether none is left.
    pub(crate) fn settle(&mut self) -> bool {
        if self.lost > 0 {
            if !self.whole(&gap(Some(self.lost), GapReason::DiskFull)) {
                return false;
            }
            self.lost = 0;
        }
        if self.limited == Limited::Due {
            if !self.whole(&gap(None, GapReason::Limit)) {
                return false;
            }
            self.limited = Limited::Said;
        }
        true
    }

    /// Appends whole records in one write, or leaves no trace of them.
    fn whole(&mut self, records: &[u8]) -> bool {
        if self.torn && self.sink.cut(self.len).is_err() {
            return false;
        }
        self.torn = false;
        let mut rest = records;
        while !rest.is_empty() {
            match self.sink.append(rest) {
                Ok(written) if written > 0 => rest = &rest[written..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(_) | Err(_) => {
                    self.torn = rest.len() < records.len() && self.sink.cut(self.len).is_err();
                    return false;
                }
            }
        }
        self.len += records.len() as u64;
        true
    }
}

impl<S: Sink> Outlet for Writer<S> {
    fn output(&mut self, kind: Kind, framed: &mut [u8]) {
        let time = clock::now_micros();
        let mut start = 0;
        while start + HEADER_LEN < framed.len() {
            let end = framed.len().min(start + HEADER_LEN + MAX_PAYLOAD);
            self.piece(kind, time, &mut framed[start..end]);
            // The next header goes over the end of what is written already.
            start = end - HEADER_LEN;
        }
    }
}

fn gap(bytes: Option<u64>, reason: GapReason) -> Vec<u8> {
    Record {
        time: clock::now_micros(),
        item: Item::Gap { bytes, reason },
    }
    .encode()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A disk with so much room; it takes what fits.
    struct Disk {
        bytes: Vec<u8>,
        room: usize,
        cuts: bool,
        /// What is kept for others.
        kept: Option<usize>,
    }

    impl Sink for &mut Disk {
        fn append(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let fits = bytes.len().min(self.room - self.bytes.len().min(self.room));
            if fits == 0 {
                return Err(io::Error::from_raw_os_error(libc::ENOSPC));
            }
            self.bytes.extend_from_slice(&bytes[..fits]);
            Ok(fits)
        }

        fn cut(&mut self, len: u64) -> io::Result<()> {
            if !self.cuts {
                return Err(io::Error::from_raw_os_error(libc::EIO));
            }
            self.bytes.truncate(usize::try_from(len).expect("small"));
            Ok(())
        }

        fn room(&self) -> Option<u64> {
            let room = self.room.saturating_sub(self.bytes.len());
            Some(room.saturating_sub(self.kept?) as u64)
        }
    }

    fn out(writer: &mut Writer<&mut Disk>, payload: &[u8]) {
        let mut framed = vec![0xAA; HEADER_LEN];
        framed.extend_from_slice(payload);
        writer.output(Kind::Out, &mut framed);
    }

    fn items(bytes: &[u8]) -> Vec<Item> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        let mut reader = crate::spool::Reader::new(file);
        let (mut items, mut offset) = (Vec::new(), 0);
        while let Some((record, next)) = reader.read_at(offset).unwrap() {
            items.push(record.item);
            offset = next;
        }
        assert_eq!(offset, bytes.len() as u64, "no torn record");
        items
    }

    #[test]
    fn a_full_disk_leaves_whole_records_and_one_gap() {
        for room in 0..80 {
            let mut disk = Disk {
                bytes: Vec::new(),
                room,
                cuts: true,
                kept: None,
            };
            let mut writer = Writer::new(&mut disk, 0, u64::MAX);
            out(&mut writer, b"0123456789");
            out(&mut writer, b"0123456789");
            out(&mut writer, b"0123456789");
            let written = 3 - writer.disk_full() / 10;
            assert_eq!(written, (room as u64 / 26).min(3), "room for {room}");
            items(&writer.sink.bytes);
            writer.sink.room = 1000;
            out(&mut writer, b"after");
            let mut wanted =
                vec![Item::Out(b"0123456789".to_vec()); usize::try_from(written).unwrap()];
            if written < 3 {
                wanted.push(Item::Gap {
                    bytes: Some((3 - written) * 10),
                    reason: GapReason::DiskFull,
                });
            }
            wanted.push(Item::Out(b"after".to_vec()));
            assert_eq!(items(&disk.bytes), wanted, "room for {room}");
        }
    }

    #[test]
    fn the_last_room_is_left_to_others() {
        let mut disk = Disk {
            bytes: Vec::new(),
            room: 1000,
            cuts: true,
            kept: Some(500),
        };
        let mut writer = Writer::new(&mut disk, 0, u64::MAX);
        for _ in 0..100 {
            out(&mut writer, b"0123456789");
        }
        assert!(writer.settle());
        let (len, dropped) = (writer.len(), writer.disk_full());
        assert!(len > 400 && len <= 500 + GAP, "{len}");
        writer.sink.room = 10_000;
        out(&mut writer, b"after");
        let items = items(&disk.bytes);
        let [before @ .., gap, last] = items.as_slice() else {
            panic!("{items:?}");
        };
        assert_eq!(before.len() as u64 * 10 + dropped, 1000);
        let wanted = Item::Gap {
            bytes: Some(dropped),
            reason: GapReason::DiskFull,
        };
        assert_eq!((gap, last), (&wanted, &Item::Out(b"after".to_vec())));
    }

    #[test]
    fn what_could_not_be_cut_is_cut_before_the_next_record() {
        let mut disk = Disk {
            bytes: Vec::new(),
            room: 30,
            cuts: false,
            kept: None,
        };
        let mut writer = Writer::new(&mut disk, 0, u64::MAX);
        out(&mut writer, b"0123456789");
        out(&mut writer, b"lost");
        writer.sink.room = 1000;
        out(&mut writer, b"lost");
        writer.sink.cuts = true;
        out(&mut writer, b"end");
        let gap = Item::Gap {
            bytes: Some(8),
            reason: GapReason::DiskFull,
        };
        assert_eq!(
            items(&disk.bytes),
            [
                Item::Out(b"0123456789".to_vec()),
                gap,
                Item::Out(b"end".to_vec())
            ]
        );
    }

    #[test]
    fn the_limit_is_kept_and_said_once() {
        for limit in 0..200 {
            let mut disk = Disk {
                bytes: Vec::new(),
                room: 1000,
                cuts: true,
                kept: None,
            };
            let mut writer = Writer::new(&mut disk, 0, limit);
            for _ in 0..10 {
                out(&mut writer, b"0123456789");
            }
            let over = writer.over_limit();
            assert!(writer.len() <= limit.max(GAP), "limit {limit}");
            let items = items(&disk.bytes);
            let (gap, before) = items.split_last().unwrap();
            assert_eq!(
                gap,
                &Item::Gap {
                    bytes: None,
                    reason: GapReason::Limit
                },
                "limit {limit}"
            );
            assert!(
                before
                    .iter()
                    .all(|item| *item == Item::Out(b"0123456789".to_vec()))
            );
            assert_eq!(before.len() as u64 * 10 + over, 100, "limit {limit}");
        }
    }

    #[test]
    fn output_longer_than_a_record_is_split() {
        let mut disk = Disk {
            bytes: Vec::new(),
            room: 1 << 20,
            cuts: true,
            kept: None,
        };
        let mut writer = Writer::new(&mut disk, 0, u64::MAX);
        let payload: Vec<u8> = (0..150_000_u32).map(|at| at.to_be_bytes()[2]).collect();
        out(&mut writer, &payload);
        let items = items(&disk.bytes);
        assert_eq!(items.len(), 3);
        let joined: Vec<u8> = items
            .into_iter()
            .flat_map(|item| {
                if let Item::Out(bytes) = item {
                    bytes
                } else {
                    vec![]
                }
            })
            .collect();
        assert!(joined == payload);
    }
}
