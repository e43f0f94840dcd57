//! The first exchange of a session: who is there, and what is spoken.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::executor::Capabilities;
use crate::id::AgentId;
use crate::incarnation::Incarnation;
use crate::unit::Period;

/// The version of the protocol that this build speaks. A preview until an outside plugin exists.
pub const PROTOCOL: &str = "v1-preview";

/// The WebSocket subprotocol of the link.
pub const SUBPROTOCOL: &str = "hybrid-runner.v1";

/// The path of the link on a server.
pub const LINK_PATH: &str = "/api/v1/link";

/// What a runner says first (method `hello`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct Hello {
    /// The versions that it speaks, the best first.
    pub versions: Vec<String>,
    /// Which runner it is.
    pub agent: AgentId,
    /// What it remembers.
    pub incarnation: Incarnation,
    /// Its name and version, for people.
    #[serde(default)]
    pub software: String,
    /// Where it runs, for people.
    #[serde(default)]
    pub host: String,
    /// What it can do.
    pub capabilities: Capabilities,
}

impl Hello {
    /// The hello of this build.
    pub fn new(agent: AgentId, incarnation: Incarnation, capabilities: Capabilities) -> Self {
        Self {
            versions: vec![PROTOCOL.to_owned()],
            agent,
            incarnation,
            software: String::new(),
            host: String::new(),
            capabilities,
        }
    }
}

/// What the server answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct Welcome {
    /// The version that is spoken from here on.
    pub version: String,
    /// The control plane's stable id.
    pub server: String,
    /// The session's number; greater than that of every session before.
    pub epoch: u64,
    /// How often silence is to be broken.
    pub heartbeat: Period,
}

impl Welcome {
    /// An answer.
    pub fn new(
        version: impl Into<String>,
        server: impl Into<String>,
        epoch: u64,
        heartbeat: Period,
    ) -> Self {
        Self {
            version: version.into(),
            server: server.into(),
            epoch,
            heartbeat,
        }
    }
}

/// The best version that both sides speak; `Unsupported` names both lists.
pub fn negotiate(theirs: &[String]) -> Result<&'static str> {
    if theirs.iter().any(|version| version == PROTOCOL) {
        return Ok(PROTOCOL);
    }
    let theirs = theirs
        .iter()
        .map(|version| crate::id::shorten(version))
        .take(8)
        .collect::<Vec<_>>()
        .join(", ");
    Err(Error::unsupported(format!(
        "no common version of the protocol: this side speaks {PROTOCOL}, the other {theirs}"
    )))
}
