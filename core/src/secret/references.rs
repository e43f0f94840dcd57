//! Values for the settings of a section itself, and values of a version that was read before.

use std::fmt;
use std::sync::Arc;

use futures::future::BoxFuture;

use super::{Reference, Secret, SecretValue};
use crate::RunId;
use crate::error::{Error, ErrorKind, Result};
use crate::id::SectionName;

/// Reads references that stand in a section's own settings (the password of a registry), each time anew; and once more what
/// a run was given.
#[derive(Clone, Default)]
pub struct References {
    reader: Option<Arc<Reader>>,
    run: Option<RunId>,
}

type Reader = dyn Fn(Option<RunId>, Reference) -> BoxFuture<'static, Result<Secret>> + Send + Sync;

impl References {
    /// There are no stores: each reference is refused.
    pub fn none() -> Self {
        Self::default()
    }

    /// Reads through `reader`, which is told for which run, if for one.
    pub fn through(
        reader: impl Fn(Option<RunId>, Reference) -> BoxFuture<'static, Result<Secret>>
        + Send
        + Sync
        + 'static,
    ) -> Self {
        Self {
            reader: Some(Arc::new(reader)),
            run: None,
        }
    }

    /// The same, read for a run: so it stands in the audit.
    #[must_use]
    pub fn for_run(&self, run: RunId) -> Self {
        Self {
            run: Some(run),
            ..self.clone()
        }
    }

    /// The value of now.
    pub async fn read(&self, reference: &Reference) -> Result<SecretValue> {
        Ok(self.ask(reference).await?.value)
    }

    /// The value that this reference stood for in this store when its version had that name; never another one.
    ///
    /// A store that cannot be asked for a version answers if the present one still has that name.
    pub async fn read_version(
        &self,
        reference: &Reference,
        store: &SectionName,
        version: &str,
    ) -> Result<SecretValue> {
        let mut present = reference.clone();
        present.store = Some(store.clone());
        let mut exact = present.clone();
        exact.name.version = Some(version.to_owned());
        // A stage is at another version by now, perhaps.
        exact.name.stage = None;
        let secret = match self.ask(&exact).await {
            Err(error) if matches!(error.kind(), ErrorKind::Invalid | ErrorKind::Unsupported) => {
                self.ask(&present).await?
            }
            answer => answer?,
        };
        if secret.version.as_deref() == Some(version) {
            return Ok(secret.value);
        }
        Err(Error::not_found(format!(
            "`{reference}` has another version in store `{store}` by now, and version `{version}` cannot be read any more"
        )))
    }

    async fn ask(&self, reference: &Reference) -> Result<Secret> {
        match &self.reader {
            Some(reader) => reader(self.run, reference.clone()).await,
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
