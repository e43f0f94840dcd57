//! The configuration as it is written: what a file may hold.
//!
//! Defaults stand in [`DEFAULTS`] and nowhere else.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use schemars::JsonSchema;
use secrecy::SecretString;
use serde::de::{MapAccess, SeqAccess, Visitor, value::MapAccessDeserializer};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use hybrid_runner_core::unit::{ByteSize, Period};

/// Every default, as a file would have it. `runner.data_dir` and `server.data_dir` depend on the user.
pub(crate) const DEFAULTS: &str = r#"
[link]
heartbeat = "15s"
insecure = false
[runner]
resolve = "runner"
max_runs = 8
drain = "30s"
spool = { per_run = "1GiB", total = "10GiB" }
listen = "127.0.0.1:8989"
log = { level = "info", format = "auto" }
[policy]
[executors]
[secrets]
[server]
listen = "127.0.0.1:8443"
insecure = false
retention = { runs = "90d", logs = "30d" }
runner_lost_after = "72h"
heartbeat = "15s"
"#;

/// The whole file.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Raw {
    /// Runner → control plane.
    pub link: RawLink,
    /// The runner itself.
    pub runner: RawRunner,
    /// What this runner may do; the control plane can neither read nor change it.
    pub policy: RawPolicy,
    /// `[executors.NAME]`: `kind` and the kind's own settings.
    pub executors: BTreeMap<String, Map<String, Value>>,
    /// `[secrets.NAME]`: `kind` and the kind's own settings.
    pub secrets: BTreeMap<String, Map<String, Value>>,
    /// The control plane (`hybrid-runner server`).
    pub server: RawServer,
}

/// `[link]`
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawLink {
    /// `wss://host[:port][/path]`; without a path: `/api/v1/link`.
    pub url: Option<String>,
    /// Where the token comes from; read again at each connect.
    pub token: Option<RawToken>,
    /// A PEM file of certificates that are trusted besides the system's.
    pub ca: Option<PathBuf>,
    /// Our certificate (PEM), where the control plane asks for one.
    pub client_cert: Option<PathBuf>,
    /// Its key (PEM).
    pub client_key: Option<PathBuf>,
    /// `http://[user:password@]host:port`, or `none`; absent: the usual variables.
    pub proxy: Option<String>,
    /// How often silence is broken; a link is dead after two of these. The control plane may shorten it.
    pub heartbeat: Period,
    /// Allows `ws://` to other machines.
    pub insecure: bool,
}

/// Where a token comes from: one of the four. A plain string is the token itself.
#[derive(Default, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub(crate) struct RawToken {
    /// A file; a trailing line end is not part of the token.
    pub file: Option<PathBuf>,
    /// A variable of our environment.
    pub env: Option<String>,
    /// A reference, as `secret:prod:/runner/token`.
    pub secret: Option<String>,
    /// The token itself; better kept out of files.
    #[schemars(with = "Option<String>")]
    pub value: Option<SecretString>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
#[derive(Default)]
struct TokenTable {
    file: Option<PathBuf>,
    env: Option<String>,
    secret: Option<String>,
    value: Option<String>,
}

impl fmt::Debug for RawToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RawToken(***)")
    }
}

impl<'de> Deserialize<'de> for RawToken {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = RawToken;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table with one of `file`, `env` and `secret`")
            }
            fn visit_str<E>(self, text: &str) -> Result<RawToken, E> {
                Ok(RawToken {
                    value: Some(SecretString::from(text)),
                    ..RawToken::default()
                })
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<RawToken, A::Error> {
                let table = TokenTable::deserialize(MapAccessDeserializer::new(map))?;
                Ok(RawToken {
                    file: table.file,
                    env: table.env,
                    secret: table.secret,
                    value: table.value.map(SecretString::from),
                })
            }
        }
        deserializer.deserialize_any(Either)
    }
}

/// `[runner]`
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawRunner {
    /// The runner's name at its control plane.
    pub id: Option<String>,
    /// The default executor: a name out of `[executors]`.
    pub executor: Option<String>,
    /// The default store: a name out of `[secrets]`.
    pub secrets: Option<String>,
    /// Who resolves references.
    pub resolve: Resolve,
    /// Where state and logs are kept.
    pub data_dir: PathBuf,
    /// Runs at the same time.
    pub max_runs: u32,
    /// How long a first SIGTERM waits for what cannot be let go.
    pub drain: Period,
    /// Bounds of the logs on disk.
    pub spool: RawSpool,
    /// Address of `/metrics`, `/healthz` and `/readyz`; `none` for no listener.
    pub listen: String,
    /// Our own log, on stderr.
    pub log: RawLog,
    /// A file that gets a line for each secret that was read, besides our own log; only ever appended to.
    pub audit: Option<PathBuf>,
}

/// `runner.spool`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawSpool {
    /// Of one run.
    pub per_run: ByteSize,
    /// Of all runs.
    pub total: ByteSize,
}

/// `runner.log`
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawLog {
    /// `error`, `warn`, `info`, `debug`, `trace`, or directives as `info,hybrid_runner=debug`.
    pub level: String,
    /// How it is written.
    pub format: LogFormat,
}

/// `[policy]`: globs; absent: everything is allowed.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RawPolicy {
    /// Names out of `[executors]`.
    pub executors: Option<Patterns>,
    /// Images.
    pub images: Option<Patterns>,
    /// Commands: the first word, as the workflow has it.
    pub commands: Option<Patterns>,
    /// References, as `prod:/ingestion/*`.
    pub secrets: Option<Patterns>,
}

/// A list of globs; in a variable: separated by commas.
#[derive(Debug, Clone, Default, PartialEq, Eq, JsonSchema)]
#[schemars(transparent)]
pub(crate) struct Patterns(pub Vec<String>);

impl<'de> Deserialize<'de> for Patterns {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Patterns;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of patterns")
            }
            fn visit_str<E>(self, text: &str) -> Result<Patterns, E> {
                let items = text
                    .split(',')
                    .map(str::trim)
                    .filter(|item| !item.is_empty());
                Ok(Patterns(items.map(str::to_owned).collect()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Patterns, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = seq.next_element()? {
                    items.push(item);
                }
                Ok(Patterns(items))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

/// `[server]`
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawServer {
    /// Address of the REST API, the console and the runners' link.
    pub listen: String,
    /// Certificate and key; absent: plain, on loopback only.
    pub tls: Option<RawTls>,
    /// Allows a plain listener on other addresses (behind a proxy that ends TLS).
    pub insecure: bool,
    /// Where runs, logs and tokens are kept.
    pub data_dir: PathBuf,
    /// How long.
    pub retention: RawRetention,
    /// After this time away a runner's runs are lost.
    pub runner_lost_after: Period,
    /// How often silence on a link is broken.
    pub heartbeat: Period,
}

/// `server.tls`
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawTls {
    /// Certificate chain, PEM.
    pub cert: PathBuf,
    /// Key, PEM.
    pub key: PathBuf,
}

/// `server.retention`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawRetention {
    /// Of runs that ended.
    pub runs: Period,
    /// Of their logs.
    pub logs: Period,
}

/// Who resolves references.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Resolve {
    /// The runner, before it starts the work.
    Runner,
    /// The workload itself; only the stores' settings are passed.
    Workload,
}

/// How our own log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    Auto,
    /// Lines for people.
    Text,
    /// One object a line.
    Json,
}
