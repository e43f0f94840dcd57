//! What the families of forms share.

use crate::mask::needles::Needles;

/// The case of hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Case {
    Lower,
    Upper,
}

pub(super) const CASES: [Case; 2] = [Case::Lower, Case::Upper];

impl Case {
    fn digit(self, digit: u32) -> u8 {
        let digits = match self {
            Self::Lower => b"0123456789abcdef",
            Self::Upper => b"0123456789ABCDEF",
        };
        digits[(digit & 15) as usize]
    }

    pub(super) fn push_byte(self, byte: u8, out: &mut Vec<u8>) {
        self.push(u32::from(byte), 2, out);
    }

    /// A number with so many digits, or more if it needs them.
    pub(super) fn push(self, number: u32, digits: u32, out: &mut Vec<u8>) {
        let needed = (u32::BITS - number.leading_zeros()).div_ceil(4);
        for place in (0..needed.max(digits)).rev() {
            out.push(self.digit(number >> (4 * place)));
        }
    }
}

/// Whose forms are looked for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Breadth {
    /// All writers'.
    Every,
    /// Those of each family that are met every day.
    Common,
}

impl Breadth {
    /// Of a table that has its common writers first.
    pub(super) fn of<T>(self, writers: &[T], common: usize) -> &[T] {
        match self {
            Self::Every => writers,
            Self::Common => &writers[..common],
        }
    }
}

/// A character of a text, or a byte that is none.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    Char(char),
    Stray(u8),
}

impl Unit {
    pub(super) fn push_raw(self, out: &mut Vec<u8>) {
        match self {
            Self::Char(char) => out.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes()),
            Self::Stray(byte) => out.push(byte),
        }
    }
}

/// The characters of a text.
pub(super) fn units(text: &[u8]) -> impl Iterator<Item = Unit> {
    text.utf8_chunks().flat_map(|chunk| {
        let chars = chunk.valid().chars().map(Unit::Char);
        chars.chain(chunk.invalid().iter().copied().map(Unit::Stray))
    })
}

/// The text with each character written anew.
pub(super) fn rewritten(text: &[u8], mut write: impl FnMut(Unit, &mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() * 2);
    for unit in units(text) {
        write(unit, &mut out);
    }
    out
}

/// The text with each byte written anew.
pub(super) fn replaced(text: &[u8], mut replace: impl FnMut(u8, &mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() * 2);
    for &byte in text {
        replace(byte, &mut out);
    }
    out
}

/// The text with each of these bytes twice.
pub(super) fn doubled(text: &[u8], twice: u8) -> Vec<u8> {
    replaced(text, |byte, out| {
        out.resize(out.len() + 1 + usize::from(byte == twice), byte);
    })
}

/// Collects what the writers of one family make of a text, each form once.
///
/// A writer is told apart by what it makes of the special characters in the text, which are few: so the text itself is
/// written only where something new comes out.
pub(super) struct Distinct<'a> {
    text: &'a [u8],
    special: Vec<u8>,
    seen: Vec<Vec<u8>>,
    needles: &'a mut Needles,
}

impl<'a> Distinct<'a> {
    pub(super) fn new(text: &'a [u8], needles: &'a mut Needles) -> Self {
        let mut kinds: Vec<Unit> = Vec::new();
        for unit in units(text) {
            let plain = matches!(unit, Unit::Char(char) if char.is_ascii_alphanumeric());
            if !plain && !kinds.contains(&unit) {
                kinds.push(unit);
            }
        }
        let mut special = Vec::new();
        for kind in kinds {
            kind.push_raw(&mut special);
        }
        let seen = vec![special.clone()];
        Self {
            text,
            special,
            seen,
            needles,
        }
    }

    /// What a writer makes of it, which must write each character on its own.
    pub(super) fn add(&mut self, write: impl Fn(&[u8]) -> Vec<u8>) {
        let special = write(&self.special);
        if !self.seen.contains(&special) {
            self.seen.push(special);
            self.needles.take(write(self.text));
        }
    }
}
