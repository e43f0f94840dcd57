//! A namespace for the measurement, in the cluster that `scripts/services/cluster` has started.

use anyhow::{Context as _, Result};
use http::Request;
use k8s_openapi::api::core::v1::{Namespace, Pod, ServiceAccount};
use kube::api::{DeleteParams, DynamicObject, ListParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Api, Client, Config};
use serde_json::{Value, json};
use tokio::time::{Duration, sleep};

/// An administrator's kubeconfig; `scripts/bench` starts a cluster.
const KUBECONFIG: &str = "HYBRID_RUNNER_TEST_KUBECONFIG";
const IMAGE: &str = "hybrid-runner-test/busybox:1";
/// The account of Argo's pods in what we tell people to give.
const WORKLOAD: &str = "hybrid-runner-workload";

/// What runs are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Over {
    Jobs,
    Workflows,
}

impl Over {
    /// The `kind` of the section.
    pub(super) fn kind(self) -> &'static str {
        match self {
            Self::Jobs => "kubernetes",
            Self::Workflows => "argo",
        }
    }

    pub(super) fn resource(self) -> ApiResource {
        let (group, version, kind) = match self {
            Self::Jobs => ("batch", "v1", "Job"),
            Self::Workflows => ("argoproj.io", "v1alpha1", "Workflow"),
        };
        ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind))
    }

    /// The label by which a pod names its object.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Jobs => "batch.kubernetes.io/job-name",
            Self::Workflows => "workflows.argoproj.io/workflow",
        }
    }

    fn rbac(self) -> &'static str {
        match self {
            Self::Jobs => include_str!("../../../../deploy/rbac/kubernetes.yaml"),
            Self::Workflows => include_str!("../../../../deploy/rbac/argo.yaml"),
        }
    }
}

pub(super) struct Place {
    pub(super) over: Over,
    pub(super) client: Client,
    pub(super) namespace: String,
    kubeconfig: String,
}

impl Place {
    pub(super) async fn made(over: Over) -> Result<Self> {
        let kubeconfig =
            std::env::var(KUBECONFIG).with_context(|| format!("`{KUBECONFIG}` is not set"))?;
        let file = Kubeconfig::read_from(&kubeconfig)?;
        let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
        let place = Self {
            over,
            client: Client::try_from(config)?,
            namespace: format!("bench-{}-{}", over.kind(), std::process::id()),
            kubeconfig,
        };
        let namespace = serde_json::from_value(json!({ "metadata": { "name": place.namespace } }))?;
        place
            .namespaces()
            .create(&PostParams::default(), &namespace)
            .await?;
        for object in over.rbac().split("---\n") {
            place.give(object).await?;
        }
        let accounts: Api<ServiceAccount> = Api::namespaced(place.client.clone(), &place.namespace);
        // Without its account no pod can be made; the controller is at it.
        while accounts.get_opt("default").await?.is_none() {
            sleep(Duration::from_millis(50)).await;
        }
        Ok(place)
    }

    /// Makes one of the objects of `deploy/rbac`.
    async fn give(&self, yaml: &str) -> Result<()> {
        let collection = match yaml {
            _ if yaml.contains("kind: ServiceAccount\n") => ("api/v1", "serviceaccounts"),
            _ if yaml.contains("kind: RoleBinding\n") => {
                ("apis/rbac.authorization.k8s.io/v1", "rolebindings")
            }
            _ => ("apis/rbac.authorization.k8s.io/v1", "roles"),
        };
        let path = format!(
            "/{}/namespaces/{}/{}",
            collection.0, self.namespace, collection.1
        );
        let request = Request::post(path).header("content-type", "application/yaml");
        self.client
            .request_text(request.body(yaml.as_bytes().to_vec())?)
            .await?;
        Ok(())
    }

    /// The section of the executor.
    pub(super) fn section(&self) -> Value {
        let mut section = json!({
            "kubeconfig": self.kubeconfig,
            "namespace": self.namespace,
            "image": IMAGE,
            "user": 1000,
        });
        if self.over == Over::Workflows {
            section["service_account"] = WORKLOAD.into();
        }
        section
    }

    fn namespaces(&self) -> Api<Namespace> {
        Api::all(self.client.clone())
    }

    /// Removes all runs, and waits until their pods are gone.
    pub(super) async fn clear(&self) -> Result<()> {
        let resource = self.over.resource();
        let objects: Api<DynamicObject> =
            Api::namespaced_with(self.client.clone(), &self.namespace, &resource);
        let (deleting, all) = (DeleteParams::background(), ListParams::default());
        objects.delete_collection(&deleting, &all).await?;
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &self.namespace);
        while !pods.list(&all).await?.items.is_empty() {
            sleep(Duration::from_secs(1)).await;
        }
        Ok(())
    }

    /// Removes all of it.
    pub(super) async fn remove(self) -> Result<()> {
        let options = DeleteParams::default();
        self.namespaces().delete(&self.namespace, &options).await?;
        Ok(())
    }
}
