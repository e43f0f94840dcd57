//! How a run stands in the cluster: looked at anew, or as the board has it.

use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::Request;
use http::header::CONTENT_TYPE;
use hybrid_runner_core::RunId;
use hybrid_runner_core::error::{Error, Result};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource as _;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::board::{Ear, Seen, list};
use super::error::{failed, found, is_status};
use super::names::run_of;
use super::object::{Object, ObjectSeen};
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

    /// Pods that belong to no object any more: the runs that they are of, and their names.
    pub(super) async fn orphans(&self, selector: &str) -> Result<Vec<(RunId, String)>> {
        let connected = self.cluster.connected().await?;
        let pods = list::<Pod>(&connected.api(), selector).await;
        let (pods, _) =
            pods.map_err(|error| failed(connected, "look at the pods of runs", &error))?;
        let orphans = pods.into_iter().map(|pod| pod.metadata).filter(|pod| {
            pod.deletion_timestamp.is_none()
                && pod.owner_references.as_ref().is_none_or(Vec::is_empty)
        });
        let named = |pod: ObjectMeta| Some((run_of(pod.labels.as_ref())?, pod.name?));
        Ok(orphans.filter_map(named).collect())
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

    /// Changes the object if it has these values at these places, whatever else of it has changed; `false` if it has not, or is gone.
    /// What is null in the patch must be there.
    pub(super) async fn change_where(
        &self,
        run: RunId,
        expected: &[(Vec<&str>, Value)],
        verb: &str,
        patch: &Value,
    ) -> Result<bool> {
        let connected = self.cluster.connected().await?;
        let tests = expected
            .iter()
            .map(|(path, value)| json!({ "op": "test", "path": pointer(path), "value": value }));
        let mut operations: Vec<Value> = tests.collect();
        to_operations(&mut Vec::new(), patch, &mut operations);
        let collection = Object::url_path(&self.kind, Some(&connected.namespace));
        let request = Request::patch(format!("{collection}/{}", self.names.object(run)))
            .header(CONTENT_TYPE, "application/json-patch+json")
            .body(Value::from(operations).to_string().into_bytes())
            .map_err(|_| Error::internal("the object of the run cannot be asked for"))?;
        match connected.client().request::<Object>(request).await {
            Ok(_) => Ok(true),
            Err(error) if [404, 409, 422].iter().any(|&code| is_status(&error, code)) => Ok(false),
            Err(error) => Err(failed(connected, &self.on_object(verb), &error)),
        }
    }
}

/// A merge patch as operations of a JSON patch (RFC 6902).
fn to_operations<'a>(at: &mut Vec<&'a str>, patch: &'a Value, into: &mut Vec<Value>) {
    match patch {
        Value::Object(fields) => {
            for (name, value) in fields {
                at.push(name);
                to_operations(at, value, into);
                at.pop();
            }
        }
        Value::Null => into.push(json!({ "op": "remove", "path": pointer(at) })),
        value => into.push(json!({ "op": "add", "path": pointer(at), "value": value })),
    }
}

/// A JSON pointer (RFC 6901).
fn pointer(path: &[&str]) -> String {
    let escaped = path
        .iter()
        .map(|name| name.replace('~', "~0").replace('/', "~1"));
    escaped.fold(String::new(), |pointer, name| pointer + "/" + &name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_merge_patch_becomes_an_operation_for_each_value() {
        let patch = json!({ "metadata": { "annotations": { "a.b/c~d": "x" } }, "spec": { "suspend": null } });
        let mut operations = Vec::new();
        to_operations(&mut Vec::new(), &patch, &mut operations);
        let wanted = json!([
            { "op": "add", "path": "/metadata/annotations/a.b~1c~0d", "value": "x" },
            { "op": "remove", "path": "/spec/suspend" },
        ]);
        assert_eq!(Value::from(operations), wanted);
    }
}
