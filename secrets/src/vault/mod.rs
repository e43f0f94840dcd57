//! Vault and OpenBao: the key-value engine, version 2 and 1.
//!
//! | file | holds |
//! |---|---|
//! | `config` | the section |
//! | `client` | login and requests |
//! | `error` | answers of Vault in words of the contract |
//!
//! A few requests of its REST API are all that is needed, so there is no SDK. `secret:/prod/db` is the secret
//! `prod/db` of the engine at `mount`: its field `value`, else the whole as JSON; `#user` is the field `user`.
//! `?version=` is a number (engine 2).
//!
//! ```toml
//! [secrets.prod]
//! kind    = "vault"
//! address = "https://vault.example.com:8200"
//! mount   = "secret"
//! auth    = { method = "kubernetes", role = "hybrid-runner" }
//! ```

mod client;
mod config;
mod error;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use hybrid_runner_core::error::{Error, Result};
use hybrid_runner_core::secret::{Fields, Secret, SecretName, SecretProvider, SecretValue};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::field::text_of;
use crate::remote::{self, Store};
use client::Client;
use error::Asked;

pub use config::{Auth, Settings};

/// The field that stands for the whole, as OpenMetadata writes it.
const VALUE: &str = "value";

/// Builds the store from its settings. Nothing is reached yet.
pub fn provider(settings: Settings) -> Result<Arc<dyn SecretProvider>> {
    remote::provider(settings)
}

#[async_trait]
impl Store for Settings {
    const KIND: &'static str = "vault";
    type Client = Client;

    async fn connect(&self) -> Result<Client> {
        client::connect(self).await
    }

    async fn read(&self, client: &Client, name: &SecretName) -> Result<Secret> {
        let path = self.path(name)?;
        let asked = Asked::to_read(client, &path);
        let answer = client.get(&path, name.version.as_deref()).await;
        let answer = answer.map_err(|error| asked.unreachable(&error))?;
        if answer.status.is_success() {
            return self.secret(&answer.body, &path);
        }
        let error = asked.refused(&answer);
        // A token that is not accepted and a missing right are one and the same answer.
        if error.kind() == hybrid_runner_core::ErrorKind::Denied && client.who().await?.is_none() {
            return Err(asked.not_accepted());
        }
        Err(error)
    }

    async fn identity(&self, client: &Client) -> Result<Option<String>> {
        match client.who().await? {
            Some(who) => Ok(Some(who)),
            None => Err(Asked::to_read(client, "auth/token/lookup-self").not_accepted()),
        }
    }
}

/// An answer of the engine; version 2 has the data inside of the data.
#[derive(Deserialize)]
struct One<'a> {
    #[serde(borrow)]
    data: &'a RawValue,
}

#[derive(Deserialize)]
struct Two<'a> {
    #[serde(borrow)]
    data: &'a RawValue,
    metadata: Metadata,
}

#[derive(Deserialize)]
struct Metadata {
    version: u64,
}

impl Settings {
    fn path(&self, name: &SecretName) -> Result<String> {
        let wrong = |what: &str| Err(Error::invalid(format!("`{name}` cannot be read: {what}")));
        let relative = name.relative();
        if relative
            .split('/')
            .any(|part| matches!(part, "" | "." | ".."))
        {
            return wrong("a path has no empty parts, no `.` and no `..`");
        }
        if name.stage.is_some() {
            return wrong("Vault has no stages; write `?version=`, or nothing for the newest");
        }
        let mount = self.mount.trim_matches('/');
        match (&name.version, self.engine) {
            (Some(_), 1) => wrong("engine 1 has no versions"),
            (Some(version), _) if version.parse::<u32>().is_err() => wrong("a version is a number"),
            (_, 1) => Ok(format!("{mount}/{relative}")),
            _ => Ok(format!("{mount}/data/{relative}")),
        }
    }

    fn secret(&self, body: &[u8], path: &str) -> Result<Secret> {
        // Its position may tell of values: nothing of the error goes on.
        let odd = |_| {
            Error::internal(format!(
                "the answer for `{path}` cannot be read: is `engine` right?"
            ))
        };
        let one: One<'_> = serde_json::from_slice(body).map_err(odd)?;
        if self.engine == 1 {
            return whole(one.data, path);
        }
        let two: Two<'_> = serde_json::from_str(one.data.get()).map_err(odd)?;
        Ok(whole(two.data, path)?.with_version(two.metadata.version.to_string()))
    }
}

/// The field `value`, else the whole as JSON; and each field.
fn whole(data: &RawValue, path: &str) -> Result<Secret> {
    let members: BTreeMap<String, &RawValue> = serde_json::from_str(data.get())
        .map_err(|_| Error::internal(format!("the secret `{path}` is no object")))?;
    let mut fields = Fields::default();
    for (name, member) in members {
        fields.values.insert(name, text_of(member)?);
    }
    let value = fields.values.get(VALUE).cloned();
    // At the edge: from here on nobody can print it.
    let value = value.unwrap_or_else(|| SecretValue::new(data.get()));
    Ok(Secret::from(value).with_fields(fields))
}
