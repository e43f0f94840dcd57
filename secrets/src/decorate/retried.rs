//! Asking again.

use std::time::Duration;

use async_trait::async_trait;
use hybrid_runner_core::secret::{Secret, SecretName};
use hybrid_runner_core::{Result, SecretProvider};

use super::spread;

/// The longest wait before the second attempt; each further one is twice as long.
const FIRST: Duration = Duration::from_millis(200);
/// No wait is longer.
const CAP: Duration = Duration::from_secs(2);

/// Asks again after `Unavailable`, later each time and by chance; never after another answer.
#[derive(Debug)]
pub struct Retried<P> {
    inner: P,
    attempts: u32,
}

impl<P> Retried<P> {
    /// Asks at most `attempts` times, and at least once.
    pub fn new(inner: P, attempts: u32) -> Self {
        Self { inner, attempts }
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<P: SecretProvider> SecretProvider for Retried<P> {
    async fn check(&self) -> Result<()> {
        self.inner.check().await
    }

    async fn identity(&self) -> Result<Option<String>> {
        self.inner.identity().await
    }

    async fn get(&self, name: &SecretName) -> Result<Secret> {
        let mut attempt = 1;
        loop {
            match self.inner.get(name).await {
                Err(error) if error.is_transient() && attempt < self.attempts => {
                    let most = FIRST.saturating_mul(1 << (attempt - 1).min(16)).min(CAP);
                    let wait = spread(most);
                    tracing::debug!(%name, attempt, ?wait, error = error.report(), "asking the store again");
                    tokio::time::sleep(wait).await;
                    attempt += 1;
                }
                answer => return answer,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Script, name};
    use super::*;
    use hybrid_runner_core::{Error, ErrorKind};

    #[tokio::test(start_paused = true)]
    async fn only_the_unreachable_are_asked_again() {
        for (kind, calls) in [
            (ErrorKind::Unavailable, 3),
            (ErrorKind::NotFound, 1),
            (ErrorKind::Denied, 1),
            (ErrorKind::Invalid, 1),
            (ErrorKind::Internal, 1),
        ] {
            let script = Script::new(move |_, _| Err(Error::new(kind, "no")));
            let retried = Retried::new(script.clone(), 3);
            assert_eq!(retried.get(&name("/a")).await.unwrap_err().kind(), kind);
            assert_eq!(script.calls(), calls, "{kind}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn waits_are_capped() {
        let script = Script::new(|_, _| Err(Error::unavailable("down"))).taking(Duration::ZERO);
        let start = tokio::time::Instant::now();
        let retried = Retried::new(script.clone(), 50);
        assert!(retried.get(&name("/a")).await.is_err());
        assert_eq!(script.calls(), 50);
        // Each sleep may take up to a millisecond more: the timer's step.
        assert!(start.elapsed() <= (CAP + Duration::from_millis(2)) * 49);
    }
}
