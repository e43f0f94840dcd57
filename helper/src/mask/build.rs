//! Builds the automaton from needles.
//!
//! The rows come from one walk over the sorted needles, the longest ends level by level, since those of longer texts
//! need those of shorter ones. Vectors get their length at once where they can: growing leaves holes in the heap.

use super::MIN_NEEDLE;
use super::automaton::{Automaton, Command, MIN_END, Mark, NONE, Row, Run, depth, index, number};
use super::bits::Bits;
use super::command::COMMAND;
use super::heads::{Heads, load};

/// A child that is not the next node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Other {
    parent: u32,
    byte: u8,
    child: u32,
}

/// The trie, and what is known of each node.
struct Trie<'a> {
    needles: &'a [&'a [u8]],
    bytes: Vec<u8>,
    rows: Vec<Row>,
    /// The parent of the first node of each row.
    parents: Vec<u32>,
    /// Sorted.
    others: Vec<Other>,
    /// The last nodes of the rows.
    last: Bits,
    /// The nodes that have other children.
    forks: Bits,
    /// The place in `others` of the first one of each fork, and their number at the end.
    firsts: Vec<usize>,
    heads: Heads,
    /// The node of the longest proper end of a node's text that begins a needle and is four bytes or longer.
    ends: Vec<u32>,
    /// The length of the longest needle that a node's text ends with.
    hits: Vec<u16>,
}

impl Automaton {
    /// Of needles that are sorted, distinct, and at least four bytes long. One of them may be the command: its place.
    pub(super) fn new(needles: &[&[u8]], command: Option<usize>) -> Self {
        let mut trie = Trie::new(needles);
        let command = command.map(|row| trie.last_of(row));
        trie.find_ends(command.unwrap_or(NONE));
        trie.into_automaton(command)
    }
}

impl<'a> Trie<'a> {
    fn new(needles: &'a [&'a [u8]]) -> Self {
        let shared = shared_with_previous(needles);
        let nodes =
            needles.iter().map(|needle| needle.len()).sum::<usize>() - shared.iter().sum::<usize>();
        let mut trie = Self {
            needles,
            bytes: Vec::with_capacity(nodes),
            rows: Vec::with_capacity(needles.len()),
            parents: Vec::with_capacity(needles.len()),
            others: Vec::new(),
            last: Bits::new(nodes),
            forks: Bits::new(nodes),
            firsts: Vec::new(),
            heads: Heads::new(&[], &[]),
            ends: vec![NONE; nodes],
            hits: vec![0; nodes],
        };
        trie.add_rows(&shared);
        trie.sort_others();
        let heads = trie.rows.iter().filter(|row| is_first(row.shared));
        let nodes: Vec<u32> = heads.map(|row| row.start).collect();
        trie.heads = Heads::new(needles, &nodes);
        trie
    }

    fn add_rows(&mut self, shared: &[usize]) {
        // The nodes on the way to the end of the last row, by their depth less four.
        let mut path: Vec<u32> = Vec::new();
        for (needle, &shared) in self.needles.iter().zip(shared) {
            let start = number(self.bytes.len());
            path.truncate(shared - (MIN_NEEDLE - 1));
            let parent = path.last().copied().unwrap_or(NONE);
            if parent != NONE {
                self.forks.set(index(parent));
                self.others.push(Other {
                    parent,
                    byte: needle[shared],
                    child: start,
                });
            }
            self.bytes.extend_from_slice(&needle[shared..]);
            path.extend(start..number(self.bytes.len()));
            self.last.set(self.bytes.len() - 1);
            self.parents.push(parent);
            self.rows.push(Row {
                start,
                shared: u16::try_from(shared).expect("a needle is at most 8 KiB long"),
            });
        }
    }

    fn sort_others(&mut self) {
        self.others.sort_unstable();
        self.forks = std::mem::take(&mut self.forks).counted();
        let forks = self.others.chunk_by(|one, next| one.parent == next.parent);
        let ends = forks.scan(0, |end, fork| {
            *end += fork.len();
            Some(*end)
        });
        self.firsts = [0].into_iter().chain(ends).collect();
    }

    /// The other children of a node.
    fn others(&self, node: usize) -> &[Other] {
        if !self.forks.get(node) {
            return &[];
        }
        let fork = self.forks.rank(node);
        &self.others[self.firsts[fork]..self.firsts[fork + 1]]
    }

    fn last_of(&self, row: usize) -> u32 {
        let end = self.rows.get(row + 1).map(|next| next.start);
        end.unwrap_or(number(self.bytes.len())) - 1
    }

    /// Finds the longest ends and the hits, level by level.
    fn find_ends(&mut self, command: u32) {
        let deepest = self
            .needles
            .iter()
            .map(|needle| needle.len())
            .max()
            .unwrap_or(0);
        // The rows that begin at each depth, as lists: the last one, and the one before each.
        let mut last = vec![NONE; deepest + 1];
        let mut before = vec![NONE; self.rows.len()];
        for (number, row) in (0..).zip(&self.rows) {
            let begins = &mut last[usize::from(row.shared) + 1];
            before[index(number)] = std::mem::replace(begins, number);
        }
        let mut level: Vec<u32> = Vec::new();
        for (depth, &row) in last.iter().enumerate().skip(MIN_NEEDLE) {
            let mut row = row;
            while row != NONE {
                level.push(row);
                row = before[index(row)];
            }
            for &row in &level {
                self.find_end(index(row), depth, command);
            }
            level.retain(|&row| self.needles[index(row)].len() > depth);
        }
    }

    fn find_end(&mut self, row: usize, depth: usize, command: u32) {
        let needle = self.needles[row];
        let Row { start, shared } = self.rows[row];
        let place = depth - usize::from(shared) - 1;
        let node = index(start) + place;
        if depth > MIN_NEEDLE {
            let parent = if place == 0 {
                index(self.parents[row])
            } else {
                node - 1
            };
            self.ends[node] = self.longest_end(parent, needle, depth);
        }
        let ends = depth == needle.len() && number(node) != command;
        self.hits[node] = match self.ends[node] {
            _ if ends => u16::try_from(depth).expect("a needle is at most 8 KiB long"),
            NONE => 0,
            end => self.hits[index(end)],
        };
    }

    fn longest_end(&self, parent: usize, needle: &[u8], depth: usize) -> u32 {
        let mut end = self.ends[parent];
        while end != NONE {
            if let Some(child) = self.child(end, needle[depth - 1]) {
                return child;
            }
            end = self.ends[index(end)];
        }
        let window = load(needle, depth - MIN_NEEDLE);
        self.heads.find(window).unwrap_or(NONE)
    }

    fn child(&self, node: u32, byte: u8) -> Option<u32> {
        let next = index(node) + 1;
        if !self.last.get(index(node)) && self.bytes[next] == byte {
            return Some(node + 1);
        }
        let others = self.others(index(node)).iter();
        let mut found = others.filter(|other| other.byte == byte);
        found.next().map(|other| other.child)
    }

    fn into_automaton(mut self, command: Option<u32>) -> Automaton {
        let command = command.map(|node| {
            let length = u16::try_from(COMMAND.len()).expect("it is short");
            let hit = std::mem::replace(&mut self.hits[index(node)], length);
            Command {
                node,
                hit: usize::from(hit),
            }
        });
        let (marked, marks) = self.marks();
        let endings = bits(self.hits.iter().map(|&hit| hit > 0));
        let linked = bits(self.ends.iter().map(|&end| end != NONE));
        let runs = self.runs();
        Automaton {
            heads: self.heads,
            bytes: self.bytes,
            rows: self.rows,
            endings,
            linked,
            marked,
            marks,
            child_bytes: self.others.iter().map(|other| other.byte).collect(),
            children: self.others.iter().map(|other| other.child).collect(),
            runs,
            command,
        }
    }

    fn marks(&self) -> (Bits, Vec<Mark>) {
        let nodes = self.bytes.len();
        let has_mark =
            |&node: &usize| self.hits[node] > 0 || self.last.get(node) || self.forks.get(node);
        let mut marked = Bits::new(nodes);
        let mut marks = Vec::with_capacity((0..nodes).filter(has_mark).count());
        let mut first = 0;
        for node in (0..nodes).filter(has_mark) {
            marked.set(node);
            let others = self.others(node).len();
            let goes_on = if self.last.get(node) {
                0
            } else {
                Mark::GOES_ON
            };
            marks.push(Mark {
                first: number(first),
                others: u16::try_from(others).expect("at most 256") | goes_on,
                hit: self.hits[node],
            });
            first += others;
        }
        (marked.counted(), marks)
    }

    fn runs(&self) -> Vec<Run> {
        let mut runs: Vec<Run> = Vec::new();
        let linked = self
            .ends
            .iter()
            .enumerate()
            .filter(|(_, end)| **end != NONE);
        for (node, &end) in linked {
            let node = number(node);
            match runs.last_mut() {
                // As long as the one before, and one byte more.
                Some(run) if run.stop == node && run.end + (node - run.start) == end => {
                    run.stop += 1;
                }
                _ if depth(&self.rows, end) < MIN_END => {}
                _ => runs.push(Run {
                    start: node,
                    stop: node + 1,
                    end,
                }),
            }
        }
        runs.shrink_to_fit();
        runs
    }
}

/// How many bytes each needle shares with the one before it; three if it is fewer than four.
fn shared_with_previous(needles: &[&[u8]]) -> Vec<usize> {
    let mut before: &[u8] = &[];
    let shared = needles.iter().map(|&needle| {
        let both = needle.iter().zip(before);
        before = needle;
        both.take_while(|(a, b)| a == b).count().max(MIN_NEEDLE - 1)
    });
    shared.collect()
}

fn bits(values: impl ExactSizeIterator<Item = bool>) -> Bits {
    let mut bits = Bits::new(values.len());
    for (at, _) in values.enumerate().filter(|(_, value)| *value) {
        bits.set(at);
    }
    bits
}

fn is_first(shared: u16) -> bool {
    usize::from(shared) < MIN_NEEDLE
}
