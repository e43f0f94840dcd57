//! The copy of one attempt's log on disk: a header of fixed length, then chunks as they go over the link, a line each.
//!
//! What was handed on long ago is given back to the disk from the front, and the header says where the rest begins. Nothing is
//! synced: what a power cut takes is copied again.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;

use hybrid_runner_core::log::{LogChunk, LogCursor};
use rustix::fs::{FallocateFlags, fallocate, fstatvfs};
use serde::{Deserialize, Serialize};

/// Room for a cursor of the longest kind, and the rest.
const HEADER_LEN: usize = 1024;
pub(super) const HEADER: u64 = HEADER_LEN as u64;
/// Read at once; a line may be longer.
const STRETCH: usize = 256 << 10;
/// Of the disk, so much stays free for the journal, without which nothing goes on; of a small one, a part.
const RESERVE: u64 = 64 << 20;
const RESERVED_PART: u64 = 4;
/// The last line of a log that is whole.
pub(super) const END: &[u8] = b"{\"end\":true}\n";

/// Where what is kept begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Start {
    /// The offset of the first line.
    pub(super) base: u64,
    /// The place in the log before it; none: the log's beginning.
    pub(super) cursor: Option<LogCursor>,
}

impl Start {
    /// A copy that begins there.
    pub(super) fn at(cursor: Option<LogCursor>) -> Self {
        Self {
            base: HEADER,
            cursor,
        }
    }
}

/// What an earlier life left.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) file: SpoolFile,
    pub(super) start: Start,
    /// Behind the last whole line.
    pub(super) len: u64,
    /// The place in the log there.
    pub(super) last: Option<LogCursor>,
    /// Whether that is the log's end.
    pub(super) is_whole: bool,
}

/// A line of the file.
enum Line {
    Chunk(LogChunk),
    End,
}

#[derive(Debug)]
pub(super) struct SpoolFile(File);

impl SpoolFile {
    /// A new file, in the place of one that may be there: whoever reads that goes on reading it.
    pub(super) fn create(path: &Path, start: &Start) -> io::Result<Self> {
        remove(path)?;
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let mut how = OpenOptions::new();
        let how = how.read(true).write(true).create_new(true).mode(0o600);
        let file = Self(how.open(path)?);
        file.write_start(start)?;
        Ok(file)
    }

    /// The file of an earlier life; none if there is none that can be read. What is torn at its end is cut off.
    pub(super) fn open(path: &Path) -> io::Result<Option<Found>> {
        let file = match OpenOptions::new().read(true).write(true).open(path) {
            Ok(file) => Self(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let Some(start) = file.read_start() else {
            return Ok(None);
        };
        let until = file.0.metadata()?.len();
        let (mut len, mut last, mut is_whole) = (start.base, start.cursor.clone(), false);
        while !is_whole {
            let lines = file.lines(len, until)?;
            if lines.is_empty() {
                break;
            }
            for (line, end) in lines {
                len = end;
                match line {
                    Line::Chunk(chunk) => last = Some(chunk.next),
                    Line::End => is_whole = true,
                }
            }
        }
        file.0.set_len(len)?;
        Ok(Some(Found {
            file,
            start,
            len,
            last,
            is_whole,
        }))
    }

    /// Writes a line, if there is room; on an error nothing of it stays.
    pub(super) fn append(&self, at: u64, line: &[u8]) -> io::Result<()> {
        let disk = fstatvfs(&self.0)?;
        let reserve = reserve(disk.f_blocks * disk.f_frsize);
        if disk.f_bavail * disk.f_frsize < reserve + line.len() as u64 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let written = self.0.write_all_at(line, at);
        if written.is_err() {
            drop(self.0.set_len(at));
        }
        written
    }

    /// Gives back what lies before a line.
    pub(super) fn drop_before(&self, start: &Start) -> io::Result<()> {
        self.write_start(start)?;
        let how = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        fallocate(&self.0, how, HEADER, start.base - HEADER)?;
        Ok(())
    }

    /// Chunks from a line on, each with the offset behind it. None: what is there cannot be read.
    pub(super) fn chunks(&self, from: u64, until: u64) -> io::Result<VecDeque<(LogChunk, u64)>> {
        let chunk = |(line, end)| match line {
            Line::Chunk(chunk) => Some((chunk, end)),
            Line::End => None,
        };
        let lines = self.lines(from, until)?;
        Ok(lines.into_iter().filter_map(chunk).collect())
    }

    /// The offset behind the chunk that ends at this place of the log.
    pub(super) fn find(&self, from: u64, until: u64, place: &LogCursor) -> io::Result<Option<u64>> {
        let mut at = from;
        while at < until {
            let chunks = self.chunks(at, until)?;
            let Some((_, end)) = chunks.back() else {
                break;
            };
            at = *end;
            if let Some((_, end)) = chunks.iter().find(|(chunk, _)| chunk.next == *place) {
                return Ok(Some(*end));
            }
        }
        Ok(None)
    }

    /// At least one line, if there is a whole one.
    fn lines(&self, from: u64, until: u64) -> io::Result<Vec<(Line, u64)>> {
        let mut wanted = STRETCH;
        loop {
            let left = usize::try_from(until.saturating_sub(from)).unwrap_or(usize::MAX);
            let mut bytes = vec![0; wanted.min(left)];
            self.0.read_exact_at(&mut bytes, from)?;
            let mut lines = Vec::new();
            let mut end = from;
            for line in bytes.split_inclusive(|byte| *byte == b'\n') {
                let Some(read) = read(line) else { break };
                end += line.len() as u64;
                lines.push((read, end));
            }
            if !lines.is_empty() || wanted >= left {
                return Ok(lines);
            }
            wanted *= 4;
        }
    }

    fn write_start(&self, start: &Start) -> io::Result<()> {
        let mut header = serde_json::to_vec(start)?;
        header.resize(HEADER_LEN - 1, b' ');
        header.push(b'\n');
        self.0.write_all_at(&header, 0)
    }

    fn read_start(&self) -> Option<Start> {
        let mut header = [0; HEADER_LEN];
        self.0.read_exact_at(&mut header, 0).ok()?;
        let start: Start = serde_json::from_slice(&header).ok()?;
        (start.base >= HEADER).then_some(start)
    }
}

/// What stays free of a disk of this size.
fn reserve(size: u64) -> u64 {
    (size / RESERVED_PART).min(RESERVE)
}

/// What a line says; nothing if it has no end, or is none of ours.
fn read(line: &[u8]) -> Option<Line> {
    if line == END {
        return Some(Line::End);
    }
    let line = line.strip_suffix(b"\n")?;
    serde_json::from_slice(line).ok().map(Line::Chunk)
}

/// Deletes a file that may be there.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use hybrid_runner_core::log::{LogItem, Stream};

    use super::*;

    fn chunk(number: u64, bytes: &[u8]) -> LogChunk {
        LogChunk {
            item: LogItem::Data {
                stream: Stream::Both,
                time: None,
                bytes: Bytes::copy_from_slice(bytes),
            },
            next: number.to_string().parse().unwrap(),
        }
    }

    fn line(chunk: &LogChunk) -> Vec<u8> {
        let mut line = serde_json::to_vec(chunk).unwrap();
        line.push(b'\n');
        line
    }

    /// A file of these chunks, and the offset behind each.
    fn file_of(path: &Path, chunks: &[LogChunk]) -> (SpoolFile, Vec<u64>) {
        let file = SpoolFile::create(path, &Start::at(None)).unwrap();
        let mut at = HEADER;
        let mut ends = Vec::new();
        for chunk in chunks {
            let line = line(chunk);
            file.append(at, &line).unwrap();
            at += line.len() as u64;
            ends.push(at);
        }
        (file, ends)
    }

    #[test]
    fn what_was_written_is_read_from_any_line_whatever_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a").join("log");
        let chunks = [
            chunk(1, b"line\n"),
            chunk(2, &vec![0xff; 64 << 10]),
            chunk(3, &vec![0x01; 64 << 10]),
            chunk(4, b""),
        ];
        let (file, ends) = file_of(&path, &chunks);
        let len = *ends.last().unwrap();
        for (from, rest) in [(HEADER, &chunks[..]), (ends[0], &chunks[1..])] {
            let mut read = Vec::new();
            let mut at = from;
            while at < len {
                let more = file.chunks(at, len).unwrap();
                at = more.back().unwrap().1;
                read.extend(more.into_iter().map(|(chunk, _)| chunk));
            }
            assert_eq!(read, rest);
        }
        let place = chunks[2].next.clone();
        assert_eq!(file.find(HEADER, len, &place).unwrap(), Some(ends[2]));
        let other = "other".parse().unwrap();
        assert_eq!(file.find(HEADER, len, &other).unwrap(), None);
    }

    #[test]
    fn a_torn_end_is_cut_off_and_what_is_no_header_is_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let (file, ends) = file_of(&path, &[chunk(1, b"one"), chunk(2, b"two")]);
        let torn = line(&chunk(3, b"three"));
        for torn in [&torn[..torn.len() - 1], &[0; 4096], b"{}\n"] {
            file.append(ends[1], torn).unwrap();
            let found = SpoolFile::open(&path).unwrap().unwrap();
            assert_eq!((found.len, found.is_whole), (ends[1], false));
            assert_eq!(found.last, Some("2".parse().unwrap()));
        }
        file.append(ends[1], END).unwrap();
        assert!(SpoolFile::open(&path).unwrap().unwrap().is_whole);
        fs::write(&path, "something else").unwrap();
        assert!(SpoolFile::open(&path).unwrap().is_none());
        fs::remove_file(&path).unwrap();
        assert!(SpoolFile::open(&path).unwrap().is_none());
    }

    #[test]
    fn what_was_handed_on_takes_no_room() {
        use std::os::unix::fs::MetadataExt as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let chunks: Vec<_> = (0..64).map(|n| chunk(n, &vec![b'x'; 64 << 10])).collect();
        let (file, ends) = file_of(&path, &chunks);
        let blocks = || fs::metadata(&path).unwrap().blocks();
        let before = blocks();
        let start = Start {
            base: ends[59],
            cursor: Some(chunks[59].next.clone()),
        };
        file.drop_before(&start).unwrap();
        assert!(blocks() < before / 4, "{before} {}", blocks());
        let found = SpoolFile::open(&path).unwrap().unwrap();
        assert_eq!((found.start, found.len), (start, ends[63]));
    }
}
