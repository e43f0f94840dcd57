//! A section `[secrets.NAME]` with `kind = "aws"`.

use std::path::PathBuf;

use hybrid_runner_core::error::{Error, Result};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::credential::Source;
use crate::decorate::Access;
use crate::remote::{Section, common};

/// A section `[secrets.NAME]` with `kind = "aws"`.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Settings {
    /// Which service holds the secrets.
    pub service: Service,
    /// The region; absent: the platform's own (variable, profile, instance).
    pub region: Option<String>,
    /// Another address of the service, as of a VPC endpoint.
    pub endpoint: Option<String>,
    /// Another address of STS, which gives identities.
    pub sts_endpoint: Option<String>,
    /// A profile of the usual files; absent: the platform's own chain.
    pub profile: Option<String>,
    /// Keys instead of the platform's own chain.
    pub access_key: Option<AccessKey>,
    /// The ARN of a role to assume with that identity.
    pub role: Option<String>,
    /// The external id that the role asks for.
    pub external_id: Option<String>,
    /// The name of the role's session in AWS's own logs.
    pub session_name: Option<String>,
    /// A PEM file of certificates that are trusted besides the system's.
    pub ca: Option<PathBuf>,
    /// `http://[user:password@]host:port`, or `none`; absent: the usual variables.
    pub proxy: Option<String>,
    /// The name of a secret that `check` reads, to show that it may.
    pub probe: Option<String>,
    /// Time limit, attempts, cache.
    pub access: Access,
}

/// Which service holds the secrets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Service {
    /// Secrets Manager.
    #[default]
    Secretsmanager,
    /// Systems Manager's Parameter Store.
    Ssm,
}

/// Keys of a user, or of a session.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct AccessKey {
    /// The key's id.
    pub id: String,
    /// The key: `{ file = … }` or `{ env = … }`.
    pub secret_key: Source,
    /// The session's token, for keys that end.
    #[serde(default)]
    pub session_token: Option<Source>,
}

impl AccessKey {
    /// Keys of a user.
    pub fn new(id: impl Into<String>, secret_key: Source) -> Self {
        Self {
            id: id.into(),
            secret_key,
            session_token: None,
        }
    }
}

impl Section for Settings {
    fn verify(&self) -> Result<()> {
        if self.profile.is_some() && self.access_key.is_some() {
            return Err(Error::invalid("give either `profile` or `access_key`"));
        }
        if self.role.is_none() && (self.external_id.is_some() || self.session_name.is_some()) {
            return Err(Error::invalid(
                "`external_id` and `session_name` need `role`",
            ));
        }
        if let Some(role) = self.role.as_ref().filter(|role| !role.starts_with("arn:")) {
            let message = format!("`role` is no ARN: write `arn:aws:iam::ACCOUNT:role/{role}`");
            return Err(Error::invalid(message));
        }
        Ok(())
    }

    common!();
}
