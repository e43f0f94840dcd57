//! Google: Secret Manager, the metadata server and the exchange of tokens.

use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hybrid_runner_core::secret::{SecretName, SecretProvider};
use hybrid_runner_core::testing::{ProviderHarness, Trouble};
use hybrid_runner_core::{Error, ErrorKind};
use hybrid_runner_secrets::Refusal;
use hybrid_runner_secrets::gcp::{Settings, provider};
use reqwest::Method;
use serde_json::{Value, json};

use crate::front::{Front, SAID};
use crate::harness::{Dialect, Fronts, assert_says, nobody, refused, rsa, uncached};
use crate::services;
use crate::tunnel::Tunnel;

mod identities;

const JSON: &str = "application/json";

pub(crate) struct Gcp {
    store: String,
    fronts: Fronts,
    prefix: String,
}

fn says(code: u16, status: &str) -> String {
    json!({"error": {"code": code, "message": SAID, "status": status}}).to_string()
}

impl Gcp {
    fn new() -> Option<Self> {
        let store = services::of("gcp")?["url"].as_str().unwrap().to_owned();
        let dialect = Dialect {
            read: ":access",
            throttled: (429, JSON, says(429, "RESOURCE_EXHAUSTED")),
            failing: (503, JSON, says(503, "UNAVAILABLE")),
            expired: (401, JSON, says(401, "UNAUTHENTICATED")),
        };
        Some(Self {
            fronts: Fronts::new(&store, dialect),
            store,
            prefix: services::unique(),
        })
    }

    /// The section of this machine's account, before a front.
    fn settings(&self, url: &str) -> Settings {
        let mut settings = Settings::default();
        settings.endpoint = Some(url.to_owned());
        settings.metadata = Some(self.store.clone());
        settings.ca = Some(self.fronts.authority.file());
        settings.access = uncached();
        settings
    }

    fn before(&self, front: &Front) -> Arc<dyn SecretProvider> {
        provider(self.settings(&front.url())).unwrap()
    }

    async fn admin(&self, method: Method, path: &str, body: Value) -> (u16, Value) {
        let request = services::http().request(
            method,
            format!("{}/v1/projects/p1/secrets{path}", self.store),
        );
        let answer = request
            .bearer_auth("default.0")
            .json(&body)
            .send()
            .await
            .unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    /// Adds a version, and gives its number.
    async fn lay(&self, label: &str, value: &[u8]) -> String {
        let id = format!("{}_{label}", self.prefix);
        let secret = json!({"replication": {"automatic": {}}});
        self.admin(Method::POST, &format!("?secretId={id}"), secret)
            .await;
        let payload = json!({"payload": {"data": STANDARD.encode(value)}});
        let (code, made) = self
            .admin(Method::POST, &format!("/{id}:addVersion"), payload)
            .await;
        assert_eq!(code, 200, "{made}");
        made["name"]
            .as_str()
            .unwrap()
            .rsplit('/')
            .next()
            .unwrap()
            .to_owned()
    }

    async fn turn(&self, label: &str, how: &str) {
        let path = format!("/{}_{label}/versions/1:{how}", self.prefix);
        let (code, said) = self.admin(Method::POST, &path, json!({})).await;
        assert_eq!(code, 200, "{said}");
    }

    /// As a workflow has it: a path.
    fn name(&self, label: &str) -> SecretName {
        SecretName::new(format!("/{}/{label}", self.prefix))
    }

    /// A file of a federation, as GKE and others give one; `account` is whom the exchange answers with.
    fn federation(&self, folder: &std::path::Path, account: &str) -> std::path::PathBuf {
        let token = folder.join("token");
        std::fs::write(&token, "a.b.c").unwrap();
        let file = folder.join(format!("{account}.json"));
        let text = json!({
            "type": "external_account",
            "audience": "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/k8s",
            "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
            "token_url": format!("{}/v1/token?as={account}", self.store),
            "credential_source": {"file": token},
            "quota_project_id": "p1",
        });
        std::fs::write(&file, text.to_string()).unwrap();
        file
    }

    async fn refused(&self, account: &str, label: &str) -> Error {
        let folder = tempfile::tempdir().unwrap();
        let front = self.fronts.front().await;
        let mut settings = self.settings(&front.url());
        settings.metadata = None;
        settings.credentials = Some(self.federation(folder.path(), account));
        refused(provider(settings), &self.name(label)).await
    }
}

#[async_trait]
impl ProviderHarness for Gcp {
    async fn provider(&self) -> Arc<dyn SecretProvider> {
        self.before(&*self.fronts.front().await)
    }

    async fn put(&self, label: &str, value: &[u8]) -> Option<SecretName> {
        self.lay(label, value).await;
        Some(self.name(label))
    }

    fn missing(&self, label: &str) -> SecretName {
        self.name(label)
    }

    async fn put_versions(&self, label: &str, values: &[&[u8]]) -> Option<Vec<SecretName>> {
        let mut names = Vec::new();
        for value in values {
            let mut name = self.name(label);
            name.version = Some(self.lay(label, value).await);
            names.push(name);
        }
        Some(names)
    }

    async fn disabled(&self) -> Option<SecretName> {
        self.lay("disabled", b"off").await;
        self.turn("disabled", "disable").await;
        Some(self.name("disabled"))
    }

    async fn deleted(&self) -> Option<SecretName> {
        self.lay("deleted", b"gone").await;
        self.turn("deleted", "destroy").await;
        Some(self.name("deleted"))
    }

    fn impossible(&self) -> Option<SecretName> {
        Some(SecretName::new("/---/+++"))
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
            provider.get(&self.name("text")).await.unwrap();
            self.fronts.expire(&front);
        }
        Some(provider)
    }
}

mod gcp_keeps_the_contract {
    use super::*;
    crate::contract!(Gcp::new());
}

#[tokio::test]
async fn who_lacks_a_role_is_told_which() {
    let Some(gcp) = Gcp::new() else {
        return services::skipped();
    };
    gcp.lay("denied", b"hunter2").await;
    let error = gcp.refused("denied", "denied").await;
    assert_eq!(
        (error.kind(), Refusal::of(&error)),
        (ErrorKind::Denied, Refusal::Denied)
    );
    let said = [
        "secretmanager.versions.access",
        "PERMISSION_DENIED",
        "secretAccessor",
        "_denied",
        "workloadIdentityPools/p",
    ];
    assert_says(&error, &said);
}

#[tokio::test]
async fn a_bad_identity_is_told_apart() {
    let Some(gcp) = Gcp::new() else {
        return services::skipped();
    };
    let error = gcp.refused("stranger", "any").await;
    assert_eq!(Refusal::of(&error), Refusal::Identity, "{error:?}");
    assert_says(&error, &["UNAUTHENTICATED"]);
}

#[tokio::test]
async fn a_federation_is_an_identity_and_a_machine_tells_its_account() {
    let Some(gcp) = Gcp::new() else {
        return services::skipped();
    };
    gcp.lay("federated", b"value").await;
    let folder = tempfile::tempdir().unwrap();
    let front = gcp.fronts.front().await;
    let mut settings = gcp.settings(&front.url());
    settings.metadata = None;
    settings.credentials = Some(gcp.federation(folder.path(), "default"));
    let federated = provider(settings).unwrap();
    let secret = federated.get(&gcp.name("federated")).await.unwrap();
    assert_eq!(secret.value.expose(), b"value");
    federated.check().await.unwrap();
    let machine = gcp.before(&front);
    let identity = machine.identity().await.unwrap().unwrap();
    assert_eq!(identity, "runner@p1.iam.gserviceaccount.com (projects/p1)");
}

#[tokio::test]
async fn a_service_accounts_key_file_is_an_identity_and_only_with_the_key_that_google_knows() {
    let Some(gcp) = Gcp::new() else {
        return services::skipped();
    };
    gcp.lay("by_key", b"value").await;
    let folder = tempfile::tempdir().unwrap();
    let front = gcp.fronts.front().await;
    let known = rsa();
    let email = format!("{}@p1.iam.gserviceaccount.com", gcp.prefix);
    let key = json!({"email": email, "key": known.public_key_pem()});
    let url = format!("{}/_keys", gcp.store);
    let answer = services::http().post(url).json(&key).send().await.unwrap();
    assert!(answer.status().is_success());
    let read = async |key: &rcgen::KeyPair| {
        let file = folder.path().join("key.json");
        let text = json!({
            "type": "service_account", "project_id": "p1", "private_key_id": "1", "client_email": email,
            "private_key": key.serialize_pem(), "token_uri": "https://oauth2.googleapis.com/token",
        });
        std::fs::write(&file, text.to_string()).unwrap();
        let mut settings = gcp.settings(&front.url());
        settings.metadata = None;
        settings.credentials = Some(file);
        let provider = provider(settings).unwrap();
        (
            provider.get(&gcp.name("by_key")).await,
            provider.identity().await,
        )
    };
    let (secret, identity) = read(&known).await;
    assert_eq!(secret.unwrap().value.expose(), b"value");
    let identity = identity.unwrap().unwrap();
    assert_eq!(
        identity,
        format!("the service account `{email}` (projects/p1)")
    );
    let error = read(&rsa()).await.0.unwrap_err();
    assert_eq!(Refusal::of(&error), Refusal::Identity, "{error:?}");
    assert!(error.report().contains(&email), "{error:?}");
    assert!(!error.report().contains("PRIVATE"), "{error:?}");
}

#[tokio::test]
async fn the_service_is_called_by_its_own_name_through_a_proxy() {
    let Some(gcp) = Gcp::new() else {
        return services::skipped();
    };
    gcp.lay("proxy", b"value").await;
    let front = gcp.fronts.front().await;
    let tunnel = Tunnel::to(front.address).await;
    let mut settings = gcp.settings("");
    settings.endpoint = None;
    settings.proxy = Some(tunnel.url());
    let store = provider(settings).unwrap();
    let secret = store.get(&gcp.name("proxy")).await.unwrap();
    assert_eq!(secret.value.expose(), b"value");
    tunnel.assert_asked("secretmanager.googleapis.com:443");
}

#[tokio::test]
async fn a_metadata_server_that_is_down_is_no_bad_identity() {
    let Some(gcp) = Gcp::new() else {
        return services::skipped();
    };
    let front = gcp.fronts.front().await;
    let mut settings = gcp.settings(&front.url());
    settings.project = Some("p1".to_owned());
    settings.metadata = Some(nobody("http"));
    let start = tokio::time::Instant::now();
    let error = refused(provider(settings), &gcp.name("any")).await;
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    assert!(start.elapsed().as_secs() <= 10, "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_whole_name_and_a_plain_id_are_taken_as_they_are() {
    let Some(gcp) = Gcp::new() else {
        return services::skipped();
    };
    gcp.lay("plain", b"value").await;
    let id = format!("{}_plain", gcp.prefix);
    let provider = gcp.provider().await;
    for name in [format!("projects/p1/secrets/{id}"), format!("/{id}"), id] {
        let secret = provider.get(&SecretName::new(name)).await.unwrap();
        assert_eq!(
            (secret.value.expose(), secret.version.as_deref()),
            (&b"value"[..], Some("1"))
        );
    }
}
