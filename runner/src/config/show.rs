//! `config show`, `config env` and `config schema`.

use std::fmt;

use figment::value::Value as FigmentValue;
use hybrid_runner_core::kind::Kind;
use serde::Serialize;
use serde_json::{Value, json};

use super::layer::PREFIX;
use super::problem::{heading, is_secret, without_passwords};
use super::variables::{Becomes, VARIABLES, executor_kind};
use super::{Environment, Loaded, origin, raw};
use crate::kinds::Kinds;

/// What stands where a secret would.
const MASK: &str = "***";

/// One value and where it came from.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Shown {
    /// `runner.max_runs`; of a variable: its name.
    pub key: String,
    /// The value; `***` for a secret.
    pub value: Value,
    /// The file, the variable, the flag, or `default`; of a variable: what it became.
    pub source: String,
}

impl Shown {
    #[cfg(test)]
    pub(crate) fn new(key: &str, value: &str, source: &str) -> Self {
        Self {
            key: key.to_owned(),
            value: Value::from(value),
            source: source.to_owned(),
        }
    }
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} = {}  # {}", self.key, self.value, self.source)
    }
}

impl Loaded {
    /// Each value of the configuration with its origin, sorted by key.
    pub fn show(&self) -> Vec<Shown> {
        let mut shown = Vec::new();
        for table in ["executors", "link", "policy", "runner", "secrets", "server"] {
            if let Ok(value) = self.figment.find_value(table) {
                self.flatten(table, &value, &mut shown);
            }
        }
        shown
    }

    fn flatten(&self, key: &str, value: &FigmentValue, shown: &mut Vec<Shown>) {
        match value {
            FigmentValue::Dict(_, members) => {
                for (name, member) in members {
                    self.flatten(&format!("{key}.{name}"), member, shown);
                }
            }
            leaf => {
                let value =
                    if key == "link.proxy" && leaf.as_str() != Some("none") || is_secret(key) {
                        Value::from(MASK)
                    } else {
                        tame(serde_json::to_value(leaf).unwrap_or(Value::Null))
                    };
                shown.push(Shown {
                    key: key.to_owned(),
                    value,
                    source: origin(&self.figment, key).unwrap_or_else(|| "default".to_owned()),
                });
            }
        }
    }
}

/// A value without the passwords in its addresses.
fn tame(value: Value) -> Value {
    match value {
        Value::String(text) => Value::from(without_passwords(&text)),
        Value::Array(items) => items.into_iter().map(tame).collect(),
        other => other,
    }
}

fn of_variable(value: &str, is_secret: bool) -> Value {
    if is_secret {
        Value::from(MASK)
    } else {
        Value::from(without_passwords(value))
    }
}

/// What each present variable became: those of others by the table, ours by their names.
pub fn env(environment: &Environment) -> Vec<Shown> {
    let mut shown = Vec::new();
    for variable in VARIABLES {
        for name in std::iter::once(variable.name).chain(variable.aliases.iter().copied()) {
            let Some(value) = environment.get(name) else {
                continue;
            };
            let used = variable
                .find(environment)
                .is_some_and(|(used, _)| used == name);
            let became = match variable.becomes {
                _ if value.is_empty() => "not set: it is empty".to_owned(),
                _ if !used => format!(
                    "not used: `{}` wins",
                    variable.find(environment).map_or("", |(used, _)| used)
                ),
                Becomes::Key(key) => heading(key),
                Becomes::Executor => executor_kind(value).map_or_else(
                    |error| error.message().to_owned(),
                    |kind| format!("[runner] executor, [executors.{kind}] kind = \"{kind}\""),
                ),
                Becomes::ExtraEnvs | Becomes::Workload => {
                    format!("of workloads: {}", variable.about)
                }
                Becomes::Nothing => format!("without effect: {}", variable.about),
            };
            shown.push(Shown {
                key: name.to_owned(),
                value: of_variable(value, variable.secret),
                source: became,
            });
        }
    }
    for (name, value) in environment {
        let Some(path) = name.strip_prefix(PREFIX) else {
            continue;
        };
        let key = path.to_lowercase().replace("__", ".");
        shown.push(Shown {
            key: name.clone(),
            value: of_variable(value, is_secret(&key)),
            source: heading(&key),
        });
    }
    shown
}

/// The JSON Schema of a configuration file, with the kinds of this build.
pub fn schema(known: &Kinds) -> Value {
    let mut schema = schemars::schema_for!(raw::Raw).to_value();
    optional(&mut schema);
    for (table, kinds) in [
        ("executors", kinds(known.executors())),
        ("secrets", kinds(known.secrets())),
    ] {
        let kinds = kinds.into_iter().map(|(name, mut kind)| {
            hoist(&format!("{table}.{name}."), &mut kind, &mut schema);
            kind
        });
        let kinds: Vec<Value> = kinds.collect();
        schema["properties"][table]["additionalProperties"] = json!({ "oneOf": kinds });
    }
    schema
}

/// Moves the definitions of a kind to those of the whole, under names of their own, where its references look for them.
fn hoist(prefix: &str, kind: &mut Value, whole: &mut Value) {
    rename(prefix, kind);
    let Some(Value::Object(definitions)) = kind
        .as_object_mut()
        .and_then(|members| members.remove("$defs"))
    else {
        return;
    };
    for (name, definition) in definitions {
        whole["$defs"][format!("{prefix}{name}")] = definition;
    }
}

fn rename(prefix: &str, schema: &mut Value) {
    const PLACE: &str = "#/$defs/";
    match schema {
        Value::Object(members) => {
            for (name, value) in members {
                match value {
                    Value::String(place) if name == "$ref" => {
                        if let Some(name) = place.strip_prefix(PLACE) {
                            *place = format!("{PLACE}{prefix}{name}");
                        }
                    }
                    value => rename(prefix, value),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| rename(prefix, item)),
        _ => {}
    }
}

/// Nothing is required of a file: what is left out has a default, or comes from elsewhere.
fn optional(schema: &mut Value) {
    match schema {
        Value::Object(members) => {
            if members.get("required").is_some_and(Value::is_array) {
                members.remove("required");
            }
            members.values_mut().for_each(optional);
        }
        Value::Array(items) => items.iter_mut().for_each(optional),
        _ => {}
    }
}

fn kinds<T: ?Sized>(kinds: &[Kind<T>]) -> Vec<(&'static str, Value)> {
    let one = |kind: &Kind<T>| {
        let mut schema = (kind.schema)().to_value();
        schema["properties"]["kind"] = json!({ "const": kind.name, "description": kind.summary });
        (kind.name, schema)
    };
    kinds.iter().map(one).collect()
}
