//! What forbids pods and objects in a namespace, or takes their place: things of the whole cluster, limited to one namespace of it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding, ValidatingWebhookConfiguration,
};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::scheduling::v1::PriorityClass;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::bench::until;
use crate::place::Place;
use crate::webhook::Webhook;

/// Which requests are forbidden.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Of {
    pub(crate) group: &'static str,
    pub(crate) version: &'static str,
    pub(crate) resources: &'static str,
}

impl Of {
    pub(crate) const PODS: Self = Self {
        group: "",
        version: "v1",
        resources: "pods",
    };

    fn rule(self) -> Value {
        json!({
            "apiGroups": [self.group],
            "apiVersions": [self.version],
            "resources": [self.resources],
            "operations": ["CREATE"],
        })
    }
}

/// Removes what is of the whole cluster once it is dropped.
pub(crate) struct Fence {
    path: String,
    name: String,
    client: Client,
    selector: Value,
    namespace: String,
}

impl Fence {
    pub(crate) async fn of(place: &Place) -> Self {
        Self {
            path: crate::place::kubeconfig().unwrap(),
            name: place.namespace.clone(),
            client: place.client().await,
            selector: json!({ "matchLabels": { "kubernetes.io/metadata.name": place.namespace } }),
            namespace: place.namespace.clone(),
        }
    }

    async fn make<K>(&self, object: Value)
    where
        K: Resource<DynamicType = ()>
            + Serialize
            + DeserializeOwned
            + Clone
            + std::fmt::Debug
            + Send
            + Sync,
    {
        let object: K = serde_json::from_value(object).unwrap();
        let all: Api<K> = Api::all(self.client.clone());
        all.create(&PostParams::default(), &object).await.unwrap();
    }

    /// A policy that denies all of these, in these words.
    pub(crate) async fn policy(&self, of: Of, words: &str) {
        let policy = json!({
            "metadata": { "name": self.name },
            "spec": {
                "failurePolicy": "Fail",
                "matchConstraints": { "resourceRules": [of.rule()] },
                "validations": [{ "expression": "false", "message": words }],
            },
        });
        self.make::<ValidatingAdmissionPolicy>(policy).await;
        let binding = json!({
            "metadata": { "name": self.name },
            "spec": {
                "policyName": self.name,
                "validationActions": ["Deny"],
                "matchResources": { "namespaceSelector": self.selector },
            },
        });
        self.make::<ValidatingAdmissionPolicyBinding>(binding).await;
        self.until_forbidden(of).await;
    }

    /// A webhook that must be asked about all of these, at an address where nobody is.
    pub(crate) async fn silent_webhook(&self, of: Of) {
        let nobody = json!({ "url": "https://127.0.0.1:1/" });
        self.ask(of, "nobody.hybrid-runner.test", nobody, 1).await;
    }

    /// This webhook must be asked about all of these.
    pub(crate) async fn webhook(&self, of: Of, webhook: &Webhook) {
        let place = json!({ "url": webhook.url, "caBundle": STANDARD.encode(&webhook.pem) });
        self.ask(of, "no.hybrid-runner.test", place, 30).await;
    }

    async fn ask(&self, of: Of, name: &str, place: Value, seconds: u32) {
        let webhook = json!({
            "metadata": { "name": self.name },
            "webhooks": [{
                "name": name,
                "clientConfig": place,
                "rules": [of.rule()],
                "namespaceSelector": self.selector,
                "failurePolicy": "Fail",
                "sideEffects": "None",
                "timeoutSeconds": seconds,
                "admissionReviewVersions": ["v1"],
            }],
        });
        self.make::<ValidatingWebhookConfiguration>(webhook).await;
        self.until_forbidden(of).await;
    }

    /// The API server hears of it after a while.
    async fn until_forbidden(&self, of: Of) {
        let base = match of.group {
            "" => "/api".to_owned(),
            group => format!("/apis/{group}"),
        };
        let path = format!(
            "{base}/{}/namespaces/{}/{}?dryRun=All",
            of.version, self.namespace, of.resources
        );
        until("the denial", async || {
            let trial = json!({
                "apiVersion": if of.group.is_empty() { of.version.to_owned() } else { format!("{}/{}", of.group, of.version) },
                "kind": match of.resources { "pods" => "Pod", "jobs" => "Job", _ => "Workflow" },
                "metadata": { "name": "trial" },
                "spec": spec(of.resources),
            });
            let request = http::Request::post(&path)
                .header("content-type", "application/json")
                .body(trial.to_string().into_bytes())
                .unwrap();
            self.client.request_text(request).await.is_err()
        })
        .await;
    }

    /// Something that the node has once, for us alone.
    pub(crate) async fn single(&self) -> String {
        let resource = format!("hybrid-runner.test/{}", self.name);
        let nodes: Api<Node> = Api::all(self.client.clone());
        let node = nodes.list(&ListParams::default()).await.unwrap();
        let node = node.items[0].metadata.name.clone().unwrap();
        let patch = json!({ "status": { "capacity": { &resource: "1" } } });
        nodes
            .patch_status(&node, &PatchParams::default(), &Patch::Merge(patch))
            .await
            .unwrap();
        resource
    }

    /// A pod of higher priority that needs it.
    pub(crate) async fn usurper(&self, resource: &str, image: &str) {
        let class = json!({ "metadata": { "name": self.name }, "value": 1000 });
        self.make::<PriorityClass>(class).await;
        let pod = json!({
            "metadata": { "name": "usurper" },
            "spec": {
                "priorityClassName": self.name,
                "terminationGracePeriodSeconds": 1,
                "containers": [{
                    "name": "main",
                    "image": image,
                    "command": ["sleep", "600"],
                    "resources": { "limits": { resource: "1" } },
                }],
            },
        });
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &self.namespace);
        let pod = serde_json::from_value(pod).unwrap();
        // The API server hears of a class after a while.
        until("a pod of the class", async || {
            pods.create(&PostParams::default(), &pod).await.is_ok()
        })
        .await;
    }
}

fn spec(resources: &str) -> Value {
    let pod =
        json!({ "restartPolicy": "Never", "containers": [{ "name": "main", "image": "none" }] });
    match resources {
        "pods" => pod,
        "jobs" => json!({ "template": { "spec": pod } }),
        _ => json!({ "entrypoint": "main", "templates": [{ "name": "main", "suspend": {} }] }),
    }
}

impl Drop for Fence {
    fn drop(&mut self) {
        let (kubeconfig, name) = (self.path.clone(), self.name.clone());
        let removal = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = { runtime }.enable_all().build().unwrap();
            runtime.block_on(async {
                let client = crate::place::admin(&kubeconfig).await;
                drop(remove::<ValidatingAdmissionPolicyBinding>(&client, &name).await);
                drop(remove::<ValidatingAdmissionPolicy>(&client, &name).await);
                drop(remove::<ValidatingWebhookConfiguration>(&client, &name).await);
                drop(remove::<PriorityClass>(&client, &name).await);
                let nodes: Api<Node> = Api::all(client);
                for node in nodes
                    .list(&ListParams::default())
                    .await
                    .into_iter()
                    .flatten()
                {
                    let resource = format!("hybrid-runner.test/{name}");
                    let patch = json!({ "status": { "capacity": { resource: null } } });
                    let patch = Patch::Merge(patch);
                    let name = node.metadata.name.unwrap_or_default();
                    drop(
                        nodes
                            .patch_status(&name, &PatchParams::default(), &patch)
                            .await,
                    );
                }
            });
        });
        drop(removal.join());
    }
}

async fn remove<K>(client: &Client, name: &str) -> Result<(), kube::Error>
where
    K: Resource<DynamicType = ()> + DeserializeOwned + Clone + std::fmt::Debug,
{
    let all: Api<K> = Api::all(client.clone());
    all.delete(name, &DeleteParams::default()).await.map(drop)
}
