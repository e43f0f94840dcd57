//! What is searched at once: a piece of a stream, and the last bytes before it.

use super::MIN_NEEDLE;
use super::heads::{Window, load};

/// How many bytes before a piece can be seen.
pub(super) const RECENT: usize = 16;

/// The last bytes of a stream.
#[derive(Clone, Copy, Default)]
pub(super) struct Recent {
    /// At the end of it.
    bytes: [u8; RECENT],
    /// How many bytes there were, or [`RECENT`] if there were more.
    count: usize,
}

/// A piece of a stream. Places are counted from [`RECENT`] bytes before it.
pub(super) struct View<'a> {
    pub(super) input: &'a [u8],
    /// What came before, and the beginning of the piece.
    seam: [u8; 2 * RECENT],
    count: usize,
}

impl Recent {
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// The last bytes as a number, the last one lowest.
    pub(super) fn number(&self) -> u32 {
        let [.., a, b, c, d] = self.bytes;
        u32::from_be_bytes([a, b, c, d])
    }

    pub(super) fn before<'a>(&self, input: &'a [u8]) -> View<'a> {
        let mut seam = [0; 2 * RECENT];
        seam[..RECENT].copy_from_slice(&self.bytes);
        let begins = &input[..input.len().min(RECENT)];
        seam[RECENT..RECENT + begins.len()].copy_from_slice(begins);
        View {
            input,
            seam,
            count: self.count,
        }
    }

    pub(super) fn push(&mut self, view: &View<'_>) {
        let length = view.input.len();
        self.count = (self.count + length).min(RECENT);
        self.bytes
            .copy_from_slice(match length.checked_sub(RECENT) {
                Some(start) => &view.input[start..],
                None => &view.seam[length..length + RECENT],
            });
    }

    /// Forgets the last ones. If none is left, there is still one that is no end of a line.
    pub(super) fn back(&mut self, bytes: usize) {
        if bytes >= RECENT {
            *self = Self {
                bytes: [0; RECENT],
                count: 1,
            };
        } else {
            self.bytes.copy_within(..RECENT - bytes, bytes);
            self.count = self.count.saturating_sub(bytes);
        }
    }
}

impl View<'_> {
    /// Where it ends.
    pub(super) fn end(&self) -> usize {
        RECENT + self.input.len()
    }

    /// Four bytes from a place that is not nearer to the end.
    pub(super) fn window(&self, start: usize) -> Window {
        match start.checked_sub(RECENT) {
            Some(start) => load(self.input, start),
            None => load(&self.seam, start),
        }
    }

    /// The bytes from a place on, as far as they lie together.
    pub(super) fn from(&self, start: usize) -> &[u8] {
        match start.checked_sub(RECENT) {
            Some(start) => &self.input[start..],
            None => &self.seam[start..self.end().min(self.seam.len())],
        }
    }

    pub(super) fn byte(&self, at: usize) -> u8 {
        self.from(at)[0]
    }

    /// Whether a line starts at a place: the stream does, or the byte before ends one.
    pub(super) fn starts_line(&self, at: usize) -> bool {
        match at.checked_sub(1) {
            Some(before) if at > RECENT - self.count => self.byte(before) == b'\n',
            _ => at == RECENT - self.count,
        }
    }

    /// How many places have a window.
    pub(super) fn windows(&self) -> usize {
        (self.end() + 1).saturating_sub(MIN_NEEDLE)
    }
}
