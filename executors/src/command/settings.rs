//! The section of an executor that is made of commands.

use hybrid_runner_core::unit::Period;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

/// The settings of an executor that is made of commands.
///
/// A command is a program and its arguments. A path is meant from the folder of the configuration file. In the arguments
/// `{run}`, `{name}`, `{id}`, `{offset}` and `{grace}` (seconds) stand for what they say.
///
/// ```toml
/// [executors.batch]
/// kind   = "command"
/// start  = ["./batch", "start"]
/// status = ["./batch", "status"]
/// logs   = ["./batch", "logs"]
/// stop   = ["./batch", "stop"]
/// ```
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent yes-or-no facts, as they are written"
)]
#[non_exhaustive]
pub struct Commands {
    /// Hands a run over and prints `{"id": "4711"}`.
    pub start: Vec<String>,
    /// Prints `{"state": "running"}`; at the end `{"state": "failed", "exit_code": 3}`.
    pub status: Vec<String>,
    /// Prints the output from a byte on: `{"text": "…"}`, or the bytes themselves (`raw_logs = true`). Absent: no logs.
    #[serde(default)]
    pub logs: Option<Vec<String>>,
    /// Asks a run to end. Absent: runs cannot be stopped.
    #[serde(default)]
    pub stop: Option<Vec<String>>,
    /// Looks for a run by its mark, prints `{"id": "4711"}` or `{"id": null}`: `find = ["./batch", "find"]`.
    #[serde(default)]
    pub find: Option<Vec<String>>,
    /// Removes what the backend keeps of a run that has ended. Absent: nothing.
    #[serde(default)]
    pub remove: Option<Vec<String>>,
    /// Says whether the backend can be used, by its exit code. Absent: whether the commands are there.
    #[serde(default)]
    pub check: Option<Vec<String>>,
    /// How often `status` and `logs` are asked: `interval = "10s"`.
    #[serde(default = "interval")]
    pub interval: Period,
    /// How long a command may take: `timeout = "2m"`.
    #[serde(default = "timeout")]
    pub timeout: Period,
    /// What `logs` prints is the output itself, not JSON.
    #[serde(default)]
    pub raw_logs: bool,
    /// The backend may drop output before the run is removed.
    #[serde(default)]
    pub volatile_logs: bool,
    /// `start` may be asked twice for one `run`: it uses that name.
    #[serde(default)]
    pub named_start: bool,
    /// The backend keeps `limits.timeout` and `limits.stall_timeout` itself.
    #[serde(default)]
    pub limits: bool,
    /// `image` is used.
    #[serde(default)]
    pub images: bool,
    /// `resources.limits` are enforced.
    #[serde(default)]
    pub resources: bool,
    /// The values of a run are masked in its output before it is kept.
    #[serde(default)]
    pub masks: bool,
    /// The variables of the runner that the commands also get, besides `PATH`, `HOME`, `USER`, `LANG`, `TZ` and `TMPDIR`.
    #[serde(default)]
    pub env: Vec<String>,
    /// What the commands are to know, as it stands, in each JSON object: `settings = { queue = "night" }`.
    #[serde(default)]
    pub settings: Map<String, Value>,
}

fn interval() -> Period {
    Period::seconds(5)
}

fn timeout() -> Period {
    Period::seconds(60)
}

impl Commands {
    /// The command of that name.
    pub(super) fn command(&self, name: &str) -> Option<&Vec<String>> {
        match name {
            "start" => Some(&self.start),
            "status" => Some(&self.status),
            "logs" => self.logs.as_ref(),
            "stop" => self.stop.as_ref(),
            "find" => self.find.as_ref(),
            "remove" => self.remove.as_ref(),
            "check" => self.check.as_ref(),
            _ => None,
        }
    }
}

/// All commands there are.
pub(super) const COMMANDS: [&str; 7] =
    ["start", "status", "logs", "stop", "find", "remove", "check"];
