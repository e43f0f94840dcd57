//! Lines of a container's log, as the API server gives them with `timestamps=true`.
//!
//! The kubelet writes a time before each line, and nothing before the rest of a line that the container runtime had to split.
//! A log that is asked for from a moment on may begin in the middle of a line: that piece has no time. What the kubelet says
//! of itself in the log (that it cannot follow, that the log is gone) has none either; it is no output, and is left out.

use bytes::Bytes;
use jiff::Timestamp;

use super::remarks::{Part, Remarks};

/// A time and the blank behind it are no longer than this.
const LONGEST_TIME: usize = 48;

/// A piece of a line, with the newline if it is the last one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Piece {
    /// When the line began, in nanoseconds.
    pub(crate) time: i64,
    /// Whether the line begins with it.
    pub(crate) is_first: bool,
    /// Whether it is of the container's first process, and no output of the work.
    pub(crate) is_remark: bool,
    pub(crate) bytes: Bytes,
}

/// Makes pieces of what comes, however it is cut.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    state: State,
    /// What may be a time.
    head: Vec<u8>,
    /// Where the first process of the container writes lines of its own.
    remarks: Option<Remarks>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    /// At the beginning of a line.
    #[default]
    Head,
    /// Behind the time of a line, and perhaps behind some of it.
    Line { time: i64, is_first: bool },
    /// In a line without a time.
    Foreign,
}

impl Lines {
    pub(crate) fn new(has_first_process: bool) -> Self {
        Self {
            remarks: has_first_process.then(Remarks::default),
            ..Self::default()
        }
    }

    /// What is held back, once nothing more comes.
    pub(crate) fn finish(&mut self, out: &mut Vec<Piece>) {
        let rest = self.remarks.as_mut().map(Remarks::rest).unwrap_or_default();
        if let State::Line { time, is_first } = self.state
            && !rest.is_empty()
        {
            out.push(Piece {
                time,
                is_first,
                is_remark: false,
                bytes: rest,
            });
        }
    }

    pub(crate) fn push(&mut self, mut input: Bytes, out: &mut Vec<Piece>) {
        while !input.is_empty() {
            match self.state {
                State::Head => self.head(&mut input),
                State::Line { time, is_first } => {
                    let (bytes, is_whole) = rest_of_line(&mut input);
                    let is_first = self.line(time, is_first, bytes, out);
                    self.state = if is_whole {
                        State::Head
                    } else {
                        State::Line { time, is_first }
                    };
                }
                State::Foreign => {
                    let (_, is_whole) = rest_of_line(&mut input);
                    if is_whole {
                        self.state = State::Head;
                    }
                }
            }
        }
    }

    /// Takes more of a line; whether the next of it is its first piece.
    fn line(&mut self, time: i64, first: bool, bytes: Bytes, out: &mut Vec<Piece>) -> bool {
        let parts = match &mut self.remarks {
            Some(remarks) => remarks.push(bytes),
            None => vec![Part::Own(bytes)],
        };
        let mut is_first = first;
        for part in parts {
            let is_remark = matches!(part, Part::Remark(_));
            let (Part::Own(bytes) | Part::Remark(bytes)) = part;
            out.push(Piece {
                time,
                is_first,
                is_remark,
                bytes,
            });
            is_first = false;
        }
        is_first
    }

    fn head(&mut self, input: &mut Bytes) {
        let end = input.iter().position(|byte| matches!(byte, b' ' | b'\n'));
        let taken = input.split_to(end.unwrap_or(input.len()));
        self.head.extend_from_slice(&taken);
        if end.is_none() {
            if self.head.len() > LONGEST_TIME {
                self.begin(None);
            }
            return;
        }
        let end = input.split_to(1);
        if end == b"\n"[..] {
            // A line of the kubelet.
            self.head.clear();
        } else {
            self.begin(time_of(&self.head));
        }
    }

    fn begin(&mut self, time: Option<i64>) {
        self.head.clear();
        self.state = match time {
            Some(time) => State::Line {
                time,
                is_first: true,
            },
            None => State::Foreign,
        };
    }
}

fn rest_of_line(input: &mut Bytes) -> (Bytes, bool) {
    match input.iter().position(|byte| *byte == b'\n') {
        Some(end) => (input.split_to(end + 1), true),
        None => (input.split_to(input.len()), false),
    }
}

fn time_of(text: &[u8]) -> Option<i64> {
    let time: Timestamp = std::str::from_utf8(text).ok()?.parse().ok()?;
    i64::try_from(time.as_nanosecond()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_first_process_says_is_told_from_the_output_of_the_work() {
        let remark = "time=\"2026-11-28T18:00:00Z\" level=info msg=x argo=true\n";
        let log = format!(
            "2026-11-28T12:00:00Z one\n2026-11-28T12:00:01Z two{remark}2026-11-28T12:00:02Z {remark}2026-11-28T12:00:03Z three"
        );
        for length in 1..log.len() {
            let mut lines = Lines::new(true);
            let mut pieces = Vec::new();
            for chunk in log.as_bytes().chunks(length) {
                lines.push(Bytes::copy_from_slice(chunk), &mut pieces);
            }
            lines.finish(&mut pieces);
            let text = |is_remark| {
                let pieces = pieces.iter().filter(|piece| piece.is_remark == is_remark);
                let bytes: Vec<u8> = pieces.flat_map(|piece| piece.bytes.to_vec()).collect();
                String::from_utf8(bytes).unwrap()
            };
            assert_eq!(text(false), "one\ntwothree", "{length}");
            assert_eq!(text(true), format!("{remark}{remark}"), "{length}");
            let firsts = pieces.iter().filter(|piece| piece.is_first).count();
            assert_eq!(firsts, 4, "{length}");
        }
    }

    const LOG: &str = "rest of a line that was cut\n2026-11-28T12:00:00.000000001Z one\n2026-11-28T14:00:00.000000002+02:00 \nfailed to follow\n\n2026-11-28T12:00:01.5Z 2026-11-28T12:00:01.5Z no newline";

    fn read(length: usize) -> Vec<(i64, String)> {
        let mut lines = Lines::default();
        let mut pieces = Vec::new();
        for chunk in LOG.as_bytes().chunks(length) {
            lines.push(Bytes::copy_from_slice(chunk), &mut pieces);
        }
        let mut read: Vec<(i64, String)> = Vec::new();
        for piece in pieces {
            let text = String::from_utf8(piece.bytes.to_vec()).unwrap();
            if piece.is_first {
                read.push((piece.time % 10_000_000_000, text));
            } else {
                read.last_mut().unwrap().1.push_str(&text);
            }
        }
        read
    }

    #[test]
    fn lines_are_the_same_however_they_are_cut() {
        let whole = read(LOG.len());
        let texts: Vec<&str> = whole.iter().map(|(_, text)| text.as_str()).collect();
        assert_eq!(texts, ["one\n", "\n", "2026-11-28T12:00:01.5Z no newline"]);
        assert_eq!(
            [whole[0].0 + 1, whole[0].0 + 1_499_999_999],
            [whole[1].0, whole[2].0]
        );
        for length in 1..LOG.len() {
            assert_eq!(read(length), whole, "{length}");
        }
    }
}
