//! Reading a section's settings, so that an error names the key.

#[cfg(any(feature = "_cluster", feature = "docker", feature = "local"))]
use hybrid_runner_core::error::Error;
use hybrid_runner_core::error::Result;
use hybrid_runner_core::kind::Context;
#[cfg(any(feature = "_cluster", feature = "docker"))]
use hybrid_runner_core::run::RunSpec;
use serde::de::DeserializeOwned;

/// The table of their sections.
const TABLE: &str = "executors";

/// Reads the settings of `[executors.NAME]`; an error names the section and the key.
pub(crate) fn read<T: DeserializeOwned>(context: &Context) -> Result<T> {
    context.settings(TABLE)
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
#[cfg(any(feature = "_cluster", feature = "docker", feature = "local"))]
pub(crate) fn wrong(context: &Context, key: &str) -> Error {
    context.wrong(TABLE, key)
}
