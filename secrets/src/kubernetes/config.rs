//! A section `[secrets.NAME]` with `kind = "kubernetes"`.

use std::path::PathBuf;

use hybrid_runner_core::error::Result;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::decorate::Access;
use crate::remote::{Section, common};

/// A section `[secrets.NAME]` with `kind = "kubernetes"`.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Settings {
    /// The namespace; absent: that of the pod or of the kubeconfig. No other is ever read.
    pub namespace: Option<String>,
    /// A kubeconfig; absent: `KUBECONFIG`, `~/.kube/config`, or the pod's own account.
    pub kubeconfig: Option<PathBuf>,
    /// The context in it.
    pub context: Option<String>,
    /// A PEM file of the authority that signed the API server's certificate, instead of that in the kubeconfig.
    pub ca: Option<PathBuf>,
    /// `http://[user:password@]host:port`, or `none`; absent: the usual variables.
    pub proxy: Option<String>,
    /// The name of a Secret that `check` reads, to show that it may.
    pub probe: Option<String>,
    /// Time limit, attempts, cache.
    pub access: Access,
}

impl Section for Settings {
    fn verify(&self) -> Result<()> {
        Ok(())
    }

    common!();
}
