//! The time of day, and deadlines.

use std::time::{Duration, SystemTime};

use crate::sys;

/// Microseconds since the epoch.
pub(crate) fn now_micros() -> i64 {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

/// An instant on the clock of deadlines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Instant(Duration);

impl Instant {
    pub(crate) fn now() -> Self {
        Self(sys::monotonic())
    }

    /// The end of time if that is not so far.
    pub(crate) fn after(self, wait: Duration) -> Self {
        Self(self.0.saturating_add(wait))
    }

    /// How long it is from `now` until then; zero if it has passed.
    pub(crate) fn from(self, now: Self) -> Duration {
        self.0.saturating_sub(now.0)
    }
}

/// Waits without doing anything.
pub(crate) fn pause(wait: Duration) {
    // An early end only makes a retry come sooner.
    drop(sys::poll([], Some(wait)));
}
