//! What the doctor (`hybrid-runner check`) finds.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::Error;

/// One line of the doctor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct Finding {
    /// How it is.
    pub health: Health,
    /// What was found; if it is not well, what to do.
    pub message: String,
}

/// How a part is.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Health {
    /// Well.
    Ok,
    /// Work flows, but a person should know.
    Warning,
    /// Work cannot flow.
    Failed,
}

impl Finding {
    /// All is well.
    pub fn ok(message: impl Into<String>) -> Self {
        Self::new(Health::Ok, message)
    }

    /// A person should know.
    pub fn warning(message: impl Into<String>) -> Self {
        Self::new(Health::Warning, message)
    }

    /// Work cannot flow.
    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(Health::Failed, message)
    }

    /// Work cannot flow because of this.
    pub fn of_error(error: &Error) -> Self {
        Self::failed(error.report())
    }

    fn new(health: Health, message: impl Into<String>) -> Self {
        Self {
            health,
            message: message.into(),
        }
    }
}
