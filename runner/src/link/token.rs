//! The token, read again from its source at each connect.

use std::hash::{Hash as _, Hasher as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hybrid_runner_core::secret::Reference;
use hybrid_runner_core::{Error, Result};
use hybrid_runner_secrets::Stores;
use secrecy::{ExposeSecret as _, SecretString};

use crate::config::TokenSource;

/// A token is at most this long: it travels in one header.
const MAX_TOKEN: usize = 16 * 1024;

/// Reads the token from where the configuration says.
#[derive(Debug, Clone)]
pub(crate) enum Tokens {
    File(PathBuf),
    Env(String),
    Secret(Reference, Arc<Stores>),
    Value(SecretString),
}

/// What a file's metadata was when it was read; another one means another token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Print(u64, i64, i64, u64);

impl Tokens {
    /// The tokens of a source; a secret is resolved by `stores`.
    pub(crate) fn new(source: &TokenSource, stores: Arc<Stores>) -> Self {
        match source {
            TokenSource::File(path) => Self::File(path.clone()),
            TokenSource::Env(name) => Self::Env(name.clone()),
            TokenSource::Secret(reference) => Self::Secret(reference.clone(), stores),
            TokenSource::Value(value) => Self::Value(value.clone()),
        }
    }

    /// The token of now.
    pub(crate) async fn read(&self) -> Result<SecretString> {
        let text = match self {
            Self::File(path) => read_file(path).await?,
            Self::Env(name) => std::env::var(name).map(SecretString::from).map_err(|_| {
                Error::invalid(format!(
                    "the variable `{name}`, which [link] token names, is not set"
                ))
            })?,
            Self::Secret(reference, stores) => {
                let found = stores.read("link", reference).await?;
                // On its way into the header.
                SecretString::from(found.value.expose_text()?)
            }
            Self::Value(value) => value.clone(),
        };
        usable(&text, &self.name())
    }

    /// Tells one state of the source from another, if that can be seen from outside.
    pub(crate) async fn print(&self) -> Option<Print> {
        if let Self::Secret(reference, stores) = self {
            // A store that does not answer says nothing of a change.
            let found = stores.read("link", reference).await.ok()?;
            let mut hash = std::hash::DefaultHasher::new();
            // Compared with itself in this process only.
            (&found.version, found.value.expose()).hash(&mut hash);
            return Some(Print(hash.finish(), 0, 0, 0));
        }
        let Self::File(path) = self else { return None };
        let meta = tokio::fs::metadata(path).await.ok()?;
        Some(Print(
            meta.ino(),
            meta.mtime(),
            meta.mtime_nsec(),
            meta.len(),
        ))
    }

    /// Whether a change of the source can be seen from outside.
    pub(crate) fn can_change(&self) -> bool {
        matches!(self, Self::File(_) | Self::Secret(..))
    }

    /// How often that is looked at: a file costs nothing, a store is asked seldom.
    pub(crate) fn poll(&self) -> Duration {
        match self {
            Self::Secret(..) => Duration::from_secs(15),
            _ => Duration::from_secs(1),
        }
    }

    /// The source, for messages.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::File(path) => format!("`{}`", path.display()),
            Self::Env(name) => format!("variable `{name}`"),
            Self::Secret(reference, _) => format!("`{reference}`"),
            Self::Value(_) => "the configuration".to_owned(),
        }
    }
}

async fn read_file(path: &Path) -> Result<SecretString> {
    let text = tokio::fs::read_to_string(path).await.map_err(|error| {
        Error::invalid(format!(
            "failed to read the token from `{}`",
            path.display()
        ))
        .with_source(error)
    })?;
    Ok(SecretString::from(text))
}

/// The token without the line end behind it; what no header can hold is refused, and never shown.
fn usable(text: &SecretString, name: &str) -> Result<SecretString> {
    // Only its shape is looked at.
    let token = text.expose_secret().trim();
    if token.is_empty() {
        return Err(Error::invalid(format!("the token in {name} is empty")));
    }
    if token.len() > MAX_TOKEN || !token.bytes().all(|byte| (0x21..0x7f).contains(&byte)) {
        return Err(Error::invalid(format!(
            "what stands in {name} is no token: it has spaces, control characters or more than 16 KiB"
        )));
    }
    Ok(SecretString::from(token))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_is_read_at_each_connect_and_its_change_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let tokens = Tokens::File(path.clone());
        let error = tokens.read().await.unwrap_err();
        assert!(error.message().contains("token"), "{error}");
        assert_eq!(tokens.print().await, None);
        std::fs::write(&path, "00123\n").unwrap();
        let first = tokens.print().await;
        assert_eq!(tokens.read().await.unwrap().expose_secret(), "00123");
        std::fs::write(&path, "another").unwrap();
        assert_ne!(tokens.print().await, first);
        assert_eq!(tokens.read().await.unwrap().expose_secret(), "another");
    }

    #[tokio::test]
    async fn what_is_no_token_is_refused_and_never_shown() {
        for wrong in ["", " \n", "hunter2 hunter2", "hunter2\u{7f}", "hünter2"] {
            let error = Tokens::Value(SecretString::from(wrong))
                .read()
                .await
                .unwrap_err();
            assert!(!error.report().contains("nter2"), "{error}");
        }
    }

    #[tokio::test]
    async fn a_missing_variable_is_named() {
        let error = Tokens::Env("NO_SUCH_VARIABLE_HERE".to_owned())
            .read()
            .await
            .unwrap_err();
        assert!(error.message().contains("NO_SUCH_VARIABLE_HERE"), "{error}");
    }
}
