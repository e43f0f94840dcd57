//! The contract of secret stores, for each store that needs no service.

#![expect(
    clippy::unwrap_used,
    reason = "a harness of tests: a failure is the test's"
)]

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use hybrid_runner_core::secret::{SecretName, SecretProvider};
use hybrid_runner_core::testing::ProviderHarness;
use hybrid_runner_secrets::{env, file};
use tempfile::TempDir;

/// Variables, as the process would have them.
#[derive(Default)]
struct Variables(Mutex<BTreeMap<String, Vec<u8>>>);

#[async_trait]
impl ProviderHarness for Variables {
    async fn provider(&self) -> Arc<dyn SecretProvider> {
        let values = self.0.lock().unwrap().clone();
        let own = (
            OsString::from("AUTH_TOKEN"),
            OsString::from("the runner's own"),
        );
        let variables = values
            .into_iter()
            .map(|(name, value)| (name.into(), OsString::from_vec(value)));
        let settings = env::Settings {
            prefix: "SECRET_".to_owned(),
        };
        Arc::new(env::Env::new(settings, variables.chain([own])).unwrap())
    }

    async fn put(&self, label: &str, value: &[u8]) -> Option<SecretName> {
        if value.contains(&0) {
            return None; // No variable can hold a NUL byte.
        }
        let name = format!("SECRET_CONTRACT_{}", label.to_uppercase());
        self.0.lock().unwrap().insert(name, value.to_vec());
        Some(SecretName::new(format!("/contract/{label}")))
    }

    async fn not_allowed(&self) -> Option<SecretName> {
        Some(SecretName::new("/AUTH_TOKEN"))
    }
}

/// A folder of files, as Kubernetes mounts them: each a link through `..data`.
struct Mounted {
    folder: TempDir,
}

impl Mounted {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        std::fs::create_dir(folder.path().join("..2026")).unwrap();
        symlink("..2026", folder.path().join("..data")).unwrap();
        std::fs::create_dir(folder.path().join("contract")).unwrap();
        symlink("/etc/hostname", folder.path().join("outside")).unwrap();
        Self { folder }
    }

    fn over(path: PathBuf) -> Arc<dyn SecretProvider> {
        let settings = file::Settings {
            path: Some(path),
            ..file::Settings::default()
        };
        Arc::new(file::File::new(settings).unwrap())
    }
}

#[async_trait]
impl ProviderHarness for Mounted {
    async fn provider(&self) -> Arc<dyn SecretProvider> {
        Self::over(self.folder.path().to_owned())
    }

    async fn put(&self, label: &str, value: &[u8]) -> Option<SecretName> {
        std::fs::write(self.folder.path().join("..2026").join(label), value).unwrap();
        let link = self.folder.path().join("contract").join(label);
        symlink(PathBuf::from("../..data").join(label), link).unwrap();
        Some(SecretName::new(format!("/contract/{label}")))
    }

    fn impossible(&self) -> Option<SecretName> {
        Some(SecretName::new("/contract/../../etc/passwd"))
    }

    async fn not_allowed(&self) -> Option<SecretName> {
        Some(SecretName::new("/outside"))
    }

    async fn unreachable(&self) -> Option<Arc<dyn SecretProvider>> {
        Some(Self::over(self.folder.path().join("not-mounted")))
    }
}

mod env_keeps_the_contract {
    hybrid_runner_core::provider_contract_tests!(super::Variables::default());
}

mod file_keeps_the_contract {
    hybrid_runner_core::provider_contract_tests!(super::Mounted::new());
}
