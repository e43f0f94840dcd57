//! How long a log that brings nothing new is asked for again.

use std::time::Duration;

use tokio::time::Instant;

/// So often, and so long after the first time, the engine is asked for a log that it does not give. With the passes
/// themselves, which may each stall, whoever waits for the end of the run waits for some 30 s.
const PASSES: u32 = 3;
const PATIENCE: Duration = Duration::from_secs(15);

/// Passes over a log that brought nothing new, one after the other.
#[derive(Debug, Default)]
pub(in super::super) struct Vain(Option<(Instant, u32)>);

/// How many they are, and how long after the first.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Tries {
    pub(in super::super) passes: u32,
    since: Duration,
}

impl Vain {
    /// One more.
    pub(in super::super) fn count(&mut self) -> Tries {
        let (first, passes) = self.0.get_or_insert_with(|| (Instant::now(), 0));
        *passes += 1;
        Tries {
            passes: *passes,
            since: first.elapsed(),
        }
    }
}

impl Tries {
    /// Whether what was not read until now is not waited for any more.
    pub(in super::super) fn are_enough(self) -> bool {
        self.are_some() && self.since >= PATIENCE
    }

    /// Whether it was not only an answer that went wrong.
    pub(in super::super) fn are_some(self) -> bool {
        self.passes >= PASSES
    }

    /// Before the next one: short at first.
    pub(in super::super) fn pause(self, least: Duration, most: Duration) -> Duration {
        self.since.clamp(least, most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_log_is_given_up_after_some_tries_and_some_time_and_not_by_one_alone() {
        let mut vain = Vain::default();
        for _ in 0..9 {
            assert!(!vain.count().are_enough());
        }
        assert!(vain.count().are_some());
        tokio::time::advance(PATIENCE).await;
        assert!(vain.count().are_enough());
        let mut vain = Vain::default();
        assert!(!vain.count().are_enough());
        tokio::time::advance(PATIENCE).await;
        assert!(!vain.count().are_enough());
        assert!(vain.count().are_enough());
    }
}
