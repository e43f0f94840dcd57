//! What a run becomes: the container as the engine is told, and the payload that init gets.
//!
//! The container holds nothing that is secret. Its environment is the image's; the run's own travels in the payload.

use std::collections::HashMap;
use std::path::{Component, Path, PathBuf};

use bollard::models::{
    ContainerCreateBody, HealthConfig, HostConfig, HostConfigLogConfig, ImageConfig, Mount,
    MountTmpfsOptions, MountType, MountVolumeOptions, RestartPolicy, RestartPolicyNameEnum,
};
use hybrid_runner_core::error::{Error, Result};
use hybrid_runner_core::run::{Amounts, FailureClass, RunSpec};
use hybrid_runner_core::secret::Secrets;
use hybrid_runner_helper::container::{FOLDER, INIT, PRIVATE, PRIVATE_RUN, ROLE};
use hybrid_runner_helper::payload::{Payload, Private};

use super::Shared;
use super::config::{MountConfig, Settings, zero};
use crate::handover::{self, Command};

/// The private files and `/tmp` of a read-only container: pages that were never written take nothing.
const PRIVATE_MODE: i64 = 0o1777;

/// What a run becomes.
pub(super) struct Plan {
    pub(super) image: String,
    spec: RunSpec,
    limits: Amounts,
    command: Command,
    payload: Payload,
}

impl Plan {
    /// Puts the values in place. Refuses what cannot be run, before anything is made.
    pub(super) fn of(spec: &RunSpec, secrets: &Secrets, settings: &Settings) -> Result<Self> {
        if let Some(name) = zero(&spec.resources.limits) {
            return Err(Error::invalid(format!(
                "`resources.limits.{name}` is 0, with which nothing can run: give an amount, or leave it out"
            ))
            .with_class(FailureClass::Spec));
        }
        if let Some(folder) = spec.workdir.as_deref().filter(|folder| is_ours(folder)) {
            return Err(Error::invalid(format!(
                "`workdir` of the workflow is `{folder}`, and `{FOLDER}` is the runner's own: name another folder"
            ))
            .with_class(FailureClass::Spec));
        }
        let image = crate::settings::image(spec, settings.image.as_ref())?;
        let mut nonce = [0; 16];
        getrandom::fill(&mut nonce).map_err(|error| {
            Error::internal("failed to get random bytes").with_source(error.to_string())
        })?;
        let private = Path::new(PRIVATE_RUN);
        let (mut payload, command) =
            handover::payload(spec, secrets, private, nonce, &settings.env)?;
        payload.inherit = true;
        payload.notes.extend(crate::private::short_values(secrets));
        handover::encoded(&Payload {
            argv: vec![b"?".to_vec()],
            ..payload.clone()
        })?;
        Ok(Self {
            image,
            limits: limits(spec, settings),
            spec: spec.clone(),
            command,
            payload,
        })
    }

    /// The limits that the engine is to enforce.
    pub(super) fn limits(&self) -> &Amounts {
        &self.limits
    }

    /// Takes from the image what the workflow does not say. As in Kubernetes, a command of its own drops the image's CMD.
    pub(super) fn complete(&mut self, image: &ImageConfig) -> Result<()> {
        let of_image = |words: &Option<Vec<String>>| words.clone().unwrap_or_default();
        let Command { command, args } = self.command.clone();
        let args = match (&command, args) {
            (_, Some(args)) => args,
            (None, None) => of_image(&image.cmd),
            (Some(_), None) => Vec::new(),
        };
        let command = command.unwrap_or_else(|| of_image(&image.entrypoint));
        self.payload.argv = command
            .into_iter()
            .chain(args)
            .map(String::into_bytes)
            .collect();
        if self.payload.argv.first().is_none_or(Vec::is_empty) {
            return Err(Error::invalid(format!(
                "the image `{}` names no command: give `command` in the workflow",
                self.image
            ))
            .with_class(FailureClass::Spec));
        }
        Ok(())
    }

    /// A line for people, before all output of the work.
    pub(super) fn note(&mut self, line: String) {
        self.payload.notes.push(line);
    }

    /// The bytes for init.
    pub(super) fn encode(&self) -> Result<Private> {
        handover::encoded(&self.payload)
    }

    /// The container as the engine is told to make it.
    pub(super) fn body(&self, shared: &Shared, mark: &str, carrier: &str) -> ContainerCreateBody {
        let given = &shared.settings.given;
        ContainerCreateBody {
            image: Some(self.image.clone()),
            user: given.user.clone(),
            working_dir: self.spec.workdir.clone(),
            entrypoint: Some([INIT, ROLE, mark].map(str::to_owned).to_vec()),
            // An image's own would end the container by other means than we are told of.
            stop_signal: Some("SIGTERM".to_owned()),
            healthcheck: Some(HealthConfig {
                test: Some(vec!["NONE".to_owned()]),
                ..HealthConfig::default()
            }),
            labels: Some(
                shared
                    .names
                    .container_labels(&self.spec, mark, given.labels.clone()),
            ),
            open_stdin: Some(true),
            host_config: Some(self.host_config(shared, carrier)),
            ..ContainerCreateBody::default()
        }
    }

    fn host_config(&self, shared: &Shared, carrier: &str) -> HostConfig {
        let settings = &shared.settings;
        let given = &settings.given;
        let (driver, options) = &settings.log;
        let options: HashMap<String, String> = options
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.clone()))
            .collect();
        let number = |amount: u64| i64::try_from(amount).unwrap_or(i64::MAX);
        let memory = self.limits.memory.map(|memory| number(memory.get()));
        HostConfig {
            network_mode: given.network.clone(),
            extra_hosts: some(given.extra_hosts.clone()),
            mounts: Some(self.mounts(given.mounts.iter(), carrier, given.read_only)),
            memory,
            // No more by way of swap.
            memory_swap: memory,
            nano_cpus: self
                .limits
                .cpu
                .map(|cpu| number(cpu.millis().saturating_mul(1_000_000))),
            pids_limit: self.limits.pids.map(i64::from),
            log_config: Some(HostConfigLogConfig {
                typ: Some((*driver).to_owned()),
                config: Some(options),
            }),
            runtime: given.runtime.clone(),
            readonly_rootfs: Some(given.read_only),
            cap_drop: some(given.cap_drop.clone()),
            security_opt: (!given.privilege_escalation)
                .then(|| vec!["no-new-privileges".to_owned()]),
            // Attempts are ours to make, and removal is ours to decide.
            restart_policy: Some(RestartPolicy {
                name: Some(RestartPolicyNameEnum::NO),
                maximum_retry_count: None,
            }),
            auto_remove: Some(false),
            init: Some(false),
            ..HostConfig::default()
        }
    }

    fn mounts<'a>(
        &self,
        given: impl Iterator<Item = &'a MountConfig>,
        carrier: &str,
        read_only: bool,
    ) -> Vec<Mount> {
        let ours = Mount {
            target: Some(FOLDER.to_owned()),
            source: Some(carrier.to_owned()),
            typ: Some(MountType::VOLUME),
            read_only: Some(true),
            volume_options: Some(MountVolumeOptions {
                no_copy: Some(true),
                ..MountVolumeOptions::default()
            }),
            ..Mount::default()
        };
        let mut mounts = vec![ours];
        if !self.payload.files.is_empty() {
            mounts.push(tmpfs(PRIVATE));
        }
        mounts.extend(given.map(|mount| Mount {
            target: Some(mount.target.clone()),
            source: Some(mount.source.clone()),
            typ: Some(if mount.source.starts_with('/') {
                MountType::BIND
            } else {
                MountType::VOLUME
            }),
            read_only: Some(mount.read_only),
            ..Mount::default()
        }));
        let has_tmp = mounts
            .iter()
            .any(|mount| mount.target.as_deref() == Some("/tmp"));
        if read_only && !has_tmp {
            mounts.push(tmpfs("/tmp"));
        }
        mounts
    }
}

fn tmpfs(target: &str) -> Mount {
    Mount {
        target: Some(target.to_owned()),
        typ: Some(MountType::TMPFS),
        tmpfs_options: Some(MountTmpfsOptions {
            mode: Some(PRIVATE_MODE),
            ..MountTmpfsOptions::default()
        }),
        ..Mount::default()
    }
}

/// Whether a path leads to the folder of init, or below it.
fn is_ours(path: &str) -> bool {
    let mut real = PathBuf::from("/");
    for part in Path::new(path).components() {
        match part {
            Component::Normal(name) => real.push(name),
            Component::ParentDir => drop(real.pop()),
            _ => {}
        }
    }
    real.starts_with(FOLDER)
}

fn some<T>(list: Vec<T>) -> Option<Vec<T>> {
    (!list.is_empty()).then_some(list)
}

/// The workflow's own; where it says nothing, those of the section.
fn limits(spec: &RunSpec, settings: &Settings) -> Amounts {
    let (own, usual) = (&spec.resources.limits, &settings.limits);
    Amounts {
        cpu: own.cpu.or(usual.cpu),
        memory: own.memory.or(usual.memory),
        pids: own.pids.or(usual.pids),
    }
}
