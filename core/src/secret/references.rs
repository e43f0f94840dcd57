//! Values for the settings of a section itself.

use std::fmt;
use std::sync::Arc;

use futures::future::BoxFuture;

use super::{Reference, SecretValue};
use crate::error::{Error, Result};

/// Reads references that stand in a section's own settings (the password of a registry), each time anew.
#[derive(Clone, Default)]
pub struct References(Option<Arc<Reader>>);

type Reader = dyn Fn(Reference) -> BoxFuture<'static, Result<SecretValue>> + Send + Sync;

impl References {
    /// There are no stores: each reference is refused.
    pub fn none() -> Self {
        Self(None)
    }

    /// Reads through `reader`.
    pub fn through(
        reader: impl Fn(Reference) -> BoxFuture<'static, Result<SecretValue>> + Send + Sync + 'static,
    ) -> Self {
        Self(Some(Arc::new(reader)))
    }

    /// The value of now.
    pub async fn read(&self, reference: &Reference) -> Result<SecretValue> {
        match &self.0 {
            Some(reader) => reader(reference.clone()).await,
            None => Err(Error::unsupported(format!(
                "`{reference}` cannot be read here: no secret stores are configured"
            ))),
        }
    }
}

impl fmt::Debug for References {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("References")
    }
}
