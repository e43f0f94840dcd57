//! The section of an executor that is made of commands.

use hybrid_runner_core::error::{Error, Result};
use hybrid_runner_core::program::{argv, argv_or_none};
use hybrid_runner_core::unit::Period;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

/// The settings of an executor that is made of commands.
///
/// A command is a program and its arguments. A path is meant from the folder of the configuration file. In the arguments of
/// `start` and `find` `{run}` and `{name}` stand for what they say, in those of `status`, `logs`, `stop` and `remove` `{run}` and
/// `{id}`; in `logs` also `{offset}`, in `stop` also `{grace}` (seconds).
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
    #[serde(deserialize_with = "argv")]
    pub start: Vec<String>,
    /// Prints `{"state": "running"}`; at the end `{"state": "failed", "exit_code": 3}`.
    #[serde(deserialize_with = "argv")]
    pub status: Vec<String>,
    /// Prints the output from a byte on: `{"text": "…"}`, or the bytes themselves (`raw_logs = true`). Absent: no logs.
    #[serde(default, deserialize_with = "argv_or_none")]
    pub logs: Option<Vec<String>>,
    /// Asks a run to end. Absent: runs cannot be stopped.
    #[serde(default, deserialize_with = "argv_or_none")]
    pub stop: Option<Vec<String>>,
    /// Looks for a run by its mark, prints `{"id": "4711"}` or `{"id": null}`: `find = ["./batch", "find"]`.
    #[serde(default, deserialize_with = "argv_or_none")]
    pub find: Option<Vec<String>>,
    /// Removes what the backend keeps of a run that has ended. Absent: nothing.
    #[serde(default, deserialize_with = "argv_or_none")]
    pub remove: Option<Vec<String>>,
    /// Says whether the backend can be used, by its exit code. Absent: whether the commands are there.
    #[serde(default, deserialize_with = "argv_or_none")]
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
    /// Refuses what cannot be meant; an error names the key.
    pub(super) fn validate(&self) -> Result<()> {
        for (key, period) in [("interval", self.interval), ("timeout", self.timeout)] {
            if period == Period::ZERO {
                return Err(Error::invalid(format!(
                    "`{key}` is no time at all: write `{key} = \"10s\"`, or leave it out"
                )));
            }
        }
        for key in COMMANDS {
            let Some(command) = self.command(key) else {
                continue;
            };
            if command.first().is_none_or(String::is_empty) {
                return Err(Error::invalid(format!(
                    "`{key}` names no program: write `{key} = [\"./batch\", \"{key}\"]`"
                )));
            }
            if command[0].contains('{') || command.iter().any(|word| word.contains('\0')) {
                return Err(Error::invalid(format!(
                    "`{key}` names no program that can be run: braces are filled in its arguments only, and no word may have a zero byte"
                )));
            }
            let known = places(key);
            let strange = |word| strange(word, known);
            if let Some(strange) = command[1..].iter().find_map(|word| strange(word)) {
                let known: Vec<_> = known.iter().map(|place| format!("`{{{place}}}`")).collect();
                let those = match known.as_slice() {
                    [] => "nothing in braces does there".to_owned(),
                    known => format!("{} do there", known.join(", ")),
                };
                return Err(Error::invalid(format!(
                    "`{{{strange}}}` in `{key}` stands for nothing: {those}; put what needs such braces into a script"
                )));
            }
        }
        Ok(())
    }

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

/// What the arguments of a command may name in braces: what is known when it is run.
fn places(command: &str) -> &'static [&'static str] {
    match command {
        "start" | "find" => &["run", "name"],
        "status" | "remove" => &["run", "id"],
        "logs" => &["run", "id", "offset"],
        "stop" => &["run", "id", "grace"],
        _ => &[],
    }
}

/// A name in braces that stands for nothing. A text with spaces is a script, in which braces mean something else.
fn strange<'a>(argument: &'a str, known: &[&str]) -> Option<&'a str> {
    if argument.contains(char::is_whitespace) {
        return None;
    }
    argument.match_indices('{').find_map(|(at, _)| {
        let (name, _) = argument[at + 1..].split_once('}')?;
        let is_name = !name.is_empty()
            && name
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte == b'_');
        let is_shells = argument[..at].ends_with('$');
        (is_name && !is_shells && !known.contains(&name)).then_some(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn refused(more: &Value) -> String {
        let mut section = json!({ "start": ["./batch", "start"], "status": ["./batch", "{id}"] });
        let more = more.as_object().unwrap().clone();
        section.as_object_mut().unwrap().extend(more);
        match serde_json::from_value::<Commands>(section) {
            Err(error) => error.to_string(),
            Ok(commands) => commands
                .validate()
                .map_or_else(|error| error.report(), |()| String::new()),
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused_by_its_key() {
        for (more, words) in [
            (json!({"interval": "0s"}), "`interval` is no time"),
            (json!({"timeout": "0s"}), "`timeout` is no time"),
            (json!({"start": []}), "`start` names no program"),
            (json!({"stop": [""]}), "`stop` names no program"),
            (
                json!({"logs": ["./batch", "{jobid}"]}),
                "`{jobid}` in `logs` stands for nothing",
            ),
            (
                json!({"start": ["./batch", "start", "{id}"]}),
                "`{id}` in `start` stands for nothing: `{run}`, `{name}` do there",
            ),
            (
                json!({"logs": ["{id}"]}),
                "`logs` names no program that can be run",
            ),
            (
                json!({"check": ["./batch", "{run}"]}),
                "nothing in braces does there",
            ),
            (
                json!({"stop": "./batch stop {id}"}),
                r#"write `["./batch", "stop", "{id}"]`"#,
            ),
        ] {
            let told = refused(&more);
            assert!(told.contains(words), "{more}: {told}");
        }
        for more in [
            json!({}),
            json!({"stop": ["sh", "-c", "kill $(awk '{print}' {id}.pid)", "{id}-${name}-{grace}", "{}"]}),
            json!({"logs": ["./batch", "{id}", "{offset}", "{run}"]}),
        ] {
            assert_eq!(refused(&more), "", "{more}");
        }
    }
}
