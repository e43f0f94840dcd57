//! What the copies of all logs may take on disk.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The bounds, and how much is taken. Cheap to clone; all clones are the same.
#[derive(Debug, Clone)]
pub(crate) struct Room {
    per_run: u64,
    total: u64,
    taken: Arc<AtomicU64>,
}

impl Room {
    /// Bounds in bytes.
    pub(crate) fn new(per_run: u64, total: u64) -> Self {
        Self {
            per_run,
            total,
            taken: Arc::default(),
        }
    }

    /// Takes more for a log that takes so much already, if there is room.
    pub(super) fn take(&self, has: u64, more: u64) -> Option<Taken> {
        if has + more > self.per_run {
            return None;
        }
        let fits = |taken: u64| (taken + more <= self.total).then_some(taken + more);
        self.taken
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits)
            .ok()?;
        let room = self.clone();
        Some(Taken { room, bytes: more })
    }

    /// Takes what is there already, whatever the bounds say.
    pub(super) fn has(&self, bytes: u64) {
        self.taken.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn give_back(&self, bytes: u64) {
        self.taken.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// Room that was taken, and is given back unless it is kept.
#[derive(Debug)]
pub(super) struct Taken {
    room: Room,
    bytes: u64,
}

impl Taken {
    pub(super) fn keep(mut self) {
        self.bytes = 0;
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.room.give_back(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_log_and_all_together_have_a_bound() {
        let room = Room::new(10, 15);
        let keep = |has, more| room.take(has, more).map(Taken::keep).is_some();
        assert!(keep(0, 10) && !keep(10, 1));
        drop(room.take(0, 5));
        assert!(keep(0, 5) && !keep(5, 1));
        room.give_back(10);
        assert!(keep(5, 5));
        room.has(100);
        assert!(!keep(0, 1));
    }
}
