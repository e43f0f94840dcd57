//! How long to wait before the next connect.

use std::time::Duration;

use hybrid_runner_core::ErrorKind;
use tokio::time::Instant;

/// The first waits are up to this long.
const BASE: Duration = Duration::from_millis(500);

/// Later ones up to this part of the outage so far: whoever was away for a minute is found within a quarter of one.
const PART: u32 = 4;

/// No wait for something that may pass is longer.
const CAP: Duration = Duration::from_secs(30);

/// After a refusal of the token, or by a server that speaks no version of ours.
const REFUSED: Duration = Duration::from_mins(1);

/// After a refusal because another runner holds the id: it may be gone soon.
const HELD: Duration = Duration::from_secs(20);

/// A session that lived this long is followed by a connect at once.
pub(super) const LIVED: Duration = Duration::from_secs(5);

/// Full jitter, so that thousands of runners do not come at once: `random(0 … most)`, where `most` grows
/// with the outage and not with the number of tries.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    since: Option<Instant>,
}

impl Backoff {
    /// The outage is over.
    pub(super) fn reset(&mut self) {
        self.since = None;
    }

    /// The wait after an error. `fraction` is a random number from 0 to 1.
    pub(super) fn after(&mut self, kind: ErrorKind, fraction: f64) -> Duration {
        let outage = self.since.get_or_insert_with(Instant::now).elapsed();
        let slow = |period: Duration| period.mul_f64(0.9 + 0.2 * fraction);
        match kind {
            ErrorKind::Conflict => slow(HELD),
            kind if is_refusal(kind) => slow(REFUSED),
            _ => (outage / PART).clamp(BASE, CAP).mul_f64(fraction),
        }
    }
}

/// Whether the same request will be refused again until somebody changes something.
pub(super) fn is_refusal(kind: ErrorKind) -> bool {
    !matches!(kind, ErrorKind::Unavailable | ErrorKind::Internal)
}

/// A random number from 0 to 1.
pub(super) fn random() -> f64 {
    getrandom::u32().map_or(0.5, |number| f64::from(number) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn waits_grow_with_the_outage_up_to_the_cap_and_start_again() {
        let mut backoff = Backoff::default();
        let mut most = || backoff.after(ErrorKind::Unavailable, 1.0);
        assert_eq!(most(), BASE);
        advance(Duration::from_secs(8)).await;
        assert_eq!(most(), Duration::from_secs(2));
        advance(Duration::from_hours(1)).await;
        assert_eq!(most(), CAP);
        assert_eq!(backoff.after(ErrorKind::Unavailable, 0.0), Duration::ZERO);
        backoff.reset();
        assert_eq!(backoff.after(ErrorKind::Unavailable, 1.0), BASE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_is_never_hammered() {
        for kind in [
            ErrorKind::Denied,
            ErrorKind::Unsupported,
            ErrorKind::Invalid,
            ErrorKind::Conflict,
        ] {
            for fraction in [0.0, 0.5, 1.0] {
                let wait = Backoff::default().after(kind, fraction);
                assert!(wait >= Duration::from_secs(15), "{kind}");
            }
        }
    }
}
