//! A bit for each of many places, with the number of set bits before a place.

/// As many places are looked at together.
pub(super) const AT_ONCE: usize = 64;

/// Bits by number. [`Bits::rank`] is known once they are [`Bits::counted`].
#[derive(Default)]
pub(super) struct Bits {
    words: Vec<u64>,
    /// How many bits are set before each word.
    before: Vec<u32>,
}

impl Bits {
    /// So many bits, none of them set.
    pub(super) fn new(bits: usize) -> Self {
        Self {
            words: vec![0; bits.div_ceil(64)],
            before: Vec::new(),
        }
    }

    pub(super) fn set(&mut self, at: usize) {
        self.words[at / 64] |= 1 << (at % 64);
    }

    pub(super) fn get(&self, at: usize) -> bool {
        self.words[at / 64] >> (at % 64) & 1 != 0
    }

    /// The first one that is set among so many, at most [`AT_ONCE`], from a place on.
    pub(super) fn first(&self, from: usize, count: usize) -> Option<usize> {
        let (word, shift) = (from / 64, from % 64);
        let mut bits = self.words.get(word)? >> shift;
        if shift + count > 64 {
            bits |= self.words[word + 1] << 1 << (63 - shift);
        }
        let first = bits.trailing_zeros() as usize;
        (first < count).then_some(first)
    }

    /// Counts them, once all are set.
    pub(super) fn counted(mut self) -> Self {
        self.before = Vec::with_capacity(self.words.len());
        let mut count = 0;
        for word in &self.words {
            self.before.push(count);
            count += word.count_ones();
        }
        self
    }

    /// How many are set before a place.
    pub(super) fn rank(&self, at: usize) -> usize {
        let below = self.words[at / 64] & ((1 << (at % 64)) - 1);
        (self.before[at / 64] + below.count_ones()) as usize
    }

    /// How many bytes of memory they take.
    pub(super) fn memory(&self) -> usize {
        self.words.capacity() * 8 + self.before.capacity() * 4
    }
}

#[cfg(test)]
mod tests {
    use super::Bits;

    #[test]
    fn the_rank_is_the_number_of_bits_before() {
        let mut bits = Bits::new(200);
        for at in [0, 3, 63, 64, 130, 199] {
            bits.set(at);
        }
        let bits = bits.counted();
        let ranks = [0, 1, 3, 4, 63, 64, 65, 130, 131, 199].map(|at| bits.rank(at));
        assert_eq!(ranks, [0, 1, 1, 2, 2, 3, 4, 4, 5, 5]);
        assert!(bits.get(130) && !bits.get(131));
        let first = [
            (0, 0),
            (0, 64),
            (4, 59),
            (4, 60),
            (65, 64),
            (66, 64),
            (131, 64),
            (199, 1),
        ];
        let first = first.map(|(from, count)| bits.first(from, count));
        let found = [None, Some(0), None, Some(59), None, None, None, Some(0)];
        assert_eq!(first, found);
        assert_eq!(bits.first(136, 64), Some(63));
    }
}
