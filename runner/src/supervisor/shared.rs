//! What all tasks of a runner share.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use futures::future::BoxFuture;
use hybrid_runner_core::error::{Error, Result};
use hybrid_runner_core::id::SectionName;
use hybrid_runner_core::incarnation::Incarnation;
use hybrid_runner_core::{AgentId, Executor};
use hybrid_runner_secrets::Stores;
use hybrid_runner_secrets::workload::Workload;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::health::Health;
use super::journal::Journal;
use super::recover::Survey;
use super::registry::Registry;
use crate::config::Resolve;
use crate::policy::Policy;

/// A task, to be owned by the driver.
pub(super) type Job = BoxFuture<'static, ()>;

/// What a configuration that is read again may change.
#[derive(Debug, Default)]
pub(crate) struct Rules {
    /// What a control plane may ask for.
    pub(crate) policy: Policy,
    /// What a workload that resolves its secrets itself is given for it.
    pub(crate) workload: Option<Workload>,
}

pub(super) struct Shared {
    pub(super) agent: AgentId,
    pub(super) executors: BTreeMap<SectionName, Arc<dyn Executor>>,
    pub(super) default_executor: SectionName,
    pub(super) stores: Arc<Stores>,
    pub(super) resolve: Resolve,
    pub(super) rules: Mutex<Arc<Rules>>,
    pub(super) journal: Journal,
    pub(super) registry: Registry,
    pub(super) health: Health,
    /// What each backend showed when this runner began; absent until it could be read.
    pub(super) surveys: BTreeMap<SectionName, watch::Sender<Option<Arc<Survey>>>>,
    /// The connect after which all of them were asked once more.
    pub(super) surveyed_anew: tokio::sync::Mutex<Option<u64>>,
    pub(super) incarnation: Mutex<Incarnation>,
    pub(super) shutdown: CancellationToken,
    pub(super) jobs: mpsc::Sender<Job>,
}

impl Shared {
    /// The rules of now.
    pub(super) fn rules(&self) -> Arc<Rules> {
        Arc::clone(&self.rules.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn incarnation(&self) -> Incarnation {
        self.incarnation
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(super) fn set_incarnation(&self, incarnation: Incarnation) {
        *self
            .incarnation
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = incarnation;
    }

    pub(super) fn boot(&self) -> String {
        self.incarnation().boot
    }

    pub(super) fn executor(&self, name: &SectionName) -> Option<&Arc<dyn Executor>> {
        self.executors.get(name)
    }

    /// Refuses while a backend has not been read since this runner began.
    pub(super) fn all_surveyed(&self) -> Result<()> {
        let missing = self
            .surveys
            .iter()
            .find(|(_, survey)| survey.borrow().is_none());
        match missing {
            None => Ok(()),
            Some((name, _)) => Err(self.unknown(name)),
        }
    }

    /// The refusal while a backend does not answer.
    pub(super) fn unknown(&self, name: &SectionName) -> Error {
        let why = self.health.executors().get(name).cloned();
        let error = Error::unavailable(format!(
            "it is not known yet what executor `{name}` runs, so nothing can be said about runs that only it may know"
        ));
        match why {
            Some(why) => error.with_source(why),
            None => error,
        }
    }

    /// Hands a task to the driver.
    pub(super) async fn spawn(&self, job: Job) -> Result<()> {
        self.jobs.send(job).await.map_err(|_| shut_down())
    }
}

pub(super) fn shut_down() -> Error {
    Error::unavailable("the runner is shutting down")
}
