//! What the helper is told wherever it works: the values in place, the private files, what to mask, the limits.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use hybrid_runner_core::error::{Error, Result};
use hybrid_runner_core::run::{Rendered, RunSpec, render};
use hybrid_runner_core::secret::{SecretValue, Secrets};
use hybrid_runner_core::unit::Period;
use hybrid_runner_helper::payload::{Payload, PrivateFile};
use hybrid_runner_helper::payload::{Private, encode};

use crate::private::{config_name, file_name};

/// Only the workload's user may read them.
const MODE: u32 = 0o600;

/// What the command is made of, before it is known what an image adds.
#[derive(Debug, Clone)]
pub(crate) struct Command {
    /// Replaces ENTRYPOINT.
    pub(crate) command: Option<Vec<String>>,
    /// Replaces CMD.
    pub(crate) args: Option<Vec<String>>,
}

impl Command {
    /// The words of it, without anything from an image.
    #[cfg(feature = "local")]
    pub(crate) fn words(self) -> Vec<Vec<u8>> {
        let words = [self.command, self.args].into_iter().flatten().flatten();
        words.map(String::into_bytes).collect()
    }
}

/// The payload of a spec with its values, but for the command, the working directory, the control group and the limit of
/// the spool. `private` is where its files will be, `passed` the variables that come before its own.
pub(crate) fn payload(
    spec: &RunSpec,
    secrets: &Secrets,
    private: &Path,
    nonce: [u8; 16],
    passed: &[(String, Vec<u8>)],
) -> Result<(Payload, Command)> {
    let config_name = config_name(spec);
    let rendered = render(spec, secrets, &private.join(config_name).to_string_lossy())?;
    let files = files(&rendered, config_name);
    let payload = Payload {
        nonce,
        env: environment(passed, &rendered.env, &spec.files),
        private_dir: (!files.is_empty()).then(|| private.as_os_str().as_encoded_bytes().to_vec()),
        files,
        // The helper masks what it was given; it needs the values for that.
        needles: secrets
            .iter()
            .map(|(_, value)| value.expose().into())
            .collect(),
        timeout: spec.limits.timeout.limit(),
        stall_timeout: spec.limits.stall_timeout.limit(),
        grace: Period::get(spec.limits.grace),
        spool_limit: u64::MAX,
        ..Payload::default()
    };
    let command = Command {
        command: rendered.command,
        args: rendered.args,
    };
    Ok((payload, command))
}

/// The bytes for the helper.
pub(crate) fn encoded(payload: &Payload) -> Result<Private> {
    encode(payload)
        .map_err(|error| Error::invalid("the run cannot be handed over").with_source(error))
}

fn files(rendered: &Rendered, config_name: &str) -> Vec<PrivateFile> {
    let config = rendered.config.iter().map(|config| PrivateFile {
        name: config_name.into(),
        // Into the workload's private file; its variable is among the others.
        content: config.expose().into(),
        mode: MODE,
        env: None,
    });
    let others = rendered.files.iter().enumerate();
    let others = others.map(|(at, (variable, content))| PrivateFile {
        name: file_name(variable, at).into_bytes(),
        // Into the workload's private file.
        content: content.expose().into(),
        mode: MODE,
        env: Some(variable.clone().into()),
    });
    config.chain(others).collect()
}

/// The runner's variables that are passed on, then the run's own, which win.
fn environment(
    passed: &[(String, Vec<u8>)],
    own: &[(String, SecretValue)],
    files: &BTreeMap<String, String>,
) -> Vec<(Vec<u8>, Private)> {
    let named: HashSet<&str> = own
        .iter()
        .map(|(name, _)| name.as_str())
        .chain(files.keys().map(String::as_str))
        .collect();
    let passed = passed
        .iter()
        .filter(|(name, _)| !named.contains(name.as_str()))
        .map(|(name, value)| (name.clone().into_bytes(), Private::from(value.as_slice())));
    // Into the environment of the workload.
    let own = own
        .iter()
        .map(|(name, value)| (name.clone().into_bytes(), Private::from(value.expose())));
    passed.chain(own).collect()
}
