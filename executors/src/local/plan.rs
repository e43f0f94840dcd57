//! What the helper is told: the payload of a spec with its values.

use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use hybrid_runner_core::error::{Error, Result};
use hybrid_runner_core::run::RunSpec;
use hybrid_runner_core::secret::Secrets;
use hybrid_runner_helper::payload::{Payload, Private};

use super::config::{PrivatePlace, Settings};
use super::folder::{Folder, PRIVATE, WORK, random};
use super::settle::PRIVATE_PREFIX;
use crate::handover;

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
        let (mut payload, command) =
            handover::payload(spec, secrets, &private, nonce, &settings.env)?;
        let workdir = spec.workdir.as_ref().map(PathBuf::from);
        let given = workdir.or_else(|| settings.workdir.clone());
        // A relative one is taken below the run's own folder, which nobody else reads.
        let needs_workdir = given.as_ref().is_none_or(|path| path.is_relative());
        payload.argv = command.words();
        payload.cwd = Some(bytes(
            &folder.path.join(WORK).join(given.unwrap_or_default()),
        ));
        Ok(Self {
            payload,
            needs_workdir,
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
        handover::encoded(&self.payload)
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

fn bytes(path: &Path) -> Vec<u8> {
    path.as_os_str().as_bytes().to_vec()
}
