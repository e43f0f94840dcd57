//! Google Secret Manager, by the SDK over its own HTTP client.

use google_cloud_auth::credentials::mds;
use google_cloud_secretmanager_v1::client::SecretManagerService;
use hybrid_runner_secrets::gcp;
use serde_json::Value;

use super::{at, row, uncached};

pub(super) async fn measure(stores: &Value) {
    let url = at(stores, "/gcp/url");
    // The SDK panics where the process has nothing for that.
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
    let credentials = mds::Builder::default().with_endpoint(&url).build().unwrap();
    let client = SecretManagerService::builder()
        .with_endpoint(&url)
        .with_credentials(credentials)
        .build()
        .await
        .unwrap();
    let name = "projects/p1/secrets/bench_orders_password/versions/latest";
    let bare = async || {
        let request = client.access_secret_version().set_name(name);
        drop(request.send().await.unwrap());
    };
    let mut section = gcp::Settings::default();
    section.endpoint = Some(url.clone());
    section.metadata = Some(url);
    section.project = Some("p1".to_owned());
    section.access = uncached();
    row("gcp", bare, gcp::provider(section).unwrap()).await;
}
