//! A secret store of one's own: a JSON file with one object of strings, `{"/db/password": "…"}`.
//!
//! Shows all that a store needs: a section, the trait, errors that are told apart, and the suite that certifies it
//! (`tests/contract.rs`). `src/main.rs` serves it as a plugin; `../custom-runner` builds it in.

use std::{collections::BTreeMap, io, path::PathBuf, sync::Arc};

use hybrid_runner_core::secret::SecretName;
use hybrid_runner_core::{Error, ErrorKind, Result, Secret, SecretProvider, kind, schemars};

/// What `kind = "json_file"` names.
pub const KIND: kind::Kind<dyn SecretProvider> = kind::Kind {
    name: "json_file",
    summary: "the strings of a JSON object in a file",
    build: |context| Ok(Arc::new(context.settings::<JsonFile>("secrets")?)),
    schema: || schemars::schema_for!(JsonFile),
};

/// Serves the strings of a JSON object; also the section `[secrets.NAME]`.
#[derive(Debug, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JsonFile {
    /// The file: `path = "/run/secrets.json"`.
    pub path: PathBuf,
}

impl JsonFile {
    /// Reads the file, at each request: a rotated value is seen.
    pub async fn read(&self) -> Result<BTreeMap<String, String>> {
        let path = self.path.display();
        let text = tokio::fs::read(&self.path).await.map_err(|error| {
            let kind = match error.kind() {
                io::ErrorKind::PermissionDenied => ErrorKind::Denied,
                _ => ErrorKind::Unavailable,
            };
            Error::new(kind, format!("failed to read `{path}`")).with_source(error)
        })?;
        // The parser's own words could quote a value; they are left out.
        serde_json::from_slice(&text)
            .map_err(|_| Error::unavailable(format!("`{path}` is not a JSON object of strings")))
    }
}

#[async_trait::async_trait]
impl SecretProvider for JsonFile {
    async fn check(&self) -> Result<()> {
        self.read().await.map(drop)
    }

    async fn get(&self, name: &SecretName) -> Result<Secret> {
        // The file keeps no versions: one that is asked for is not there.
        let present = name.version.is_none() && name.stage.is_none();
        let value = self.read().await?.remove(&name.name).filter(|_| present);
        let missing = || Error::not_found(format!("no `{name}` in `{}`", self.path.display()));
        value.map(Secret::new).ok_or_else(missing)
    }
}
