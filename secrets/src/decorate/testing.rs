//! A provider that answers by a script and counts.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use hybrid_runner_core::secret::{Secret, SecretName};
use hybrid_runner_core::{Result, SecretProvider};

type Answer = dyn Fn(usize, &SecretName) -> Result<String> + Send + Sync;

#[derive(Clone)]
pub(super) struct Script {
    answer: Arc<Answer>,
    time: Duration,
    calls: Arc<AtomicUsize>,
    now: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
}

impl Script {
    /// `answer` gets the number of the call, from 1.
    pub(super) fn new(
        answer: impl Fn(usize, &SecretName) -> Result<String> + Send + Sync + 'static,
    ) -> Self {
        Self {
            answer: Arc::new(answer),
            time: Duration::from_millis(10),
            calls: Arc::default(),
            now: Arc::default(),
            most: Arc::default(),
        }
    }

    pub(super) fn taking(mut self, time: Duration) -> Self {
        self.time = time;
        self
    }

    pub(super) fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    /// The most calls that were under way at one time.
    pub(super) fn most(&self) -> usize {
        self.most.load(Ordering::SeqCst)
    }
}

impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Script")
    }
}

struct Leave<'a>(&'a AtomicUsize);

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[async_trait]
impl SecretProvider for Script {
    async fn check(&self) -> Result<()> {
        tokio::time::sleep(self.time).await;
        Ok(())
    }

    async fn get(&self, name: &SecretName) -> Result<Secret> {
        let call = self.calls.fetch_add(1, Ordering::SeqCst) + 1;
        let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
        let _leave = Leave(&self.now);
        self.most.fetch_max(now, Ordering::SeqCst);
        tokio::time::sleep(self.time).await;
        (self.answer)(call, name).map(Secret::new)
    }
}

pub(super) fn name(name: &str) -> SecretName {
    SecretName::new(name)
}
