//! How a run stands in the cluster: looked at anew, or as the board has it.

use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use hybrid_runner_core::RunId;
use hybrid_runner_core::error::Result;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::board::{Ear, Seen, list};
use super::error::{failed, found, is_status};
use super::object::ObjectSeen;
use super::runs::Shared;
use super::seen::PodSeen;

/// So long a board that is new, or that has yet to hear of a run, is waited for.
const MOMENT: Duration = Duration::from_secs(1);

impl Shared {
    pub(super) fn listen(&self, run: RunId) -> Ear {
        self.board
            .listen(&self.cluster, self.kind, &self.names, run)
    }

    /// Asks the API server. In a box: whoever watches a run hardly ever does.
    pub(super) fn look(&self, run: RunId) -> BoxFuture<'_, Result<Seen>> {
        self.asked(run).boxed()
    }

    async fn asked(&self, run: RunId) -> Result<Seen> {
        let Some(object) = self.object(run).await? else {
            return Ok(Seen::default());
        };
        let connected = self.cluster.connected().await?;
        let pods = list::<Pod>(&connected.api(), &self.names.selector_of(run)).await;
        let (pods, _) =
            pods.map_err(|error| failed(connected, "look at the pods of the run", &error))?;
        let pods = pods.iter().filter_map(PodSeen::of);
        let mut seen = Seen {
            object: Some(object),
            pods: pods.map(|(_, pod)| pod).collect(),
            ..Seen::default()
        };
        self.board.remind(run, &mut seen);
        Ok(seen)
    }

    /// What the board knows, if it is up to date and knows enough of the run; else asks the API server.
    pub(super) async fn glance(&self, run: RunId) -> Result<Seen> {
        match self.board.current(run) {
            Some(seen) if seen.is_whole() => Ok(seen),
            _ => self.look(run).await,
        }
    }

    /// The same for whoever has just begun to listen: the board will know the run in a moment, which asks the API server nothing.
    pub(super) async fn first(&self, run: RunId, ear: &mut Ear) -> Result<Seen> {
        let known = async {
            loop {
                match self.board.current(run) {
                    Some(seen) if seen.is_whole() => return seen,
                    _ => ear.changed().await,
                }
            }
        };
        match timeout(MOMENT, known).await {
            Ok(seen) => Ok(seen),
            Err(_) => self.look(run).await,
        }
    }

    /// The object of a run.
    pub(super) async fn object(&self, run: RunId) -> Result<Option<ObjectSeen>> {
        let connected = self.cluster.connected().await?;
        let objects = connected.objects(self.kind);
        let object = objects.get(&self.names.object(run)).await;
        let object =
            found(object).map_err(|error| failed(connected, &self.on_object("look at"), &error))?;
        Ok(object.map(|object| ObjectSeen::read(self.kind, &object)))
    }

    /// The object of a run, for what it owns.
    pub(super) fn reference(&self, run: RunId, uid: &str) -> Value {
        let names = self.kind.names();
        json!({
            "apiVersion": names.api_version(),
            "kind": names.kind,
            "name": self.names.object(run),
            "uid": uid,
        })
    }

    /// What is done to an object, for messages: `make the Job of the run`.
    pub(super) fn on_object(&self, verb: &str) -> String {
        format!("{verb} the {} of the run", self.kind.names().kind)
    }

    /// Changes the object if it is still as it was seen; `false` if it is not, or is gone.
    pub(super) async fn change(
        &self,
        run: RunId,
        seen: &ObjectSeen,
        verb: &str,
        mut patch: Value,
    ) -> Result<bool> {
        let connected = self.cluster.connected().await?;
        patch["metadata"]["resourceVersion"] = json!(seen.version);
        let changed = connected
            .objects(self.kind)
            .patch(
                &self.names.object(run),
                &PatchParams::default(),
                &Patch::Merge(&patch),
            )
            .await;
        match changed {
            Ok(_) => Ok(true),
            Err(error) if is_status(&error, 409) || is_status(&error, 404) => Ok(false),
            Err(error) => Err(failed(connected, &self.on_object(verb), &error)),
        }
    }
}
