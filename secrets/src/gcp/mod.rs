//! Google Cloud: Secret Manager.
//!
//! | file | holds |
//! |---|---|
//! | `config` | the section |
//! | `client` | identity and client of the SDK |
//! | `http` | the SDK's transport over our HTTP client |
//! | `error` | answers of Secret Manager in words of the contract |
//!
//! Names have letters, digits, `-` and `_` only: `secret:/prod/db/password` is `prod_db_password`, and a name that can
//! be held is taken as it is; so is a whole one, `projects/P/secrets/S`. `?version=` is a number; without one it is the newest
//! version, and if that is disabled an error, as Google has it.
//!
//! ```toml
//! [secrets.prod]
//! kind    = "gcp"
//! project = "my-project"
//! ```

mod client;
mod config;
mod error;
mod http;

use std::sync::Arc;

use async_trait::async_trait;
use hybrid_runner_core::error::{Error, Result};
use hybrid_runner_core::secret::{Secret, SecretName, SecretProvider, SecretValue};

use crate::names;
use crate::remote::{self, Store};
use client::Client;
use error::Asked;

pub use config::Settings;

/// The longest name of a secret.
const MOST: usize = 255;

/// Builds the store from its settings. Nothing is reached yet.
pub fn provider(settings: Settings) -> Result<Arc<dyn SecretProvider>> {
    remote::provider(settings)
}

#[async_trait]
impl Store for Settings {
    const KIND: &'static str = "gcp";
    type Client = Client;

    async fn connect(&self) -> Result<Client> {
        client::connect(self).await
    }

    async fn read(&self, client: &Client, name: &SecretName) -> Result<Secret> {
        let own = own_name(&client.parent, name)?;
        let asked = Asked::to_read(client, &own);
        let answer = client
            .secrets
            .access_secret_version()
            .set_name(&own)
            .send()
            .await;
        let answer = answer.map_err(|error| asked.failed(&error))?;
        let payload = answer
            .payload
            .ok_or_else(|| Error::not_found(format!("`{own}` has no value")))?;
        let whole = payload
            .data_crc32c
            .is_none_or(|sum| sum == i64::from(crc32c(&payload.data)));
        // At the edge: from here on nobody can print it.
        let value = SecretValue::new(payload.data);
        if !whole {
            return Err(Error::unavailable(format!(
                "`{own}` came with a wrong checksum; try again"
            )));
        }
        let version = answer.name.rsplit('/').next().unwrap_or_default();
        Ok(Secret::from(value).with_version(version))
    }

    async fn identity(&self, client: &Client) -> Result<Option<String>> {
        Ok(Some(client.who().await))
    }
}

fn own_name(parent: &str, name: &SecretName) -> Result<String> {
    if name.stage.is_some() {
        return Err(Error::invalid(
            "Google has no stages; write `?version=`, or nothing for the newest",
        ));
    }
    let version = name.version.as_deref().unwrap_or("latest");
    if !version
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
    {
        return Err(Error::invalid(format!(
            "`{name}` cannot be read: a version is a number, or `latest`"
        )));
    }
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '/' | ':' | '.');
    if name.name.starts_with("projects/")
        && name.name.chars().all(fits)
        && !name.name.contains("..")
    {
        return Ok(format!("{}/versions/{version}", name.name));
    }
    let own = names::gcp(name.relative());
    if own.is_empty() || own.len() > MOST {
        return Err(Error::invalid(format!(
            "Secret Manager cannot hold the name `{name}`: 1 to {MOST} letters, digits, `-` and `_`"
        )));
    }
    Ok(format!("{parent}/secrets/{own}/versions/{version}"))
}

/// Castagnoli's checksum, which Google sends with each value.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| {
            (sum >> 1) ^ (0x82F6_3B78 & (sum & 1).wrapping_neg())
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_castagnolis() {
        assert_eq!(crc32c(b"123456789"), 0xE306_9283);
    }

    #[test]
    fn names_are_whole_and_nothing_else_gets_into_them() {
        let own = |name: &str, version: Option<&str>| {
            let mut name = SecretName::new(name);
            name.version = version.map(str::to_owned);
            own_name("projects/p1", &name)
        };
        assert_eq!(
            own("/prod/db", None).unwrap(),
            "projects/p1/secrets/prod_db/versions/latest"
        );
        assert_eq!(
            own("projects/p2/secrets/x", Some("3")).unwrap(),
            "projects/p2/secrets/x/versions/3"
        );
        assert!(own("/a", Some("1/../../x")).is_err());
        assert!(own("projects/p2/../x", None).is_ok_and(|name| !name.contains("..")));
        assert!(own("/---/", None).is_err());
    }
}
