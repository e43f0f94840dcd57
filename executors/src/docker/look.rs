//! How a run stands in the engine, looked at anew each time.

use bollard::models::{ContainerInspectResponse, ContainerState, ContainerStateStatusEnum};
use bollard::query_parameters::ListContainersOptionsBuilder;
use hybrid_runner_core::RunId;
use hybrid_runner_core::error::{Error, Result};

use super::Shared;
use super::engine::found;
use super::names;

/// What the engine has of a run.
#[derive(Debug)]
pub(super) enum Seen {
    /// Nothing.
    Nothing,
    /// The mark of a stop, and no container.
    Stopped,
    /// A container that has run nothing, whatever its state: it may be started again.
    Preparing(Container),
    /// A container that has run the work, runs it, or is about to.
    Claimed(Container),
}

/// A container of a run.
#[derive(Debug)]
pub(super) struct Container {
    pub(super) id: String,
    /// Tells the lines of init.
    pub(super) mark: String,
    pub(super) phase: Phase,
    /// Whether it is being removed.
    pub(super) is_going: bool,
    /// Whether the limit of memory killed a process of it.
    pub(super) oom_killed: bool,
    pub(super) exit_code: i64,
    /// The engine's words about a start that failed.
    pub(super) error: String,
    pub(super) started_at: Option<String>,
    pub(super) finished_at: Option<String>,
}

/// Where a container stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Made, never started.
    Made,
    /// It has processes.
    Running,
    /// It has processes that are halted.
    Paused,
    /// It has none any more.
    Over,
}

impl Shared {
    /// Looks at a run.
    pub(super) async fn look(&self, run: RunId) -> Result<Seen> {
        if let Some(container) = self.inspect(&self.names.claimed(run)).await? {
            return Ok(Seen::Claimed(container));
        }
        if let Some(container) = self.inspect(&self.names.preparing(run)).await? {
            return Ok(Seen::Preparing(container));
        }
        // Between the two looks it may have got its name.
        if let Some(container) = self.claimed(run).await? {
            return Ok(Seen::Claimed(container));
        }
        Ok(if self.is_stopped(run).await? {
            Seen::Stopped
        } else {
            Seen::Nothing
        })
    }

    /// The container that has run the work of this run, or is about to, whatever somebody has called it meanwhile.
    pub(super) async fn claimed(&self, run: RunId) -> Result<Option<Container>> {
        if let Some(container) = self.inspect(&self.names.claimed(run)).await? {
            return Ok(Some(container));
        }
        let filter = self.names.filter_of(run);
        let options = ListContainersOptionsBuilder::default()
            .all(true)
            .filters(&filter)
            .build();
        let found = self.engine.ask()?.list_containers(Some(options)).await;
        let found = found.map_err(|error| {
            self.engine
                .failed("look for the container of the run", error)
        })?;
        let preparing = format!("/{}", self.names.preparing(run));
        let is_other = |names: &Vec<String>| !names.contains(&preparing);
        let renamed = found
            .into_iter()
            .find(|container| container.names.as_ref().is_some_and(is_other));
        match renamed.and_then(|container| container.id) {
            Some(id) => self.inspect(&id).await,
            None => Ok(None),
        }
    }

    /// The container of this name or id.
    pub(super) async fn inspect(&self, name: &str) -> Result<Option<Container>> {
        let answer = self.engine.ask()?.inspect_container(name, None).await;
        let failed = |error| {
            self.engine
                .failed("look at the container of the run", error)
        };
        found(answer)
            .map_err(failed)?
            .map(Container::of)
            .transpose()
    }

    /// Whether a start of the run is forbidden for ever.
    pub(super) async fn is_stopped(&self, run: RunId) -> Result<bool> {
        let answer = self
            .engine
            .ask()?
            .inspect_volume(&self.names.stopped(run))
            .await;
        let failed = |error| self.engine.failed("look for the mark of a stop", error);
        Ok(found(answer).map_err(failed)?.is_some())
    }
}

impl Container {
    /// One that has just been made.
    pub(super) fn made(id: String, mark: String) -> Self {
        Self {
            id,
            mark,
            phase: Phase::Made,
            is_going: false,
            oom_killed: false,
            exit_code: 0,
            error: String::new(),
            started_at: None,
            finished_at: None,
        }
    }

    fn of(answer: ContainerInspectResponse) -> Result<Self> {
        let mut labels = answer
            .config
            .and_then(|config| config.labels)
            .unwrap_or_default();
        let state = answer.state.unwrap_or_default();
        let id = answer
            .id
            .ok_or_else(|| Error::internal("the engine described a container without an id"))?;
        Ok(Self {
            id,
            mark: labels.remove(names::MARK).unwrap_or_default(),
            phase: Phase::of(&state),
            is_going: matches!(
                state.status,
                Some(ContainerStateStatusEnum::REMOVING | ContainerStateStatusEnum::DEAD)
            ),
            oom_killed: state.oom_killed.unwrap_or_default(),
            exit_code: state.exit_code.unwrap_or_default(),
            error: state.error.unwrap_or_default(),
            started_at: state.started_at,
            finished_at: state.finished_at,
        })
    }
}

impl Phase {
    fn of(state: &ContainerState) -> Self {
        match state.status {
            Some(ContainerStateStatusEnum::CREATED) => Self::Made,
            Some(ContainerStateStatusEnum::PAUSED) => Self::Paused,
            Some(ContainerStateStatusEnum::RUNNING | ContainerStateStatusEnum::RESTARTING) => {
                Self::Running
            }
            _ if state.paused.unwrap_or_default() => Self::Paused,
            _ if state.running.unwrap_or_default() => Self::Running,
            _ => Self::Over,
        }
    }

    /// Whether it has processes.
    pub(super) fn is_alive(self) -> bool {
        matches!(self, Self::Running | Self::Paused)
    }
}
