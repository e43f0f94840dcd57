//! Needles on their way into an automaton.

use super::MIN_NEEDLE;
use crate::sys;

/// Longer needles are cut into pieces of this length, which bounds what is held back.
const MAX_NEEDLE: usize = 8192;

/// Needles one after the other, in one piece of memory: as thousands of small ones they would leave holes in the heap of
/// a process that lives on. Wiped on drop.
#[derive(Default)]
pub(super) struct Needles {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Needles {
    /// Adds a needle, if it is long enough; a long one in pieces that cover it.
    pub(super) fn push(&mut self, needle: &[u8]) {
        if needle.len() <= MAX_NEEDLE {
            if needle.len() >= MIN_NEEDLE {
                self.add(needle);
            }
            return;
        }
        for start in (0..needle.len()).step_by(MAX_NEEDLE) {
            let start = start.min(needle.len() - MAX_NEEDLE);
            self.add(&needle[start..start + MAX_NEEDLE]);
        }
    }

    /// Adds a needle and wipes it.
    pub(super) fn take(&mut self, mut needle: Vec<u8>) {
        self.push(&needle);
        sys::wipe(&mut needle);
    }

    fn add(&mut self, needle: &[u8]) {
        if self.bytes.capacity() - self.bytes.len() < needle.len() {
            // By hand, so that what growing leaves behind is wiped.
            let wanted = (self.bytes.len() + needle.len()) * 2;
            let mut larger = Vec::with_capacity(wanted.max(4096));
            larger.extend_from_slice(&self.bytes);
            sys::wipe(&mut self.bytes);
            self.bytes = larger;
        }
        self.bytes.extend_from_slice(needle);
        self.ends.push(self.bytes.len());
    }

    /// Sorted, each once.
    pub(super) fn sorted(&self) -> Vec<&[u8]> {
        let mut sorted = Vec::with_capacity(self.ends.len());
        sorted.extend(self.iter());
        sorted.sort_unstable();
        sorted.dedup();
        sorted
    }

    fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let starts = [0].into_iter().chain(self.ends.iter().copied());
        let places = starts.zip(&self.ends);
        places.map(|(start, &end)| &self.bytes[start..end])
    }
}

impl Drop for Needles {
    fn drop(&mut self) {
        sys::wipe(&mut self.bytes);
    }
}
