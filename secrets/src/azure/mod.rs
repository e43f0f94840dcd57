//! Azure: Key Vault.
//!
//! | file | holds |
//! |---|---|
//! | `config` | the section |
//! | `client` | identity and client of the SDK |
//! | `http` | the SDK's transport over our HTTP client |
//! | `error` | answers of Key Vault and Entra ID in words of the contract |
//!
//! A vault's names have letters, digits and `-` only: `secret:/prod/db/password` is `prod-db-password`, and a name
//! that the vault can hold is taken as it is. `?version=` is a version's id. Values are text of at most 25 KiB.
//!
//! ```toml
//! [secrets.prod]
//! kind  = "azure"
//! vault = "my-vault"          # https://my-vault.vault.azure.net
//! ```

mod client;
mod config;
mod error;
mod http;

use std::sync::Arc;

use async_trait::async_trait;
use azure_security_keyvault_secrets::ResourceExt as _;
use azure_security_keyvault_secrets::models::SecretClientGetSecretOptions;
use hybrid_runner_core::error::{Error, Result};
use hybrid_runner_core::secret::{Secret, SecretName, SecretProvider, SecretValue};

use crate::names;
use crate::remote::{self, Store};
use client::Client;
use error::Asked;

pub use config::{Identity, Settings};

/// The longest name of a secret.
const MOST: usize = 127;

/// Builds the store from its settings. Nothing is reached yet.
pub fn provider(settings: Settings) -> Result<Arc<dyn SecretProvider>> {
    remote::provider(settings)
}

#[async_trait]
impl Store for Settings {
    const KIND: &'static str = "azure";
    type Client = Client;

    async fn connect(&self) -> Result<Client> {
        client::connect(self).await
    }

    async fn read(&self, client: &Client, name: &SecretName) -> Result<Secret> {
        let own = own_name(name)?;
        let options = SecretClientGetSecretOptions {
            secret_version: name.version.clone(),
            ..SecretClientGetSecretOptions::default()
        };
        let asked = Asked::to_read(client, &own);
        let answer = client.secrets.get_secret(&own, Some(options)).await;
        let model = answer.and_then(azure_core::http::Response::into_model);
        let model = model.map_err(|error| asked.failed(error))?;
        let version = model.resource_id().ok().and_then(|id| id.version);
        // At the edge: from here on nobody can print it.
        let value = model.value.map(SecretValue::new);
        let secret =
            Secret::from(value.ok_or_else(|| Error::not_found(format!("`{own}` has no value")))?);
        Ok(match version {
            Some(version) => secret.with_version(version),
            None => secret,
        })
    }

    async fn identity(&self, client: &Client) -> Result<Option<String>> {
        client.who().await
    }
}

fn own_name(name: &SecretName) -> Result<String> {
    if name.stage.is_some() {
        return Err(Error::invalid(
            "a Key Vault has no stages; write `?version=`, or nothing for the newest",
        ));
    }
    let own = names::azure(name.relative());
    if own.is_empty() || own.len() > MOST {
        return Err(Error::invalid(format!(
            "a Key Vault cannot hold the name `{name}`: 1 to {MOST} letters, digits and `-`"
        )));
    }
    Ok(own)
}
