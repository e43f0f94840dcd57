//! A section `[secrets.NAME]` with `kind = "vault"`.

use std::path::PathBuf;

use hybrid_runner_core::error::{Error, Result};
use reqwest::Url;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::credential::Source;
use crate::decorate::Access;
use crate::remote::{Section, common};

/// Where Kubernetes puts the token of a pod's service account.
const ACCOUNT_TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";

/// A section `[secrets.NAME]` with `kind = "vault"`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Settings {
    /// The server; absent: `VAULT_ADDR` or `BAO_ADDR`.
    pub address: Option<String>,
    /// The namespace; absent: `VAULT_NAMESPACE` or `BAO_NAMESPACE`.
    pub namespace: Option<String>,
    /// Where the key-value engine is mounted.
    pub mount: String,
    /// The version of the key-value engine: 2 or 1.
    pub engine: u8,
    /// Who we are; absent: the token in `VAULT_TOKEN` or `BAO_TOKEN`.
    pub auth: Option<Auth>,
    /// A PEM file of certificates that are trusted besides the system's.
    pub ca: Option<PathBuf>,
    /// `http://[user:password@]host:port`, or `none`; absent: the usual variables.
    pub proxy: Option<String>,
    /// The name of a secret that `check` reads, to show that it may.
    pub probe: Option<String>,
    /// Time limit, attempts, cache.
    pub access: Access,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            address: None,
            namespace: None,
            mount: "secret".to_owned(),
            engine: 2,
            auth: None,
            ca: None,
            proxy: None,
            probe: None,
            access: Access::default(),
        }
    }
}

/// Who we are.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(tag = "method", rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Auth {
    /// A token that somebody else keeps fresh; read again when it is no longer accepted.
    Token {
        /// Where it comes from: `{ file = … }` or `{ env = … }`.
        token: Source,
    },
    /// An application's role.
    Approle {
        /// The role's id.
        role_id: String,
        /// The secret id: `{ file = … }` or `{ env = … }`.
        secret_id: Source,
        /// Where the method is mounted; absent: `approle`.
        mount: Option<String>,
    },
    /// The service account of this pod.
    Kubernetes {
        /// The role.
        role: String,
        /// The account's token; absent: where Kubernetes puts it.
        jwt: Option<Source>,
        /// Where the method is mounted; absent: `kubernetes`.
        mount: Option<String>,
    },
    /// A token of an identity provider.
    Jwt {
        /// The role.
        role: String,
        /// The token.
        jwt: Source,
        /// Where the method is mounted; absent: `jwt`.
        mount: Option<String>,
    },
}

/// The first of these variables that is set.
fn variable(names: [&str; 2]) -> Option<String> {
    let set = names
        .into_iter()
        .filter_map(|name| std::env::var(name).ok());
    set.into_iter().find(|value| !value.is_empty())
}

impl Settings {
    pub(super) fn url(&self) -> Result<Url> {
        let address = self
            .address
            .clone()
            .or_else(|| variable(["VAULT_ADDR", "BAO_ADDR"]));
        let address = address.ok_or_else(|| {
            Error::invalid("`address` is missing: set it in the section, or VAULT_ADDR")
        })?;
        match Url::parse(&address) {
            Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => Ok(url),
            _ => Err(Error::invalid(
                "`address` must be a URL with `https://` or `http://`",
            )),
        }
    }

    pub(super) fn namespace(&self) -> Option<String> {
        let namespace = self.namespace.clone();
        namespace.or_else(|| variable(["VAULT_NAMESPACE", "BAO_NAMESPACE"]))
    }

    pub(super) fn auth(&self) -> Auth {
        self.auth.clone().unwrap_or_else(|| {
            let name = if std::env::var_os("BAO_TOKEN").is_some() {
                "BAO_TOKEN"
            } else {
                "VAULT_TOKEN"
            };
            Auth::Token {
                token: Source::env(name),
            }
        })
    }
}

impl Auth {
    /// Where the method is mounted.
    pub(super) fn mount(&self) -> &str {
        let (mount, usual) = match self {
            Self::Token { .. } => return "token",
            Self::Approle { mount, .. } => (mount, "approle"),
            Self::Kubernetes { mount, .. } => (mount, "kubernetes"),
            Self::Jwt { mount, .. } => (mount, "jwt"),
        };
        mount.as_deref().unwrap_or(usual).trim_matches('/')
    }

    /// The identity, for messages.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Token { token } => format!("the token from {}", token.name()),
            Self::Approle { role_id, .. } => format!("the AppRole `{role_id}`"),
            Self::Kubernetes { role, .. } => format!("this pod's account in the role `{role}`"),
            Self::Jwt { role, .. } => format!("the JWT in the role `{role}`"),
        }
    }

    /// Where Kubernetes puts the token, unless another place is named.
    pub(super) fn account_token(jwt: Option<&Source>) -> Source {
        jwt.cloned().unwrap_or_else(|| Source::file(ACCOUNT_TOKEN))
    }
}

impl Section for Settings {
    fn verify(&self) -> Result<()> {
        if !matches!(self.engine, 1 | 2) {
            return Err(Error::invalid(
                "`engine` is the version of the key-value engine: 1 or 2",
            ));
        }
        if self.mount.trim_matches('/').is_empty() {
            return Err(Error::invalid(
                "`mount` is empty: where is the key-value engine mounted?",
            ));
        }
        self.url()?;
        Ok(())
    }

    common!();
}
