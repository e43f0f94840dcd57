//! Finds where a needle may begin: by its first four bytes, which no needle is shorter than.
//!
//! Nearly all of an ordinary log begins no needle, so the speed of the masker is that of this search. A Bloom filter
//! with one hash holds the first windows of four bytes of each needle: as many as the shortest needle has, but at most
//! [`STRIDE`]. So it is enough to look at each so-many-th window of the input. What passes is looked up exactly.

use super::MIN_NEEDLE;
use super::automaton::NONE;
use super::view::{RECENT, Recent, View};

/// At most so many windows are skipped at once.
const STRIDE: usize = 4;
/// So many bits of the filter for each window. Many are the same, so about 3 % of what is no needle get through.
const BITS: usize = 16;
/// A filter that stays in the second-level cache.
const MAX_BITS: usize = 1 << 20;
const MULTIPLIER: u32 = 0x9E37_79B1;

/// Four bytes as they lie in memory: the first is the lowest.
pub(super) type Window = u32;

/// The first four bytes of all needles.
pub(super) struct Heads {
    /// Distinct, as numbers that sort as the bytes do.
    keys: Vec<u32>,
    /// Open addressing by hash.
    table: Vec<Slot>,
    table_shift: u32,
    filter: Vec<u64>,
    filter_shift: u32,
    stride: usize,
}

/// A beginning and its node; [`NONE`] if the slot is free.
#[derive(Clone, Copy)]
struct Slot {
    window: Window,
    node: u32,
}

const FREE: Slot = Slot {
    window: 0,
    node: NONE,
};

pub(super) fn load(bytes: &[u8], start: usize) -> Window {
    let window = bytes[start..start + MIN_NEEDLE].try_into();
    Window::from_le_bytes(window.expect("it has four bytes"))
}

fn hash(window: Window, shift: u32) -> usize {
    (window.wrapping_mul(MULTIPLIER) >> shift) as usize
}

fn shift(slots: usize) -> u32 {
    u32::BITS - slots.trailing_zeros()
}

impl Heads {
    /// Of sorted needles, and the node of the fourth byte for each distinct beginning in their order.
    pub(super) fn new(needles: &[&[u8]], nodes: &[u32]) -> Self {
        let shortest = needles
            .iter()
            .map(|needle| needle.len())
            .min()
            .unwrap_or(MIN_NEEDLE);
        let stride = (shortest - (MIN_NEEDLE - 1)).min(STRIDE);
        let mut keys: Vec<u32> = needles
            .iter()
            .map(|needle| load(needle, 0).swap_bytes())
            .collect();
        keys.dedup();
        keys.shrink_to_fit();
        let slots = (keys.len() * 2).next_power_of_two().max(2);
        let mut heads = Self {
            keys,
            table: vec![FREE; slots],
            table_shift: shift(slots),
            filter: Vec::new(),
            filter_shift: 0,
            stride,
        };
        heads.fill_table(nodes);
        heads.fill_filter(needles);
        heads
    }

    fn fill_table(&mut self, nodes: &[u32]) {
        let last = self.table.len() - 1;
        for (key, &node) in self.keys.iter().zip(nodes) {
            let window = key.swap_bytes();
            let mut slot = hash(window, self.table_shift);
            while self.table[slot].node != NONE {
                slot = (slot + 1) & last;
            }
            self.table[slot] = Slot { window, node };
        }
    }

    fn fill_filter(&mut self, needles: &[&[u8]]) {
        let windows = needles.len() * self.stride;
        let bits = (windows * BITS).next_power_of_two().clamp(64, MAX_BITS);
        self.filter = vec![0; bits / 64];
        self.filter_shift = shift(bits);
        for needle in needles {
            for start in 0..self.stride {
                let bit = hash(load(needle, start), self.filter_shift);
                self.filter[bit / 64] |= 1 << (bit % 64);
            }
        }
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The node of a beginning.
    pub(super) fn find(&self, window: Window) -> Option<u32> {
        let last = self.table.len() - 1;
        let mut place = hash(window, self.table_shift);
        loop {
            let slot = self.table[place];
            if slot.node == NONE {
                return None;
            }
            if slot.window == window {
                return Some(slot.node);
            }
            place = (place + 1) & last;
        }
    }

    /// The first beginning that starts at or after a place, and where it starts.
    pub(super) fn search(&self, view: &View<'_>, from: usize) -> Option<(u32, usize)> {
        if self.keys.is_empty() {
            return None;
        }
        let windows = view.windows();
        let mut next = from;
        // One after the other where the piece before is needed.
        while next < RECENT.min(windows) {
            if let Some(node) = self.find(view.window(next)) {
                return Some((node, next));
            }
            next += 1;
        }
        while next < windows {
            // A needle that starts in this stride has a window at the end of it.
            let probe = self.probe(view.input, next - RECENT) + RECENT;
            for start in probe + 1 - self.stride..windows.min(probe + 1) {
                if let Some(node) = self.find(view.window(start)) {
                    return Some((node, start));
                }
            }
            next = probe + 1;
        }
        None
    }

    /// The end of the first stride that may hold a beginning, or that is not whole.
    fn probe(&self, input: &[u8], from: usize) -> usize {
        let mut probe = from + self.stride - 1;
        while probe + MIN_NEEDLE <= input.len() && !self.may_hold(load(input, probe)) {
            probe += self.stride;
        }
        probe
    }

    fn may_hold(&self, window: Window) -> bool {
        let bit = hash(window, self.filter_shift);
        self.filter[bit / 64] >> (bit % 64) & 1 != 0
    }

    /// How many of the last bytes, at most three, are the longest end that may become a beginning.
    pub(super) fn open_end(&self, recent: &Recent) -> usize {
        let longest = recent.count().min(MIN_NEEDLE - 1);
        let begins = |length: &usize| {
            let shift = u32::BITS - 8 * u32::try_from(*length).expect("at most three");
            let start = recent.number() << shift;
            let at = self.keys.partition_point(|&key| key < start);
            self.keys
                .get(at)
                .is_some_and(|key| key >> shift == start >> shift)
        };
        (1..=longest).rev().find(begins).unwrap_or(0)
    }

    /// All of them, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = [u8; MIN_NEEDLE]> {
        self.keys.iter().map(|key| key.to_be_bytes())
    }

    /// Forgets them so that the compiler cannot leave it out.
    pub(super) fn wipe(&mut self) {
        self.keys.fill(0);
        self.table.fill(FREE);
        std::hint::black_box(&self.keys);
        std::hint::black_box(&self.table);
    }

    /// How many bytes of memory they take.
    pub(super) fn memory(&self) -> usize {
        let table = self.table.capacity() * size_of::<Slot>();
        self.keys.capacity() * 4 + table + self.filter.capacity() * 8
    }
}
