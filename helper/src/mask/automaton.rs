//! The automaton of Aho and Corasick, made small: about one and a half bytes for each byte of the needles.
//!
//! The sorted needles are a trie in which each [`Row`] is what a needle adds to the one before it. A node is the number
//! of a byte in all rows, one after the other, so nearly always its only child is the next number, and needs no table.
//! What a few nodes have besides (a needle that ends there, more children) is a [`Mark`].
//!
//! There are no nodes for the first three bytes of a needle: [`Heads`] finds the first four at once. Where a needle does
//! not go on, the longest end of what was read that begins another one is followed if it is long ([`Run`]), which is
//! rare; else it is searched again, over as many bytes as a short one has, so the work stays linear.

use super::MIN_NEEDLE;
use super::bits::Bits;
use super::heads::Heads;
use super::needles::Needles;
use super::view::{RECENT, View};
use crate::sys;

/// No needle has begun that is four bytes long.
pub(super) const NONE: u32 = u32::MAX;
/// So many children are searched one by one.
const FEW: usize = 8;
/// Ends shorter than this are not kept: where each character of a value is written in several bytes, most nodes have one.
/// A view must remember as many bytes.
pub(super) const MIN_END: usize = 12;

/// The needles, ready to be searched for.
pub(super) struct Automaton {
    pub(super) heads: Heads,
    /// The byte that leads to a node.
    pub(super) bytes: Vec<u8>,
    pub(super) rows: Vec<Row>,
    /// The nodes that have a mark.
    pub(super) marked: Bits,
    pub(super) marks: Vec<Mark>,
    /// Bytes and nodes of the children that are not the next node, by the marks.
    pub(super) child_bytes: Vec<u8>,
    pub(super) children: Vec<u32>,
    /// Sorted.
    pub(super) runs: Vec<Run>,
    pub(super) command: Option<Command>,
}

/// The command, which is among the needles if it is obeyed.
#[derive(Clone, Copy)]
pub(super) struct Command {
    pub(super) node: u32,
    /// The length of the longest needle that it ends with.
    pub(super) hit: usize,
}

/// What a needle adds to the needle before it in their order.
#[derive(Clone, Copy)]
pub(super) struct Row {
    /// Its first node. The next row's ends it.
    pub(super) start: u32,
    /// How many bytes the two needles share; three if it is fewer than four.
    pub(super) shared: u16,
}

/// What a node has besides a next node that is its child.
#[derive(Clone, Copy)]
pub(super) struct Mark {
    /// The place of its other children in `children`, and their number.
    pub(super) first: u32,
    pub(super) others: u16,
    /// The length of the longest needle that its text ends with; 0 if there is none.
    pub(super) hit: u16,
}

impl Mark {
    /// In `others`: the row goes on, so the next node is a child too.
    pub(super) const GOES_ON: u16 = 1 << 15;
}

/// Successive nodes whose longest proper ends that begin a needle are successive nodes, too, and long.
#[derive(Clone, Copy)]
pub(super) struct Run {
    pub(super) start: u32,
    pub(super) stop: u32,
    /// The end of the first one's text.
    pub(super) end: u32,
}

/// How far a stream was searched. Places are counted as in [`View`].
#[derive(Clone, Copy)]
pub(super) struct Cursor {
    /// What has begun; [`NONE`] if nothing has that is four bytes long.
    pub(super) node: u32,
    /// The next byte to take; without a node, where the next needle may start.
    pub(super) at: usize,
    /// Needles that start before this one are all found.
    first: usize,
    /// And those that end up to here.
    known: usize,
}

impl Cursor {
    /// Before everything, or behind so many bytes in which nothing was found that goes on.
    pub(super) fn new(before: usize) -> Self {
        let at = RECENT - before.min(MIN_NEEDLE - 1);
        Self {
            node: NONE,
            at,
            first: at,
            known: 0,
        }
    }

    /// The same place in the view that follows, behind so many bytes of it and so many in all.
    pub(super) fn passed(self, bytes: usize, in_all: usize) -> Self {
        if self.node == NONE {
            return Self::new(in_all);
        }
        Self {
            node: self.node,
            at: self.at - bytes,
            first: self.first.saturating_sub(bytes),
            known: self.known.saturating_sub(bytes),
        }
    }
}

impl Automaton {
    /// Goes on to the next place where a needle ends; its length there. `None` at the end of the input.
    pub(super) fn advance(&self, cursor: &mut Cursor, view: &View<'_>) -> Option<usize> {
        let end = view.end();
        while cursor.at < end {
            if cursor.node == NONE {
                let Some((node, start)) = self.heads.search(view, cursor.at) else {
                    cursor.at = end;
                    return None;
                };
                *cursor = Cursor {
                    node,
                    at: start + MIN_NEEDLE,
                    first: start + 1,
                    ..*cursor
                };
            } else if !self.go_along(cursor, view) {
                self.turn(cursor, view.byte(cursor.at));
            }
            if cursor.node != NONE && cursor.at > cursor.known {
                let hit = self.hit(cursor.node);
                if hit > 0 {
                    cursor.known = cursor.at;
                    return Some(hit);
                }
            }
        }
        None
    }

    /// Goes along a row up to a mark or the end of the input; `false` if the row or the mark gives no way.
    fn go_along(&self, cursor: &mut Cursor, view: &View<'_>) -> bool {
        let rest = view.from(cursor.at);
        let mut node = index(cursor.node);
        let mut taken = 0;
        while taken < rest.len() && !self.marked.get(node) && self.bytes[node + 1] == rest[taken] {
            node += 1;
            taken += 1;
        }
        cursor.node = number(node);
        cursor.at += taken;
        taken > 0
    }

    /// Takes a byte that is not the next of the row.
    fn turn(&self, cursor: &mut Cursor, byte: u8) {
        loop {
            if let Some(child) = self.child(cursor.node, byte) {
                cursor.node = child;
                cursor.at += 1;
                return;
            }
            cursor.node = self.longest_end(cursor.node);
            if cursor.node == NONE {
                cursor.known = cursor.known.max(cursor.at);
                cursor.at = cursor.first.max((cursor.at + 1).saturating_sub(MIN_END));
                return;
            }
        }
    }

    fn child(&self, node: u32, byte: u8) -> Option<u32> {
        let next = index(node) + 1;
        if !self.marked.get(index(node)) {
            return (self.bytes[next] == byte).then_some(node + 1);
        }
        let mark = self.mark(node);
        if mark.others & Mark::GOES_ON != 0 && self.bytes[next] == byte {
            return Some(node + 1);
        }
        let first = index(mark.first);
        let others = first + usize::from(mark.others & !Mark::GOES_ON);
        let bytes = &self.child_bytes[first..others];
        let found = if bytes.len() <= FEW {
            bytes.iter().position(|&child| child == byte)
        } else {
            bytes.binary_search(&byte).ok()
        };
        found.map(|at| self.children[first + at])
    }

    fn mark(&self, node: u32) -> Mark {
        self.marks[self.marked.rank(index(node))]
    }

    fn longest_end(&self, node: u32) -> u32 {
        let run = self.runs.partition_point(|run| run.start <= node);
        match run.checked_sub(1).map(|run| self.runs[run]) {
            Some(run) if node < run.stop => run.end + (node - run.start),
            _ => NONE,
        }
    }

    /// The length of the longest needle that ends with a node's text; 0 if there is none.
    pub(super) fn hit(&self, node: u32) -> usize {
        if self.marked.get(index(node)) {
            usize::from(self.mark(node).hit)
        } else {
            0
        }
    }

    /// The length of a node's text.
    pub(super) fn depth(&self, node: u32) -> usize {
        depth(&self.rows, node)
    }

    /// The needles.
    pub(super) fn needles(&self) -> Needles {
        let mut needles = Needles::default();
        let mut heads = self.heads.iter();
        let mut text: Vec<u8> = Vec::new();
        for (at, row) in self.rows.iter().enumerate() {
            let start = index(row.start);
            let end = self
                .rows
                .get(at + 1)
                .map_or(self.bytes.len(), |next| index(next.start));
            text.truncate(usize::from(row.shared));
            if usize::from(row.shared) < MIN_NEEDLE {
                let head = heads.next().expect("a row for each head");
                text = head[..MIN_NEEDLE - 1].to_vec();
            }
            text.extend_from_slice(&self.bytes[start..end]);
            // All but the command, which is in the trie and no needle.
            if self
                .command
                .is_none_or(|command| command.node != number(end - 1))
            {
                needles.push(&text);
            }
        }
        sys::wipe(&mut text);
        needles
    }

    /// How many bytes of memory it takes.
    pub(super) fn memory(&self) -> usize {
        self.heads.memory()
            + self.bytes.capacity()
            + self.rows.capacity() * size_of::<Row>()
            + self.marked.memory()
            + self.marks.capacity() * size_of::<Mark>()
            + self.child_bytes.capacity()
            + self.children.capacity() * 4
            + self.runs.capacity() * size_of::<Run>()
    }
}

impl Drop for Automaton {
    fn drop(&mut self) {
        sys::wipe(&mut self.bytes);
        self.heads.wipe();
    }
}

/// The length of a node's text.
pub(super) fn depth(rows: &[Row], node: u32) -> usize {
    let row = rows[rows.partition_point(|row| row.start <= node) - 1];
    usize::from(row.shared) + index(node - row.start) + 1
}

pub(super) fn index(node: u32) -> usize {
    node as usize
}

pub(super) fn number(index: usize) -> u32 {
    u32::try_from(index).expect("fewer than 4 G nodes")
}
