//! How a run stands in the engine, looked at anew each time.

use std::collections::HashMap;

use bollard::Docker;
use bollard::models::{
    ContainerInspectResponse, ContainerState, ContainerStateStatusEnum, ContainerSummary,
};
use bollard::query_parameters::ListContainersOptionsBuilder;
use futures::FutureExt as _;
use hybrid_runner_core::RunId;
use hybrid_runner_core::error::{Error, ErrorKind, Result};
use hybrid_runner_helper::report::exit;

use super::Shared;
use super::engine::{found, not_understood};
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
        let Some(id) = self.renamed(run).await? else {
            return Ok(None);
        };
        if let Some(container) = self.inspect(&id).await? {
            return Ok(Some(container));
        }
        // It was removed between the two questions; or who answers is not the engine, and says nothing of any run.
        match self.renamed(run).await? {
            Some(again) if again == id => Err(Error::unavailable(format!(
                "the engine lists container `{id}` of the run, and does not find it"
            ))),
            _ => Ok(None),
        }
    }

    /// The container of the run by its labels, under whatever name, unless that says that it has run nothing.
    async fn renamed(&self, run: RunId) -> Result<Option<String>> {
        let what = "look for the container of the run";
        let found = self.containers(what, &self.names.filter_of(run)).await?;
        let preparing = format!("/{}", self.names.preparing(run));
        let is_other = |names: &Vec<String>| !names.contains(&preparing);
        let renamed = found.into_iter().find(|container| {
            container.names.as_ref().is_some_and(is_other)
                && self.names.run_of_container(container) == Some(run)
        });
        Ok(renamed.and_then(|container| container.id))
    }

    /// All containers that pass this filter, whether they run or not.
    pub(super) async fn containers(
        &self,
        what: &str,
        filter: &HashMap<String, Vec<String>>,
    ) -> Result<Vec<ContainerSummary>> {
        let options = ListContainersOptionsBuilder::default()
            .all(true)
            .filters(filter)
            .build();
        let list = |docker: Docker| {
            let options = Some(options.clone());
            async move { docker.list_containers(options).await }.boxed()
        };
        let listed = self.engine.question(what, list).await;
        // An engine has a list always: who has none is not the engine, and says nothing of any run.
        listed.map_err(|error| match error.kind() {
            ErrorKind::NotFound => {
                Error::unavailable("what answers in the engine's place has no list of containers")
                    .with_source(error)
            }
            _ => error,
        })
    }

    /// The container of this name or id.
    pub(super) async fn inspect(&self, name: &str) -> Result<Option<Container>> {
        let inspect = |docker: Docker| {
            let asked = async move {
                let answer = docker.inspect_container(name, None).await;
                found(answer)?.map(Container::of).transpose()
            };
            asked.boxed()
        };
        let what = "look at the container of the run";
        self.engine.question(what, inspect).await
    }

    /// Whether a start of the run is forbidden for ever.
    pub(super) async fn is_stopped(&self, run: RunId) -> Result<bool> {
        self.has_volume(&self.names.stopped(run)).await
    }

    /// Whether there is a volume of this name.
    pub(super) async fn has_volume(&self, name: &str) -> Result<bool> {
        let inspect =
            |docker: Docker| async move { found(docker.inspect_volume(name).await) }.boxed();
        let what = format!("look for the volume `{name}`");
        Ok(self.engine.question(&what, inspect).await?.is_some())
    }
}

/// Of one who goes on looking at a run, an answer that says nothing of it is asked for again as one that did not come: who
/// refuses or misunderstands a question that was answered before stands before the engine, or has lost its wits.
pub(super) fn passing(error: Error) -> Error {
    if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Unavailable) {
        return error;
    }
    let mut passing = Error::unavailable(error.message());
    if let Some(class) = error.class() {
        passing = passing.with_class(class);
    }
    match error.causes() {
        Some(causes) => passing.with_source(causes),
        None => passing,
    }
}

impl Container {
    /// Whether it was told what to run, as far as the engine knows.
    pub(super) fn has_run(&self) -> bool {
        self.phase != Phase::Made && self.exit_code != i64::from(exit::NO_PAYLOAD)
    }

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

    /// An answer without an id or a state is none.
    fn of(answer: ContainerInspectResponse) -> Result<Self, bollard::errors::Error> {
        let mut labels = answer
            .config
            .and_then(|config| config.labels)
            .unwrap_or_default();
        let id = answer
            .id
            .ok_or_else(|| not_understood("a container without an id"))?;
        let state = answer
            .state
            .ok_or_else(|| not_understood("a container without a state"))?;
        let phase = Phase::of(&state)
            .ok_or_else(|| not_understood("a container whose state says nothing"))?;
        Ok(Self {
            id,
            mark: labels.remove(names::MARK).unwrap_or_default(),
            phase,
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
    /// `None` if nothing is said of it: then nothing is over.
    fn of(state: &ContainerState) -> Option<Self> {
        use ContainerStateStatusEnum as Its;
        let says = |it: Option<bool>| it.unwrap_or_default();
        Some(match state.status {
            Some(Its::CREATED) => Self::Made,
            Some(Its::PAUSED) => Self::Paused,
            Some(Its::RUNNING | Its::RESTARTING) => Self::Running,
            _ if says(state.paused) => Self::Paused,
            _ if says(state.running) => Self::Running,
            None | Some(Its::EMPTY) if state.running.is_none() => return None,
            _ if state.exit_code.is_none() => return None,
            _ => Self::Over,
        })
    }

    /// Whether it has processes.
    pub(super) fn is_alive(self) -> bool {
        matches!(self, Self::Running | Self::Paused)
    }
}
