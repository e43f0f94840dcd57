//! What the private files of a run are called wherever they lie, and which values cannot be hidden.

use hybrid_runner_core::run::RunSpec;
use hybrid_runner_core::secret::{SecretValue, Secrets};
use hybrid_runner_helper::mask;

/// Some programs go by the ending: a value is written as JSON, a string as it is, which a YAML reader takes too.
pub(crate) fn config_name(spec: &RunSpec) -> &'static str {
    match &spec.config {
        Some(serde_json::Value::String(_)) => "config.yaml",
        _ => "config.json",
    }
}

/// The variable's name if a file can be called so (and not like the config: there is no dot in it).
pub(crate) fn file_name(variable: &str, at: usize) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if variable.chars().all(plain) && variable.len() < 128 {
        variable.to_owned()
    } else {
        format!("file-{at}")
    }
}

/// Values that would be seen in the log; an empty one hides nothing.
pub(crate) fn short_values(secrets: &Secrets) -> impl Iterator<Item = String> {
    let short = secrets.iter().filter(|(_, value)| is_short(value));
    short.map(|(reference, _)| too_short(&format!("secret `{reference}`")))
}

/// The same of variables that each workload is given.
#[cfg(feature = "_cluster")]
pub(crate) fn short_variables(variables: &[(String, SecretValue)]) -> impl Iterator<Item = String> {
    let short = variables.iter().filter(|(_, value)| is_short(value));
    short.map(|(name, _)| too_short(&format!("the runner's variable `{name}`")))
}

/// Looked at for its length alone.
fn is_short(value: &SecretValue) -> bool {
    mask::too_short(value.expose()) && !value.expose().trim_ascii().is_empty()
}

fn too_short(what: &str) -> String {
    format!(
        "the value of {what} is too short to be masked (under {} characters)",
        mask::MIN_NEEDLE
    )
}
