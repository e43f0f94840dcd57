//! AWS: Secrets Manager, and Systems Manager's Parameter Store.
//!
//! | file | holds |
//! |---|---|
//! | `config` | the section |
//! | `client` | identity and clients of the SDK |
//! | `http` | the SDK's transport over our HTTP client |
//! | `error` | answers of AWS in words of the contract |
//!
//! `secret:/a/b` is the secret, or the parameter, `/a/b`; an id or an ARN is taken as it is. `?version=` is a
//! version's id (Secrets Manager) or number (parameters), `?stage=` a staging label or a parameter's label.
//!
//! ```toml
//! [secrets.prod]
//! kind   = "aws"
//! region = "eu-west-1"
//!
//! [secrets.other]                       # another account
//! kind        = "aws"
//! service     = "ssm"
//! role        = "arn:aws:iam::123456789012:role/runner"
//! external_id = "hybrid-runner"
//! ```

mod client;
mod config;
mod error;
mod http;

use std::sync::Arc;

use async_trait::async_trait;
use hybrid_runner_core::error::{Error, Result};
use hybrid_runner_core::secret::{Secret, SecretName, SecretProvider, SecretValue};

use crate::names::with_slashes;
use crate::remote::{self, Store};
use client::Clients;
use error::Asked;

pub use config::{AccessKey, Service, Settings};

/// Builds the store from its settings. Nothing is reached yet.
pub fn provider(settings: Settings) -> Result<Arc<dyn SecretProvider>> {
    remote::provider(settings)
}

#[async_trait]
impl Store for Settings {
    const KIND: &'static str = "aws";
    type Client = Clients;

    async fn connect(&self) -> Result<Clients> {
        client::connect(self).await
    }

    async fn read(&self, clients: &Clients, name: &SecretName) -> Result<Secret> {
        match self.service {
            Service::Secretsmanager => secret(clients, name).await,
            Service::Ssm => parameter(clients, name).await,
        }
    }

    async fn identity(&self, clients: &Clients) -> Result<Option<String>> {
        let answer = clients.sts.get_caller_identity().send().await;
        let asked = Asked::who(clients);
        let answer = answer.map_err(|error| asked.failed(&error))?;
        Ok(answer.arn.map(|arn| format!("{arn} ({})", clients.region)))
    }
}

async fn secret(clients: &Clients, name: &SecretName) -> Result<Secret> {
    let id = own_name(name, "_+=.@-");
    let asked = Asked::to_read(clients, "secretsmanager:GetSecretValue", &id);
    let answer = clients
        .secrets
        .get_secret_value()
        .secret_id(&id)
        .set_version_id(name.version.clone())
        .set_version_stage(name.stage.clone())
        .send()
        .await
        .map_err(|error| asked.failed(&error))?;
    // At the edge: from here on nobody can print it.
    let value = match (answer.secret_string, answer.secret_binary) {
        (Some(text), _) => SecretValue::new(text),
        (None, Some(blob)) => SecretValue::new(blob.into_inner()),
        (None, None) => {
            return Err(Error::not_found(format!(
                "the secret `{id}` has no value yet"
            )));
        }
    };
    let secret = Secret::from(value);
    Ok(match answer.version_id {
        Some(version) => secret.with_version(version),
        None => secret,
    })
}

async fn parameter(clients: &Clients, name: &SecretName) -> Result<Secret> {
    let mut id = own_name(name, "_.-");
    for part in [&name.version, &name.stage].into_iter().flatten() {
        id = format!("{id}:{part}");
    }
    let asked = Asked::to_read(clients, "ssm:GetParameter", &id);
    let answer = clients
        .parameters
        .get_parameter()
        .name(&id)
        .with_decryption(true)
        .send()
        .await
        .map_err(|error| asked.failed(&error))?;
    let parameter = answer
        .parameter
        .ok_or_else(|| Error::internal(format!("AWS answered without the parameter `{id}`")))?;
    let version = parameter.version;
    // At the edge: from here on nobody can print it.
    let value = parameter.value.map(SecretValue::new);
    let value =
        value.ok_or_else(|| Error::not_found(format!("the parameter `{id}` has no value")))?;
    Ok(Secret::from(value).with_version(version.to_string()))
}

/// A path with what AWS can hold in it; an id as it is.
fn own_name(name: &SecretName, also: &str) -> String {
    if name.name.starts_with('/') {
        with_slashes(&name.name, also)
    } else {
        name.name.clone()
    }
}
