//! A secret store behind a program.

use std::sync::Arc;

use async_trait::async_trait;
use hybrid_runner_core::error::{Error, Result};
use hybrid_runner_core::plugin::host::PluginStore;
use hybrid_runner_core::secret::{Secret, SecretName, SecretProvider};
use hybrid_runner_core::testing::ProviderHarness;

use super::candidate::Candidate;

/// A candidate as the suite of secret stores wants it. Values are put by the plugin itself, if it offers that.
#[derive(Debug)]
pub struct StoreCandidate(Candidate);

impl StoreCandidate {
    /// Of this candidate.
    pub fn new(candidate: Candidate) -> Self {
        Self(candidate)
    }

    fn store(&self) -> Result<PluginStore> {
        Ok(PluginStore::new(self.0.host("One", true)?))
    }
}

#[derive(Debug)]
struct Unmade(String);

#[async_trait]
impl SecretProvider for Unmade {
    async fn check(&self) -> Result<()> {
        Err(Error::internal(self.0.clone()))
    }
    async fn get(&self, _: &SecretName) -> Result<Secret> {
        Err(Error::internal(self.0.clone()))
    }
}

#[async_trait]
impl ProviderHarness for StoreCandidate {
    async fn provider(&self) -> Arc<dyn SecretProvider> {
        match self.store() {
            Ok(store) => Arc::new(store),
            Err(error) => Arc::new(Unmade(error.report())),
        }
    }

    async fn put(&self, label: &str, value: &[u8]) -> Option<SecretName> {
        if !self.0.puts() {
            return None;
        }
        self.store().ok()?.put(label, value).await.ok()?
    }
}
