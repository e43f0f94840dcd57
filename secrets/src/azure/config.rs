//! A section `[secrets.NAME]` with `kind = "azure"`.

use std::path::PathBuf;

use hybrid_runner_core::error::{Error, Result};
use reqwest::Url;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::credential::Source;
use crate::decorate::Access;
use crate::remote::{Section, common};

/// A section `[secrets.NAME]` with `kind = "azure"`.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Settings {
    /// The vault's name, as in `NAME.vault.azure.net`.
    pub vault: Option<String>,
    /// The vault's whole URL, for other clouds.
    pub endpoint: Option<String>,
    /// Who we are.
    pub identity: Identity,
    /// The directory of the identity; absent: `AZURE_TENANT_ID`.
    pub tenant: Option<String>,
    /// The identity's client id; absent: `AZURE_CLIENT_ID`, or the machine's own identity.
    pub client_id: Option<String>,
    /// The client's secret: `{ file = … }` or `{ env = … }`; absent: `AZURE_CLIENT_SECRET`.
    pub client_secret: Option<Source>,
    /// The file with the workload's token; absent: `AZURE_FEDERATED_TOKEN_FILE`.
    pub token_file: Option<PathBuf>,
    /// Another Entra ID, for other clouds: a URL.
    pub authority: Option<String>,
    /// Gives the token to a vault that is not of the domain that it asks for. Only for vaults under another name.
    pub skip_challenge_check: bool,
    /// A PEM file of certificates that are trusted besides the system's.
    pub ca: Option<PathBuf>,
    /// `http://[user:password@]host:port`, or `none`; absent: the usual variables.
    pub proxy: Option<String>,
    /// The name of a secret that `check` reads, to show that it may.
    pub probe: Option<String>,
    /// Time limit, attempts, cache.
    pub access: Access,
}

/// Who we are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Identity {
    /// What the settings and the variables show: a client's secret, a workload's token, else the machine's own.
    #[default]
    Auto,
    /// A client and its secret.
    ClientSecret,
    /// The federated token of a workload, as AKS gives one.
    Workload,
    /// The identity of the machine, the container app or the function.
    Managed,
    /// Whoever is logged in with `az` or `azd`.
    Developer,
}

impl Settings {
    /// The vault's URL.
    pub(super) fn url(&self) -> Result<Url> {
        let text = match (&self.vault, &self.endpoint) {
            (Some(name), None) if name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') => {
                format!("https://{name}.vault.azure.net/")
            }
            (Some(_), None) => {
                return Err(Error::invalid(
                    "`vault` is the vault's name alone; a URL goes into `endpoint`",
                ));
            }
            (None, Some(url)) => url.clone(),
            _ => {
                return Err(Error::invalid(
                    "give either `vault`, its name, or `endpoint`, its URL",
                ));
            }
        };
        match Url::parse(&text) {
            Ok(url) if url.scheme() == "https" && url.has_host() => Ok(url),
            _ => Err(Error::invalid(
                "`endpoint` must be a URL with `https://`: Azure gives no token to anything else",
            )),
        }
    }

    /// What a token is asked for: the vault's own domain, without its name.
    pub(super) fn scope(&self) -> String {
        let host = self.url().ok().and_then(|url| {
            let (_, domain) = url.host_str()?.split_once('.')?;
            domain.starts_with("vault.").then(|| domain.to_owned())
        });
        let host = host.unwrap_or_else(|| "vault.azure.net".to_owned());
        format!("https://{host}/.default")
    }
}

impl Section for Settings {
    fn verify(&self) -> Result<()> {
        self.url()?;
        if let Some(authority) = &self.authority
            && !authority.starts_with("https://")
        {
            return Err(Error::invalid("`authority` must be a URL with `https://`"));
        }
        Ok(())
    }

    common!();
}
