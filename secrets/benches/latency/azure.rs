//! Azure Key Vault, by the SDK.

use std::sync::Arc;

use azure_core::cloud::{CloudConfiguration, CustomConfiguration};
use azure_core::credentials::Secret;
use azure_core::http::{ClientOptions, RetryOptions, Transport};
use azure_identity::{ClientSecretCredential, ClientSecretCredentialOptions};
use azure_security_keyvault_secrets::{SecretClient, SecretClientOptions};
use hybrid_runner_secrets::{Source, azure};
use serde_json::Value;

use super::{at, row, uncached};

const TENANT: &str = "11111111-1111-1111-1111-111111111111";

pub(super) async fn measure(stores: &Value) {
    let client = client(stores);
    let bare = async || {
        let answer = client.get_secret("bench-orders-password", None).await;
        drop(answer.unwrap().into_model().unwrap());
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

fn client(stores: &Value) -> SecretClient {
    let certificate = std::fs::read(at(stores, "/azure/ca")).unwrap();
    let certificate = reqwest::Certificate::from_pem(&certificate).unwrap();
    let http = super::http().tls_certs_merge([certificate]).build();
    let mut cloud = CustomConfiguration::default();
    cloud.authority_host = at(stores, "/azure/url");
    let client_options = ClientOptions {
        transport: Some(Transport::new(Arc::new(http.unwrap()))),
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
    SecretClient::new(&at(stores, "/azure/url"), credential, Some(options)).unwrap()
}
