//! The section of a plugin: `[executors.NAME]` or `[secrets.NAME]` with `kind = "plugin"`.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::program::argv;
use crate::unit::Period;

/// The settings of a plugin, as they are written.
///
/// ```toml
/// [executors.cluster]
/// kind     = "plugin"
/// command  = ["./slurm-plugin"]
/// settings = { partition = "night" }
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct PluginSettings {
    /// The program and its arguments: `command = ["./mine", "--verbose"]`. A path is meant from the folder of the
    /// configuration file, where the program is also run; a bare name is looked up in `PATH`.
    #[serde(deserialize_with = "argv")]
    pub command: Vec<String>,
    /// What the plugin itself is to know, as it stands: `settings = { partition = "night" }`.
    #[serde(default)]
    pub settings: Map<String, Value>,
    /// The variables of the runner that the program also gets, besides `PATH`, `HOME`, `USER`, `LANG`, `TZ` and `TMPDIR`:
    /// `env = ["KUBECONFIG"]`. Those of the runner's own configuration cannot be passed.
    #[serde(default)]
    pub env: Vec<String>,
    /// How long it may take to answer: `timeouts = { start = "30m" }`.
    #[serde(default)]
    pub timeouts: Timeouts,
}

/// How long a plugin may take to answer, by method.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Timeouts {
    /// From the program's start to its `hello`.
    pub hello: Period,
    /// Whether the backend can be used.
    pub check: Period,
    /// Until the backend has the run; a pull may be in it.
    pub start: Period,
    /// To the first level.
    pub watch: Period,
    /// Until the stop will be carried out.
    pub stop: Period,
    /// Until the run is forgotten.
    pub remove: Period,
    /// All runs that are known.
    pub list: Period,
    /// A run by its mark.
    pub find: Period,
    /// One value of a secret store.
    pub get: Period,
    /// How often silence is broken by a `ping`; after two silent ones the program is killed.
    pub heartbeat: Period,
}

impl Timeouts {
    /// Refuses what nobody could keep.
    pub(super) fn validate(&self) -> Result<()> {
        let all = [
            ("hello", self.hello),
            ("check", self.check),
            ("start", self.start),
            ("watch", self.watch),
            ("stop", self.stop),
            ("remove", self.remove),
            ("list", self.list),
            ("find", self.find),
            ("get", self.get),
            ("heartbeat", self.heartbeat),
        ];
        match all.iter().find(|(_, period)| *period == Period::ZERO) {
            None => Ok(()),
            Some((name, _)) => Err(Error::invalid(format!(
                "`timeouts.{name}` is no time at all: write `{name} = \"30s\"`, or leave it out"
            ))),
        }
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            hello: Period::seconds(10),
            check: Period::seconds(10),
            start: Period::seconds(15 * 60),
            watch: Period::seconds(30),
            stop: Period::seconds(30),
            remove: Period::seconds(30),
            list: Period::seconds(30),
            find: Period::seconds(30),
            get: Period::seconds(10),
            heartbeat: Period::seconds(10),
        }
    }
}
