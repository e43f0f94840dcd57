//! The store keeps the contract of secret stores.

#![expect(
    clippy::unwrap_used,
    reason = "a harness of tests: a failure is the test's"
)]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use custom_secrets::JsonFile;
use hybrid_runner_core::secret::{SecretName, SecretProvider};
use hybrid_runner_core::testing::ProviderHarness;

struct Folder {
    folder: tempfile::TempDir,
    values: Mutex<BTreeMap<String, String>>,
}

impl Folder {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self {
            folder,
            values: Mutex::default(),
        }
    }
}

#[async_trait]
impl ProviderHarness for Folder {
    async fn provider(&self) -> Arc<dyn SecretProvider> {
        let path = self.folder.path().join("secrets.json");
        let values = self.values.lock().unwrap().clone();
        std::fs::write(&path, serde_json::to_vec(&values).unwrap()).unwrap();
        Arc::new(JsonFile { path })
    }

    async fn put(&self, label: &str, value: &[u8]) -> Option<SecretName> {
        // JSON holds text only: a binary value is not offered.
        let value = String::from_utf8(value.to_vec()).ok()?;
        let name = format!("/contract/{label}");
        self.values.lock().unwrap().insert(name.clone(), value);
        Some(SecretName::new(name))
    }

    async fn unreachable(&self) -> Option<Arc<dyn SecretProvider>> {
        let path = self.folder.path().join("gone.json");
        Some(Arc::new(JsonFile { path }))
    }
}

mod json_file_keeps_the_contract {
    hybrid_runner_core::provider_contract_tests!(super::Folder::new());
}
