//! How much a stream may send: bytes of its items' JSON.
//!
//! A sender may send an item, however long, while its credit is above zero; so a receiver has at most
//! its window and one message under way.

use std::sync::atomic::{AtomicI64, Ordering};

use tokio::sync::Notify;

#[derive(Debug)]
pub(super) struct Credit {
    left: AtomicI64,
    more: Notify,
}

impl Credit {
    pub(super) fn new(bytes: u64) -> Self {
        Self {
            left: AtomicI64::new(signed(bytes)),
            more: Notify::new(),
        }
    }

    /// Waits until an item may be sent.
    pub(super) async fn positive(&self) {
        loop {
            let more = self.more.notified();
            if self.left.load(Ordering::Acquire) > 0 {
                return;
            }
            more.await;
        }
    }

    pub(super) fn spend(&self, bytes: usize) {
        self.left.fetch_sub(signed(bytes as u64), Ordering::AcqRel);
    }

    pub(super) fn grant(&self, bytes: u64) {
        self.left.fetch_add(signed(bytes), Ordering::AcqRel);
        self.more.notify_one();
    }
}

/// A peer's number, kept far from overflow however often it is added.
pub(super) fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes.min(1 << 32)).unwrap_or(1 << 32)
}
