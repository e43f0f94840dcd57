//! A secret store of one's own: a JSON file with one object of strings, `{"/db/password": "…"}`.
//!
//! Shows all that a store needs: a section, the trait, told-apart errors, and the contract suite (`tests/contract.rs`).
//! `../custom-runner` builds it in.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use hybrid_runner_core::kind::Kind;
use hybrid_runner_core::{Error, Result, Secret, SecretProvider, schemars, secret::SecretName};

/// What `kind = "json_file"` names.
pub const KIND: Kind<dyn SecretProvider> = Kind {
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
    /// A store over this file. It is read at each request, so that a rotated value is seen.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    async fn read(&self) -> Result<BTreeMap<String, String>> {
        let path = self.path.display();
        let text = tokio::fs::read(&self.path).await.map_err(|error| {
            let what = format!("failed to read `{path}`");
            match error.kind() {
                ErrorKind::PermissionDenied => Error::denied(what),
                _ => Error::unavailable(what),
            }
            .with_source(error)
        })?;
        // The parser's own words could quote a value; they are left out.
        serde_json::from_slice(&text)
            .map_err(|_| Error::unavailable(format!("`{path}` is not a JSON object of strings")))
    }
}

#[async_trait]
impl SecretProvider for JsonFile {
    async fn check(&self) -> Result<()> {
        self.read().await.map(drop)
    }

    async fn get(&self, name: &SecretName) -> Result<Secret> {
        if name.version.is_some() || name.stage.is_some() {
            let what = format!(
                "`{}` keeps no versions, and one of `{name}` was asked for",
                self.path.display()
            );
            return Err(Error::not_found(what));
        }
        match self.read().await?.remove(&name.name) {
            Some(value) => Ok(Secret::new(value)),
            None => Err(Error::not_found(format!(
                "no `{name}` in `{}`",
                self.path.display()
            ))),
        }
    }
}
