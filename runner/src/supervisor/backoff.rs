//! How long to wait before the next try.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(15);

/// Doubles from try to try, capped, with full jitter above a tenth, so that many do not come at once.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    tries: u32,
}

impl Backoff {
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// It worked: the next failure is a first one again.
    pub(super) fn reset(&mut self) {
        self.tries = 0;
    }

    /// How long to wait now.
    pub(super) fn next(&mut self) -> Duration {
        let ceiling = FIRST.saturating_mul(1 << self.tries.min(16)).min(LONGEST);
        self.tries = self.tries.saturating_add(1);
        // Without randomness the full time is waited.
        let luck = getrandom::u32().map_or(1.0, |luck| f64::from(luck) / f64::from(u32::MAX));
        ceiling.mul_f64(0.1 + 0.9 * luck)
    }
}
