//! A bare client of the API server: what anybody must ask it for, for the same pods, with one watch for all of them.

use std::collections::HashMap;

use anyhow::{Context as _, Result, bail};
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::api::{DeleteParams, DynamicObject, LogParams, PostParams, WatchEvent, WatchParams};
use kube::core::ApiResource;
use kube::{Api, Client};
use serde_json::{Map, Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::place::Place;
use super::{Ours, VALUE, given};

/// What the watch saw of a pod, and when.
#[derive(Debug, Clone)]
pub(super) struct PodSeen {
    name: String,
    pub(super) there: Instant,
    /// Since when its work runs, or has run.
    pub(super) running: Option<Instant>,
    /// Since when all of it is over.
    pub(super) over: Option<Instant>,
}

/// By the name of the object that each belongs to.
type Pods = HashMap<String, PodSeen>;

pub(super) struct Bare {
    /// The executor, to ask what it would make.
    pattern: Ours,
    client: Client,
    namespace: String,
    resource: ApiResource,
    pods: watch::Receiver<Pods>,
    /// Ends with it.
    _watching: JoinSet<()>,
}

impl Bare {
    pub(super) fn new(place: &Place) -> Result<Self> {
        let (sender, pods) = watch::channel(Pods::default());
        let mut watching = JoinSet::new();
        let all = Api::namespaced(place.client.clone(), &place.namespace);
        watching.spawn(see(all, place.over.label(), sender));
        Ok(Self {
            pattern: Ours::new(place.over.kind(), place.section())?,
            client: place.client.clone(),
            namespace: place.namespace.clone(),
            resource: place.over.resource(),
            pods,
            _watching: watching,
        })
    }

    /// The name of a run that is yet to be made.
    pub(super) fn name() -> String {
        format!("bare-{}", uuid::Uuid::new_v4().simple())
    }

    /// Makes an object of the pod that the executor gives a run, and before that a Secret for a variable, if it is to have one.
    pub(super) async fn make(&self, name: &str, command: &[&str], has_value: bool) -> Result<()> {
        let (spec, secrets) = given(command, has_value)?;
        let objects = self.pattern.preview(&spec, &secrets).await?;
        let [object, secret @ ..] = objects.as_slice() else {
            bail!("a run without an object");
        };
        if let Some(secret) = secret.first() {
            let keys = secret["data"].as_object().into_iter().flatten();
            let data: Map<String, Value> =
                keys.map(|(key, _)| (key.clone(), VALUE.into())).collect();
            let secret = json!({ "metadata": { "name": name }, "stringData": data });
            let secret: Secret = serde_json::from_value(secret)?;
            let secrets: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
            secrets.create(&PostParams::default(), &secret).await?;
        }
        let object: DynamicObject = serde_json::from_value(of_nobody(object, name)?)?;
        self.objects()
            .create(&PostParams::default(), &object)
            .await?;
        Ok(())
    }

    fn objects(&self) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), &self.namespace, &self.resource)
    }

    /// What the watch has of the pod of an object, once it is so.
    pub(super) async fn pod(
        &self,
        name: &str,
        is_so: impl Fn(&PodSeen) -> bool + Send + Sync,
    ) -> Result<PodSeen> {
        let mut pods = self.pods.clone();
        let has = |pods: &Pods| pods.get(name).is_some_and(&is_so);
        let found = pods.wait_for(has).await.context("the watch ended")?;
        found.get(name).cloned().context("it was just there")
    }

    /// Waits, reads the log, removes.
    pub(super) async fn end(&self, name: &str, has_secret: bool) -> Result<()> {
        let pod = self.pod(name, |pod| pod.over.is_some()).await?;
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &self.namespace);
        let log = LogParams {
            container: Some("main".to_owned()),
            ..LogParams::default()
        };
        pods.logs(&pod.name, &log).await?;
        if has_secret {
            let secrets: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
            secrets.delete(name, &DeleteParams::default()).await?;
        }
        self.objects()
            .delete(name, &DeleteParams::background())
            .await?;
        Ok(())
    }

    pub(super) async fn whole(&self, command: &[&str]) -> Result<()> {
        let name = Self::name();
        self.make(&name, command, false).await?;
        self.end(&name, false).await
    }
}

/// The same object under another name: no runner knows it, and nothing holds it back.
fn of_nobody(object: &Value, name: &str) -> Result<Value> {
    let own = object["metadata"]["name"].as_str().context("a name")?;
    // The pod refers to its Secret by it.
    let mut object: Value = serde_json::from_str(&object.to_string().replace(own, name))?;
    object["metadata"] = json!({ "name": name });
    for path in ["/spec/template", "/spec/templates/0"] {
        if let Some(template) = object.pointer_mut(path).and_then(Value::as_object_mut) {
            template.remove("metadata");
        }
    }
    if let Some(spec) = object["spec"].as_object_mut() {
        spec.remove("suspend");
    }
    Ok(object)
}

/// Keeps up what there is of pods, for ever.
async fn see(all: Api<Pod>, label: &'static str, seen: watch::Sender<Pods>) {
    loop {
        let wanted = WatchParams::default().timeout(290);
        let Ok(events) = all.watch(&wanted, "0").await else {
            continue;
        };
        let mut events = std::pin::pin!(events);
        while let Some(Ok(event)) = events.next().await {
            let (WatchEvent::Added(pod) | WatchEvent::Modified(pod)) = event else {
                continue;
            };
            let labels = pod.metadata.labels.clone().unwrap_or_default();
            if let Some(object) = labels.get(label) {
                seen.send_modify(|pods| note(pods, object, &pod));
            }
        }
    }
}

fn note(pods: &mut Pods, object: &str, pod: &Pod) {
    let now = Instant::now();
    let seen = pods.entry(object.to_owned()).or_insert_with(|| PodSeen {
        name: pod.metadata.name.clone().unwrap_or_default(),
        there: now,
        running: None,
        over: None,
    });
    let Some(status) = &pod.status else {
        return;
    };
    // A pod of Argo is over when its container `wait` is, which may still put an artifact away.
    if matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")) {
        seen.over.get_or_insert(now);
    }
    let mut statuses = status.container_statuses.iter().flatten();
    let main = statuses.find(|status| status.name == "main");
    let state = main.and_then(|main| main.state.as_ref());
    if state.is_some_and(|state| state.running.is_some() || state.terminated.is_some()) {
        seen.running.get_or_insert(now);
    }
}
