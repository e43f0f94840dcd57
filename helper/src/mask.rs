//! The streaming masker: replaces each value that must not be seen by `***`, however the stream is cut.
//!
//! All places that any needle covers are masked; places that overlap or touch become one `***`. Held back is only what
//! may still become part of a needle: the longest end of the input that begins one. The work is linear in the input,
//! the memory bounded by the needles.
//!
//! The automaton is Aho and Corasick's, kept small: nodes in breadth-first order, so that the children of a node lie
//! side by side and need no table, 13 bytes a node. Before it, a small Bloom filter skips what cannot begin a
//! needle, which is nearly all of an ordinary log.
//!
//! ```
//! use hybrid_runner_helper::mask::{Masker, Patterns, needles_of};
//!
//! let mut masker = Masker::new(Patterns::new(needles_of(b"hunter22")));
//! let mut out = Vec::new();
//! masker.push(b"password=hunt", &mut out);
//! assert_eq!(out, b"password=");
//! masker.push(b"er22;", &mut out);
//! masker.finish(&mut out);
//! assert_eq!(out, b"password=***;");
//! ```

use std::fmt;
use std::sync::Arc;

use crate::sys;

pub use crate::forms::{needles_of, too_short};

/// The shortest needle; masking shorter ones would hide half of the log and tell their value by where it is hidden.
pub const MIN_NEEDLE: usize = 4;

/// Longer needles are cut into pieces of this length, which bounds what is held back.
const MAX_NEEDLE: usize = 8192;
const MASK: &[u8] = b"***";
const ROOT: u32 = 0;
/// So many children are searched one by one.
const FEW: usize = 8;
/// How many regions may wait for being written.
const MAX_REGIONS: usize = 64;

/// The needles, ready to be searched for; cheap to clone.
#[derive(Clone)]
pub struct Patterns(Arc<Automaton>);

struct Automaton {
    filter: Filter,
    /// The child of the root by byte; [`ROOT`] if there is none.
    root: [u32; 256],
    /// The byte that leads to a node.
    byte: Vec<u8>,
    /// The first child of a node; the first child of the next node ends its children.
    first: Vec<u32>,
    /// The node of the longest proper end of a node's text that begins a needle.
    fail: Vec<u32>,
    /// The length of a node's text.
    depth: Vec<u16>,
    /// The length of the longest needle that a node's text ends with; 0 if there is none.
    hit: Vec<u16>,
}

/// A Bloom filter with one hash of the first four bytes of the needles.
struct Filter {
    bits: Vec<u64>,
    /// How far a hash is shifted to give the number of a bit.
    shift: u32,
}

impl Patterns {
    /// Prepares needles, which are taken literally; those shorter than [`MIN_NEEDLE`] are left out.
    pub fn new(needles: impl IntoIterator<Item = Vec<u8>>) -> Self {
        let mut pieces = Vec::new();
        for needle in needles {
            cut(needle, &mut pieces);
        }
        pieces.sort_unstable();
        pieces.dedup();
        let patterns = Self(Arc::new(Automaton::new(&pieces)));
        for piece in &mut pieces {
            sys::wipe(piece);
        }
        patterns
    }

    /// Whether there is nothing to mask.
    pub fn is_empty(&self) -> bool {
        self.0.byte.len() <= 1
    }
}

impl fmt::Debug for Patterns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Patterns")
            .field("nodes", &self.0.byte.len())
            .finish_non_exhaustive()
    }
}

/// A long needle in pieces that cover it.
fn cut(mut needle: Vec<u8>, pieces: &mut Vec<Vec<u8>>) {
    if needle.len() < MIN_NEEDLE {
        return;
    }
    if needle.len() <= MAX_NEEDLE {
        pieces.push(needle);
        return;
    }
    for start in (0..needle.len()).step_by(MAX_NEEDLE) {
        let start = start.min(needle.len() - MAX_NEEDLE);
        pieces.push(needle[start..start + MAX_NEEDLE].to_vec());
    }
    sys::wipe(&mut needle);
}

impl Automaton {
    /// Builds it from sorted, distinct needles: a node is a range of them that begins alike.
    fn new(needles: &[Vec<u8>]) -> Self {
        let nodes = 1 + count_nodes(needles);
        let mut automaton = Self {
            filter: Filter::new(needles),
            root: [ROOT; 256],
            byte: with_capacity(nodes, 0),
            first: Vec::with_capacity(nodes + 1),
            fail: with_capacity(nodes, ROOT),
            depth: with_capacity(nodes, 0),
            hit: with_capacity(nodes, 0),
        };
        let mut level = vec![needles];
        let mut next = Vec::new();
        let mut node = 0;
        while !level.is_empty() {
            for range in level.drain(..) {
                automaton.add_children(node, range, &mut next);
                node += 1;
            }
            std::mem::swap(&mut level, &mut next);
        }
        automaton.first.push(automaton.end());
        automaton
    }

    fn add_children<'a>(&mut self, node: u32, range: &'a [Vec<u8>], next: &mut Vec<&'a [Vec<u8>]>) {
        self.first.push(self.end());
        let depth = usize::from(self.depth[index(node)]);
        let longer = range
            .iter()
            .take_while(|needle| needle.len() == depth)
            .count();
        for children in range[longer..].chunk_by(|a, b| a[depth] == b[depth]) {
            let byte = children[0][depth];
            let fail = if node == ROOT {
                ROOT
            } else {
                self.step(self.fail[index(node)], byte)
            };
            if node == ROOT {
                self.root[usize::from(byte)] = self.end();
            }
            let ends = children[0].len() == depth + 1;
            let length = u16::try_from(depth + 1).expect("a needle is at most 8 KiB long");
            self.hit
                .push(if ends { length } else { self.hit[index(fail)] });
            self.byte.push(byte);
            self.fail.push(fail);
            self.depth.push(length);
            next.push(children);
        }
    }

    /// The number of nodes, which is that of the next one.
    fn end(&self) -> u32 {
        u32::try_from(self.byte.len()).expect("fewer than 4 G nodes")
    }

    fn depth(&self, state: u32) -> usize {
        usize::from(self.depth[index(state)])
    }

    /// The state after one more byte.
    fn step(&self, mut state: u32, byte: u8) -> u32 {
        loop {
            if state == ROOT {
                return self.root[usize::from(byte)];
            }
            let (start, end) = (self.first[index(state)], self.first[index(state) + 1]);
            let children = &self.byte[index(start)..index(end)];
            let found = if children.len() <= FEW {
                children.iter().position(|&child| child == byte)
            } else {
                children.binary_search(&byte).ok()
            };
            match found {
                Some(at) => return start + u32::try_from(at).expect("at most 256 children"),
                None => state = self.fail[index(state)],
            }
        }
    }
}

/// The number of nodes below the root. Counted before, so that growing tables leave no holes in the heap.
fn count_nodes(needles: &[Vec<u8>]) -> usize {
    let mut before: &[u8] = &[];
    let new = needles.iter().map(|needle| {
        let shared = needle
            .iter()
            .zip(before)
            .take_while(|(a, b)| a == b)
            .count();
        before = needle;
        needle.len() - shared
    });
    new.sum()
}

fn with_capacity<T>(capacity: usize, first: T) -> Vec<T> {
    let mut vec = Vec::with_capacity(capacity);
    vec.push(first);
    vec
}

impl Drop for Automaton {
    fn drop(&mut self) {
        sys::wipe(&mut self.byte);
    }
}

fn index(node: u32) -> usize {
    node as usize
}

impl Filter {
    fn new(needles: &[Vec<u8>]) -> Self {
        // 32 to 64 bits a needle: about 2 % of what is no needle gets through.
        let bits = (needles.len() * 32).next_power_of_two().clamp(64, 1 << 24);
        let mut filter = Self {
            bits: vec![0; bits / 64],
            shift: u32::BITS - bits.trailing_zeros(),
        };
        for needle in needles {
            let bit = filter.bit(&needle[..MIN_NEEDLE]);
            filter.bits[bit / 64] |= 1 << (bit % 64);
        }
        filter
    }

    fn bit(&self, start: &[u8]) -> usize {
        let start = u32::from_le_bytes(start.try_into().expect("four bytes"));
        (start.wrapping_mul(0x9E37_79B1) >> self.shift) as usize
    }

    /// The first place at or after `at` where a needle may begin. The last three are always such places.
    fn candidate(&self, input: &[u8], at: usize) -> usize {
        let skipped = input[at..].windows(MIN_NEEDLE).position(|start| {
            let bit = self.bit(start);
            self.bits[bit / 64] >> (bit % 64) & 1 != 0
        });
        skipped.map_or_else(
            || input.len().saturating_sub(MIN_NEEDLE - 1).max(at),
            |skipped| at + skipped,
        )
    }
}

/// A place that is to be masked, in bytes from the first one held back.
#[derive(Debug, Clone, Copy)]
struct Region {
    start: usize,
    end: usize,
}

/// Masks one stream.
pub struct Masker {
    patterns: Patterns,
    state: u32,
    /// The end of the input that is not decided.
    held: Vec<u8>,
    /// Regions in what is held back: sorted, apart.
    regions: Vec<Region>,
    /// Whether the last thing written was a mask.
    in_mask: bool,
    masked: u64,
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
            patterns,
            state: ROOT,
            held: Vec::new(),
            regions: Vec::new(),
            in_mask: false,
            masked: 0,
        }
    }

    /// How many places were masked so far.
    pub fn masked(&self) -> u64 {
        self.masked
    }

    /// Whether an end of the input is held back, because it may become part of a needle.
    pub fn is_holding(&self) -> bool {
        !self.held.is_empty()
    }

    /// Takes the next piece of the stream and appends to `out` what is decided.
    pub fn push(&mut self, input: &[u8], out: &mut Vec<u8>) {
        if self.patterns.is_empty() {
            out.extend_from_slice(input);
            return;
        }
        let patterns = self.patterns.clone();
        let automaton = &*patterns.0;
        let held = self.held.len();
        let mut written = 0;
        let mut at = 0;
        while at < input.len() {
            if self.state == ROOT {
                at = automaton.filter.candidate(input, at);
            }
            let Some(&byte) = input.get(at) else { break };
            at += 1;
            let before = automaton.depth(self.state);
            self.state = automaton.step(self.state, byte);
            let depth = automaton.depth(self.state);
            if depth <= before && depth < MIN_NEEDLE && depth <= at {
                // Another start, hardly begun: the filter judges it faster than the automaton.
                at -= depth;
                self.state = ROOT;
                continue;
            }
            let hit = usize::from(automaton.hit[index(self.state)]);
            if hit > 0 {
                self.add(Region {
                    start: (held + at).saturating_sub(hit).max(written),
                    end: held + at,
                });
                if self.regions.len() > MAX_REGIONS {
                    let decided = held + at - automaton.depth(self.state);
                    written = self.write(input, written, decided, out);
                }
            }
        }
        let decided = (held + input.len()).saturating_sub(automaton.depth(self.state));
        written = self.write(input, written, decided.max(written), out);
        self.hold(input, written);
    }

    /// Ends the stream: appends to `out` what was held back.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        self.write(&[], 0, self.held.len(), out);
        self.held.clear();
        self.regions.clear();
        self.state = ROOT;
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

    /// Writes from `written` to `decided`, both counted from the first byte held back; returns how far it came, which
    /// may be further: to the end of a region.
    fn write(&mut self, input: &[u8], written: usize, decided: usize, out: &mut Vec<u8>) -> usize {
        let mut at = written;
        let ready = self
            .regions
            .iter()
            .take_while(|region| region.start < decided || region.start == at)
            .count();
        let regions = std::mem::take(&mut self.regions);
        for region in &regions[..ready] {
            self.copy(input, at, region.start, out);
            if !self.in_mask {
                out.extend_from_slice(MASK);
                self.masked += 1;
                self.in_mask = true;
            }
            at = region.end;
        }
        self.regions = regions;
        self.regions.drain(..ready);
        self.copy(input, at, decided, out);
        at.max(decided)
    }

    /// Copies a range, counted from the first byte held back.
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

    /// Keeps what was not written.
    fn hold(&mut self, input: &[u8], written: usize) {
        let held = self.held.len();
        self.held.drain(..written.min(held));
        self.held
            .extend_from_slice(&input[written.saturating_sub(held).min(input.len())..]);
        for region in &mut self.regions {
            region.start -= written;
            region.end -= written;
        }
    }
}

impl Drop for Masker {
    fn drop(&mut self) {
        sys::wipe(&mut self.held);
    }
}
