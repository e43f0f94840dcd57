//! Items that are stored in one write, with the cursor behind them.

use hybrid_runner_core::{LogChunk, LogCursor};

use super::frame;

/// Stored in one write at most: one write of it takes well under a millisecond, and it is an extent.
const MAX_BATCH: usize = 256 << 10;

/// Items that are stored in one write, with the cursor behind them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Batch {
    pub(super) bytes: Vec<u8>,
    /// How far the items move the position.
    pub(super) size: u64,
    pub(super) cursor: Option<LogCursor>,
}

impl Batch {
    /// Adds an item.
    pub(crate) fn push(&mut self, chunk: &LogChunk) {
        frame::encode(attempt_of(&chunk.next), &chunk.item, &mut self.bytes);
        self.size += frame::size(&chunk.item);
        self.cursor = Some(chunk.next.clone());
    }

    /// Adds what came later.
    pub(crate) fn append(&mut self, later: Self) {
        self.bytes.extend_from_slice(&later.bytes);
        self.size += later.size;
        self.cursor = later.cursor.or(self.cursor.take());
    }

    /// Whether there is nothing to store.
    pub(crate) fn is_empty(&self) -> bool {
        self.cursor.is_none()
    }

    /// Whether it takes no more.
    pub(crate) fn is_full(&self) -> bool {
        self.bytes.len() >= MAX_BATCH
    }

    /// How far the items move the position.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// The cursor behind the last item.
    pub(crate) fn cursor(&self) -> Option<&LogCursor> {
        self.cursor.as_ref()
    }
}

/// The attempt that a runner's cursor belongs to (`<attempt>:<place>`); 0 if it does not say.
pub(crate) fn attempt_of(cursor: &LogCursor) -> u32 {
    cursor
        .as_str()
        .split_once(':')
        .and_then(|(attempt, _)| attempt.parse().ok())
        .unwrap_or(0)
}
