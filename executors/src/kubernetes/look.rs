//! How a run stands in the cluster: looked at anew, or as the board has it.

use std::collections::BTreeMap;

use hybrid_runner_core::RunId;
use hybrid_runner_core::error::Result;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use super::Shared;
use super::job::JobSeen;
use crate::cluster::board::{Ear, Seen, list};
use crate::cluster::error::{failed, found, is_status};
use crate::cluster::seen::PodSeen;

impl Shared {
    pub(super) fn listen(&self, run: RunId) -> Ear<JobSeen> {
        self.board.listen(&self.cluster, &self.names, run)
    }

    /// Asks the API server.
    pub(super) async fn look(&self, run: RunId) -> Result<Seen<JobSeen>> {
        let Some(job) = self.job(run).await? else {
            return Ok(Seen::default());
        };
        let connected = self.cluster.connected().await?;
        let pods = list::<Pod>(&connected.api(), &self.names.selector_of(run)).await;
        let (pods, _) =
            pods.map_err(|error| failed(connected, "look at the pods of the run", &error))?;
        let pods: BTreeMap<String, PodSeen> = pods
            .iter()
            .filter_map(PodSeen::of)
            .map(|(_, pod)| (pod.uid.clone(), pod))
            .collect();
        Ok(Seen {
            object: Some(job),
            pods,
        })
    }

    /// What the board knows, if it is up to date and knows the run; else asks the API server.
    pub(super) async fn glance(&self, run: RunId) -> Result<Seen<JobSeen>> {
        match self.board.current(run) {
            Some(seen) if seen.object.is_some() => Ok(seen),
            _ => self.look(run).await,
        }
    }

    /// The Job of a run.
    pub(super) async fn job(&self, run: RunId) -> Result<Option<JobSeen>> {
        let connected = self.cluster.connected().await?;
        let job = connected.api::<Job>().get(&self.names.object(run)).await;
        let job =
            found(job).map_err(|error| failed(connected, "look at the Job of the run", &error))?;
        Ok(job.as_ref().map(JobSeen::read))
    }

    /// Changes the Job if it is still as it was seen; `false` if it is not, or is gone.
    pub(super) async fn change(
        &self,
        run: RunId,
        seen: &JobSeen,
        what: &str,
        mut patch: Value,
    ) -> Result<bool> {
        let connected = self.cluster.connected().await?;
        patch["metadata"]["resourceVersion"] = json!(seen.version);
        let changed = connected
            .api::<Job>()
            .patch(
                &self.names.object(run),
                &PatchParams::default(),
                &Patch::Merge(&patch),
            )
            .await;
        match changed {
            Ok(_) => Ok(true),
            Err(error) if is_status(&error, 409) || is_status(&error, 404) => Ok(false),
            Err(error) => Err(failed(connected, what, &error)),
        }
    }
}
