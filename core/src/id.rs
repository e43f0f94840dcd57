//! Identifiers: runs, agents, names.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::error::Error;

/// The namespace of run ids that are derived from an idempotency key (`UUIDv5`).
const KEYS: Uuid = Uuid::from_u128(0x6f1d_6b0e_3a57_4a0c_9d52_0d7c_43e1_a5f1);

/// Names a run, or one attempt of it.
///
/// A run is a UUID, chosen by whoever asks for it. An attempt is written `<uuid>.<n>`, counted from 1;
/// only the runner makes attempts. Names of backend objects are derived from the attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RunId {
    run: Uuid,
    attempt: u32,
}

impl RunId {
    /// A new id, ordered by time (`UUIDv7`).
    pub fn generate() -> Self {
        Self {
            run: Uuid::now_v7(),
            attempt: 0,
        }
    }

    /// The id that an idempotency key stands for, the same for ever (`UUIDv5`).
    pub fn of_key(key: &str) -> Self {
        Self {
            run: Uuid::new_v5(&KEYS, key.as_bytes()),
            attempt: 0,
        }
    }

    /// The `n`-th attempt of this run, counted from 1.
    #[must_use]
    pub fn attempt(self, n: u32) -> Self {
        Self {
            run: self.run,
            attempt: n,
        }
    }

    /// The run itself, without the attempt.
    #[must_use]
    pub fn run(self) -> Self {
        Self {
            run: self.run,
            attempt: 0,
        }
    }

    /// Which attempt this is; 0 for the run itself.
    pub fn attempt_number(self) -> u32 {
        self.attempt
    }

    /// The run's UUID.
    pub fn uuid(self) -> Uuid {
        self.run
    }
}

impl From<Uuid> for RunId {
    fn from(run: Uuid) -> Self {
        Self { run, attempt: 0 }
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.attempt {
            0 => write!(f, "{}", self.run),
            n => write!(f, "{}.{n}", self.run),
        }
    }
}

impl FromStr for RunId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = || {
            Error::invalid(format!(
                "`{}` is not a run id: expected a UUID, or `<uuid>.<attempt>`",
                shorten(text)
            ))
        };
        let (run, attempt) = match text.split_once('.') {
            None => (text, 0),
            Some((run, n)) => {
                let n: u32 = n.parse().map_err(|_| wrong())?;
                if n == 0 {
                    return Err(wrong());
                }
                (run, n)
            }
        };
        if run.len() != 36 {
            return Err(wrong());
        }
        Ok(Self {
            run: Uuid::parse_str(run).map_err(|_| wrong())?,
            attempt,
        })
    }
}

/// At most 80 characters of something that came from outside, for an error message.
pub fn shorten(text: &str) -> String {
    match text.char_indices().nth(80) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

/// Serde and JSON Schema by way of `Display` and `FromStr`.
macro_rules! text_serde {
    ($type:ty, $name:expr, $description:literal) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
        impl JsonSchema for $type {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                $name.into()
            }
            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({ "type": "string", "description": $description })
            }
        }
    };
}
pub(crate) use text_serde;

text_serde!(RunId, "RunId", "a UUID, or `<uuid>.<attempt>`");

/// Text of 1 to 253 characters out of letters, digits, `.`, `_` and `-`, starting with a letter or digit.
macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $what:literal, $max:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
        impl FromStr for $name {
            type Err = Error;
            fn from_str(text: &str) -> Result<Self, Error> {
                let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
                let good = text.len() <= $max
                    && text.starts_with(|c: char| c.is_ascii_alphanumeric())
                    && text.chars().all(fits);
                if !good {
                    return Err(Error::invalid(format!(
                        "`{}` is not {}: expected 1 to {} characters out of letters, digits, `.`, `_`, `-`, starting with a letter or digit",
                        shorten(text), $what, $max
                    )));
                }
                Ok(Self(text.to_owned()))
            }
        }
        text_serde!($name, stringify!($name), $what);
    };
}

name_type!(
    /// Names a runner to its control plane (`AGENT_ID`).
    AgentId, "a runner id", 128
);
name_type!(
    /// Names a workflow; `deploy` replaces this name on that runner.
    WorkflowName, "a workflow name", 200
);
name_type!(
    /// Names a configured executor or secret store (`[executors.NAME]`, `[secrets.NAME]`).
    SectionName, "a section name", 63
);

/// Tells the objects of one runner from those of another in the same place: a hash of server and agent.
///
/// 16 hexadecimal characters; fits a label of every backend.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Owner(String);

impl Owner {
    /// The owner mark of runner `agent` of the control plane `server`.
    pub fn of(server: &str, agent: &AgentId) -> Self {
        let mut hash = Sha256::new();
        hash.update(server.as_bytes());
        hash.update([0]);
        hash.update(agent.as_str().as_bytes());
        let digest = hash.finalize();
        let head = digest[..8]
            .iter()
            .fold(0_u64, |head, byte| (head << 8) | u64::from(*byte));
        Self(format!("{head:016x}"))
    }

    /// The mark as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Owner {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if text.len() == 16 && text.bytes().all(hex) {
            return Ok(Self(text.to_owned()));
        }
        Err(Error::invalid(format!(
            "the owner `{}` is not 16 hexadecimal characters",
            shorten(text)
        )))
    }
}

text_serde!(
    Owner,
    "Owner",
    "whose objects these are: 16 hexadecimal characters"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_as_they_are_written() {
        let run = RunId::generate();
        assert_eq!(run.to_string().parse::<RunId>().unwrap(), run);
        assert_eq!(
            run.attempt(3).to_string().parse::<RunId>().unwrap(),
            run.attempt(3)
        );
        assert_eq!(run.attempt(3).run(), run);
    }

    #[test]
    fn a_wrong_id_is_named_and_shortened() {
        for wrong in [
            "",
            "x",
            "0190.1",
            "6f1d6b0e3a574a0c9d520d7c43e1a5f1",
            "6f1d6b0e-3a57-4a0c-9d52-0d7c43e1a5f1.0",
        ] {
            assert!(wrong.parse::<RunId>().is_err(), "{wrong}");
        }
        let error = "é".repeat(5000).parse::<RunId>().unwrap_err();
        assert!(error.message().len() < 300);
    }

    #[test]
    fn one_key_is_one_run() {
        assert_eq!(RunId::of_key("a"), RunId::of_key("a"));
        assert_ne!(RunId::of_key("a"), RunId::of_key("b"));
    }
}
