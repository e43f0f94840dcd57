//! Files: a folder as Kubernetes and Docker mount it, or one dotenv file.
//!
//! Read again at each request, so that a rotated value is seen without a restart. A value is the
//! file's bytes as they are, as such mounts have no extra line break; `trim = true` takes the line
//! breaks at the end away, as `$(cat file)` does, for files that an editor wrote.
//!
//! ```toml
//! [secrets.mounted]
//! kind = "file"
//! path = "/run/secrets"        # `secret:mounted:/db/password` is /run/secrets/db/password
//! trim = false
//!
//! [secrets.dotenv]
//! kind   = "file"
//! dotenv = "/etc/runner/.env"  # `secret:dotenv:/DB_PASSWORD`, or `secret:dotenv:/db/password`
//! ```

mod beneath;
mod content;
mod dotenv;
mod folder;

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use hybrid_runner_core::error::{Error, Result};
use hybrid_runner_core::kind::Context;
use hybrid_runner_core::secret::{Secret, SecretName, SecretProvider};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::variable::refuse_impossible;
use dotenv::Dotenv;
use folder::Folder;

/// A section `[secrets.NAME]` with `kind = "file"`: either `path` or `dotenv`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// A folder; each file below it is a secret.
    pub path: Option<PathBuf>,
    /// A file of `KEY=VALUE` lines.
    pub dotenv: Option<PathBuf>,
    /// Whether line breaks at the end of a file are taken away; with `path` only.
    pub trim: bool,
}

/// Serves files of a folder, or lines of a dotenv file.
#[derive(Debug, Clone)]
pub struct File(Arc<Source>);

#[derive(Debug)]
enum Source {
    Folder(Folder),
    Dotenv(Dotenv),
}

/// Builds the store from its section.
pub fn build(context: &Context) -> Result<Arc<dyn SecretProvider>> {
    let file = File::new(context.settings("secrets")?).map_err(|error| {
        Error::invalid(format!("section [secrets.{}]", context.name)).with_source(error)
    })?;
    Ok(Arc::new(file))
}

impl File {
    /// Checks the settings. Touches no file.
    pub fn new(settings: Settings) -> Result<Self> {
        let source = match (settings.path, settings.dotenv) {
            (Some(path), None) if !path.as_os_str().is_empty() => {
                Source::Folder(Folder::new(path, settings.trim))
            }
            (None, Some(_)) if settings.trim => {
                return Err(Error::invalid(
                    "`trim` is for `path`; a dotenv file has quotes",
                ));
            }
            (None, Some(path)) if !path.as_os_str().is_empty() => Source::Dotenv(Dotenv::new(path)),
            _ => {
                return Err(Error::invalid(
                    "give either `path`, a folder of files, or `dotenv`, a file of KEY=VALUE lines",
                ));
            }
        };
        Ok(Self(Arc::new(source)))
    }

    /// Does blocking work where it may block.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Source) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let source = Arc::clone(&self.0);
        tokio::task::spawn_blocking(move || work(&source))
            .await
            .map_err(|error| Error::internal("reading a file was cut off").with_source(error))?
    }
}

#[async_trait]
impl SecretProvider for File {
    async fn check(&self) -> Result<()> {
        self.blocking(|source| match source {
            Source::Folder(folder) => folder.check(),
            Source::Dotenv(dotenv) => dotenv.check(),
        })
        .await
    }

    async fn get(&self, name: &SecretName) -> Result<Secret> {
        refuse_impossible(name)?;
        let name = name.clone();
        self.blocking(move |source| match source {
            Source::Folder(folder) => folder.get(&name),
            Source::Dotenv(dotenv) => dotenv.get(&name),
        })
        .await
    }
}
