//! Kubernetes: the API at the level of HTTP, as its server answers it (objects, `Status`, the two reviews).

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use axum::Json;
use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hybrid_runner_core::secret::{SecretName, SecretProvider};
use hybrid_runner_core::testing::{ProviderHarness, Trouble};
use hybrid_runner_core::{Error, ErrorKind};
use hybrid_runner_secrets::Refusal;
use hybrid_runner_secrets::kubernetes::{Settings, provider};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::front::{Front, SAID};
use crate::harness::{Dialect, Fronts, assert_says, nobody, refused, uncached};
use crate::tunnel::Tunnel;

const JSON: &str = "application/json";
const ACCOUNT: &str = "system:serviceaccount:ingestion:runner";

/// The Secrets of the namespace `ingestion`, and the tokens that are accepted.
#[derive(Debug, Default)]
struct World {
    secrets: BTreeMap<String, BTreeMap<String, Vec<u8>>>,
    tokens: BTreeMap<String, &'static str>,
}

type Shared = Arc<Mutex<World>>;

fn status(code: u16, reason: &str, message: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code, "reason": reason, "message": message})
}

fn refusal(code: u16, reason: &str, message: &str) -> Response {
    let body = Json(status(code, reason, message));
    (StatusCode::from_u16(code).unwrap(), body).into_response()
}

/// Who asks; `None`: a token that is not known.
fn user(world: &Shared, headers: &HeaderMap) -> Option<&'static str> {
    let token = headers
        .get("authorization")?
        .to_str()
        .ok()?
        .strip_prefix("Bearer ")?;
    world.lock().unwrap().tokens.get(token).copied()
}

async fn read(
    State(world): State<Shared>,
    Path((namespace, name)): Path<(String, String)>,
    headers: HeaderMap,
) -> Response {
    let Some(user) = user(&world, &headers) else {
        return refusal(401, "Unauthorized", "Unauthorized");
    };
    if namespace != "ingestion" || user != ACCOUNT || name == "denied" {
        let message = format!(
            "secrets \"{name}\" is forbidden: User \"{user}\" cannot get resource \"secrets\" in API group \"\" in the namespace \"{namespace}\""
        );
        return refusal(403, "Forbidden", &message);
    }
    let world = world.lock().unwrap();
    let Some(data) = world.secrets.get(&name) else {
        return refusal(404, "NotFound", &format!("secrets \"{name}\" not found"));
    };
    let data: BTreeMap<_, _> = data
        .iter()
        .map(|(key, value)| (key, STANDARD.encode(value)))
        .collect();
    let metadata = json!({"name": name, "namespace": namespace, "resourceVersion": "7"});
    Json(json!({"kind": "Secret", "apiVersion": "v1", "type": "Opaque", "metadata": metadata, "data": data})).into_response()
}

/// There is one, and whoever is known may see it.
async fn namespace(
    State(world): State<Shared>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Response {
    if user(&world, &headers) != Some(ACCOUNT) {
        return refusal(403, "Forbidden", "namespaces is forbidden");
    }
    if name != "ingestion" {
        return refusal(404, "NotFound", &format!("namespaces \"{name}\" not found"));
    }
    Json(json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": {"name": name}})).into_response()
}

async fn whoami(State(world): State<Shared>, headers: HeaderMap) -> Response {
    let Some(user) = user(&world, &headers) else {
        return refusal(401, "Unauthorized", "Unauthorized");
    };
    let status = json!({"userInfo": {"username": user, "groups": ["system:authenticated"]}});
    let review = json!({"kind": "SelfSubjectReview", "apiVersion": "authentication.k8s.io/v1", "metadata": {}, "status": status});
    (StatusCode::CREATED, Json(review)).into_response()
}

async fn may(
    State(world): State<Shared>,
    headers: HeaderMap,
    Json(asked): Json<Value>,
) -> Response {
    let Some(user) = user(&world, &headers) else {
        return refusal(401, "Unauthorized", "Unauthorized");
    };
    let mut review = asked;
    let allowed = user == ACCOUNT && review["spec"]["resourceAttributes"]["verb"] == "get";
    review["status"] = json!({"allowed": allowed, "reason": if allowed { "RBAC: allowed" } else { "no RoleBinding found" }});
    (StatusCode::CREATED, Json(review)).into_response()
}

pub(crate) struct Cluster {
    world: Shared,
    fronts: Fronts,
    folder: TempDir,
    _serving: JoinSet<()>,
}

impl Cluster {
    async fn new() -> Self {
        let world = Shared::default();
        let app = Router::new()
            .route("/api/v1/namespaces/{namespace}/secrets/{name}", get(read))
            .route("/api/v1/namespaces/{namespace}", get(namespace))
            .route(
                "/apis/authentication.k8s.io/v1/selfsubjectreviews",
                post(whoami),
            )
            .route(
                "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
                post(may),
            )
            .with_state(Arc::clone(&world));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let mut serving = JoinSet::new();
        serving.spawn(async move { axum::serve(listener, app).await.unwrap() });
        let text = |code, reason, message| status(code, reason, message).to_string();
        let dialect = Dialect {
            read: "/secrets/",
            throttled: (
                429,
                JSON,
                text(429, "TooManyRequests", "the server is busy"),
            ),
            failing: (
                503,
                JSON,
                text(503, "ServiceUnavailable", "etcdserver: leader changed"),
            ),
            expired: (401, JSON, text(401, "Unauthorized", SAID)),
        };
        let cluster = Self {
            world,
            fronts: Fronts::new(&url, dialect),
            folder: TempDir::new().unwrap(),
            _serving: serving,
        };
        cluster.token("first", ACCOUNT);
        cluster
    }

    /// From now on this token is in the file, and accepted as that of a user; others are not accepted any more.
    fn token(&self, token: &str, user: &'static str) {
        self.world.lock().unwrap().tokens = BTreeMap::from([(token.to_owned(), user)]);
        std::fs::write(self.folder.path().join("token"), token).unwrap();
    }

    fn kubeconfig(&self, url: &str) -> PathBuf {
        let text = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u", "namespace": "ingestion"}}],
            "clusters": [{"name": "c", "cluster": {"server": url, "certificate-authority": self.fronts.authority.file()}}],
            "users": [{"name": "u", "user": {"tokenFile": self.folder.path().join("token")}}],
        });
        let path = self
            .folder
            .path()
            .join(format!("{}.yaml", crate::services::unique()));
        std::fs::write(&path, text.to_string()).unwrap();
        path
    }

    fn settings(&self, url: &str) -> Settings {
        let mut settings = Settings::default();
        settings.kubeconfig = Some(self.kubeconfig(url));
        settings.access = uncached();
        settings
    }

    fn before(&self, front: &Front) -> Arc<dyn SecretProvider> {
        provider(self.settings(&front.url())).unwrap()
    }

    fn lay(&self, name: &str, data: &[(&str, &[u8])]) {
        let data = data
            .iter()
            .map(|(key, value)| ((*key).to_owned(), value.to_vec()))
            .collect();
        self.world
            .lock()
            .unwrap()
            .secrets
            .insert(name.to_owned(), data);
    }

    async fn refused(&self, name: &str) -> Error {
        refused(Ok(self.provider().await), &SecretName::new(name)).await
    }
}

#[async_trait]
impl ProviderHarness for Cluster {
    async fn provider(&self) -> Arc<dyn SecretProvider> {
        self.before(&*self.fronts.front().await)
    }

    async fn put(&self, label: &str, value: &[u8]) -> Option<SecretName> {
        self.lay(
            &format!("contract-{label}"),
            &[("value", value), ("other", b"o")],
        );
        Some(SecretName::new(format!("/contract/{label}")))
    }

    async fn denied(&self) -> Option<SecretName> {
        Some(SecretName::new("/denied"))
    }

    async fn deleted(&self) -> Option<SecretName> {
        let name = self.put("deleted", b"gone").await?;
        self.world
            .lock()
            .unwrap()
            .secrets
            .remove("contract-deleted");
        Some(name)
    }

    fn impossible(&self) -> Option<SecretName> {
        Some(SecretName::new("/_._/"))
    }

    async fn unreachable(&self) -> Option<Arc<dyn SecretProvider>> {
        Some(provider(self.settings(&nobody("http"))).unwrap())
    }

    fn shown(&self) -> Vec<String> {
        self.fronts.shown()
    }

    async fn in_trouble(&self, trouble: Trouble) -> Option<Arc<dyn SecretProvider>> {
        let front = self.fronts.in_trouble(trouble).await?;
        let provider = self.before(&front);
        if trouble == Trouble::Expired {
            provider
                .get(&SecretName::new("/contract/text"))
                .await
                .unwrap();
            self.token("second", ACCOUNT);
        }
        Some(provider)
    }
}

mod kubernetes_keeps_the_contract {
    use super::*;
    hybrid_runner_core::provider_contract_tests!(Cluster::new().await);
}

#[tokio::test]
async fn who_lacks_a_rule_is_told_which() {
    let cluster = Cluster::new().await;
    cluster.lay("there", &[("value", b"hunter2")]);
    cluster.token("4711-other", "system:serviceaccount:ingestion:other");
    let error = cluster.refused("/there").await;
    assert_eq!(
        (error.kind(), Refusal::of(&error)),
        (ErrorKind::Denied, Refusal::Denied)
    );
    let rule = "verbs [\"get\"]";
    let said = [rule, "Forbidden", "ingestion:other", "`ingestion/there`"];
    assert_says(&error, &said);
    let error = cluster.provider().await.check().await.unwrap_err();
    assert_says(&error, &[rule, "no RoleBinding found", "`probe`"]);
}

#[tokio::test]
async fn a_bad_identity_is_told_apart_and_a_good_one_by_its_name() {
    let cluster = Cluster::new().await;
    let identity = cluster.provider().await.identity().await.unwrap().unwrap();
    assert!(
        identity.starts_with(ACCOUNT) && identity.contains("namespace ingestion"),
        "{identity}"
    );
    std::fs::write(cluster.folder.path().join("token"), "hunter2").unwrap();
    let error = cluster.refused("/any").await;
    assert_eq!(Refusal::of(&error), Refusal::Identity, "{error:?}");
    assert!(!error.report().contains("hunter2"), "{error:?}");
}

#[tokio::test]
async fn the_cluster_is_called_by_its_own_name_through_a_proxy() {
    let cluster = Cluster::new().await;
    cluster.lay("proxy", &[("value", b"there")]);
    let front = cluster.fronts.front().await;
    let tunnel = Tunnel::to(front.address).await;
    let mut settings = cluster.settings("https://cluster.example:6443");
    settings.proxy = Some(tunnel.url());
    let store = provider(settings).unwrap();
    let secret = store.get(&SecretName::new("/proxy")).await.unwrap();
    assert_eq!(secret.value.expose(), b"there");
    tunnel.assert_asked("cluster.example:6443");
}

#[tokio::test]
async fn keys_are_fields_and_a_sole_one_stands_for_the_whole() {
    let cluster = Cluster::new().await;
    cluster.lay("sole", &[("tls.key", &[0, 255, 10])]);
    cluster.lay("many", &[("a", b"1"), ("b", &[255])]);
    let provider = cluster.provider().await;
    let sole = provider.get(&SecretName::new("/sole")).await.unwrap();
    assert_eq!(sole.value.expose(), [0, 255, 10]);
    assert_eq!(sole.version.as_deref(), Some("7"));
    let many = provider.get(&SecretName::new("/many")).await.unwrap();
    let fields = many.fields.unwrap();
    assert!(fields.only_by_name);
    assert_eq!(fields.values["b"].expose(), [255]);
}

#[tokio::test]
async fn what_is_no_api_server_does_not_say_that_a_secret_is_missing() {
    let cluster = Cluster::new().await;
    let front = cluster.fronts.front().await;
    let page = crate::front::Answer::Says(404, "text/html", "<html>no page</html>".to_owned());
    front.trouble("/secrets/", u32::MAX, page);
    let error = refused(Ok(cluster.before(&front)), &SecretName::new("/a")).await;
    assert_eq!(Refusal::of(&error), Refusal::Unreachable, "{error:?}");
    assert_says(&error, &["none of an API server", "`kubeconfig`"]);
}

#[tokio::test]
async fn a_secret_without_keys_is_told_as_that() {
    let cluster = Cluster::new().await;
    cluster.lay("empty", &[]);
    let error = cluster.refused("/empty").await;
    assert_eq!(Refusal::of(&error), Refusal::NotFound, "{error:?}");
    assert_says(&error, &["`ingestion/empty` has no keys"]);
}

#[tokio::test]
async fn check_finds_that_a_namespace_is_missing() {
    let cluster = Cluster::new().await;
    let front = cluster.fronts.front().await;
    let mut settings = cluster.settings(&front.url());
    provider(settings.clone()).unwrap().check().await.unwrap();
    settings.namespace = Some("ingestoin".to_owned());
    let error = provider(settings).unwrap().check().await.unwrap_err();
    assert_says(&error, &["no namespace `ingestoin`", "correct `namespace`"]);
}

/// What the client itself would log of an answer that it cannot read.
#[tokio::test]
async fn an_answer_that_cannot_be_read_is_not_shown() {
    let cluster = Cluster::new().await;
    let front = cluster.fronts.front().await;
    let odd = r#"{"kind": "Secret", "data": {"value": "hunter2 is no base64"}}"#;
    front.trouble(
        "/secrets/",
        1,
        crate::front::Answer::Says(200, JSON, odd.to_owned()),
    );
    let error = cluster
        .before(&front)
        .get(&SecretName::new("/odd"))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Internal);
    assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
}
