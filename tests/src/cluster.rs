//! A namespace of a Kubernetes cluster for one story, seen from outside: by its API and not by our client.

use std::path::PathBuf;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::{Certificate, Identity, Method};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::docker::BUSYBOX;
use crate::skipped;

const VARIABLE: &str = "HYBRID_RUNNER_TEST_KUBECONFIG";
/// A controller is waited for by asking this often.
const AGAIN: Duration = Duration::from_millis(50);
const PATIENCE: Duration = Duration::from_mins(2);

/// A namespace. When dropped, it is removed with all that is in it.
#[derive(Debug)]
pub struct Cluster {
    kubeconfig: PathBuf,
    http: reqwest::Client,
    server: String,
    /// Its name.
    pub namespace: String,
}

impl Cluster {
    /// A namespace in the cluster of the tests; where there is none, the story is skipped.
    pub async fn started() -> Option<Self> {
        let Some(path) = std::env::var_os(VARIABLE).filter(|path| !path.is_empty()) else {
            skipped(
                "no cluster: `HYBRID_RUNNER_TEST_KUBECONFIG` is not set (scripts/services/cluster up)",
            );
            return None;
        };
        let text = std::fs::read_to_string(&path).expect("the kubeconfig can be read");
        let cluster = Self {
            http: client(&text),
            server: member(&text, "server"),
            kubeconfig: path.into(),
            namespace: format!("story-{}", uuid::Uuid::new_v4().simple()),
        };
        let made = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": cluster.namespace}});
        let made = cluster
            .ask(Method::POST, "/api/v1/namespaces", Some(&made))
            .await;
        assert_eq!(made["kind"], "Namespace", "{made}");
        // Without its account no pod can be made.
        cluster
            .until("the account of its pods", async || {
                let account = cluster.path("api/v1", "serviceaccounts/default");
                cluster.ask(Method::GET, &account, None).await["kind"] == "ServiceAccount"
            })
            .await;
        Some(cluster)
    }

    /// The lines of `[executors.NAME]` that run work in it.
    pub fn section(&self) -> String {
        format!(
            "kind = \"kubernetes\"\nkubeconfig = \"{}\"\nnamespace = \"{}\"\nimage = \"{BUSYBOX}\"\nuser = 1000\n",
            self.kubeconfig.display(),
            self.namespace
        )
    }

    /// All objects of the namespace that can be listed, by kind.
    pub async fn objects(&self) -> Vec<(String, Value)> {
        let mut objects = Vec::new();
        for group in self.groups().await {
            let kinds = self.ask(Method::GET, &format!("/{group}"), None).await;
            for kind in kinds["resources"].as_array().into_iter().flatten() {
                let verbs = kind["verbs"].as_array();
                let lists = verbs.is_some_and(|verbs| verbs.contains(&json!("list")));
                if lists && kind["namespaced"] == true {
                    let plural = kind["name"].as_str().unwrap_or_default();
                    let all = self
                        .ask(Method::GET, &self.path(&group, plural), None)
                        .await;
                    objects.push((plural.to_owned(), all));
                }
            }
        }
        objects
    }

    /// Waits until the API tells so.
    pub async fn until(&self, what: &str, mut is: impl AsyncFnMut() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !is().await {
            assert!(
                Instant::now() < deadline,
                "waited {PATIENCE:?} in vain: {what}"
            );
            sleep(AGAIN).await;
        }
    }

    /// The Secrets of the namespace.
    pub async fn secrets(&self) -> Vec<Value> {
        let secrets = self.path("api/v1", "secrets");
        let mut all = self.ask(Method::GET, &secrets, None).await;
        match all["items"].take() {
            Value::Array(items) => items,
            _ => panic!("no list of Secrets: {all}"),
        }
    }

    async fn groups(&self) -> Vec<String> {
        let groups = self.ask(Method::GET, "/apis", None).await;
        let groups = groups["groups"].as_array().cloned().unwrap_or_default();
        let named = groups.iter().filter_map(|group| {
            let version = group.pointer("/preferredVersion/groupVersion")?;
            Some(format!("apis/{}", version.as_str()?))
        });
        std::iter::once("api/v1".to_owned()).chain(named).collect()
    }

    fn path(&self, group: &str, plural: &str) -> String {
        format!("/{group}/namespaces/{}/{plural}", self.namespace)
    }

    async fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Value {
        let mut request = self.http.request(method, format!("{}{path}", self.server));
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request.send().await.expect("the API server answers");
        answer.json().await.unwrap_or_default()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let url = format!("{}/api/v1/namespaces/{}", self.server, self.namespace);
        let request = self.http.delete(url);
        let removed = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime.map(|runtime| runtime.block_on(request.send()))
        });
        // A story that failed has said so already.
        drop(removed.join());
    }
}

/// The text of a member of a kubeconfig, wherever it stands in it.
fn member(kubeconfig: &str, name: &str) -> String {
    let (_, rest) = kubeconfig
        .split_once(&format!("{name}:"))
        .unwrap_or_else(|| panic!("no `{name}` in the kubeconfig"));
    let ends = |char: char| char.is_whitespace() || "\",}".contains(char);
    let rest = rest.trim_start_matches(ends);
    rest[..rest.find(ends).unwrap_or(rest.len())].to_owned()
}

fn client(kubeconfig: &str) -> reqwest::Client {
    let pem = |name: &str| {
        let text = STANDARD.decode(member(kubeconfig, name));
        text.unwrap_or_else(|error| panic!("`{name}`: {error}"))
    };
    let who = [pem("client-certificate-data"), pem("client-key-data")].concat();
    let ca = Certificate::from_pem(&pem("certificate-authority-data"));
    reqwest::Client::builder()
        .no_proxy()
        .tls_certs_only([ca.expect("a certificate")])
        .identity(Identity::from_pem(&who).expect("a certificate and its key"))
        .build()
        .expect("a client")
}
