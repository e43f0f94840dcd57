//! A place in the spool of a run, and the text in which it travels.
//!
//! `<o|e>.<offset>.<length of the record before it>.<tag>.<check>`, numbers in hexadecimal. `o`: records follow; `e`: all
//! was delivered, the gap that a killed helper leaves too. The tag tells the run, the check is a hash of the head of
//! the record before, so that a cursor of another spool, or of one that lost its end with the power, is found out
//! by one small read.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use hybrid_runner_core::error::{Error, Result};
use hybrid_runner_core::{LogCursor, RunId};
use hybrid_runner_helper::spool::HEADER_LEN;

/// Tells the cursors of one run from those of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tag(u32);

impl Tag {
    pub(super) fn of(run: RunId) -> Self {
        Self(fnv1a(run.to_string().as_bytes()))
    }
}

/// A place in a spool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// Of the next record.
    pub(super) offset: u64,
    /// Length of the record before.
    length: u64,
    /// Of its head.
    check: u32,
    /// Whether all was delivered.
    pub(super) at_end: bool,
}

impl Place {
    /// The beginning of a spool.
    pub(super) const START: Self = Self::at(0);

    /// Somewhere, with nothing to check it by.
    pub(super) const fn at(offset: u64) -> Self {
        Self {
            offset,
            length: 0,
            check: 0,
            at_end: false,
        }
    }

    /// Behind the record that begins at `offset` with the bytes `head` and takes `length` bytes.
    pub(super) fn behind(offset: u64, length: u64, head: &[u8]) -> Self {
        Self {
            offset: offset + length,
            length,
            check: fnv1a(&head[..head.len().min(HEADER_LEN)]),
            at_end: false,
        }
    }

    /// The same place, where nothing more comes.
    pub(super) fn end(self) -> Self {
        Self {
            at_end: true,
            ..self
        }
    }

    pub(super) fn to_cursor(self, tag: Tag) -> LogCursor {
        let kind = if self.at_end { 'e' } else { 'o' };
        format!(
            "{kind}.{:x}.{:x}.{:x}.{:x}",
            self.offset, self.length, tag.0, self.check
        )
        .parse()
        .expect("it is short and printable")
    }

    /// Reads a cursor; refuses what is none of this run.
    pub(super) fn parse(cursor: &LogCursor, run: RunId) -> Result<Self> {
        let (place, tag) = Self::read(cursor.as_str()).ok_or_else(|| foreign(run))?;
        if tag != Tag::of(run) {
            return Err(foreign(run));
        }
        Ok(place)
    }

    fn read(text: &str) -> Option<(Self, Tag)> {
        let mut fields = text.split('.');
        let at_end = match fields.next()? {
            "o" => false,
            "e" => true,
            _ => return None,
        };
        let mut number = || u64::from_str_radix(fields.next()?, 16).ok();
        let (offset, length, tag, check) = (number()?, number()?, number()?, number()?);
        let place = Self {
            offset,
            length,
            check: u32::try_from(check).ok()?,
            at_end,
        };
        let fits = length <= offset && fields.next().is_none();
        fits.then_some((place, Tag(u32::try_from(tag).ok()?)))
    }

    /// Whether the spool has the record before this place.
    pub(super) fn is_in(self, spool: &File) -> io::Result<bool> {
        if self.length == 0 {
            return Ok(true);
        }
        let mut head = [0; HEADER_LEN];
        let length = usize::try_from(self.length).unwrap_or(HEADER_LEN);
        let head = &mut head[..length.min(HEADER_LEN)];
        if spool.metadata()?.len() < self.offset {
            return Ok(false);
        }
        spool.read_exact_at(head, self.offset - self.length)?;
        Ok(fnv1a(head) == self.check)
    }
}

/// The error of a cursor that is not of this run.
pub(super) fn foreign(run: RunId) -> Error {
    Error::invalid(format!(
        "the log cursor is not of run `{run}`; leave it out to read from the beginning"
    ))
}

fn fnv1a(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash: u32, byte| {
        (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_as_it_was_written_and_only_by_its_run() {
        let run = RunId::generate().attempt(1);
        let place = Place::behind(4096, 70, b"0123456789abcdefmore");
        let cursor = place.to_cursor(Tag::of(run));
        assert_eq!(Place::parse(&cursor, run).unwrap(), place);
        let at_end = place.end().to_cursor(Tag::of(run));
        assert!(Place::parse(&at_end, run).unwrap().at_end);
        assert!(Place::parse(&cursor, run.attempt(2)).is_err());
    }

    #[test]
    fn nonsense_is_refused() {
        let run = RunId::generate();
        for text in [
            "7",
            "o.1.2.3.4",
            "o.zz.0.0.0",
            "o.1.1.1.1.1",
            "x.1.1.1.1",
            "o.1.1.1",
        ] {
            assert!(Place::parse(&text.parse().unwrap(), run).is_err(), "{text}");
        }
    }
}
