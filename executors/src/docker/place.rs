//! A place in a container's log, and the text in which it travels.
//!
//! The engine has no offsets, so a place is known by the record before it: its time, its stream, the how-manieth of that
//! time and stream it is (all parts of one long line have one time), and a hash of its content. With it go the bytes
//! delivered so far, which in the end are compared with what init wrote.
//!
//! The engine's driver `local` drops the end of a line that it had to cut into parts (seen with 20.10). So the time of a last
//! record without one goes with the place: if the next record of that stream has another time, the end of the line belongs
//! between them.
//!
//! `1.<tag>.<time>.<o|e|b|->.<count>.<hash>.<bytes of stdout>.<of stderr>.<open stdout>.<open stderr>.<flags>`, numbers in
//! hexadecimal. Flags: `g` a gap was shown, `k` the part of a record was delivered that was kept back for long, `e` all
//! was delivered, `n` none of them.

use hybrid_runner_core::error::{Error, Result};
use hybrid_runner_core::log::Stream;
use hybrid_runner_core::{LogCursor, RunId};

use super::records::Record;
use crate::cursors::{hash, tag};

const VERSION: &str = "1";

/// A place in the log of one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// The record before it; none: the beginning.
    pub(super) anchor: Option<Anchor>,
    /// Bytes of the workload that were delivered, of both streams.
    pub(super) out: u64,
    pub(super) err: u64,
    /// The time of the last record of stdout and of stderr, where it has no end of line.
    open: [Option<i64>; 2],
    /// A gap was shown, so that the sums cannot be right any more.
    pub(super) gap: bool,
    /// What was kept back of a record that might have gone on was delivered, too.
    pub(super) kept: bool,
    /// All was delivered.
    pub(super) at_end: bool,
}

/// A record by what it is known by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Anchor {
    pub(super) time: i64,
    pub(super) stream: Stream,
    /// Counted from 1.
    pub(super) count: u32,
    pub(super) hash: u64,
}

impl Place {
    pub(super) const START: Self = Self {
        anchor: None,
        out: 0,
        err: 0,
        open: [None; 2],
        gap: false,
        kept: false,
        at_end: false,
    };

    /// Counts bytes that are delivered.
    pub(super) fn add(&mut self, stream: Stream, bytes: usize) {
        let sum = if stream == Stream::Err {
            &mut self.err
        } else {
            &mut self.out
        };
        *sum += bytes as u64;
    }

    /// Bytes of this stream that were delivered.
    pub(super) fn sum(&self, stream: Stream) -> u64 {
        if stream == Stream::Err {
            self.err
        } else {
            self.out
        }
    }

    /// Whether the engine has dropped the end of the line before this record.
    pub(super) fn owed(&self, record: &Record) -> bool {
        self.open[slot(record.stream)].is_some_and(|time| time != record.time)
    }

    /// Remembers whether the record has the end of its line.
    pub(super) fn remember_end(&mut self, record: &Record) {
        let is_open = !record.content.ends_with(b"\n");
        self.open[slot(record.stream)] = is_open.then_some(record.time);
    }

    /// Whether the last record of this stream has no end of line.
    pub(super) fn is_open(&self, stream: Stream) -> bool {
        self.open[slot(stream)].is_some()
    }

    /// The end of the line is there now.
    pub(super) fn close(&mut self, stream: Stream) {
        self.open[slot(stream)] = None;
    }

    pub(super) fn to_cursor(self, run: RunId) -> LogCursor {
        let anchor = self.anchor.unwrap_or(Anchor {
            time: 0,
            stream: Stream::Both,
            count: 0,
            hash: 0,
        });
        let stream = match anchor.stream {
            _ if self.anchor.is_none() => '-',
            Stream::Out => 'o',
            Stream::Err => 'e',
            _ => 'b',
        };
        let flags = [('g', self.gap), ('k', self.kept), ('e', self.at_end)];
        let mut flags: String = flags
            .iter()
            .filter_map(|(flag, is_set)| is_set.then_some(*flag))
            .collect();
        if flags.is_empty() {
            flags.push('n');
        }
        format!(
            "{VERSION}.{:x}.{:x}.{stream}.{:x}.{:x}.{:x}.{:x}.{:x}.{:x}.{flags}",
            tag(run),
            anchor.time,
            anchor.count,
            anchor.hash,
            self.out,
            self.err,
            self.open[0].unwrap_or_default(),
            self.open[1].unwrap_or_default()
        )
        .parse()
        .expect("it is short and printable")
    }

    /// Reads a cursor; one of another run, or nonsense, is refused.
    pub(super) fn parse(cursor: &LogCursor, run: RunId) -> Result<Self> {
        Self::read(cursor.as_str(), tag(run)).ok_or_else(|| foreign(run))
    }

    fn read(text: &str, tag: u64) -> Option<Self> {
        let mut fields = text.strip_prefix(VERSION)?.strip_prefix('.')?.split('.');
        let mut next = || fields.next();
        let number = |field: Option<&str>| u64::from_str_radix(field?, 16).ok();
        if number(next())? != tag {
            return None;
        }
        let time = i64::try_from(number(next())?).ok()?;
        let stream = match next()? {
            "o" => Some(Stream::Out),
            "e" => Some(Stream::Err),
            "b" => Some(Stream::Both),
            "-" => None,
            _ => return None,
        };
        let count = u32::try_from(number(next())?).ok()?;
        let (hash, out, err) = (number(next())?, number(next())?, number(next())?);
        let open = [number(next())?, number(next())?];
        let open = open.map(|time| i64::try_from(time).ok().filter(|time| *time != 0));
        let flags = next()?;
        if flags.is_empty() || flags.contains(|flag| !"gken".contains(flag)) {
            return None;
        }
        let anchor = stream.map(|stream| Anchor {
            time,
            stream,
            count,
            hash,
        });
        fields.next().is_none().then_some(Self {
            anchor,
            out,
            err,
            open,
            gap: flags.contains('g'),
            kept: flags.contains('k'),
            at_end: flags.contains('e'),
        })
    }
}

/// Counts records of one time and stream, in the order of the log.
#[derive(Debug, Clone, Default)]
pub(super) struct Counter([Option<(i64, u32)>; 2]);

impl Counter {
    /// What the next record of the log is known by.
    pub(super) fn next(&mut self, record: &Record) -> Anchor {
        let slot = &mut self.0[slot(record.stream)];
        let count = match *slot {
            Some((time, count)) if time == record.time => count.saturating_add(1),
            _ => 1,
        };
        *slot = Some((record.time, count));
        Anchor {
            time: record.time,
            stream: record.stream,
            count,
            hash: hash(&record.content),
        }
    }
}

fn slot(stream: Stream) -> usize {
    usize::from(stream == Stream::Err)
}

fn foreign(run: RunId) -> Error {
    Error::invalid(format!(
        "the log cursor is not of run `{run}`; leave it out to read from the beginning"
    ))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn record(stream: Stream, time: i64, content: &'static str) -> Record {
        Record {
            stream,
            time,
            content: Bytes::from_static(content.as_bytes()),
        }
    }

    #[test]
    fn a_cursor_is_read_as_it_was_written_and_only_by_its_run() {
        let run = RunId::generate().attempt(1);
        let mut place = Place::START;
        assert_eq!(Place::parse(&place.to_cursor(run), run).unwrap(), place);
        place.anchor = Some(Counter::default().next(&record(Stream::Err, 17, "x")));
        place.add(Stream::Err, 1);
        place.gap = true;
        place.kept = true;
        let cursor = place.to_cursor(run);
        assert_eq!(Place::parse(&cursor, run).unwrap(), place);
        assert!(Place::parse(&cursor, run.attempt(2)).is_err());
    }

    #[test]
    fn nonsense_is_refused() {
        let run = RunId::generate();
        for text in [
            "7",
            "1",
            "1.2.3",
            "1.zz.0.-.0.0.0.0.0.0.n",
            "2.0.0.-.0.0.0.0.0.0.n",
        ] {
            assert!(Place::parse(&text.parse().unwrap(), run).is_err(), "{text}");
        }
        let long = Place::START.to_cursor(run).to_string() + ".1";
        assert!(Place::parse(&long.parse().unwrap(), run).is_err());
    }

    #[test]
    fn the_end_of_a_line_that_was_cut_is_owed_once_another_line_follows() {
        let mut place = Place::START;
        let part = record(Stream::Out, 5, "part");
        place.remember_end(&part);
        assert!(!place.owed(&record(Stream::Out, 5, "next part")));
        assert!(!place.owed(&record(Stream::Err, 6, "other")));
        assert!(place.owed(&record(Stream::Out, 6, "next line")));
        let run = RunId::generate();
        assert_eq!(Place::parse(&place.to_cursor(run), run).unwrap(), place);
        place.remember_end(&record(Stream::Out, 5, "rest\n"));
        assert!(!place.owed(&record(Stream::Out, 6, "next line")));
    }

    #[test]
    fn equal_parts_of_one_line_are_told_apart_also_between_those_of_the_other_stream() {
        let mut counter = Counter::default();
        let first = counter.next(&record(Stream::Out, 5, "x"));
        let between = counter.next(&record(Stream::Err, 5, "x"));
        let second = counter.next(&record(Stream::Out, 5, "x"));
        let later = counter.next(&record(Stream::Out, 6, "x"));
        assert_eq!(
            [first.count, between.count, second.count, later.count],
            [1, 1, 2, 1]
        );
    }
}
