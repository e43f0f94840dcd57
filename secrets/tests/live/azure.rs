//! Azure: Key Vault and Entra ID, called by their real names through a proxy, the vault's challenge checked.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use hybrid_runner_core::ErrorKind;
use hybrid_runner_core::secret::{SecretName, SecretProvider};
use hybrid_runner_core::testing::{ProviderHarness, Trouble};
use hybrid_runner_secrets::azure::{Identity, Settings, provider};
use hybrid_runner_secrets::{Refusal, Source};
use reqwest::Method;
use serde_json::{Value, json};

use crate::front::{Answer, Front, SAID};
use crate::harness::{Dialect, Fronts, assert_says, nobody, refused, uncached};
use crate::services;
use crate::tunnel::Tunnel;

mod identities;

const TENANT: &str = "11111111-1111-1111-1111-111111111111";
const VAULT: &str = "kv1.vault.azure.net";
const JSON: &str = "application/json";

pub(crate) struct Azure {
    store: String,
    fronts: Fronts,
    tunnels: Mutex<Vec<Arc<Tunnel>>>,
    prefix: String,
}

fn says(code: &str) -> String {
    json!({"error": {"code": code, "message": SAID}}).to_string()
}

impl Azure {
    fn new() -> Option<Self> {
        let store = services::of("azure")?["url"].as_str().unwrap().to_owned();
        let dialect = Dialect {
            read: "GET /secrets/",
            throttled: (429, JSON, says("Throttled")),
            failing: (503, JSON, says("ServiceUnavailable")),
            expired: (401, JSON, says("Unauthorized")),
        };
        Some(Self {
            fronts: Fronts::new(&store, dialect),
            store,
            tunnels: Mutex::default(),
            prefix: format!("contract-{}", services::unique()),
        })
    }

    /// The section of a client, by way of a front.
    async fn settings(&self, client: &str, front: &Front) -> Settings {
        let tunnel = Arc::new(Tunnel::to(front.address).await);
        self.tunnels.lock().unwrap().push(Arc::clone(&tunnel));
        let mut settings = Settings::default();
        settings.vault = VAULT.split('.').next().map(str::to_owned);
        settings.tenant = Some(TENANT.to_owned());
        settings.client_id = Some(format!("app-{client}"));
        settings.client_secret = Some(Source::value(format!("{client}-secret")));
        settings.ca = Some(self.fronts.authority.file());
        settings.proxy = Some(tunnel.url());
        settings.access = uncached();
        settings
    }

    /// One request as the administrator, at the vault itself.
    async fn admin(&self, method: Method, path: &str, body: Value) -> Value {
        let http = services::http();
        let form = "client_id=app-admin&client_secret=admin-secret&scope=https%3A%2F%2Fvault.azure.net%2F.default";
        let token = http
            .post(format!("{}/{TENANT}/oauth2/v2.0/token", self.store))
            .header("content-type", "application/x-www-form-urlencoded")
            .body(form);
        let token: Value = token.send().await.unwrap().json().await.unwrap();
        let url = format!("{}{path}?api-version=7.5", self.store);
        let request = http.request(method, url).header("host", VAULT);
        let request = request.bearer_auth(token["access_token"].as_str().unwrap());
        let answer = request.json(&body).send().await.unwrap();
        assert!(
            answer.status().is_success(),
            "{path}: {}",
            answer.text().await.unwrap()
        );
        answer.json().await.unwrap()
    }

    async fn lay(&self, label: &str, value: &str) -> String {
        let path = format!("/secrets/{}-{label}", self.prefix);
        let made = self
            .admin(Method::PUT, &path, json!({"value": value}))
            .await;
        made["id"]
            .as_str()
            .unwrap()
            .rsplit('/')
            .next()
            .unwrap()
            .to_owned()
    }

    /// As a workflow has it: a path.
    fn name(&self, label: &str) -> SecretName {
        SecretName::new(format!("/{}/{label}", self.prefix))
    }

    async fn refused(&self, settings: Settings, label: &str) -> hybrid_runner_core::Error {
        refused(provider(settings), &self.name(label)).await
    }
}

#[async_trait]
impl ProviderHarness for Azure {
    async fn provider(&self) -> Arc<dyn SecretProvider> {
        let front = self.fronts.front().await;
        provider(self.settings("reader", &front).await).unwrap()
    }

    async fn put(&self, label: &str, value: &[u8]) -> Option<SecretName> {
        // A vault holds text, of at most 25 KiB.
        let text = std::str::from_utf8(value)
            .ok()
            .filter(|text| text.len() <= 25 * 1024)?;
        self.lay(label, text).await;
        Some(self.name(label))
    }

    fn missing(&self, label: &str) -> SecretName {
        self.name(label)
    }

    async fn put_versions(&self, label: &str, values: &[&[u8]]) -> Option<Vec<SecretName>> {
        let mut names = Vec::new();
        for value in values {
            let mut name = self.name(label);
            name.version = Some(self.lay(label, std::str::from_utf8(value).ok()?).await);
            names.push(name);
        }
        Some(names)
    }

    async fn disabled(&self) -> Option<SecretName> {
        let version = self.lay("disabled", "off").await;
        let path = format!("/secrets/{}-disabled/{version}", self.prefix);
        self.admin(
            Method::PATCH,
            &path,
            json!({"attributes": {"enabled": false}}),
        )
        .await;
        Some(self.name("disabled"))
    }

    async fn deleted(&self) -> Option<SecretName> {
        self.lay("deleted", "gone").await;
        let path = format!("/secrets/{}-deleted", self.prefix);
        self.admin(Method::DELETE, &path, json!({})).await;
        Some(self.name("deleted"))
    }

    fn impossible(&self) -> Option<SecretName> {
        Some(SecretName::new("/___"))
    }

    async fn unreachable(&self) -> Option<Arc<dyn SecretProvider>> {
        let mut settings = Settings::default();
        settings.endpoint = Some(nobody("https"));
        settings.tenant = Some(TENANT.to_owned());
        settings.client_id = Some("app-reader".to_owned());
        settings.client_secret = Some(Source::value("reader-secret"));
        settings.access = uncached();
        Some(provider(settings).unwrap())
    }

    fn shown(&self) -> Vec<String> {
        self.fronts.shown()
    }

    async fn in_trouble(&self, trouble: Trouble) -> Option<Arc<dyn SecretProvider>> {
        let front = self.fronts.in_trouble(trouble).await?;
        if trouble == Trouble::Expired {
            let provider = provider(self.settings("revoked", &front).await).unwrap();
            provider.get(&self.name("text")).await.unwrap();
            let url = format!("{}/_admin/revoke?client=app-revoked", self.store);
            services::http().post(url).send().await.unwrap();
            return Some(provider);
        }
        Some(provider(self.settings("reader", &front).await).unwrap())
    }
}

mod azure_keeps_the_contract {
    use super::*;
    crate::contract!(Azure::new());
}

#[tokio::test]
async fn an_answer_that_nobody_can_read_is_not_quoted() {
    let Some(azure) = Azure::new() else {
        return services::skipped();
    };
    for answer in [
        r#"{"value": 918273645546}"#,
        r#"{"attributes": "918273645546"}"#,
        r#"["918273645546"]"#,
        "918273645546",
    ] {
        let front = azure.fronts.front().await;
        front.trouble(
            "GET /secrets/",
            9,
            Answer::Says(200, JSON, answer.to_owned()),
        );
        let settings = azure.settings("reader", &front).await;
        let error = azure.refused(settings, "odd").await;
        let report = error.report();
        assert!(!report.contains("918273645546"), "{answer}: {report}");
        assert_says(&error, &["none of a key vault"]);
    }
}

#[tokio::test]
async fn who_lacks_a_role_is_told_which() {
    let Some(azure) = Azure::new() else {
        return services::skipped();
    };
    azure.lay("denied", "hunter2").await;
    let front = azure.fronts.front().await;
    let error = azure
        .refused(azure.settings("denied", &front).await, "denied")
        .await;
    assert_eq!(
        (error.kind(), Refusal::of(&error)),
        (ErrorKind::Denied, Refusal::Denied)
    );
    let role = "Key Vault Secrets User";
    let said = [role, "ForbiddenByRbac", "app-denied", VAULT, "-denied`"];
    assert_says(&error, &said);
    let denied = provider(azure.settings("denied", &front).await).unwrap();
    assert_eq!(denied.check().await.unwrap_err().kind(), ErrorKind::Denied);
}

#[tokio::test]
async fn what_entra_says_in_lines_is_understood_and_no_secret_is_repeated() {
    let Some(azure) = Azure::new() else {
        return services::skipped();
    };
    // As the real one: with ends of lines; and as something before it might, with the request.
    let says = |code: u32| {
        let form = "client_secret=reader%2Dsecret, reader-secret, cmVhZGVyLXNlY3JldA==";
        let text = format!("AADSTS{code}: said \"no\".\r\nTrace ID: 1 {form}");
        json!({"error": "invalid_client", "error_description": text, "error_codes": [code]})
            .to_string()
    };
    for (status, code, refusal) in [
        (401, 7_000_215, Refusal::Identity),
        (429, 50_196, Refusal::Throttled),
        (503, 90_033, Refusal::Unreachable),
    ] {
        let front = azure.fronts.front().await;
        front.trouble("/oauth2/", u32::MAX, Answer::Says(status, JSON, says(code)));
        let error = azure
            .refused(azure.settings("reader", &front).await, "any")
            .await;
        assert_eq!(Refusal::of(&error), refusal, "{error:?}");
        assert_says(&error, &[&format!("AADSTS{code}: said 'no'")]);
        assert!(!error.report().contains("reader-secret"), "{error:?}");
        assert!(!error.report().contains("cmVhZGVyLXNlY3JldA"), "{error:?}");
    }
    let front = azure.fronts.front().await;
    let page = Answer::Says(403, "text/html", "<html>".to_owned());
    front.trouble("/oauth2/", u32::MAX, page);
    let error = azure
        .refused(azure.settings("reader", &front).await, "any")
        .await;
    assert_says(&error, &["none of Entra ID", "`authority`"]);
}

#[tokio::test]
async fn a_bad_identity_is_told_with_the_code_of_entra() {
    let Some(azure) = Azure::new() else {
        return services::skipped();
    };
    let front = azure.fronts.front().await;
    let mut settings = azure.settings("reader", &front).await;
    settings.client_secret = Some(Source::value("hunter2-hunter2"));
    let error = azure.refused(settings, "any").await;
    assert_eq!(Refusal::of(&error), Refusal::Identity, "{error:?}");
    assert_says(&error, &["AADSTS7000215"]);
    assert!(!error.report().contains("hunter2"), "{error:?}");
}

#[tokio::test]
async fn a_federated_token_is_an_identity_and_the_proxy_is_asked_with_its_password() {
    let Some(azure) = Azure::new() else {
        return services::skipped();
    };
    azure.lay("federated", "value").await;
    let front = azure.fronts.front().await;
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    std::fs::write(&token, "a.b.c").unwrap();
    let mut settings = azure.settings("reader", &front).await;
    settings.client_secret = None;
    settings.token_file = Some(token);
    settings.identity = Identity::Auto;
    let federated = provider(settings).unwrap();
    let secret = federated.get(&azure.name("federated")).await.unwrap();
    assert_eq!(secret.value.expose(), b"value");
    assert_eq!(front.seen("client_assertion=a.b.c"), 1);
    let identity = federated.identity().await.unwrap().unwrap();
    assert!(
        identity.contains("appid app-reader") && identity.contains(VAULT),
        "{identity}"
    );
    let tunnels = azure.tunnels.lock().unwrap();
    let tunnel = tunnels.last().unwrap();
    tunnel.assert_asked("kv1.vault.azure.net:443");
    tunnel.assert_asked("login.microsoftonline.com:443");
}

#[tokio::test]
async fn a_plain_id_is_taken_as_it_is() {
    let Some(azure) = Azure::new() else {
        return services::skipped();
    };
    azure.lay("plain", "value").await;
    let id = SecretName::new(format!("{}-plain", azure.prefix));
    let secret = azure.provider().await.get(&id).await.unwrap();
    assert_eq!(secret.value.expose(), b"value");
}
