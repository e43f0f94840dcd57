//! A section `[secrets.NAME]` with `kind = "gcp"`.

use std::path::PathBuf;

use hybrid_runner_core::error::{Error, Result};
use reqwest::Url;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::decorate::Access;
use crate::remote::{Section, common};

/// A section `[secrets.NAME]` with `kind = "gcp"`.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Settings {
    /// The project; absent: `GOOGLE_CLOUD_PROJECT`, the credentials' own, or the machine's.
    pub project: Option<String>,
    /// The location of regional secrets; absent: global ones.
    pub location: Option<String>,
    /// Another address of the service.
    pub endpoint: Option<String>,
    /// A file of credentials: a service account's key, a federation, a user's login. Absent: the platform's own
    /// (`GOOGLE_APPLICATION_CREDENTIALS`, `gcloud`'s login, the metadata server, as on GKE).
    pub credentials: Option<PathBuf>,
    /// Another metadata server; absent: `GCE_METADATA_HOST`, or the platform's. Not both.
    pub metadata: Option<String>,
    /// A PEM file of certificates that are trusted besides the system's, for the service. Whoever gives the tokens is trusted by
    /// the system's alone (`SSL_CERT_FILE`).
    pub ca: Option<PathBuf>,
    /// `http://[user:password@]host:port`, or `none`, for the service; absent: the usual variables.
    pub proxy: Option<String>,
    /// The name of a secret that `check` reads, to show that it may.
    pub probe: Option<String>,
    /// Time limit, attempts, cache.
    pub access: Access,
}

impl Settings {
    /// The address of the service.
    pub(super) fn endpoint(&self) -> String {
        match (&self.endpoint, &self.location) {
            (Some(url), _) => url.trim_end_matches('/').to_owned(),
            (None, Some(location)) => {
                format!("https://secretmanager.{location}.rep.googleapis.com")
            }
            (None, None) => "https://secretmanager.googleapis.com".to_owned(),
        }
    }
}

impl Section for Settings {
    fn verify(&self) -> Result<()> {
        let path = self.credentials.as_deref();
        if path.is_some_and(|path| !crate::web::is_path(path)) {
            return Err(Error::invalid(
                "`credentials` is the path of a file, not what is in it",
            ));
        }
        if self.credentials.is_some() && self.metadata.is_some() {
            return Err(Error::invalid("give either `credentials` or `metadata`"));
        }
        match Url::parse(&self.endpoint()) {
            Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => Ok(()),
            _ => Err(Error::invalid("`endpoint` must be a URL with `https://`")),
        }
    }

    common!();
}
