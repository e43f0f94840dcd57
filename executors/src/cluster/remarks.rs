//! What the first process of a container says of itself in the container's log.
//!
//! Under Argo that is the emissary, which runs the work as its child. Its lines are known by their shape, however many there are and
//! whatever they say: `time="…" level=info msg="…" argo=true error="…"`, or the same as JSON; behind such a line, once more why it ended badly:
//! `Error: exit status 1`. One may stand behind a piece of a line that the work has not ended yet. What may become such a line is held back
//! until that is known.

use bytes::Bytes;
use serde_json::Value;

/// No such line is longer.
const LONGEST: usize = 1024;

/// A part of a line.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Of the work.
    Own(Bytes),
    /// A whole remark, with its newline.
    Remark(Bytes),
}

/// Tells the remarks in a line from the rest of it, however it is cut.
#[derive(Debug, Default)]
pub(super) struct Remarks {
    held: Vec<u8>,
    /// Whether there was one, so that the reason of an end may follow.
    was_one: bool,
}

impl Remarks {
    /// Takes more of a line, with its newline if it is the last of it.
    pub(super) fn push(&mut self, bytes: Bytes) -> Vec<Part> {
        let all = if self.held.is_empty() {
            bytes
        } else {
            let mut all = std::mem::take(&mut self.held);
            all.extend_from_slice(&bytes);
            Bytes::from(all)
        };
        let Some((at, shape)) = self.first_shape(&all) else {
            return vec![Part::Own(all)];
        };
        let mut parts = Vec::new();
        if at > 0 {
            parts.push(Part::Own(all.slice(..at)));
        }
        match shape {
            Shape::Whole => {
                self.was_one = true;
                parts.push(Part::Remark(all.slice(at..)));
            }
            Shape::Begun | Shape::None => self.held.extend_from_slice(&all[at..]),
        }
        parts
    }

    /// Where in a line there is a remark, or what may become one.
    fn first_shape(&self, line: &[u8]) -> Option<(usize, Shape)> {
        let begins = |byte: &u8| match byte {
            b't' | b'{' => true,
            b'E' => self.was_one,
            _ => false,
        };
        let mut from = 0;
        while let Some(at) = line[from..].iter().position(begins) {
            let at = from + at;
            match shape(&line[at..]) {
                Shape::None => from = at + 1,
                shape => return Some((at, shape)),
            }
        }
        None
    }

    /// What is held back, once nothing more comes.
    pub(super) fn rest(&mut self) -> Bytes {
        Bytes::from(std::mem::take(&mut self.held))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    None,
    /// It may become one.
    Begun,
    Whole,
}

/// Why a remark was not read to its end.
enum End {
    /// There is no more of it yet.
    Cut,
    /// It is none.
    Other,
}

fn shape(text: &[u8]) -> Shape {
    if text.len() > LONGEST {
        return Shape::None;
    }
    let mut reader = Reader { rest: text };
    let read = match text[0] {
        b'{' => reader.json(),
        b'E' => reader.reason(),
        _ => reader.text(),
    };
    match read {
        Ok(()) => Shape::Whole,
        Err(End::Cut) => Shape::Begun,
        Err(End::Other) => Shape::None,
    }
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl Reader<'_> {
    fn text(&mut self) -> Result<(), End> {
        self.word(b"time=\"")?;
        self.some(|byte| byte.is_ascii_digit() || b"TZ:.+-".contains(&byte))?;
        self.word(b"\" level=")?;
        self.some(|byte| byte.is_ascii_lowercase())?;
        self.word(b" msg=")?;
        self.value()?;
        self.word(b" argo=true")?;
        if self.rest.first() == Some(&b' ') {
            self.word(b" error=")?;
            self.value()?;
        }
        self.word(b"\n")
    }

    fn reason(&mut self) -> Result<(), End> {
        self.word(b"Error: ")?;
        if self.rest.first() == Some(&b's') {
            self.word(b"signal: ")?;
            self.some(|byte| byte.is_ascii_alphabetic() || b" ()".contains(&byte))?;
        } else {
            self.word(b"exit status ")?;
            self.some(|byte| byte.is_ascii_digit())?;
        }
        self.word(b"\n")
    }

    fn json(&mut self) -> Result<(), End> {
        self.word(br#"{"argo":true,"#)?;
        if self.rest.last() != Some(&b'\n') {
            return Err(End::Cut);
        }
        let line = [b"{", self.rest].concat();
        let line: Value = serde_json::from_slice(&line).map_err(|_| End::Other)?;
        let is_remark = ["level", "msg", "time"].map(|key| line[key].is_string());
        if is_remark == [true; 3] {
            return Ok(());
        }
        Err(End::Other)
    }

    fn word(&mut self, word: &[u8]) -> Result<(), End> {
        let length = word.len().min(self.rest.len());
        if self.rest[..length] != word[..length] {
            return Err(End::Other);
        }
        if length < word.len() {
            return Err(End::Cut);
        }
        self.rest = &self.rest[length..];
        Ok(())
    }

    /// At least one such byte.
    fn some(&mut self, fits: impl Fn(u8) -> bool) -> Result<(), End> {
        let end = self.rest.iter().position(|byte| !fits(*byte));
        match end {
            Some(0) => Err(End::Other),
            Some(end) => {
                self.rest = &self.rest[end..];
                Ok(())
            }
            None => Err(End::Cut),
        }
    }

    /// A word, or a text in quotation marks.
    fn value(&mut self) -> Result<(), End> {
        if self.rest.first() != Some(&b'"') {
            return self.some(|byte| byte.is_ascii_alphanumeric() || b"-._/@^+".contains(&byte));
        }
        let mut is_escaped = true;
        for (at, byte) in self.rest.iter().enumerate() {
            match byte {
                b'\n' => return Err(End::Other),
                _ if is_escaped => is_escaped = false,
                b'\\' => is_escaped = true,
                b'"' => {
                    self.rest = &self.rest[at + 1..];
                    return Ok(());
                }
                _ => {}
            }
        }
        Err(End::Cut)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXITED: &str = "time=\"2026-11-28T18:00:00.123Z\" level=info msg=\"sub-process exited\" argo=true error=\"<nil>\"\n";
    const CAPTURING: &str =
        "time=\"2026-11-28T18:00:00Z\" level=info msg=\"capturing \\\"logs\\\"\" argo=true\n";
    const JSON: &str = "{\"argo\":true,\"error\":null,\"level\":\"info\",\"msg\":\"sub-process exited\",\"time\":\"2026-11-28T18:00:00Z\"}\n";

    /// What is left of a line that comes in pieces of this length.
    fn left(line: &str, length: usize) -> String {
        let mut remarks = Remarks::default();
        let mut own = Vec::new();
        for piece in line.as_bytes().chunks(length) {
            for part in remarks.push(Bytes::copy_from_slice(piece)) {
                if let Part::Own(bytes) = part {
                    own.extend_from_slice(&bytes);
                }
            }
        }
        own.extend_from_slice(&remarks.rest());
        String::from_utf8(own).unwrap()
    }

    #[test]
    fn remarks_are_taken_out_however_they_are_cut() {
        for remark in [EXITED, CAPTURING, JSON] {
            for length in 1..=remark.len() {
                assert_eq!(left(remark, length), "", "{remark} by {length}");
                let behind = format!("tie {{xx{remark}");
                assert_eq!(left(&behind, length), "tie {xx", "{remark} by {length}");
            }
        }
    }

    #[test]
    fn the_reason_of_an_end_is_one_only_behind_a_remark() {
        for reason in [
            "Error: exit status 137\n",
            "Error: signal: killed (core dumped)\n",
        ] {
            for length in 1..=reason.len() {
                assert_eq!(left(reason, length), reason);
            }
            let mut remarks = Remarks::default();
            remarks.push(Bytes::from_static(EXITED.as_bytes()));
            let reason = Bytes::from_static(reason.as_bytes());
            assert_eq!(remarks.push(reason.clone()), [Part::Remark(reason)]);
            let other = Bytes::from_static(b"Error: of the work\n");
            assert_eq!(remarks.push(other.clone()), [Part::Own(other)]);
        }
    }

    #[test]
    fn what_only_looks_like_one_stays() {
        let other = EXITED.replace("argo=true", "argo=false");
        let more = EXITED.replace("error=\"<nil>\"", "error=\"<nil>\" more=1");
        let long = format!("time=\"{}\n", "1".repeat(2 * LONGEST));
        let cut = &EXITED[..40];
        let json = "{\"argo\":true,\"msg\":1}\n";
        for line in [
            other.as_str(),
            &more,
            &long,
            cut,
            json,
            "time\n",
            "{\n",
            "t",
        ] {
            for length in [1, 7, line.len()] {
                assert_eq!(left(line, length), line, "{length}");
            }
        }
    }
}
