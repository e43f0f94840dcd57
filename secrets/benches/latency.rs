//! What resolving a reference costs beside the bare call that it is made of: `scripts/bench secrets`.
//!
//! Against the live servers of `scripts/services/secret-stores`, without a cache. Both take turns, so that whatever the machine does meets
//! both alike; a figure is the median. Bare is the cloud's SDK over the same HTTP client, or the plain request where no SDK makes it
//! (Vault), or where it only adds a header (Google).
#![expect(clippy::print_stdout, reason = "the table is the product")]
#![expect(clippy::unwrap_used, reason = "a benchmark that fails has no figures")]

#[path = "../src/aws/http.rs"]
mod http;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_secretsmanager::config::{Credentials, SharedCredentialsProvider};
use azure_core::cloud::{CloudConfiguration, CustomConfiguration};
use azure_core::credentials::Secret;
use azure_core::http::{ClientOptions, RetryOptions, Transport};
use azure_identity::{ClientSecretCredential, ClientSecretCredentialOptions};
use azure_security_keyvault_secrets::{SecretClient, SecretClientOptions};
use hybrid_runner_core::SecretProvider;
use hybrid_runner_core::unit::Period;
use hybrid_runner_secrets::decorate::Access;
use hybrid_runner_secrets::{Source, Stores, aws, azure, gcp, vault};
use serde_json::{Value, json};
use tokio::time::Instant;

const ROUNDS: usize = 500;
/// So many are not counted: connections, logins.
const WARM: usize = 50;
const PATH: &str = "/bench/orders/password";
const TENANT: &str = "11111111-1111-1111-1111-111111111111";

#[tokio::main(flavor = "current_thread")]
async fn main() {
    if !std::env::args().any(|argument| argument == "--bench") {
        return; // `cargo test --all-targets` only wants it to compile.
    }
    let folder = std::env::var("HYBRID_RUNNER_STORES").expect("scripts/services/secret-stores up");
    let stores = std::fs::read(format!("{folder}/stores.json")).unwrap();
    let stores: Value = serde_json::from_slice(&stores).unwrap();
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let lay = json!({"path": PATH, "value": "correct-horse-battery"});
    let laid = http
        .post(at(&stores, "/admin/url"))
        .json(&lay)
        .send()
        .await
        .unwrap();
    assert!(laid.status().is_success());
    println!("| store | bare call, p50 | resolved, p50 | ratio |");
    println!("|---|---|---|---|");
    measure_aws(&stores).await;
    measure_azure(&stores).await;
    let google = format!(
        "{}/v1/projects/p1/secrets/bench_orders_password/versions/latest:access",
        at(&stores, "/gcp/url")
    );
    let mut section = gcp::Settings::default();
    section.endpoint = Some(at(&stores, "/gcp/url"));
    section.metadata = Some(at(&stores, "/gcp/url"));
    section.project = Some("p1".to_owned());
    section.access = uncached();
    let bare = async || plain(http.get(&google).bearer_auth("default.0")).await;
    row("gcp", bare, gcp::provider(section).unwrap()).await;
    let openbao = format!("{}/v1/secret/data{PATH}", at(&stores, "/vault/url"));
    let mut section = vault::Settings::default();
    section.address = Some(at(&stores, "/vault/url"));
    let token = Source::value(at(&stores, "/vault/token"));
    section.auth = Some(vault::Auth::Token { token });
    section.access = uncached();
    let bare = async || {
        plain(
            http.get(&openbao)
                .header("X-Vault-Token", at(&stores, "/vault/token")),
        )
        .await;
    };
    row("vault", bare, vault::provider(section).unwrap()).await;
}

async fn measure_aws(stores: &Value) {
    let (id, key) = (
        at(stores, "/aws/reader/id"),
        at(stores, "/aws/reader/secret_key"),
    );
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let credentials = Credentials::new(id.clone(), key.clone(), None, None, "bench");
    let config = SdkConfig::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(Region::new(at(stores, "/aws/region")))
        .endpoint_url(at(stores, "/aws/url"))
        .http_client(http::Http::new(http))
        .retry_config(RetryConfig::disabled())
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .build();
    let client = aws_sdk_secretsmanager::Client::new(&config);
    let bare = async || {
        drop(
            client
                .get_secret_value()
                .secret_id(PATH)
                .send()
                .await
                .unwrap(),
        );
    };
    let mut section = aws::Settings::default();
    section.region = Some(at(stores, "/aws/region"));
    section.endpoint = Some(at(stores, "/aws/url"));
    section.access_key = Some(aws::AccessKey::new(id, Source::value(key)));
    section.access = uncached();
    row("aws", bare, aws::provider(section).unwrap()).await;
}

async fn measure_azure(stores: &Value) {
    let certificate =
        reqwest::Certificate::from_pem(&std::fs::read(at(stores, "/azure/ca")).unwrap()).unwrap();
    let http = reqwest::Client::builder()
        .no_proxy()
        .tls_certs_merge([certificate])
        .build()
        .unwrap();
    let mut cloud = CustomConfiguration::default();
    cloud.authority_host = at(stores, "/azure/url");
    let client_options = ClientOptions {
        transport: Some(Transport::new(Arc::new(http))),
        retry: RetryOptions::none(),
        cloud: Some(Arc::new(CloudConfiguration::from(cloud))),
        ..ClientOptions::default()
    };
    let given = ClientSecretCredentialOptions {
        client_options: client_options.clone(),
    };
    let secret = Secret::new("reader-secret");
    let credential =
        ClientSecretCredential::new(TENANT, "app-reader".to_owned(), secret, Some(given)).unwrap();
    let options = SecretClientOptions {
        client_options,
        verify_challenge_resource: Some(false),
        ..SecretClientOptions::default()
    };
    let client = SecretClient::new(&at(stores, "/azure/url"), credential, Some(options)).unwrap();
    let bare = async || {
        let answer = client
            .get_secret("bench-orders-password", None)
            .await
            .unwrap();
        drop(answer.into_model().unwrap());
    };
    let mut section = azure::Settings::default();
    section.endpoint = Some(at(stores, "/azure/url"));
    section.authority = Some(at(stores, "/azure/url"));
    section.skip_challenge_check = true;
    section.ca = Some(at(stores, "/azure/ca").into());
    section.tenant = Some(TENANT.to_owned());
    section.client_id = Some("app-reader".to_owned());
    section.client_secret = Some(Source::value("reader-secret"));
    section.access = uncached();
    row("azure", bare, azure::provider(section).unwrap()).await;
}

/// A text of `stores.json`.
fn at(stores: &Value, pointer: &str) -> String {
    let text = stores.pointer(pointer).and_then(Value::as_str);
    text.unwrap_or_else(|| panic!("no `{pointer}` in stores.json"))
        .to_owned()
}

async fn plain(request: reqwest::RequestBuilder) {
    let answer = request.send().await.unwrap().error_for_status().unwrap();
    drop(answer.json::<Value>().await.unwrap());
}

fn uncached() -> Access {
    let mut access = Access::default();
    access.cache = Period::seconds(0);
    access.negative_cache = Period::seconds(0);
    access
}

/// Measures both in turns, and prints a row.
async fn row(store: &str, bare: impl AsyncFn(), provider: Arc<dyn SecretProvider>) {
    let name = "store".parse().unwrap();
    let stores = Stores::new(BTreeMap::from([(name, provider)]), None).unwrap();
    let reference = format!("secret:{PATH}").parse().unwrap();
    let (mut bares, mut ours) = (Vec::new(), Vec::new());
    for round in 0..WARM + ROUNDS {
        let start = Instant::now();
        bare().await;
        let middle = Instant::now();
        stores.read("bench", &reference).await.unwrap();
        let end = Instant::now();
        if round >= WARM {
            bares.push(middle - start);
            ours.push(end - middle);
        }
    }
    let (bare, ours) = (median(bares), median(ours));
    let ratio = ours.as_secs_f64() / bare.as_secs_f64();
    println!(
        "| `{store}` | {:.2} ms | {:.2} ms | {ratio:.2} |",
        millis(bare),
        millis(ours)
    );
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
