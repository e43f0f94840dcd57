//! What the helper is told: the payload of a spec with its values.

use std::collections::HashSet;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use hybrid_runner_core::error::{Error, Result};
use hybrid_runner_core::run::{RunSpec, render};
use hybrid_runner_core::secret::Secrets;
use hybrid_runner_core::unit::Period;
use hybrid_runner_helper::payload::{self, Payload, Private, PrivateFile};

use super::config::{PrivatePlace, Settings};
use super::folder::{Folder, PRIVATE, WORK, random};
use super::settle::PRIVATE_PREFIX;

/// Only the workload's user may read them.
const MODE: u32 = 0o600;

/// Everything that the helper of one run is told.
pub(super) struct Plan {
    payload: Payload,
    /// Whether it starts in the empty folder of its own.
    pub(super) needs_workdir: bool,
}

impl Plan {
    /// Puts the values in place. Refuses what cannot be run, before anything is made.
    pub(super) fn of(
        spec: &RunSpec,
        secrets: &Secrets,
        settings: &Settings,
        folder: &Folder,
    ) -> Result<Self> {
        spec.validate()?;
        if spec.command.as_ref().is_none_or(Vec::is_empty) {
            return Err(Error::unsupported(
                "the local executor runs programs of this machine and uses no image: give `command`, or choose an executor for containers",
            ));
        }
        let nonce = random()
            .map_err(|error| Error::internal("failed to get random bytes").with_source(error))?;
        let private = private_folder(settings, folder, nonce);
        let config_name = config_name(spec);
        let config_path = private.join(config_name);
        let rendered = render(spec, secrets, &config_path.to_string_lossy())?;
        let mut files = Vec::new();
        if let Some(config) = &rendered.config {
            files.push(PrivateFile {
                name: config_name.into(),
                // Into the workload's private file; its variable is among the others.
                content: config.expose().into(),
                mode: MODE,
                env: None,
            });
        }
        for (at, (variable, content)) in rendered.files.iter().enumerate() {
            files.push(PrivateFile {
                name: file_name(variable, at),
                // Into the workload's private file.
                content: content.expose().into(),
                mode: MODE,
                env: Some(variable.clone().into()),
            });
        }
        let workdir = spec.workdir.as_ref().map(PathBuf::from);
        let given = workdir.or_else(|| settings.workdir.clone());
        // A relative one is taken below the run's own folder, which nobody else reads.
        let needs_workdir = given.as_ref().is_none_or(|path| path.is_relative());
        let cwd = folder.path.join(WORK).join(given.unwrap_or_default());
        Ok(Self {
            needs_workdir,
            payload: Payload {
                nonce,
                argv: [rendered.command, rendered.args]
                    .into_iter()
                    .flatten()
                    .flatten()
                    .map(String::into_bytes)
                    .collect(),
                env: environment(settings, &rendered.env, &spec.files),
                cwd: Some(bytes(&cwd)),
                private_dir: (!files.is_empty()).then(|| bytes(&private)),
                files,
                // The helper masks what it was given; it needs the values for that.
                needles: secrets
                    .iter()
                    .map(|(_, value)| value.expose().into())
                    .collect(),
                timeout: spec.limits.timeout.limit(),
                stall_timeout: spec.limits.stall_timeout.limit(),
                grace: Period::get(spec.limits.grace),
                // Until it is known what the others take.
                spool_limit: u64::MAX,
                cgroup: None,
            },
        })
    }

    /// How long its log may become.
    pub(super) fn limit_log(&mut self, bytes: u64) {
        self.payload.spool_limit = bytes;
    }

    /// The control group that the command enters.
    pub(super) fn enter(&mut self, group: &Path) {
        self.payload.cgroup = Some(bytes(group));
    }

    /// The bytes for the helper.
    pub(super) fn encode(&self) -> Result<Private> {
        payload::encode(&self.payload)
            .map_err(|error| Error::invalid("the run cannot be handed over").with_source(error))
    }
}

fn private_folder(settings: &Settings, folder: &Folder, nonce: [u8; 16]) -> PathBuf {
    match &settings.private {
        // Where others may write too, nobody can guess the name and be there first.
        PrivatePlace::In(place) => place.join(format!(
            "{PRIVATE_PREFIX}{:032x}",
            u128::from_be_bytes(nonce)
        )),
        PrivatePlace::RunFolder => folder.path.join(PRIVATE),
    }
}

/// Some programs go by the ending: a value is written as JSON, a string as it is, which a YAML reader takes too.
fn config_name(spec: &RunSpec) -> &'static str {
    match &spec.config {
        Some(serde_json::Value::String(_)) => "config.yaml",
        _ => "config.json",
    }
}

/// The variable's name if a file can be called so (and not like the config: there is no dot in it).
fn file_name(variable: &str, at: usize) -> Vec<u8> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if variable.chars().all(plain) && variable.len() < 128 {
        variable.into()
    } else {
        format!("file-{at}").into()
    }
}

/// The runner's variables that are passed on, then the run's own, which win.
fn environment(
    settings: &Settings,
    own: &[(String, hybrid_runner_core::secret::SecretValue)],
    files: &std::collections::BTreeMap<String, String>,
) -> Vec<(Vec<u8>, Private)> {
    let named: HashSet<&str> = own
        .iter()
        .map(|(name, _)| name.as_str())
        .chain(files.keys().map(String::as_str))
        .collect();
    let passed = settings
        .env
        .iter()
        .filter(|(name, _)| !named.contains(name.as_str()))
        .map(|(name, value)| (name.clone().into_bytes(), Private::from(value.as_slice())));
    // Into the environment of the workload.
    let own = own
        .iter()
        .map(|(name, value)| (name.clone().into_bytes(), Private::from(value.expose())));
    passed.chain(own).collect()
}

fn bytes(path: &Path) -> Vec<u8> {
    path.as_os_str().as_bytes().to_vec()
}
