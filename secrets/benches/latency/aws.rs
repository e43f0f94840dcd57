//! AWS Secrets Manager, by the SDK.

use aws_config::retry::RetryConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_secretsmanager::config::{Credentials, SharedCredentialsProvider};
use hybrid_runner_secrets::{Source, aws};
use serde_json::Value;

use super::{PATH, at, row, uncached};

#[path = "../../src/aws/http.rs"]
mod http;

pub(super) async fn measure(stores: &Value) {
    let id = at(stores, "/aws/reader/id");
    let key = at(stores, "/aws/reader/secret_key");
    let credentials = Credentials::new(id.clone(), key.clone(), None, None, "bench");
    let config = SdkConfig::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(Region::new(at(stores, "/aws/region")))
        .endpoint_url(at(stores, "/aws/url"))
        .http_client(http::Http::new(super::http().build().unwrap()))
        .retry_config(RetryConfig::disabled())
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .build();
    let client = aws_sdk_secretsmanager::Client::new(&config);
    let bare = async || {
        let request = client.get_secret_value().secret_id(PATH);
        drop(request.send().await.unwrap());
    };
    let mut section = aws::Settings::default();
    section.region = Some(at(stores, "/aws/region"));
    section.endpoint = Some(at(stores, "/aws/url"));
    section.access_key = Some(aws::AccessKey::new(id, Source::value(key)));
    section.access = uncached();
    row("aws", bare, aws::provider(section).unwrap()).await;
}
