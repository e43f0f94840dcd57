//! Reading a section's settings, so that an error names the key.

use hybrid_runner_core::error::{Error, Result};
use hybrid_runner_core::kind::Context;
#[cfg(any(feature = "_cluster", feature = "docker"))]
use hybrid_runner_core::run::RunSpec;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Reads the settings of `[executors.NAME]`; an error names the section and the key.
pub(crate) fn read<T: DeserializeOwned>(context: &Context) -> Result<T> {
    let error = match T::deserialize(&context.settings) {
        Ok(settings) => return Ok(settings),
        Err(error) => error,
    };
    Err(match culprit::<T>(&context.settings, &error.to_string()) {
        Some(key) => wrong(context, &key).with_source(error),
        None => Error::invalid(section(context)).with_source(error),
    })
}

/// The image of a run: its own, else the section's. Refuses what could not be run in it.
#[cfg(any(feature = "_cluster", feature = "docker"))]
pub(crate) fn image(spec: &RunSpec, own: Option<&String>) -> Result<String> {
    let image = spec.image.as_ref().or(own);
    let image = image.cloned().ok_or_else(|| {
        Error::invalid(
            "there is no image to run: give `image` in the workflow, or in the section of the executor",
        )
    })?;
    let mut whole = spec.clone();
    whole.image = Some(image.clone());
    whole.validate()?;
    Ok(image)
}

/// The error of a key, for the checks that come after reading.
pub(crate) fn wrong(context: &Context, key: &str) -> Error {
    Error::invalid(format!("{}, key `{key}`", section(context)))
}

fn section(context: &Context) -> String {
    format!("section [executors.{}]", context.name)
}

/// The key without which the error would be gone, or another one. Serde names unknown and missing keys itself, but not
/// the key of a wrong value.
fn culprit<T: DeserializeOwned>(settings: &Value, error: &str) -> Option<String> {
    // Without another key, another one would be told to be missing.
    if error.starts_with("missing field") {
        return None;
    }
    let members = settings.as_object()?;
    let blamed = members.keys().find(|key| {
        let mut without = members.clone();
        without.remove(*key);
        match T::deserialize(Value::Object(without)) {
            Ok(_) => true,
            Err(other) => other.to_string() != error,
        }
    });
    let key = blamed?;
    // Of a table in it, the key of that.
    let within = members[key].as_object().into_iter().flatten();
    let inner = within.map(|(inner, _)| inner).find(|inner| {
        let mut without = settings.clone();
        if let Some(table) = without[key].as_object_mut() {
            table.remove(*inner);
        }
        T::deserialize(&without).map_or_else(|other| other.to_string() != error, |_| true)
    });
    Some(match inner {
        Some(inner) => format!("{key}.{inner}"),
        None => key.clone(),
    })
}
