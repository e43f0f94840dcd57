//! How long to wait before the next connect.

use std::time::Duration;

use hybrid_runner_core::ErrorKind;

/// The first waits are up to this long, then twice as long each time.
const BASE: Duration = Duration::from_millis(200);

/// No wait for something that may pass is longer.
const CAP: Duration = Duration::from_secs(30);

/// After a refusal of the token, or by a server that speaks no version of ours.
const REFUSED: Duration = Duration::from_mins(1);

/// After a refusal because another runner holds the id: it may be gone soon.
const HELD: Duration = Duration::from_secs(20);

/// A session that lived this long is followed by a connect at once.
pub(crate) const LIVED: Duration = Duration::from_secs(5);

/// Full jitter, capped: `random(0 … min(cap, base · 2ⁿ))`, so that thousands of runners do not come at once.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// Starts again from the shortest wait.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }

    /// The wait after an error. `fraction` is a random number from 0 to 1.
    pub(crate) fn after(&mut self, kind: ErrorKind, fraction: f64) -> Duration {
        let slow = |period: Duration| period.mul_f64(0.9 + 0.2 * fraction);
        if is_refusal(kind) {
            return slow(if kind == ErrorKind::Conflict {
                HELD
            } else {
                REFUSED
            });
        }
        let most = BASE.saturating_mul(1 << self.failures.min(16)).min(CAP);
        self.failures = self.failures.saturating_add(1);
        most.mul_f64(fraction)
    }
}

/// Whether the same request will be refused again until somebody changes something.
pub(crate) fn is_refusal(kind: ErrorKind) -> bool {
    !matches!(kind, ErrorKind::Unavailable | ErrorKind::Internal)
}

/// A random number from 0 to 1.
pub(crate) fn random() -> f64 {
    getrandom::u32().map_or(0.5, |number| f64::from(number) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_cap_and_start_again() {
        let mut backoff = Backoff::default();
        let waits: Vec<_> = (0..10)
            .map(|_| backoff.after(ErrorKind::Unavailable, 1.0))
            .collect();
        assert_eq!(waits[0], BASE);
        assert_eq!(waits[1], BASE * 2);
        assert_eq!(waits[9], CAP);
        assert_eq!(backoff.after(ErrorKind::Unavailable, 0.0), Duration::ZERO);
        backoff.reset();
        assert_eq!(backoff.after(ErrorKind::Unavailable, 1.0), BASE);
    }

    #[test]
    fn a_refusal_is_never_hammered() {
        for kind in [
            ErrorKind::Denied,
            ErrorKind::Unsupported,
            ErrorKind::Invalid,
            ErrorKind::Conflict,
        ] {
            for fraction in [0.0, 0.5, 1.0] {
                assert!(
                    Backoff::default().after(kind, fraction) >= Duration::from_secs(15),
                    "{kind}"
                );
            }
        }
    }
}
