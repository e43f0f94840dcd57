//! A time limit.

use std::time::Duration;

use async_trait::async_trait;
use hybrid_runner_core::secret::{Secret, SecretName};
use hybrid_runner_core::{Error, Result, SecretProvider};

/// Ends a request that takes too long, as `Unavailable`.
#[derive(Debug)]
pub struct Timed<P> {
    inner: P,
    limit: Duration,
}

impl<P: Sync> Timed<P> {
    /// Gives each request to `inner` that long.
    pub fn new(inner: P, limit: Duration) -> Self {
        Self { inner, limit }
    }

    async fn within<T>(&self, request: impl Future<Output = Result<T>> + Send) -> Result<T> {
        tokio::time::timeout(self.limit, request)
            .await
            .unwrap_or_else(|_| {
                Err(Error::unavailable(format!(
                    "no answer within {:?}",
                    self.limit
                )))
            })
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<P: SecretProvider> SecretProvider for Timed<P> {
    async fn check(&self) -> Result<()> {
        self.within(self.inner.check()).await
    }

    async fn identity(&self) -> Result<Option<String>> {
        self.within(self.inner.identity()).await
    }

    async fn get(&self, name: &SecretName) -> Result<Secret> {
        self.within(self.inner.get(name)).await
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Script, name};
    use super::*;
    use hybrid_runner_core::ErrorKind;

    #[tokio::test(start_paused = true)]
    async fn a_request_ends_at_its_limit_and_not_before() {
        let limit = Duration::from_secs(1);
        let slow = Script::new(|_, _| Ok("v".into())).taking(limit * 2);
        let slow = Timed::new(slow, limit);
        let start = tokio::time::Instant::now();
        let error = slow.get(&name("/a")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert_eq!(start.elapsed(), limit);
        assert!(slow.check().await.is_err());
        let quick = Script::new(|_, _| Ok("v".into())).taking(limit / 2);
        assert!(Timed::new(quick, limit).get(&name("/a")).await.is_ok());
    }
}
