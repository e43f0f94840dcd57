//! A namespace of a Kubernetes cluster for one story, seen from outside: by its API and not by our client.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::{Certificate, Identity, Method};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::docker::BUSYBOX;
use crate::skipped;
use crate::story::Story;

const VARIABLE: &str = "HYBRID_RUNNER_TEST_KUBECONFIG";
/// A controller is waited for by asking this often.
const AGAIN: Duration = Duration::from_millis(50);
const PATIENCE: Duration = Duration::from_mins(2);

/// Kinds of objects that can be given: kind, version, plural.
const KINDS: [(&str, &str, &str); 6] = [
    ("ServiceAccount", "api/v1", "serviceaccounts"),
    ("Secret", "api/v1", "secrets"),
    ("Pod", "api/v1", "pods"),
    ("Deployment", "apis/apps/v1", "deployments"),
    ("Role", "apis/rbac.authorization.k8s.io/v1", "roles"),
    (
        "RoleBinding",
        "apis/rbac.authorization.k8s.io/v1",
        "rolebindings",
    ),
];

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

    /// The same for this kind of executor and image, with all that its Role and its pods need; its pods see a folder of this machine.
    pub async fn section_seeing(&self, kind: &str, image: &str, folder: &Path) -> String {
        std::fs::set_permissions(folder, Permissions::from_mode(0o777))
            .expect("the folder of the story is ours");
        let mut section = self.section();
        section = section.replace("\"kubernetes\"", &format!("\"{kind}\""));
        section = section.replace(BUSYBOX, image);
        if kind == "argo" {
            self.give(include_str!("../../deploy/rbac/argo.yaml")).await;
            section.push_str("service_account = \"hybrid-runner-workload\"\n");
        }
        let folder = folder.display();
        section
            + &format!(
                "pod = {{ volumes = [{{ name = \"story\", hostPath = {{ path = \"{folder}\" }} }}], \
                 containers = [{{ name = \"main\", volumeMounts = [{{ name = \"story\", mountPath = \"{folder}\" }}] }}] }}\n"
            )
    }

    /// Makes the objects of a manifest.
    pub async fn give(&self, manifest: &str) {
        for object in manifest.split("---\n") {
            let kind = object.lines().find_map(|line| line.strip_prefix("kind: "));
            let kind = kind.expect("an object says its kind");
            let (_, version, plural) = KINDS
                .iter()
                .find(|(known, ..)| *known == kind)
                .unwrap_or_else(|| panic!("no kind `{kind}` among those that are given"));
            let group = version
                .trim_start_matches("apis/")
                .trim_start_matches("api/");
            let head = format!("apiVersion: {group}\n");
            let head = if object.contains("apiVersion: ") {
                ""
            } else {
                &head
            };
            let url = format!("{}{}", self.server, self.path(version, plural));
            let request = self.http.post(url);
            let request = request.header("content-type", "application/yaml");
            let answer = request.body(format!("{head}{object}")).send().await;
            let answer = answer.expect("the API server answers");
            let is_made = answer.status().is_success();
            let answer = answer.text().await.unwrap_or_default();
            assert!(is_made, "{answer}\nfor:\n{object}");
        }
    }

    /// A token of an account.
    pub async fn token(&self, account: &str) -> String {
        let path = self.path("api/v1", &format!("serviceaccounts/{account}/token"));
        let wanted = json!({ "spec": { "expirationSeconds": 3600 } });
        let made = self.ask(Method::POST, &path, Some(&wanted)).await;
        let token = made.pointer("/status/token").and_then(Value::as_str);
        token
            .unwrap_or_else(|| panic!("no token: {made}"))
            .to_owned()
    }

    /// A kubeconfig of the owner of a token.
    pub fn kubeconfig_of(&self, story: &Story, token: &str) -> PathBuf {
        let admin = std::fs::read_to_string(&self.kubeconfig).expect("the kubeconfig can be read");
        let authority = member(&admin, "certificate-authority-data");
        let cluster = json!({ "server": self.server, "certificate-authority-data": authority });
        let kubeconfig = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{ "name": "it", "cluster": cluster }],
            "users": [{ "name": "it", "user": { "token": token } }],
            "contexts": [{ "name": "it", "context": { "cluster": "it", "user": "it", "namespace": self.namespace } }],
            "current-context": "it",
        });
        story.write("kubeconfig", kubeconfig.to_string())
    }

    /// Where the API server is.
    pub fn node(&self) -> String {
        let server = self.server.trim_start_matches("https://");
        server.split(':').next().unwrap_or_default().to_owned()
    }

    /// The address of this machine that its node reaches.
    pub fn host(&self) -> String {
        let node = format!("{}:443", self.node());
        let socket = std::net::UdpSocket::bind("0.0.0.0:0");
        let routed = socket.and_then(|socket| {
            socket.connect(node)?;
            socket.local_addr()
        });
        routed.expect("there is a way to the node").ip().to_string()
    }

    /// The names of pods with this label that nobody has deleted.
    pub async fn pods(&self, selector: &str) -> Vec<String> {
        let path = format!("{}?labelSelector={selector}", self.path("api/v1", "pods"));
        let all = self.ask(Method::GET, &path, None).await;
        let stay = all["items"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|pod| pod.pointer("/metadata/deletionTimestamp").is_none());
        stay.filter_map(|pod| Some(pod.pointer("/metadata/name")?.as_str()?.to_owned()))
            .collect()
    }

    /// Deletes a pod at once.
    pub async fn delete_pod(&self, name: &str) {
        let path = self.path("api/v1", &format!("pods/{name}?gracePeriodSeconds=1"));
        self.ask(Method::DELETE, &path, None).await;
    }

    /// How many Jobs and Workflows there are.
    pub async fn workloads(&self) -> usize {
        let mut count = 0;
        for (group, plural) in [
            ("apis/batch/v1", "jobs"),
            ("apis/argoproj.io/v1alpha1", "workflows"),
        ] {
            let all = self.ask(Method::GET, &self.path(group, plural), None).await;
            count += all["items"].as_array().map_or(0, Vec::len);
        }
        count
    }

    /// The Workflow of a run.
    pub async fn workflow_of(&self, run: &str) -> Value {
        let selector = format!("workflows?labelSelector=hybrid-runner.io%2Frun={run}.1");
        let path = self.path("apis/argoproj.io/v1alpha1", &selector);
        let mut all = self.ask(Method::GET, &path, None).await;
        match all["items"].take() {
            Value::Array(mut items) if items.len() == 1 => items.remove(0),
            other => panic!("not one Workflow of run `{run}`: {other}"),
        }
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
        let text = std::fs::read_to_string(&self.kubeconfig).unwrap_or_default();
        // By a client of its own: the connections of the other one rest in the runtime that waits here.
        let removed = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            runtime
                .map(|runtime| runtime.block_on(async { client(&text).delete(url).send().await }))
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
