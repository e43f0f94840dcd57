//! What the workload does, and what must be seen of it.

use super::forms::{Form, Piece, forms, forms_within, parts};
use super::values::Value;

/// So many of the first bytes may have been shown before it was known that a value follows: the prompt of a program that waits.
const EARLY: usize = 3;
/// Values up to this length are split at each byte in each form, longer ones only as they are.
const SHORT: usize = 20;
/// Longer values are split at some places only.
const ALL_CUTS: usize = 120;
/// How many those are.
const SOME_CUTS: usize = 8;
/// What each byte of the file is combined with, by `XOR`: so it holds nothing that is searched for.
const DISGUISE: u8 = 0xA5;

/// What must be seen.
#[derive(Debug)]
enum Part {
    Text(Vec<u8>),
    Mask,
    /// A mask, behind at most so many bytes of these.
    Late(Vec<u8>),
    /// Masks, with nothing around them but what quotes, up to this text.
    Quoted(Vec<u8>),
}

/// A script for the workload, with what must come out of it.
#[derive(Debug, Default)]
pub(super) struct Script {
    records: Vec<u8>,
    expected: Vec<Part>,
    lines: usize,
}

impl Script {
    /// Ends the workload unless the variable of each value holds it.
    pub(super) fn check(&mut self, values: &[Value]) {
        for value in values {
            let content = format!("{}\0{}\0", value.variable(), value.text);
            self.record(3, content.as_bytes());
        }
    }

    /// Makes one file, and waits for the other.
    pub(super) fn gate(&mut self, reached: &str, go: &str) {
        self.record(2, format!("{reached}\0{go}\0").as_bytes());
    }

    /// What must be seen as it is.
    pub(super) fn plain(&mut self, bytes: &[u8]) {
        self.record(0, bytes);
        self.text(bytes);
    }

    /// What the log says before the workload does.
    pub(super) fn said_before(&mut self, text: &str) {
        self.text(text.as_bytes());
    }

    /// Each value in each form, whole.
    pub(super) fn print(&mut self, values: &[Value]) {
        for value in values {
            for form in forms(&value.text) {
                self.form(&value.name, &form, None);
            }
            let (long, short) = parts(&value.text);
            for part in long {
                for form in forms_within(&value.text, &part) {
                    self.form("a part", &form, None);
                }
            }
            for part in short {
                self.plain(format!("too short alone: {part}\n").as_bytes());
            }
            for (encoder, output) in &value.recorded {
                self.quoted(encoder, output);
            }
        }
    }

    /// Each value in each form again and again, in two writes.
    pub(super) fn split(&mut self, values: &[Value]) {
        for value in values {
            for form in forms(&value.text) {
                let length = form.pieces.iter().map(|piece| piece.text().len()).sum();
                let everywhere =
                    value.text.len() <= SHORT || form.encoder == "as it is" && length <= ALL_CUTS;
                for cut in cuts(length, everywhere) {
                    self.form(&value.name, &form, Some(cut));
                }
            }
        }
    }

    fn form(&mut self, name: &str, form: &Form, cut: Option<usize>) {
        self.lines += 1;
        self.plain(format!("{} {name}, {}: [", self.lines, form.encoder).as_bytes());
        let mut at = 0;
        for piece in &form.pieces {
            let text = piece.text().as_bytes();
            let inside = cut
                .and_then(|cut| cut.checked_sub(at))
                .filter(|cut| *cut < text.len());
            match inside {
                None => self.record(0, text),
                Some(cut) => {
                    self.record(1, &text[..cut]);
                    self.record(0, &text[cut..]);
                }
            }
            match (piece, inside) {
                (Piece::Seen(_), _) => self.text(text),
                (Piece::Hidden(_), Some(cut @ 1..=EARLY)) => {
                    self.expected.push(Part::Late(text[..cut].to_vec()));
                }
                (Piece::Hidden(_), _) => self.expected.push(Part::Mask),
            }
            at += text.len();
        }
        self.plain(b"]\n");
    }

    fn quoted(&mut self, encoder: &str, output: &str) {
        self.lines += 1;
        let end = format!("]:{}\n", self.lines);
        self.plain(format!("{} {encoder}: [", self.lines).as_bytes());
        self.record(0, output.as_bytes());
        self.expected.push(Part::Quoted(end.clone().into_bytes()));
        self.record(0, end.as_bytes());
    }

    fn record(&mut self, kind: u8, content: &[u8]) {
        let length = u32::try_from(content.len()).expect("it is short");
        self.records.push(kind);
        self.records.extend(length.to_le_bytes());
        self.records.extend(content);
    }

    fn text(&mut self, bytes: &[u8]) {
        match self.expected.last_mut() {
            Some(Part::Text(text)) => text.extend(bytes),
            _ => self.expected.push(Part::Text(bytes.to_vec())),
        }
    }

    /// The file for the workload.
    pub(super) fn file(&self) -> Vec<u8> {
        self.records.iter().map(|byte| byte ^ DISGUISE).collect()
    }

    /// Compares it with the beginning of a log; what follows.
    ///
    /// # Panics
    ///
    /// Where they differ.
    pub(super) fn compare<'a>(&self, log: &'a [u8]) -> &'a [u8] {
        let mut rest = log;
        for part in &self.expected {
            let Some(after) = part.taken_from(rest) else {
                let rest = &rest[part.same_as(rest)..];
                let at = log.len() - rest.len();
                panic!(
                    "at byte {at} of the log:\n  before {}\n     got {}\n  wanted {part}",
                    shown(&log[at.saturating_sub(200)..at]),
                    shown(rest),
                );
            };
            rest = after;
        }
        rest
    }
}

impl Piece {
    fn text(&self) -> &str {
        match self {
            Self::Seen(text) | Self::Hidden(text) => text,
        }
    }
}

/// Where a text of this length is cut.
fn cuts(length: usize, everywhere: bool) -> Vec<usize> {
    if everywhere || length <= SOME_CUTS {
        return (1..length).collect();
    }
    let step = (length - 4) / (SOME_CUTS - 4);
    let mut cuts: Vec<_> = (0..SOME_CUTS - 4).map(|number| 2 + step * number).collect();
    cuts.extend([1, 3, length - 2, length - 1]);
    cuts.sort_unstable();
    cuts.dedup();
    cuts
}

impl Part {
    /// How much of it a text begins with.
    fn same_as(&self, text: &[u8]) -> usize {
        let Self::Text(wanted) = self else { return 0 };
        let pairs = wanted.iter().zip(text);
        pairs.take_while(|(one, other)| one == other).count()
    }

    /// What follows it in a text that begins with it.
    fn taken_from<'a>(&self, text: &'a [u8]) -> Option<&'a [u8]> {
        match self {
            Self::Text(wanted) => text.strip_prefix(wanted.as_slice()),
            Self::Mask => text.strip_prefix(b"***"),
            Self::Late(shown) => (0..=shown.len())
                .find_map(|early| text.strip_prefix(&shown[..early])?.strip_prefix(b"***")),
            Self::Quoted(end) => {
                let length = text.windows(end.len()).position(|window| window == end)?;
                let (masked, rest) = text.split_at(length);
                let masked = String::from_utf8_lossy(masked);
                let around = |char: char| char.is_whitespace() || "'\"`$b".contains(char);
                let is_hidden =
                    masked.contains("***") && masked.replace("***", "").chars().all(around);
                is_hidden.then(|| &rest[end.len()..])
            }
        }
    }
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Text(text) => f.write_str(&shown(text)),
            Self::Mask => f.write_str("***"),
            Self::Late(early) => write!(f, "at most {}, and ***", shown(early)),
            Self::Quoted(end) => write!(f, "*** in quotes, and {}", shown(end)),
        }
    }
}

fn shown(text: &[u8]) -> String {
    text[..text.len().min(300)].escape_ascii().to_string()
}
