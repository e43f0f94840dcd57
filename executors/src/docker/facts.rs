//! What the engine can do: asked once.

use bollard::Docker;
use bollard::models::SystemInfo;
use futures::FutureExt as _;
use hybrid_runner_core::error::{Error, Result};
use hybrid_runner_core::executor::Capabilities;
use hybrid_runner_core::run::{Amounts, FailureClass};

use super::Shared;
use super::check::other_architecture;
use super::config::LogDriver;

/// What the engine says about itself.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts")]
pub(super) struct Facts {
    memory: bool,
    cpu: bool,
    pids: bool,
    pub(super) live_restore: bool,
    /// Whether root in a container is another user on the engine's host.
    pub(super) remaps: bool,
    /// Why nothing of ours can run there.
    other_architecture: Option<String>,
}

impl Facts {
    pub(super) fn of(info: &SystemInfo) -> Self {
        Self {
            memory: info.memory_limit.unwrap_or_default(),
            cpu: info.cpu_cfs_quota.unwrap_or_default(),
            pids: info.pids_limit.unwrap_or_default(),
            live_restore: info.live_restore_enabled.unwrap_or_default(),
            remaps: info
                .security_options
                .iter()
                .flatten()
                .any(|option| option.contains("name=userns")),
            other_architecture: other_architecture(info),
        }
    }

    /// The limits that it cannot enforce.
    pub(super) fn missing(&self) -> Vec<&'static str> {
        [
            ("memory", self.memory),
            ("cpu", self.cpu),
            ("pids", self.pids),
        ]
        .into_iter()
        .filter_map(|(name, is_there)| (!is_there).then_some(name))
        .collect()
    }
}

impl Shared {
    pub(super) async fn facts(&self) -> Result<&Facts> {
        let ask = async || Ok(Facts::of(&self.info().await?));
        self.facts.get_or_try_init(ask).await
    }

    pub(super) async fn info(&self) -> Result<SystemInfo> {
        let info = |docker: Docker| async move { docker.info().await }.boxed();
        self.engine
            .question("ask the engine what it can do", info)
            .await
    }

    pub(super) async fn capabilities(&self) -> Result<Capabilities> {
        let facts = self.facts().await?;
        let mut capabilities = Capabilities::least();
        capabilities.streams = true;
        capabilities.images = true;
        capabilities.contained = true;
        let missing = facts.missing();
        capabilities.resources = missing.is_empty();
        for name in missing {
            capabilities.notes.push(format!(
                "the engine's host cannot limit `{name}`: such limits are refused"
            ));
        }
        if !facts.live_restore {
            capabilities
                .notes
                .push("the engine has no `live-restore`: its restart ends all runs".to_owned());
        }
        if self.settings.given.log.driver == LogDriver::JsonFile {
            capabilities
                .notes
                .push("the log driver `json_file` replaces bytes that are not UTF-8".to_owned());
        }
        Ok(capabilities)
    }

    /// An engine of another architecture cannot run init.
    pub(super) async fn refuse_architecture(&self) -> Result<()> {
        match &self.facts().await?.other_architecture {
            None => Ok(()),
            Some(why) => Err(Error::unsupported(why.as_str()).with_class(FailureClass::Backend)),
        }
    }

    /// Refuses limits that cannot be enforced here, unless they are to be ignored.
    pub(super) async fn refuse_limits(&self, limits: &Amounts) -> Result<()> {
        if limits.is_empty() || self.settings.ignore_resources {
            return Ok(());
        }
        let missing = self.facts().await?.missing();
        let asked = [
            ("memory", limits.memory.is_some()),
            ("cpu", limits.cpu.is_some()),
            ("pids", limits.pids.is_some()),
        ];
        match asked
            .iter()
            .find(|(name, is_asked)| *is_asked && missing.contains(name))
        {
            None => Ok(()),
            Some((name, _)) => Err(Error::unsupported(format!(
                "`resources.limits.{name}` cannot be enforced by the engine's host; to run without it set `ignore = [\"resources\"]` in [executors.{}]",
                self.name
            ))),
        }
    }
}
