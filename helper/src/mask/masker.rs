//! Masks one stream, however it is cut.

use std::fmt;
use std::sync::Arc;

use super::automaton::{Automaton, Cursor, NONE};
use super::command::{COMMAND, Line};
use super::view::{RECENT, Recent};
use super::{MIN_NEEDLE, Patterns};
use crate::sys;

const MASK: &[u8] = b"***";
/// So many bytes that may begin a needle can be [released](Masker::release): one fewer than the shortest needle has.
const MAX_RELEASED: usize = MIN_NEEDLE - 1;
/// How many regions may wait for being written.
const MAX_REGIONS: usize = 64;

/// A place that is to be masked, in bytes from the first one held.
#[derive(Debug, Clone, Copy)]
struct Region {
    start: usize,
    end: usize,
}

/// Masks one stream.
pub struct Masker {
    patterns: Patterns,
    automaton: Arc<Automaton>,
    cursor: Cursor,
    recent: Recent,
    /// The longest end of the input that begins a needle.
    held: Vec<u8>,
    /// How much of it is written already: it lies in a mask, or was released.
    shown: usize,
    /// Regions in what is held: sorted, apart.
    regions: Vec<Region>,
    /// Whether the last thing written was a mask.
    in_mask: bool,
    masked: u64,
    /// The command that is being read.
    line: Option<Line>,
    /// Values that commands have named and that are not needles yet.
    named: Vec<Vec<u8>>,
}

impl fmt::Debug for Masker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Masker")
            .field("held", &self.held.len())
            .field("masked", &self.masked)
            .finish_non_exhaustive()
    }
}

impl Masker {
    /// A masker at the start of a stream.
    pub fn new(patterns: Patterns) -> Self {
        Self {
            automaton: patterns.automaton(),
            patterns,
            cursor: Cursor::new(0),
            recent: Recent::default(),
            held: Vec::new(),
            shown: 0,
            regions: Vec::new(),
            in_mask: false,
            masked: 0,
            line: None,
            named: Vec::new(),
        }
    }

    /// How many places were masked so far.
    pub fn masked(&self) -> u64 {
        self.masked
    }

    /// Takes the next piece of the stream and appends to `out` what is decided: all but the longest end that begins a
    /// needle.
    pub fn push(&mut self, input: &[u8], out: &mut Vec<u8>) {
        self.adopt(out);
        self.feed(input, out);
        self.add_named(out);
    }

    /// Writes what is held if it is so short that no needle is written whole: at most three bytes. What may have begun
    /// with them is still found, and the rest of it masked. For a stream that is silent for a moment: a prompt shows
    /// although it ends like a needle begins.
    pub fn release(&mut self, out: &mut Vec<u8>) {
        if self.can_release() {
            self.write(&[], self.shown, self.held.len(), out);
            self.shown = self.held.len();
        }
    }

    /// Whether [`Masker::release`] would write something.
    pub fn can_release(&self) -> bool {
        self.shown < self.held.len() && self.held.len() <= MAX_RELEASED
    }

    /// Whether an end of the input is held back, because it may become part of a needle.
    pub fn is_holding(&self) -> bool {
        self.shown < self.held.len()
    }

    /// Ends the stream: appends to `out` what was held.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        self.adopt(out);
        self.write(&[], self.shown, self.held.len(), out);
        self.forget();
        if let Some(line) = self.line.take() {
            self.end_line(&line, out);
            self.add_named(out);
        }
    }

    /// As at the start of a line.
    fn forget(&mut self) {
        self.cursor = Cursor::new(0);
        self.recent = Recent::default();
        sys::wipe(&mut self.held);
        self.held.clear();
        self.shown = 0;
        self.regions.clear();
    }

    /// Goes on with the needles of now: what is held is searched again for them.
    fn adopt(&mut self, out: &mut Vec<u8>) {
        let automaton = self.patterns.automaton();
        if Arc::ptr_eq(&automaton, &self.automaton) {
            return;
        }
        self.automaton = automaton;
        self.regions.clear();
        let mut held = std::mem::take(&mut self.held);
        self.recent.back(held.len());
        // Of what is written already nothing is searched again.
        self.cursor = Cursor::new(0);
        self.feed(&held, out);
        sys::wipe(&mut held);
    }

    fn feed(&mut self, input: &[u8], out: &mut Vec<u8>) {
        let mut rest = input;
        while !rest.is_empty() {
            rest = if self.line.is_some() {
                self.read_line(rest, out)
            } else {
                self.search(rest, out)
            };
        }
    }

    /// Masks up to the end of `input` or of a command; what follows that.
    fn search<'a>(&mut self, input: &'a [u8], out: &mut Vec<u8>) -> &'a [u8] {
        let automaton = Arc::clone(&self.automaton);
        let view = self.recent.before(input);
        let held = self.held.len();
        let mut written = self.shown;
        let mut cursor = self.cursor;
        while let Some(mut hit) = automaton.advance(&mut cursor, &view) {
            let end = held + cursor.at - RECENT;
            if let Some(command) = automaton.command.filter(|it| it.node == cursor.node) {
                if view.starts_line(cursor.at - COMMAND.len()) {
                    let start = end - COMMAND.len();
                    written = self.write(input, written, start, out);
                    self.begin_line(written - start, out);
                    return &input[cursor.at - RECENT..];
                }
                hit = command.hit;
            }
            // It may be written already, where what was held is searched anew.
            if hit > 0 && end > written {
                let start = end.saturating_sub(hit).max(written);
                self.add(Region { start, end });
            }
            if self.regions.len() > MAX_REGIONS {
                let decided = end - automaton.depth(cursor.node);
                written = self.write(input, written, decided, out);
            }
        }
        self.recent.push(&view);
        self.cursor = cursor.passed(input.len(), self.recent.count());
        let decided = held + input.len() - self.open();
        written = self.write(input, written, decided, out);
        self.hold(input, decided, written);
        &[]
    }

    /// How many of the last bytes are the longest end that begins a needle.
    fn open(&self) -> usize {
        match self.cursor.node {
            NONE => self.automaton.heads.open_end(&self.recent),
            node => self.automaton.depth(node),
        }
    }

    /// Adds a region that ends behind all others.
    fn add(&mut self, mut region: Region) {
        while let Some(last) = self.regions.last()
            && last.end >= region.start
        {
            region.start = region.start.min(last.start);
            self.regions.pop();
        }
        self.regions.push(region);
    }

    /// Writes from `written` to `decided`, both counted from the first byte held; returns how far it came, which may be
    /// further: to the end of a region.
    fn write(&mut self, input: &[u8], written: usize, decided: usize, out: &mut Vec<u8>) -> usize {
        let mut at = written;
        let decided = decided.max(written);
        let ready = self.regions.iter();
        // One that starts there is decided too, whatever else it will be part of.
        let ready = ready.take_while(|region| region.start <= decided).count();
        let regions = std::mem::take(&mut self.regions);
        for region in &regions[..ready] {
            self.copy(input, at, region.start, out);
            self.write_mask(out);
            at = region.end;
        }
        self.regions = regions;
        self.regions.drain(..ready);
        self.copy(input, at, decided, out);
        at.max(decided)
    }

    fn write_mask(&mut self, out: &mut Vec<u8>) {
        if !self.in_mask {
            out.extend_from_slice(MASK);
            self.masked += 1;
            self.in_mask = true;
        }
    }

    /// Copies a range, counted from the first byte held.
    fn copy(&mut self, input: &[u8], start: usize, end: usize, out: &mut Vec<u8>) {
        if start >= end {
            return;
        }
        self.in_mask = false;
        let held = self.held.len();
        if start < held {
            out.extend_from_slice(&self.held[start..end.min(held)]);
        }
        if end > held {
            out.extend_from_slice(&input[start.max(held) - held..end - held]);
        }
    }

    /// Keeps what is not decided.
    fn hold(&mut self, input: &[u8], decided: usize, written: usize) {
        let held = self.held.len();
        self.held.drain(..decided.min(held));
        self.held
            .extend_from_slice(&input[decided.saturating_sub(held)..]);
        self.shown = written - decided;
        for region in &mut self.regions {
            region.start -= decided;
            region.end -= decided;
        }
    }

    /// Begins to read a value. Of the command so many bytes are written, because they were released.
    fn begin_line(&mut self, written: usize, out: &mut Vec<u8>) {
        self.forget();
        out.extend_from_slice(&COMMAND[written..]);
        self.in_mask = false;
        self.write_mask(out);
        self.line = Some(Line::default());
    }

    /// Reads a value up to the end of its line; what follows.
    fn read_line<'a>(&mut self, input: &'a [u8], out: &mut Vec<u8>) -> &'a [u8] {
        let Some(mut line) = self.line.take() else {
            return input;
        };
        let Some(rest) = line.take(input) else {
            self.line = Some(line);
            return &[];
        };
        self.end_line(&line, out);
        out.push(b'\n');
        // Many at once are added at once.
        if !rest.starts_with(COMMAND) {
            self.add_named(out);
        }
        rest
    }

    fn end_line(&mut self, line: &Line, out: &mut Vec<u8>) {
        let note = line.end(&self.patterns, &mut self.named);
        out.extend_from_slice(note.as_bytes());
        self.in_mask = false;
    }

    fn add_named(&mut self, out: &mut Vec<u8>) {
        if !self.named.is_empty() {
            self.patterns.add_named(&mut self.named);
            self.adopt(out);
        }
    }
}

impl Drop for Masker {
    fn drop(&mut self) {
        sys::wipe(&mut self.held);
    }
}
