//! The automaton of Aho and Corasick, made small: less than two bytes for each byte of the needles.
//!
//! The sorted needles are a trie in which each [`Row`] is what a needle adds to the one before it. A node is the number
//! of a byte in all rows, one after the other, so nearly always its only child is the next number, and needs no table.
//! What a few nodes have besides (a needle that ends there, more children) is a [`Mark`].
//!
//! There are no nodes for the first three bytes of a needle: [`Heads`] finds the first four at once. Where a needle does
//! not go on, the longest end of what was read that begins another one is followed if it is long ([`Run`]), which is
//! rare; else it is searched again, over as many bytes as a short one has, so the work stays linear. Most nodes have no
//! such end at all, long or short; a bit of each says so.

use super::MIN_NEEDLE;
use super::bits::{AT_ONCE, Bits};
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
    /// The nodes at which a needle ends. All others have a next node that is their child.
    pub(super) endings: Bits,
    /// The nodes of whose text a proper end, of four bytes or more, begins a needle.
    pub(super) linked: Bits,
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

impl Run {
    const EMPTY: Self = Self {
        start: 0,
        stop: 0,
        end: 0,
    };

    fn holds(self, node: u32) -> bool {
        self.start <= node && node < self.stop
    }
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
            } else {
                self.walk(cursor, view.from(cursor.at));
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

    /// Takes bytes up to one with which a needle ends, or none goes on.
    fn walk(&self, cursor: &mut Cursor, rest: &[u8]) {
        let mut node = index(cursor.node);
        let mut ends = self.endings.get(node);
        let mut taken = 0;
        let mut run = Run::EMPTY;
        while taken < rest.len() {
            if !ends && self.bytes[node + 1] == rest[taken] {
                node += 1;
                taken += 1;
                let along = self.along(node, &rest[taken..]);
                node += along;
                taken += along;
            } else if let Some(child) = self.child(node, ends, rest[taken]) {
                node = child;
                taken += 1;
            } else if let Some(end) = self.longest_end(node, &mut run) {
                node = end;
                ends = self.endings.get(node);
                continue;
            } else {
                cursor.at += taken;
                self.give_up(cursor, node);
                return;
            }
            ends = self.endings.get(node);
            if ends {
                break;
            }
        }
        cursor.node = number(node);
        cursor.at += taken;
    }

    /// How many bytes go along the row behind a node, up to where a needle ends: as a row ends with one, not out of it.
    fn along(&self, node: usize, bytes: &[u8]) -> usize {
        let mut taken = 0;
        // Often it is none, which is seen at once.
        if self.endings.get(node) || self.bytes.get(node + 1) != bytes.first() {
            return taken;
        }
        loop {
            let first = node + 1 + taken;
            let same = same(&self.bytes[first..], &bytes[taken..]);
            if let Some(ending) = self.endings.first(first, same) {
                return taken + ending + 1;
            }
            taken += same;
            if same < AT_ONCE {
                return taken;
            }
        }
    }

    /// No needle goes on with the next byte: whatever follows starts in the last bytes, or later.
    fn give_up(&self, cursor: &mut Cursor, node: usize) {
        let end = if self.linked.get(node) {
            MIN_END
        } else {
            MIN_NEEDLE
        };
        cursor.node = NONE;
        cursor.known = cursor.known.max(cursor.at);
        cursor.at = cursor.first.max((cursor.at + 1).saturating_sub(end));
    }

    /// The child that is not the next node, or is it although a needle ends here.
    fn child(&self, node: usize, ends: bool, byte: u8) -> Option<usize> {
        if !self.marked.get(node) {
            return None;
        }
        let mark = self.mark(node);
        if ends && mark.others & Mark::GOES_ON != 0 && self.bytes[node + 1] == byte {
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
        found.map(|at| index(self.children[first + at]))
    }

    fn mark(&self, node: usize) -> Mark {
        self.marks[self.marked.rank(node)]
    }

    /// The longest end of a node's text that begins a needle, if it is long. One after the other they often lie in one run.
    fn longest_end(&self, node: usize, run: &mut Run) -> Option<usize> {
        if !self.linked.get(node) {
            return None;
        }
        let node = number(node);
        if !run.holds(node) {
            let after = self.runs.partition_point(|run| run.start <= node);
            *run = self.runs[after.checked_sub(1)?];
        }
        run.holds(node).then(|| index(run.end + (node - run.start)))
    }

    /// The length of the longest needle that ends with a node's text; 0 if there is none.
    pub(super) fn hit(&self, node: u32) -> usize {
        if self.endings.get(index(node)) {
            usize::from(self.mark(index(node)).hit)
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
            + self.endings.memory()
            + self.linked.memory()
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

/// How many bytes at the beginning are the same; not more than [`AT_ONCE`].
fn same(one: &[u8], other: &[u8]) -> usize {
    let most = one.len().min(other.len()).min(AT_ONCE);
    let mut same = 0;
    while same + 8 <= most {
        let differ = eight(one, same) ^ eight(other, same);
        if differ != 0 {
            return same + differ.trailing_zeros() as usize / 8;
        }
        same += 8;
    }
    while same < most && one[same] == other[same] {
        same += 1;
    }
    same
}

fn eight(bytes: &[u8], at: usize) -> u64 {
    let eight = bytes[at..at + 8].try_into();
    u64::from_le_bytes(eight.expect("they are eight"))
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
