//! Identity and clients of the SDK.

use aws_config::profile::ProfileFileCredentialsProvider;
use aws_config::provider_config::ProviderConfig;
use aws_config::retry::RetryConfig;
use aws_config::sts::AssumeRoleProvider;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_secretsmanager::config::{Credentials, SharedCredentialsProvider};
use hybrid_runner_core::error::{Error, Result};
use secrecy::ExposeSecret as _;

use super::config::{AccessKey, Settings};
use super::http::Http;
use crate::remote::Section as _;

/// Clients with one identity.
#[derive(Debug)]
pub(crate) struct Clients {
    pub secrets: aws_sdk_secretsmanager::Client,
    pub parameters: aws_sdk_ssm::Client,
    pub sts: aws_sdk_sts::Client,
    pub region: String,
    /// The identity as it was configured, for messages.
    pub identity: String,
}

/// Finds the identity and makes clients. Nothing is logged in yet: the SDK does so at the first request.
pub(super) async fn connect(settings: &Settings) -> Result<Clients> {
    let base = base(settings).await?;
    let region = base.region().map(ToString::to_string).ok_or_else(|| {
        Error::invalid("no region is known: set `region` in the section, or AWS_REGION")
    })?;
    let config = match &settings.role {
        None => base,
        Some(role) => assumed(&base, role, settings).await,
    };
    let mut service = config.to_builder();
    service.set_endpoint_url(settings.endpoint.clone());
    let service = service.build();
    Ok(Clients {
        secrets: aws_sdk_secretsmanager::Client::new(&service),
        parameters: aws_sdk_ssm::Client::new(&service),
        sts: aws_sdk_sts::Client::new(&config),
        region,
        identity: identity(settings),
    })
}

/// What everything is made of: transport, region, the first identity. The wrappers around the store ask again and limit the
/// time, so the SDK does neither.
async fn base(settings: &Settings) -> Result<SdkConfig> {
    let times = TimeoutConfig::builder()
        .operation_timeout(settings.access.timeout.get())
        .build();
    let http = Http::new(settings.way().client()?);
    let mut loader = aws_config::defaults(BehaviorVersion::v2026_01_12())
        .http_client(http.clone())
        .retry_config(RetryConfig::disabled())
        .timeout_config(times.clone());
    if let Some(region) = &settings.region {
        loader = loader.region(Region::new(region.clone()));
    }
    if let Some(endpoint) = &settings.sts_endpoint {
        loader = loader.endpoint_url(endpoint);
    }
    if let Some(profile) = &settings.profile {
        loader = loader.profile_name(profile);
    }
    if let Some(key) = &settings.access_key {
        loader = loader.credentials_provider(credentials(key).await?);
    }
    let base = loader.load().await;
    let Some(profile) = &settings.profile else {
        return Ok(base);
    };
    let means = ProviderConfig::without_region()
        .with_http_client(http)
        .with_retry_config(RetryConfig::disabled())
        .with_timeout_config(times)
        .with_region(base.region().cloned());
    let builder = base.to_builder();
    Ok(builder
        .credentials_provider(of_profile(profile, &means))
        .build())
}

/// The profile alone: in the platform's chain the variables come before it, and whatever the machine has behind it.
fn of_profile(profile: &str, means: &ProviderConfig) -> SharedCredentialsProvider {
    let provider = ProfileFileCredentialsProvider::builder()
        .profile_name(profile)
        .configure(means)
        .build();
    SharedCredentialsProvider::new(provider)
}

async fn credentials(key: &AccessKey) -> Result<Credentials> {
    let secret = key.secret_key.read("the secret access key").await?;
    let token = match &key.session_token {
        None => None,
        Some(source) => Some(source.read("the session token").await?),
    };
    // On their way into the SDK, which zeroizes them.
    Ok(Credentials::new(
        key.id.clone(),
        secret.expose_secret(),
        token.map(|token| token.expose_secret().to_owned()),
        None,
        "the section",
    ))
}

async fn assumed(base: &SdkConfig, role: &str, settings: &Settings) -> SdkConfig {
    let session = settings.session_name.as_deref().unwrap_or("hybrid-runner");
    let mut provider = AssumeRoleProvider::builder(role)
        .session_name(session)
        .configure(base);
    if let Some(id) = &settings.external_id {
        provider = provider.external_id(id);
    }
    let provider = SharedCredentialsProvider::new(provider.build().await);
    base.to_builder().credentials_provider(provider).build()
}

fn identity(settings: &Settings) -> String {
    if let Some(role) = &settings.role {
        return format!("the role `{role}`");
    }
    if let Some(key) = &settings.access_key {
        return format!("the access key `{}`", key.id);
    }
    match &settings.profile {
        Some(profile) => format!("the profile `{profile}`"),
        None => "the identity of the platform".to_owned(),
    }
}
