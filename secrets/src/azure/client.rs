//! Identity and client of the SDK.

use std::sync::Arc;

use azure_core::cloud::{CloudConfiguration, CustomConfiguration};
use azure_core::credentials::{Secret, TokenCredential};
use azure_core::http::{ClientOptions, RetryOptions, Transport};
use azure_identity::{
    ClientAssertionCredentialOptions, ClientSecretCredential, ClientSecretCredentialOptions,
    DeveloperToolsCredential, ManagedIdentityCredential, ManagedIdentityCredentialOptions,
    UserAssignedId, WorkloadIdentityCredential, WorkloadIdentityCredentialOptions,
};
use azure_security_keyvault_secrets::{SecretClient, SecretClientOptions};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hybrid_runner_core::error::{Error, Result};
use secrecy::ExposeSecret as _;
use serde_json::Value;

use super::config::{Identity, Settings};
use super::error::Asked;
use super::http::Http;
use crate::credential::Source;
use crate::remote::Section as _;

/// A client with one identity.
pub(crate) struct Client {
    pub secrets: SecretClient,
    pub credential: Arc<dyn TokenCredential>,
    /// The identity as it was configured, for messages.
    pub identity: String,
    pub vault: String,
    scope: String,
}

/// Makes a client. Nobody is logged in yet: the SDK does so at the first request.
pub(super) async fn connect(settings: &Settings) -> Result<Client> {
    let url = settings.url()?;
    let options = options(settings)?;
    let (credential, identity) = credential(settings, &options).await?;
    let secrets = SecretClient::new(
        url.as_str(),
        Arc::clone(&credential),
        Some(SecretClientOptions {
            client_options: options,
            verify_challenge_resource: Some(!settings.skip_challenge_check),
            ..SecretClientOptions::default()
        }),
    );
    let secrets = secrets
        .map_err(|error| Error::invalid("the vault's URL cannot be used").with_source(error))?;
    Ok(Client {
        secrets,
        credential,
        identity,
        vault: url.host_str().unwrap_or_default().to_owned(),
        scope: settings.scope(),
    })
}

/// Our HTTP client, and no second attempts: the wrappers around the store make them.
fn options(settings: &Settings) -> Result<ClientOptions> {
    let cloud = settings.authority.as_ref().map(|authority| {
        let mut custom = CustomConfiguration::default();
        custom.authority_host.clone_from(authority);
        Arc::new(CloudConfiguration::from(custom))
    });
    Ok(ClientOptions {
        transport: Some(Transport::new(Arc::new(Http(settings.way().client()?)))),
        retry: RetryOptions::none(),
        cloud,
        ..ClientOptions::default()
    })
}

type Chosen = (Arc<dyn TokenCredential>, String);

/// The identity that the settings name; `auto`: what they and the platform's variables show.
async fn credential(settings: &Settings, options: &ClientOptions) -> Result<Chosen> {
    let has = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    match settings.identity {
        Identity::ClientSecret => client_secret(settings, options).await,
        Identity::Workload => workload(settings, options),
        Identity::Developer => developer(),
        Identity::Auto if settings.client_secret.is_some() || has("AZURE_CLIENT_SECRET") => {
            client_secret(settings, options).await
        }
        Identity::Auto if settings.token_file.is_some() || has("AZURE_FEDERATED_TOKEN_FILE") => {
            workload(settings, options)
        }
        Identity::Managed | Identity::Auto => managed(settings, options),
    }
}

fn known(setting: Option<&String>, variable: &str) -> Option<String> {
    let value = setting.cloned().or_else(|| std::env::var(variable).ok());
    value.filter(|value| !value.is_empty())
}

fn named(setting: Option<&String>, key: &str, variable: &str) -> Result<String> {
    known(setting, variable).ok_or_else(|| {
        Error::invalid(format!(
            "`{key}` is missing: set it in the section, or {variable}"
        ))
    })
}

fn unusable(error: azure_core::Error) -> Error {
    Error::invalid("the identity in the section cannot be used").with_source(error)
}

async fn client_secret(settings: &Settings, options: &ClientOptions) -> Result<Chosen> {
    let tenant = named(settings.tenant.as_ref(), "tenant", "AZURE_TENANT_ID")?;
    let client = named(settings.client_id.as_ref(), "client_id", "AZURE_CLIENT_ID")?;
    let source = settings.client_secret.clone();
    let source = source.unwrap_or_else(|| Source::env("AZURE_CLIENT_SECRET"));
    let secret = source.read("the client's secret").await?;
    let given = ClientSecretCredentialOptions {
        client_options: options.clone(),
    };
    // On its way into the SDK.
    let secret = Secret::new(secret.expose_secret().to_owned());
    let credential = ClientSecretCredential::new(&tenant, client.clone(), secret, Some(given))
        .map_err(unusable)?;
    Ok((credential, format!("the client `{client}`")))
}

fn workload(settings: &Settings, options: &ClientOptions) -> Result<Chosen> {
    let given = WorkloadIdentityCredentialOptions {
        credential_options: ClientAssertionCredentialOptions {
            client_options: options.clone(),
        },
        client_id: settings.client_id.clone(),
        tenant_id: settings.tenant.clone(),
        token_file_path: settings.token_file.clone(),
    };
    let client = named(settings.client_id.as_ref(), "client_id", "AZURE_CLIENT_ID")?;
    let credential = WorkloadIdentityCredential::new(Some(given)).map_err(unusable)?;
    Ok((credential, format!("the workload's client `{client}`")))
}

fn managed(settings: &Settings, options: &ClientOptions) -> Result<Chosen> {
    let client = known(settings.client_id.as_ref(), "AZURE_CLIENT_ID");
    let given = ManagedIdentityCredentialOptions {
        user_assigned_id: client.clone().map(UserAssignedId::ClientId),
        client_options: options.clone(),
    };
    let credential = ManagedIdentityCredential::new(Some(given)).map_err(unusable)?;
    let identity = client.map_or_else(
        || "the identity of this machine".to_owned(),
        |client| format!("the managed identity `{client}`"),
    );
    Ok((credential, identity))
}

fn developer() -> Result<Chosen> {
    let credential = DeveloperToolsCredential::new(None).map_err(unusable)?;
    Ok((credential, "the login of `az` or `azd`".to_owned()))
}

impl Client {
    /// Whom a token names: the vault itself has no such question.
    pub(super) async fn who(&self) -> Result<Option<String>> {
        let token = self.credential.get_token(&[&self.scope], None).await;
        let token = token.map_err(|error| Asked::who(self).failed(error))?;
        // Only the claims are looked at, and only names are taken out.
        let claims = token.token.secret().split('.').nth(1).and_then(|part| {
            serde_json::from_slice::<Value>(
                &URL_SAFE_NO_PAD.decode(part.trim_end_matches('=')).ok()?,
            )
            .ok()
        });
        let claim = |name: &str| claims.as_ref()?.get(name)?.as_str().map(str::to_owned);
        let who = ["upn", "unique_name", "appid", "oid"]
            .into_iter()
            .find_map(|name| claim(name).map(|id| format!("{name} {id}")));
        let place = claim("tid").map_or_else(String::new, |tenant| format!(", tenant {tenant}"));
        Ok(Some(format!(
            "{} ({}{place})",
            who.as_deref().unwrap_or(&self.identity),
            self.vault
        )))
    }
}
