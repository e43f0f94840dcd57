//! A place in the log of a run's pod, and finding it again.
//!
//! The API has no positions. It gives a log from a moment on, in whole seconds, and what it gives for one moment is always the
//! same. So a place is known by the piece of the line before it: when that line began, the how-manieth of that time it is, how
//! many bytes of it were delivered, and a hash of those. Whoever comes back reads from a little earlier, lets pass what
//! comes before the anchor, and goes on behind it.
//!
//! | in the cursor | means |
//! |---|---|
//! | `k1.<run>.<pod>.a.<time>.<count>.<length>.<hash>` | behind that piece of a line |
//! | `k1.<run>.<pod>.l.<time>` | the log was rotated: behind all that is not later than this |
//! | `k1.<run>.0.f.<offset>` | behind so many bytes of the log as it was archived |
//! | `k1.<run>.<pod>.e` | at the end |
//!
//! All numbers are hexadecimal; `<run>` and `<pod>` are hashes.

use hybrid_runner_core::error::{Error, Result};
use hybrid_runner_core::{LogCursor, RunId};

use super::archive::Finder;
use super::records::Piece;
use crate::cursors::{hash, hash_on, tag};

const VERSION: &str = "k1";

/// A piece of a line, by which the place behind it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Anchor {
    /// When the line began, in nanoseconds.
    pub(crate) time: i64,
    /// How many lines of the same time came directly before it.
    count: u64,
    /// How many bytes of it were delivered.
    length: u64,
    /// Of those bytes.
    hash: u64,
}

/// A place in a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Start,
    Behind { pod: u64, anchor: Anchor },
    Later { pod: u64, time: i64 },
    Archived { offset: u64 },
    End,
}

impl Place {
    pub(crate) fn parse(cursor: &LogCursor, run: RunId) -> Result<Self> {
        Self::read(cursor.as_str(), run).ok_or_else(|| {
            Error::invalid(format!(
                "the cursor `{}` is not of the log of run `{run}`",
                hybrid_runner_core::id::shorten(cursor.as_str())
            ))
        })
    }

    fn read(text: &str, run: RunId) -> Option<Self> {
        let number = |text: &str| u64::from_str_radix(text, 16).ok();
        let time = |text: &str| i64::try_from(number(text)?).ok();
        let parts: Vec<&str> = text.split('.').collect();
        let [VERSION, of, pod, rest @ ..] = parts.as_slice() else {
            return None;
        };
        if number(of)? != tag(run) {
            return None;
        }
        let pod = number(pod)?;
        match rest {
            ["a", at, count, length, hash] => Some(Self::Behind {
                pod,
                anchor: Anchor {
                    time: time(at)?,
                    count: number(count)?,
                    length: number(length)?,
                    hash: number(hash)?,
                },
            }),
            ["l", at] => Some(Self::Later {
                pod,
                time: time(at)?,
            }),
            ["f", offset] => Some(Self::Archived {
                offset: number(offset)?,
            }),
            ["e"] => Some(Self::End),
            _ => None,
        }
    }

    pub(crate) fn cursor(self, run: RunId) -> LogCursor {
        let run = tag(run);
        let text = match self {
            // There is no chunk before it, and so no cursor.
            Self::Start | Self::End => format!("{VERSION}.{run:x}.0.e"),
            Self::Later { pod, time } => format!("{VERSION}.{run:x}.{pod:x}.l.{time:x}"),
            Self::Archived { offset } => format!("{VERSION}.{run:x}.0.f.{offset:x}"),
            Self::Behind { pod, anchor } => format!(
                "{VERSION}.{run:x}.{pod:x}.a.{:x}.{:x}.{:x}.{:x}",
                anchor.time, anchor.count, anchor.length, anchor.hash
            ),
        };
        text.parse().expect("short and printable")
    }

    /// The pod whose log it is in.
    pub(crate) fn pod(self) -> Option<u64> {
        match self {
            Self::Behind { pod, .. } | Self::Later { pod, .. } => Some(pod),
            Self::Start | Self::Archived { .. } | Self::End => None,
        }
    }

    /// From which moment on the log is to be read to find it, in nanoseconds.
    pub(crate) fn time(self) -> Option<i64> {
        match self {
            Self::Behind { anchor, .. } => Some(anchor.time),
            Self::Later { time, .. } => Some(time),
            Self::Start | Self::Archived { .. } | Self::End => None,
        }
    }
}

impl Anchor {
    /// What finds it in a log that has no times.
    pub(crate) fn finder(self) -> Finder {
        Finder::of(self.length, self.hash)
    }
}

/// Follows the pieces of a log, so that each has its anchor.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Counter {
    line: Option<Anchor>,
}

impl Counter {
    /// The anchor behind this piece.
    pub(crate) fn next(&mut self, piece: &Piece) -> Anchor {
        let anchor = match self.line {
            Some(line) if !piece.is_first => Anchor {
                length: line.length + piece.bytes.len() as u64,
                hash: hash_on(line.hash, &piece.bytes),
                ..line
            },
            line => Anchor {
                time: piece.time,
                count: line
                    .filter(|line| line.time == piece.time)
                    .map_or(0, |line| line.count + 1),
                length: piece.bytes.len() as u64,
                hash: hash(&piece.bytes),
            },
        };
        *self.line.insert(anchor)
    }

    /// The anchor behind the last piece.
    pub(crate) fn last(&self) -> Option<Anchor> {
        self.line
    }

    /// If the place behind `wanted` lies in this piece, or right behind it: how many of its bytes are before it.
    pub(crate) fn find(&self, piece: &Piece, wanted: Anchor) -> Option<usize> {
        let mut before = *self;
        let mut start = piece.clone();
        start.bytes.clear();
        // Where the piece begins.
        let at = before.next(&start);
        if (at.time, at.count) != (wanted.time, wanted.count) {
            return None;
        }
        let missing = wanted.length.checked_sub(at.length)?;
        let missing = usize::try_from(missing).ok()?;
        let bytes = piece.bytes.get(..missing)?;
        (hash_on(at.hash, bytes) == wanted.hash).then_some(missing)
    }
}

/// What tells one pod from another in a cursor.
pub(crate) fn pod_tag(uid: &str) -> u64 {
    hash(uid.as_bytes())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn piece(time: i64, is_first: bool, text: &'static str) -> Piece {
        Piece {
            time,
            is_first,
            is_remark: false,
            bytes: Bytes::from_static(text.as_bytes()),
        }
    }

    #[test]
    fn each_place_is_found_again_and_no_other() {
        let log = [
            piece(7, true, "same\n"),
            piece(7, true, "same\n"),
            piece(7, true, "long "),
            piece(7, false, "line "),
            piece(7, false, "of three\n"),
            piece(8, true, "\n"),
        ];
        let mut counter = Counter::default();
        let anchors: Vec<Anchor> = log.iter().map(|piece| counter.next(piece)).collect();
        for (at, anchor) in anchors.iter().enumerate() {
            let mut counter = Counter::default();
            for (here, piece) in log.iter().enumerate() {
                let found = counter.find(piece, *anchor);
                // Behind a piece is also before the next one of its line.
                let is_next = here == at + 1 && !piece.is_first;
                let expected = match here {
                    _ if here == at => Some(piece.bytes.len()),
                    _ if is_next => Some(0),
                    _ => None,
                };
                assert_eq!(found, expected, "{at} {here}");
                counter.next(piece);
            }
        }
    }

    #[test]
    fn a_place_is_found_although_the_line_is_cut_elsewhere() {
        let mut counter = Counter::default();
        counter.next(&piece(7, true, "lon"));
        let anchor = counter.next(&piece(7, false, "g li"));
        let whole = piece(7, true, "long line\n");
        assert_eq!(Counter::default().find(&whole, anchor), Some(7));
        let other = piece(7, true, "lang line\n");
        assert_eq!(Counter::default().find(&other, anchor), None);
    }

    #[test]
    fn a_cursor_reads_back_and_is_of_one_run() {
        let run = RunId::generate().attempt(1);
        let anchor = Counter::default().next(&piece(i64::MAX, true, "x"));
        for place in [
            Place::Behind {
                pod: u64::MAX,
                anchor,
            },
            Place::Later { pod: 1, time: 0 },
            Place::Archived { offset: 3 },
            Place::End,
        ] {
            let cursor = place.cursor(run);
            assert_eq!(Place::parse(&cursor, run).unwrap(), place, "{cursor}");
            assert!(Place::parse(&cursor, run.attempt(2)).is_err());
        }
        for text in ["k1", "k1.1.1", "k1.x.1.e", "k2.1.1.e", "{}", "-1:-1"] {
            assert!(Place::parse(&text.parse().unwrap(), run).is_err(), "{text}");
        }
    }
}
