//! What the private files of a run are called wherever they lie, and which values cannot be hidden.

use hybrid_runner_core::run::RunSpec;
use hybrid_runner_core::secret::Secrets;
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
    // Looked at for their length alone.
    let short = secrets.iter().filter(|(_, value)| {
        mask::too_short(value.expose()) && !value.expose().trim_ascii().is_empty()
    });
    short.map(|(reference, _)| {
        format!(
            "the value of secret `{reference}` is too short to be masked (under {} characters)",
            mask::MIN_NEEDLE
        )
    })
}
