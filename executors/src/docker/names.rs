//! Names and labels: how our objects are told from others in an engine that we share.
//!
//! Everything of a run is found by its id alone. A container has the name `hr-<owner>-<attempt>.new` until it is certain
//! that it will get its whole payload, and then loses the ending: one that has it may be started again, one that has
//! not never is.

use std::collections::HashMap;

use bollard::models::ContainerSummary;
use hybrid_runner_core::RunId;
use hybrid_runner_core::error::{Error, Result};
use hybrid_runner_core::id::Owner;
use hybrid_runner_core::run::RunSpec;
use hybrid_runner_helper::container::{FOLDER, INIT, ROLE};

/// All our labels begin with it.
pub(super) const PREFIX: &str = "io.hybrid-runner.";
/// Whose it is.
pub(super) const OWNER: &str = "io.hybrid-runner.owner";
/// The attempt.
pub(super) const RUN: &str = "io.hybrid-runner.run";
/// The workflow's name, for people.
pub(super) const NAME: &str = "io.hybrid-runner.name";
/// The runner, for people.
pub(super) const RUNNER: &str = "io.hybrid-runner.runner";
/// Tells the lines of init from those of the workload.
pub(super) const MARK: &str = "io.hybrid-runner.mark";
/// The labels of the workflow.
const LABEL_PREFIX: &str = "io.hybrid-runner.label.";

/// The names of one owner's objects.
#[derive(Debug, Clone)]
pub(super) struct Names(Owner);

impl Names {
    pub(super) fn of(owner: Owner) -> Self {
        Self(owner)
    }

    /// The container of a run whose work was begun, or is about to.
    pub(super) fn claimed(&self, run: RunId) -> String {
        format!("hr-{}-{run}", self.0)
    }

    /// The container of a run that is being made ready.
    pub(super) fn preparing(&self, run: RunId) -> String {
        format!("{}.new", self.claimed(run))
    }

    /// The volume whose existence forbids a start for ever.
    pub(super) fn stopped(&self, run: RunId) -> String {
        format!("{}.stopped", self.claimed(run))
    }

    /// The container of a check.
    pub(super) fn trial(&self) -> String {
        format!("hr-{}.check", self.0)
    }

    /// The labels of everything that belongs to a run.
    pub(super) fn labels(&self, run: RunId) -> HashMap<String, String> {
        HashMap::from([
            (OWNER.to_owned(), self.0.to_string()),
            (RUN.to_owned(), run.to_string()),
        ])
    }

    /// The labels of its container: ours win.
    pub(super) fn container_labels(
        &self,
        spec: &RunSpec,
        mark: &str,
        given: impl IntoIterator<Item = (String, String)>,
    ) -> HashMap<String, String> {
        let mut labels: HashMap<String, String> = given.into_iter().collect();
        let own = spec.labels.iter();
        labels.extend(own.map(|(name, value)| (format!("{LABEL_PREFIX}{name}"), value.clone())));
        labels.extend(self.labels(spec.run));
        labels.insert(NAME.to_owned(), spec.name.to_string());
        labels.insert(MARK.to_owned(), mark.to_owned());
        if let Some(runner) = &spec.runner {
            labels.insert(RUNNER.to_owned(), runner.to_string());
        }
        labels
    }

    /// The run of a listed container that is ours: by its name, or, if somebody has renamed it, by its entry point and what
    /// stands below it. Labels alone say nothing, as `docker commit` hands them on.
    pub(super) fn run_of_container(&self, container: &ContainerSummary) -> Option<RunId> {
        let labels = container.labels.as_ref()?;
        let run = run_of(Some(labels))?;
        let is_one = |name: &String| {
            let name = name.trim_start_matches('/');
            name == self.claimed(run) || name == self.preparing(run)
        };
        let is_named = container.names.iter().flatten().any(is_one);
        let is_run_by_init = || {
            let command = format!("{INIT} {ROLE} {}", labels.get(MARK)?);
            let mut mounts = container.mounts.iter().flatten();
            let has_init = mounts.any(|mount| mount.destination.as_deref() == Some(FOLDER));
            Some(has_init && container.command.as_ref() == Some(&command))
        };
        (is_named || is_run_by_init().unwrap_or_default()).then_some(run)
    }

    /// The filter that shows what is ours, and what may be.
    pub(super) fn filter(&self) -> HashMap<String, Vec<String>> {
        let owner = format!("{OWNER}={}", self.0);
        HashMap::from([("label".to_owned(), vec![owner])])
    }

    /// The filter that shows what belongs to this run, and what may.
    pub(super) fn filter_of(&self, run: RunId) -> HashMap<String, Vec<String>> {
        let mut filter = self.filter();
        let labels = filter.entry("label".to_owned()).or_default();
        labels.push(format!("{RUN}={run}"));
        filter
    }
}

/// The run that a labelled object belongs to.
pub(super) fn run_of(labels: Option<&HashMap<String, String>>) -> Option<RunId> {
    labels?.get(RUN)?.parse().ok()
}

/// A name that nobody else has, and nobody guesses.
pub(super) fn random() -> Result<String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| {
        Error::internal("failed to get random bytes").with_source(error.to_string())
    })?;
    Ok(format!("{:032x}", u128::from_be_bytes(bytes)))
}
