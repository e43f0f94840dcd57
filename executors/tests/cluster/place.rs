//! A namespace of its own in a cluster.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use hybrid_runner_core::RunId;
use hybrid_runner_core::executor::{Executor, Progress};
use hybrid_runner_core::id::Owner;
use hybrid_runner_core::kind::Context;
use hybrid_runner_core::run::RunSpec;
use hybrid_runner_core::secret::{SecretValue, Secrets};
use hybrid_runner_core::testing::{CASES, Harness, Script, processes_of};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::authorization::v1::{SelfSubjectRulesReview, SelfSubjectRulesReviewSpec};
use k8s_openapi::api::core::v1::{Namespace, Pod, ServiceAccount};
use kube::api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::OnceCell;
use tokio::time::Duration;

use crate::over::Over;

/// The image of shell scripts.
pub(crate) const BUSYBOX: &str = "hybrid-runner-test/busybox:1";
const VARIABLE: &str = "HYBRID_RUNNER_TEST_KUBECONFIG";
/// The runner's account in what we tell people to give.
const ACCOUNT: &str = "hybrid-runner";

/// An administrator's kubeconfig; where there is none, the test is skipped, which CI does not allow.
pub(crate) fn kubeconfig() -> Option<String> {
    let path = std::env::var(VARIABLE).ok().filter(|path| !path.is_empty());
    if path.is_none() {
        skipped(&format!(
            "`{VARIABLE}` is not set (scripts/services/cluster up)"
        ));
    }
    path
}

/// Says that a test is skipped.
#[expect(clippy::print_stdout, reason = "for people and for scripts/test")]
fn skipped(why: &str) {
    use std::io::Write as _;
    println!("skipped: {why}");
    if let Some(path) = std::env::var_os("HYBRID_RUNNER_SKIPS") {
        let mut file = std::fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(path)
            .unwrap();
        let thread = std::thread::current();
        writeln!(file, "{}: {why}", thread.name().unwrap_or("a test")).unwrap();
    }
    let ci = std::env::var("CI").is_ok_and(|ci| ci == "true");
    assert!(!ci, "skipped, which CI does not allow: {why}");
}

/// A client of the administrator.
pub(crate) async fn admin(path: &str) -> Client {
    let file = Kubeconfig::read_from(path).unwrap();
    let options = KubeConfigOptions::default();
    let config = Config::from_custom_kubeconfig(file, &options).await;
    Client::try_from(config.unwrap()).unwrap()
}

/// Waits until the API server knows what a new account may do: it reads Roles and their bindings a moment after they are made.
async fn rights_are_known(path: &str, namespace: &str) {
    /// A test may give an account no rights at all.
    const PATIENCE: Duration = Duration::from_secs(10);
    let reviews: Api<SelfSubjectRulesReview> = Api::all(admin(path).await);
    let spec = SelfSubjectRulesReviewSpec {
        namespace: Some(namespace.to_owned()),
    };
    let question = SelfSubjectRulesReview {
        spec,
        ..SelfSubjectRulesReview::default()
    };
    // Those of everybody are about everybody's own rights.
    let is_ours = |group: &String| !group.ends_with(".k8s.io");
    let known = async {
        loop {
            let answer = reviews.create(&PostParams::default(), &question).await;
            let rules = answer.unwrap().status.unwrap().resource_rules;
            let mut groups = rules.iter().filter_map(|rule| rule.api_groups.as_ref());
            if groups.any(|groups| groups.iter().any(is_ours)) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    drop(tokio::time::timeout(PATIENCE, known).await);
}

/// A namespace of its own, and a folder that its pods see.
pub(crate) struct Place {
    pub(crate) over: Over,
    pub(crate) folder: TempDir,
    path: Option<String>,
    pub(crate) namespace: String,
    /// Two places of one server have the same owners.
    pub(crate) server: String,
    more: Value,
    /// Other rights than those that we ask for.
    rbac: String,
    made: OnceCell<()>,
    declined: Vec<(&'static str, &'static str)>,
}

impl Place {
    pub(crate) fn new(over: Over) -> Self {
        Self::with(over, kubeconfig(), json!({}))
    }

    /// In this cluster, with more settings in its section.
    pub(crate) fn with(over: Over, path: Option<String>, more: Value) -> Self {
        let declined = match path {
            Some(_) => vec![(
                "a_missing_final_newline_stays_missing",
                "its script writes a carriage return before a newline, which containerd drops; `logs` has the rest of it",
            )],
            None => CASES
                .iter()
                .map(|case| (case.name, "there is no cluster"))
                .collect(),
        };
        let folder = tempfile::tempdir().unwrap();
        let all = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        std::fs::set_permissions(folder.path(), all).unwrap();
        let id = RunId::generate();
        Self {
            over,
            folder,
            path,
            namespace: format!("test-{}", id.uuid().simple()),
            server: id.to_string(),
            more,
            rbac: over.rbac().to_owned(),
            made: OnceCell::new(),
            declined,
        }
    }

    /// With these rights instead.
    pub(crate) fn with_rbac(mut self, rbac: String) -> Self {
        self.rbac = rbac;
        self
    }

    pub(crate) fn owner(&self, agent: &str) -> Owner {
        Owner::of(&self.server, &agent.parse().unwrap())
    }

    /// The client of whoever looks from outside.
    pub(crate) async fn client(&self) -> Client {
        admin(self.path.as_deref().unwrap()).await
    }

    /// Makes the namespace, and a user with no more rights than are needed, if it was not done.
    pub(crate) async fn ready(&self) {
        if self.path.is_some() {
            self.made.get_or_init(|| self.make()).await;
        }
    }

    async fn make(&self) {
        let client = self.client().await;
        let made = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": self.namespace } });
        let namespace: Namespace = serde_json::from_value(made).unwrap();
        let namespaces: Api<Namespace> = Api::all(client.clone());
        namespaces
            .create(&PostParams::default(), &namespace)
            .await
            .unwrap();
        for object in self.rbac.split("---\n") {
            self.create(&client, object).await;
        }
        let accounts: Api<ServiceAccount> = Api::namespaced(client, &self.namespace);
        // Without its account no pod can be made; the controller is at it.
        while accounts.get_opt("default").await.unwrap().is_none() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let request = TokenRequest {
            spec: TokenRequestSpec {
                audiences: Vec::new(),
                expiration_seconds: Some(7200),
                bound_object_ref: None,
            },
            ..TokenRequest::default()
        };
        let token = accounts
            .create_token_request(ACCOUNT, &PostParams::default(), &request)
            .await;
        let token = token.unwrap().status.unwrap().token;
        let admin = Kubeconfig::read_from(self.path.as_deref().unwrap()).unwrap();
        let cluster = serde_json::to_value(&admin.clusters[0].cluster).unwrap();
        let ours = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{ "name": "it", "cluster": cluster }],
            "users": [{ "name": "us", "user": { "token": token } }],
            "contexts": [{ "name": "it", "context": { "cluster": "it", "user": "us" } }],
            "current-context": "it",
        });
        let path = self.own_kubeconfig();
        std::fs::write(&path, ours.to_string()).unwrap();
        rights_are_known(path.to_str().unwrap(), &self.namespace).await;
    }

    /// Makes an object, as YAML, in the namespace.
    async fn create(&self, client: &Client, yaml: &str) {
        let (group, plural) = match yaml {
            _ if yaml.contains("kind: ServiceAccount\n") => ("api/v1", "serviceaccounts"),
            _ if yaml.contains("kind: RoleBinding\n") => {
                ("apis/rbac.authorization.k8s.io/v1", "rolebindings")
            }
            _ => ("apis/rbac.authorization.k8s.io/v1", "roles"),
        };
        let request =
            http::Request::post(format!("/{group}/namespaces/{}/{plural}", self.namespace))
                .header("content-type", "application/yaml")
                .body(yaml.as_bytes().to_vec())
                .unwrap();
        client.request_text(request).await.unwrap();
    }

    pub(crate) fn own_kubeconfig(&self) -> PathBuf {
        self.folder.path().join("kubeconfig")
    }

    /// A new executor over the same namespace.
    pub(crate) async fn executor_of(&self, agent: &str) -> Arc<dyn Executor> {
        self.ready().await;
        self.executor_at(agent, &json!({}))
    }

    pub(crate) fn executor_at(&self, agent: &str, changed: &Value) -> Arc<dyn Executor> {
        self.executor_with(agent, changed, Vec::new())
    }

    /// With variables for each workload.
    pub(crate) fn executor_with(
        &self,
        agent: &str,
        changed: &Value,
        env: Vec<(String, SecretValue)>,
    ) -> Arc<dyn Executor> {
        let context = Context::new(
            "here".parse().unwrap(),
            self.settings(changed),
            self.folder.path().join("data"),
            self.owner(agent),
            1 << 30,
        );
        hybrid_runner_executors::build(self.over.kind(), &context.with_env(env)).unwrap()
    }

    /// Host and port of the API server.
    pub(crate) fn server_address(&self) -> String {
        let own = Kubeconfig::read_from(self.own_kubeconfig()).unwrap();
        let cluster = own.clusters[0].cluster.clone().unwrap();
        let server: http::Uri = cluster.server.unwrap().parse().unwrap();
        let port = server.port_u16().unwrap_or(443);
        format!("{}:{port}", server.host().unwrap())
    }

    /// What a section says to reach the API server at another address.
    pub(crate) fn through(&self, address: &str) -> Value {
        let own = std::fs::read_to_string(self.own_kubeconfig()).unwrap();
        let mut own: Value = serde_json::from_str(&own).unwrap();
        own["clusters"][0]["cluster"]["server"] = json!(address);
        let path = self.folder.path().join("through");
        std::fs::write(&path, own.to_string()).unwrap();
        json!({ "kubeconfig": path })
    }

    /// The section of the executor.
    pub(crate) fn settings(&self, changed: &Value) -> Value {
        let folder = self.folder.path().to_str().unwrap();
        let mut settings = json!({
            "kubeconfig": self.own_kubeconfig(),
            "namespace": self.namespace,
            "image": BUSYBOX,
            "user": 1000,
            "pod": {
                "volumes": [{ "name": "evidence", "hostPath": { "path": folder } }],
                "containers": [{ "name": "main", "volumeMounts": [{ "name": "evidence", "mountPath": folder }] }],
            },
        });
        if self.over == Over::Workflows {
            settings["service_account"] = json!("hybrid-runner-workload");
        }
        for values in [&self.more, changed] {
            for (name, value) in values.as_object().unwrap() {
                settings[name] = value.clone();
            }
        }
        settings
    }

    /// What runs are made of, to whoever looks from outside.
    pub(crate) async fn objects(&self) -> Api<DynamicObject> {
        let client = self.client().await;
        Api::namespaced_with(client, &self.namespace, &self.over.resource())
    }

    /// The pods of all its runs.
    pub(crate) async fn pods(&self) -> Vec<Pod> {
        let pods: Api<Pod> = Api::namespaced(self.client().await, &self.namespace);
        pods.list(&ListParams::default()).await.unwrap().items
    }

    /// Changes the object of a run, as somebody else.
    pub(crate) async fn patch(&self, run: RunId, patch: Value) {
        let objects = self.objects().await;
        let (name, patch) = (self.object(run), Patch::Merge(patch));
        let patched = objects.patch(&name, &PatchParams::default(), &patch).await;
        patched.unwrap();
    }

    /// The name of the object of a run, and of its Secret.
    pub(crate) fn object(&self, run: RunId) -> String {
        format!(
            "hr-{}-{}-{}",
            self.owner("one"),
            run.uuid().simple(),
            run.attempt_number()
        )
    }
}

/// All that a test made goes with its namespace.
impl Drop for Place {
    fn drop(&mut self) {
        let (Some(path), true) = (self.path.clone(), self.made.initialized()) else {
            return;
        };
        let namespace = self.namespace.clone();
        let removal = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = { runtime }.enable_all().build().unwrap();
            runtime.block_on(async {
                let namespaces: Api<Namespace> = Api::all(admin(&path).await);
                let options = DeleteParams::default();
                let removed = namespaces.delete(&namespace, &options);
                drop(tokio::time::timeout(Duration::from_secs(20), removed).await);
            });
        });
        drop(removal.join());
    }
}

#[async_trait]
impl Harness for Place {
    async fn executor(&self) -> Arc<dyn Executor> {
        self.executor_of("one").await
    }

    /// With a config, so that there is something to hand over: the longest way of a start.
    fn spec(&self, run: RunId, script: &Script) -> RunSpec {
        let mut spec = script.spec(run);
        spec.config = Some(json!({}));
        spec
    }

    fn tick(&self) -> Duration {
        Duration::from_secs(2)
    }

    fn patience(&self) -> Duration {
        Duration::from_mins(1)
    }

    async fn other_owner(&self) -> Option<Arc<dyn Executor>> {
        Some(self.executor_of("two").await)
    }

    async fn unreachable(&self) -> Option<Arc<dyn Executor>> {
        // Nobody listens there.
        let nowhere = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{ "name": "it", "cluster": { "server": "http://127.0.0.1:1" } }],
            "users": [{ "name": "us", "user": {} }],
            "contexts": [{ "name": "it", "context": { "cluster": "it", "user": "us" } }],
            "current-context": "it",
        });
        let path = self.folder.path().join("nowhere");
        std::fs::write(&path, nowhere.to_string()).unwrap();
        Some(self.executor_at("one", &json!({ "kubeconfig": path })))
    }

    /// As after a crash: the first that can be seen of it is there, and the start goes no further.
    async fn half_start(&self, spec: &RunSpec, secrets: &Secrets) -> bool {
        let starting = self.executor_of("one").await;
        let looking = self.executor_of("one").await;
        let progress = Progress::none();
        let seen = async {
            while !looking
                .list()
                .await
                .is_ok_and(|runs| runs.iter().any(|run| run.run == spec.run))
            {}
        };
        tokio::select! {
            biased;
            () = seen => true,
            _ = starting.start(spec, secrets, &progress) => false,
        }
    }

    fn unsupported(&self, spec: &RunSpec) -> Option<RunSpec> {
        let mut spec = spec.clone();
        spec.resources.limits.pids = Some(10);
        Some(spec)
    }

    async fn alive(&self, run: RunId) -> Option<bool> {
        processes_of(run).map(|found| !found.is_empty())
    }

    fn evidence(&self, run: RunId) -> Option<PathBuf> {
        Some(self.folder.path().join(format!("evidence-{run}")))
    }

    fn declines(&self) -> &[(&'static str, &'static str)] {
        &self.declined
    }
}
