//! Vault: OpenBao itself, engines 2 and 1, and every way to log in.

use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hybrid_runner_core::ErrorKind;
use hybrid_runner_core::secret::{SecretName, SecretProvider};
use hybrid_runner_core::testing::{ProviderHarness, Trouble};
use hybrid_runner_secrets::vault::{Auth, Settings, provider};
use hybrid_runner_secrets::{Refusal, Source};
use reqwest::Method;
use serde_json::{Value, json};

use crate::front::{Answer, Front, SAID};
use crate::harness::{Dialect, Fronts, assert_says, nobody, refused, rsa, signed, uncached};
use crate::services;
use crate::tunnel::Tunnel;

const JSON: &str = "application/json";

pub(crate) struct Vault {
    store: String,
    root: String,
    engine: u8,
    mount: String,
    fronts: Fronts,
}

fn says(text: &str) -> String {
    json!({"errors": [text]}).to_string()
}

impl Vault {
    async fn new(engine: u8) -> Option<Self> {
        let services = services::of("vault")?;
        let store = services["url"].as_str().unwrap().to_owned();
        let dialect = Dialect {
            read: "/text",
            throttled: (429, JSON, says("request path rate limit quota exceeded")),
            failing: (503, JSON, says("Vault is sealed")),
            expired: (403, JSON, says(SAID)),
        };
        let vault = Self {
            fronts: Fronts::new(&store, dialect),
            store,
            root: services["token"].as_str().unwrap().to_owned(),
            engine,
            mount: services::unique(),
        };
        let options = json!({"type": "kv", "options": {"version": engine.to_string()}});
        vault
            .admin(
                Method::POST,
                &format!("sys/mounts/{}", vault.mount),
                options,
            )
            .await;
        let reads = format!("path \"{}/*\" {{ capabilities = [\"read\"] }}", vault.mount);
        let denies = format!(
            "path \"{}/data/secret-place/*\" {{ capabilities = [\"deny\"] }}",
            vault.mount
        );
        let plain = format!(
            "path \"{}/secret-place/*\" {{ capabilities = [\"deny\"] }}",
            vault.mount
        );
        let policy = json!({"policy": format!("{reads}\n{denies}\n{plain}")});
        vault
            .admin(
                Method::PUT,
                &format!("sys/policies/acl/{}", vault.mount),
                policy,
            )
            .await;
        Some(vault)
    }

    async fn admin(&self, method: Method, path: &str, body: Value) -> Value {
        // A fresh engine upgrades itself for a moment, and says so.
        for _ in 0..100 {
            let request =
                services::http().request(method.clone(), format!("{}/v1/{path}", self.store));
            let answer = request
                .header("X-Vault-Token", &self.root)
                .json(&body)
                .send()
                .await
                .unwrap();
            let (status, text) = (answer.status(), answer.text().await.unwrap());
            if text.contains("Upgrading") {
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                continue;
            }
            assert!(status.is_success(), "{path}: {status} {text}");
            return serde_json::from_str(&text).unwrap_or_default();
        }
        panic!("{path}: the engine upgrades for ever");
    }

    /// A token with the right to read.
    async fn token(&self) -> (String, String) {
        let asked = json!({"policies": [self.mount], "display_name": "reader"});
        let made = self.admin(Method::POST, "auth/token/create", asked).await;
        let text = |pointer: &str| made.pointer(pointer).unwrap().as_str().unwrap().to_owned();
        (text("/auth/client_token"), text("/auth/accessor"))
    }

    fn settings(&self, auth: Auth, url: &str) -> Settings {
        let mut settings = Settings::default();
        settings.address = Some(url.to_owned());
        settings.mount.clone_from(&self.mount);
        settings.engine = self.engine;
        settings.auth = Some(auth);
        settings.ca = Some(self.fronts.authority.file());
        settings.access = uncached();
        settings
    }

    async fn before(&self, front: &Front) -> Arc<dyn SecretProvider> {
        let token = Source::value(self.token().await.0);
        provider(self.settings(Auth::Token { token }, &front.url())).unwrap()
    }

    /// Lays fields under a name; the version, if there are any.
    async fn lay(&self, name: &str, fields: Value) -> Option<String> {
        if self.engine == 1 {
            self.admin(Method::POST, &format!("{}/{name}", self.mount), fields)
                .await;
            return None;
        }
        let path = format!("{}/data/{name}", self.mount);
        let made = self
            .admin(Method::POST, &path, json!({"data": fields}))
            .await;
        Some(made["data"]["version"].to_string())
    }

    /// A role of the method, and its provider, which reads `name` and gets `value`.
    async fn reads(&self, auth: Auth) -> (Arc<dyn SecretProvider>, Arc<Front>) {
        self.lay("shared/by-role", json!({"value": "by-role"}))
            .await;
        let front = self.fronts.front().await;
        let provider = provider(self.settings(auth, &front.url())).unwrap();
        let secret = provider
            .get(&SecretName::new("/shared/by-role"))
            .await
            .unwrap();
        assert_eq!(secret.value.expose(), b"by-role");
        (provider, front)
    }

    /// A role of an application with the right to read.
    async fn approle(&self) -> Auth {
        let mount = format!("{}-approle", self.mount);
        self.admin(
            Method::POST,
            &format!("sys/auth/{mount}"),
            json!({"type": "approle"}),
        )
        .await;
        let role = format!("auth/{mount}/role/web");
        self.admin(Method::POST, &role, json!({"token_policies": [self.mount]}))
            .await;
        let id = self
            .admin(Method::GET, &format!("{role}/role-id"), json!({}))
            .await;
        let secret = self
            .admin(Method::POST, &format!("{role}/secret-id"), json!({}))
            .await;
        Auth::Approle {
            role_id: id["data"]["role_id"].as_str().unwrap().to_owned(),
            secret_id: Source::value(secret["data"]["secret_id"].as_str().unwrap()),
            mount: Some(mount),
        }
    }
}

#[async_trait]
impl ProviderHarness for Vault {
    async fn provider(&self) -> Arc<dyn SecretProvider> {
        let front = self.fronts.front().await;
        self.before(&front).await
    }

    async fn put(&self, label: &str, value: &[u8]) -> Option<SecretName> {
        // It holds JSON: text.
        let text = std::str::from_utf8(value).ok()?;
        self.lay(
            &format!("contract/{label}"),
            json!({"value": text, "other": "o"}),
        )
        .await;
        Some(SecretName::new(format!("/contract/{label}")))
    }

    async fn put_versions(&self, label: &str, values: &[&[u8]]) -> Option<Vec<SecretName>> {
        let mut names = Vec::new();
        for value in values {
            let mut name = SecretName::new(format!("/contract/{label}"));
            let fields = json!({"value": std::str::from_utf8(value).ok()?});
            name.version = Some(self.lay(name.relative(), fields).await?);
            names.push(name);
        }
        Some(names)
    }

    async fn denied(&self) -> Option<SecretName> {
        self.lay("secret-place/denied", json!({"value": "hunter2"}))
            .await;
        Some(SecretName::new("/secret-place/denied"))
    }

    async fn disabled(&self) -> Option<SecretName> {
        let name = self.put("destroyed", b"gone").await?;
        let path = format!("{}/destroy/contract/destroyed", self.mount);
        if self.engine == 1 {
            return None;
        }
        self.admin(Method::PUT, &path, json!({"versions": [1]}))
            .await;
        Some(name)
    }

    async fn deleted(&self) -> Option<SecretName> {
        let name = self.put("deleted", b"gone").await?;
        let data = if self.engine == 1 { "" } else { "data/" };
        let path = format!("{}/{data}contract/deleted", self.mount);
        self.admin(Method::DELETE, &path, json!({})).await;
        Some(name)
    }

    fn impossible(&self) -> Option<SecretName> {
        Some(SecretName::new("/contract/../../sys/mounts"))
    }

    async fn unreachable(&self) -> Option<Arc<dyn SecretProvider>> {
        let token = Source::value("any");
        Some(provider(self.settings(Auth::Token { token }, &nobody("http"))).unwrap())
    }

    fn shown(&self) -> Vec<String> {
        self.fronts.shown()
    }

    async fn in_trouble(&self, trouble: Trouble) -> Option<Arc<dyn SecretProvider>> {
        let front = self.fronts.in_trouble(trouble).await?;
        if trouble != Trouble::Expired {
            return Some(self.before(&front).await);
        }
        let provider = provider(self.settings(self.approle().await, &front.url())).unwrap();
        provider
            .get(&SecretName::new("/contract/text"))
            .await
            .unwrap();
        // All tokens of that role are revoked by the server itself.
        let path = format!("sys/leases/revoke-prefix/auth/{}-approle", self.mount);
        self.admin(Method::PUT, &path, json!({})).await;
        Some(provider)
    }
}

mod engine_2_keeps_the_contract {
    use super::*;
    crate::contract!(Vault::new(2).await);
}

mod engine_1_keeps_the_contract {
    use super::*;
    crate::contract!(Vault::new(1).await);
}

#[tokio::test]
async fn an_approle_logs_in_once_and_again_when_its_token_is_gone() {
    let Some(vault) = Vault::new(2).await else {
        return services::skipped();
    };
    let (provider, front) = vault.reads(vault.approle().await).await;
    provider
        .get(&SecretName::new("/shared/by-role"))
        .await
        .unwrap();
    assert_eq!(front.seen("/login"), 1);
    let identity = provider.identity().await.unwrap().unwrap();
    assert!(
        identity.contains("approle") && identity.contains(&vault.mount),
        "{identity}"
    );
    provider.check().await.unwrap();
    let path = format!("sys/leases/revoke-prefix/auth/{}-approle", vault.mount);
    vault.admin(Method::PUT, &path, json!({})).await;
    provider
        .get(&SecretName::new("/shared/by-role"))
        .await
        .unwrap();
    assert_eq!(front.seen("/login"), 2);
}

#[tokio::test]
async fn a_wrong_secret_id_is_a_bad_identity_and_not_shown() {
    let Some(vault) = Vault::new(2).await else {
        return services::skipped();
    };
    let Auth::Approle { role_id, mount, .. } = vault.approle().await else {
        unreachable!("it is one");
    };
    let secret_id = Source::value("hunter2-hunter2");
    let auth = Auth::Approle {
        role_id,
        secret_id,
        mount,
    };
    let front = vault.fronts.front().await;
    let wrong = provider(vault.settings(auth, &front.url()));
    let error = refused(wrong, &SecretName::new("/a")).await;
    assert_eq!(Refusal::of(&error), Refusal::Identity, "{error:?}");
    assert!(!error.report().contains("hunter2"), "{error:?}");
    assert_eq!(front.seen("/login"), 1, "not again and again");
}

/// A token of a service account, as Kubernetes makes one; the server that reviews it takes `good` as its signature.
fn account_token(account: &str, signature: &str) -> String {
    let claims = json!({
        "iss": "https://kubernetes.default.svc", "aud": ["x"], "exp": 4_102_444_800_u64, "iat": 1_700_000_000, "nbf": 1_700_000_000,
        "sub": format!("system:serviceaccount:apps:{account}"),
        "kubernetes.io": {"namespace": "apps", "serviceaccount": {"name": account, "uid": "u1"}},
    });
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let head = part(&json!({"alg": "RS256", "typ": "JWT"}));
    format!(
        "{head}.{}.{}",
        part(&claims),
        URL_SAFE_NO_PAD.encode(signature)
    )
}

#[tokio::test]
async fn a_pod_logs_in_with_the_account_that_kubernetes_gave_it() {
    let Some(vault) = Vault::new(2).await else {
        return services::skipped();
    };
    let mount = format!("{}-k8s", vault.mount);
    let reviews = services::of("tokens").unwrap()["url"]
        .as_str()
        .unwrap()
        .to_owned();
    let ca = std::fs::read_to_string(vault.fronts.authority.file()).unwrap();
    vault
        .admin(
            Method::POST,
            &format!("sys/auth/{mount}"),
            json!({"type": "kubernetes"}),
        )
        .await;
    let config = json!({"kubernetes_host": reviews, "token_reviewer_jwt": "x", "disable_local_ca_jwt": true, "kubernetes_ca_cert": ca});
    vault
        .admin(Method::POST, &format!("auth/{mount}/config"), config)
        .await;
    let role = json!({"bound_service_account_names": ["web"], "bound_service_account_namespaces": ["apps"], "token_policies": [vault.mount]});
    vault
        .admin(Method::POST, &format!("auth/{mount}/role/web"), role)
        .await;
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    let auth = || Auth::Kubernetes {
        role: "web".to_owned(),
        jwt: Some(Source::file(&token)),
        mount: Some(mount.clone()),
    };
    std::fs::write(&token, account_token("web", "good")).unwrap();
    vault.reads(auth()).await;
    std::fs::write(&token, account_token("web", "bad")).unwrap();
    let front = vault.fronts.front().await;
    let wrong = provider(vault.settings(auth(), &front.url()));
    let error = refused(wrong, &SecretName::new("/a")).await;
    assert_eq!(Refusal::of(&error), Refusal::Identity, "{error:?}");
}

/// A token of an identity provider, as the role wants it.
fn token(key: &rcgen::KeyPair, audience: &str, expires: u64) -> String {
    signed(
        key,
        &json!({"iss": "https://issuer.example", "sub": "runner-1", "aud": audience, "iat": 1_700_000_000, "exp": expires}),
    )
}

#[tokio::test]
async fn a_token_of_an_identity_provider_logs_in_and_a_fresh_one_when_it_has_expired() {
    const NEVER: u64 = 4_102_444_800;
    let Some(vault) = Vault::new(2).await else {
        return services::skipped();
    };
    let mount = format!("{}-jwt", vault.mount);
    let key = rsa();
    let method = format!("sys/auth/{mount}");
    vault
        .admin(Method::POST, &method, json!({"type": "jwt"}))
        .await;
    let config = json!({"jwt_validation_pubkeys": [key.public_key_pem()], "bound_issuer": "https://issuer.example"});
    vault
        .admin(Method::POST, &format!("auth/{mount}/config"), config)
        .await;
    let role = json!({"role_type": "jwt", "user_claim": "sub", "bound_audiences": ["vault"], "token_policies": [vault.mount]});
    vault
        .admin(Method::POST, &format!("auth/{mount}/role/web"), role)
        .await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    let auth = || Auth::Jwt {
        role: "web".to_owned(),
        jwt: Source::file(&file),
        mount: Some(mount.clone()),
    };
    std::fs::write(&file, token(&key, "vault", NEVER)).unwrap();
    let (provider_of_role, front) = vault.reads(auth()).await;
    let identity = provider_of_role.identity().await.unwrap().unwrap();
    assert!(
        identity.contains("runner-1") && identity.contains(&vault.mount),
        "{identity}"
    );

    // The session ends, and by then the platform has laid another token: it is read again.
    let path = format!("sys/leases/revoke-prefix/auth/{mount}");
    vault.admin(Method::PUT, &path, json!({})).await;
    std::fs::write(&file, format!("{}\n", token(&key, "vault", NEVER - 1))).unwrap();
    let name = SecretName::new("/shared/by-role");
    provider_of_role.get(&name).await.unwrap();
    assert_eq!(front.seen("/login"), 2);

    let expired = token(&key, "vault", 1_700_000_001);
    let elsewhere = token(&key, "elsewhere", NEVER);
    let forged = token(&rsa(), "vault", NEVER);
    for wrong in [expired, elsewhere, forged] {
        std::fs::write(&file, &wrong).unwrap();
        let settings = vault.settings(auth(), &front.url());
        let error = refused(provider(settings), &name).await;
        assert_eq!(Refusal::of(&error), Refusal::Identity, "{error:?}");
        assert_says(&error, &["the JWT in the role `web`"]);
        assert!(
            !error.report().contains(&wrong[wrong.len() - 40..]),
            "{error:?}"
        );
    }
}

#[tokio::test]
async fn a_token_that_is_not_accepted_is_told_apart_from_a_missing_right_and_read_again() {
    let Some(vault) = Vault::new(2).await else {
        return services::skipped();
    };
    vault.lay("rotated", json!({"value": "v"})).await;
    let front = vault.fronts.front().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, "hunter2-hunter2").unwrap();
    let token = Source::file(&file);
    let provider = provider(vault.settings(Auth::Token { token }, &front.url())).unwrap();
    let name = SecretName::new("/rotated");
    let error = provider.get(&name).await.unwrap_err();
    assert_eq!(
        (error.kind(), Refusal::of(&error)),
        (ErrorKind::Denied, Refusal::Identity),
        "{error:?}"
    );
    assert!(!error.report().contains("hunter2"), "{error:?}");
    let (token, accessor) = vault.token().await;
    std::fs::write(&file, format!("{token}\n")).unwrap();
    provider.get(&name).await.unwrap();
    vault
        .admin(
            Method::POST,
            "auth/token/revoke-accessor",
            json!({"accessor": accessor}),
        )
        .await;
    std::fs::write(&file, vault.token().await.0).unwrap();
    provider.get(&name).await.unwrap();
    let error = refused(Ok(provider), &vault.denied().await.unwrap()).await;
    assert_eq!(Refusal::of(&error), Refusal::Denied, "{error:?}");
    let right = "capabilities = [\"read\"]";
    assert_says(&error, &[right, "data/secret-place/denied"]);
}

#[tokio::test]
async fn fields_are_picked_and_the_whole_is_json() {
    let Some(vault) = Vault::new(2).await else {
        return services::skipped();
    };
    vault
        .lay("db", json!({"user": "u", "port": 5432, "deep": {"a": 1}}))
        .await;
    let secret = vault
        .provider()
        .await
        .get(&SecretName::new("/db"))
        .await
        .unwrap();
    let whole: Value = serde_json::from_slice(secret.value.expose()).unwrap();
    assert_eq!(whole, json!({"user": "u", "port": 5432, "deep": {"a": 1}}));
    let fields = secret.fields.unwrap();
    assert_eq!(fields.values["user"].expose(), b"u");
    assert_eq!(fields.values["port"].expose(), b"5432");
}

#[tokio::test]
async fn the_server_is_called_by_its_own_name_through_a_proxy() {
    let Some(vault) = Vault::new(2).await else {
        return services::skipped();
    };
    vault.lay("proxy", json!({"value": "there"})).await;
    let front = vault.fronts.front().await;
    let tunnel = Tunnel::to(front.address).await;
    let token = Source::value(vault.token().await.0);
    let mut settings = vault.settings(Auth::Token { token }, "https://vault.example:8200");
    settings.proxy = Some(tunnel.url());
    let store = provider(settings).unwrap();
    let secret = store.get(&SecretName::new("/proxy")).await.unwrap();
    assert_eq!(secret.value.expose(), b"there");
    tunnel.assert_asked("vault.example:8200");
}

#[tokio::test]
async fn a_server_that_sends_elsewhere_is_told_as_that() {
    let Some(vault) = Vault::new(2).await else {
        return services::skipped();
    };
    let front = vault.fronts.front().await;
    front.trouble("GET ", u32::MAX, Answer::Says(307, JSON, String::new()));
    let token = Source::value("any");
    let settings = vault.settings(Auth::Token { token }, &front.url());
    let error = refused(provider(settings), &SecretName::new("/a")).await;
    assert!(error.is_transient(), "{error:?}");
    assert!(error.report().contains("set `address`"), "{error:?}");
}

#[tokio::test]
async fn a_namespace_is_sent_with_each_request() {
    let Some(vault) = Vault::new(2).await else {
        return services::skipped();
    };
    let front = vault.fronts.front().await;
    front.trouble(
        "x-vault-namespace: team/a",
        1,
        Answer::Says(404, JSON, says("")),
    );
    let token = Source::value("any");
    let mut settings = vault.settings(Auth::Token { token }, &front.url());
    settings.namespace = Some("team/a".to_owned());
    let error = refused(provider(settings), &SecretName::new("/a")).await;
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error:?}");
}
