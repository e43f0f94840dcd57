//! A limit of requests at a time.

use async_trait::async_trait;
use hybrid_runner_core::secret::{Secret, SecretName};
use hybrid_runner_core::{Error, Result, SecretProvider};
use tokio::sync::Semaphore;

/// Lets only so many requests through at a time; the others wait for their turn.
#[derive(Debug)]
pub struct Limited<P> {
    inner: P,
    turns: Semaphore,
}

impl<P> Limited<P> {
    /// At least one at a time.
    pub fn new(inner: P, at_a_time: u32) -> Self {
        let turns = usize::try_from(at_a_time.max(1)).unwrap_or(1);
        Self {
            inner,
            turns: Semaphore::new(turns.min(Semaphore::MAX_PERMITS)),
        }
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<P: SecretProvider> SecretProvider for Limited<P> {
    async fn check(&self) -> Result<()> {
        self.inner.check().await
    }

    async fn identity(&self) -> Result<Option<String>> {
        self.inner.identity().await
    }

    async fn get(&self, name: &SecretName) -> Result<Secret> {
        let turn = self.turns.acquire().await;
        let _turn = turn.map_err(|_| Error::unavailable("the store is being closed"))?;
        self.inner.get(name).await
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Script, name};
    use super::*;
    use futures::future::join_all;

    #[tokio::test(start_paused = true)]
    async fn only_so_many_are_under_way_at_a_time() {
        let script = Script::new(|_, _| Ok("v".into()));
        let limited = Limited::new(script.clone(), 4);
        let names: Vec<_> = (0..20).map(|i| name(&format!("/{i}"))).collect();
        join_all(names.iter().map(|name| limited.get(name))).await;
        assert_eq!((script.calls(), script.most()), (20, 4));
    }
}
