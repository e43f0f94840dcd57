//! What a token may be used for.

use std::str::FromStr;

use hybrid_runner_core::{Error, Result};
use serde::{Deserialize, Serialize};

/// What a token may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Role {
    /// The link, for one runner id.
    Runner,
    /// Runs, logs, runners.
    Client,
    /// What a client may, and tokens.
    Admin,
}

impl Role {
    /// The role's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Runner => "runner",
            Self::Client => "client",
            Self::Admin => "admin",
        }
    }
}

impl FromStr for Role {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "runner" => Ok(Self::Runner),
            "client" => Ok(Self::Client),
            "admin" => Ok(Self::Admin),
            _ => Err(Error::invalid(format!(
                "`{}` is not a role: there are runner, client and admin",
                hybrid_runner_core::id::shorten(text)
            ))),
        }
    }
}
