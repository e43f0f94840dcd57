//! Secrets of a Kubernetes cluster, of one namespace.
//!
//! | file | holds |
//! |---|---|
//! | `config` | the section |
//! | `client` | identity and client |
//! | `http` | what stands between the client and the API server |
//! | `error` | answers of the API server in words of the contract |
//!
//! `secret:/prod/db` is the Secret `prod-db`: its key `value`, else its only key; `#password` is the key `password`. A
//! name that the cluster can hold is taken as it is. There are no versions to ask for; the one that came is the
//! object's `resourceVersion`.
//!
//! ```toml
//! [secrets.cluster]
//! kind      = "kubernetes"
//! namespace = "ingestion"
//! ```

mod client;
mod config;
mod error;
mod http;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use hybrid_runner_core::error::{Error, Result};
use hybrid_runner_core::secret::{Fields, Secret, SecretName, SecretProvider, SecretValue};
use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use k8s_openapi::api::core::v1 as core;
use kube::Api;
use kube::Resource as _;
use kube::api::PostParams;
use kube::core::Request;
use kube::core::params::GetParams;
use zeroize::Zeroizing;

use crate::names;
use crate::remote::{self, Store, probe};
use client::Client;
use error::Asked;

pub use config::Settings;

/// The key that stands for the whole, as OpenMetadata writes it.
const VALUE: &str = "value";

/// Builds the store from its settings. Nothing is reached yet.
pub fn provider(settings: Settings) -> Result<Arc<dyn SecretProvider>> {
    remote::provider(settings)
}

#[async_trait]
impl Store for Settings {
    const KIND: &'static str = "kubernetes";
    type Client = Client;

    async fn connect(&self) -> Result<Client> {
        client::connect(self).await
    }

    async fn read(&self, client: &Client, name: &SecretName) -> Result<Secret> {
        let own = own_name(name)?;
        let asked = Asked::to_read(client, &own);
        let place = core::Secret::url_path(&(), Some(&client.namespace));
        let request = Request::new(place).get(&own, &GetParams::default());
        let request =
            request.map_err(|_| Error::invalid(format!("`{own}` cannot be asked for")))?;
        // As text: the client would log a whole answer that it cannot read.
        let text = client
            .kube
            .request_text(request)
            .await
            .map_err(|error| asked.failed(&error))?;
        let text = Zeroizing::new(text);
        let object: core::Secret = serde_json::from_str(&text)
            .map_err(|_| Error::internal(format!("the answer for `{own}` is no Secret")))?;
        if object.data.as_ref().is_none_or(BTreeMap::is_empty) {
            return Err(asked.is_empty());
        }
        Ok(secret(object))
    }

    async fn check(&self, client: &Client) -> Result<()> {
        self.identity(client).await?;
        if self.probe.is_some() {
            return probe(self, client).await;
        }
        // Asked in words, so that nothing is read.
        let asked = Asked::to_read(client, "*");
        let review = SelfSubjectAccessReview {
            spec: SelfSubjectAccessReviewSpec {
                resource_attributes: Some(ResourceAttributes {
                    namespace: Some(client.namespace.clone()),
                    resource: Some("secrets".to_owned()),
                    verb: Some("get".to_owned()),
                    ..ResourceAttributes::default()
                }),
                ..SelfSubjectAccessReviewSpec::default()
            },
            ..SelfSubjectAccessReview::default()
        };
        let answer = Api::all(client.kube.clone())
            .create(&PostParams::default(), &review)
            .await;
        let status = answer
            .map_err(|error| asked.failed(&error))?
            .status
            .unwrap_or_default();
        if status.allowed {
            return namespace_is_there(client).await;
        }
        let error = asked.lacks(status.reason.as_deref().unwrap_or_default());
        Err(error.with_hint("if it may read only some, set `probe` to the name of one"))
    }

    async fn identity(&self, client: &Client) -> Result<Option<String>> {
        let asked = Asked::to_read(client, "");
        let review = SelfSubjectReview::default();
        let answer = Api::all(client.kube.clone())
            .create(&PostParams::default(), &review)
            .await;
        let user = match answer {
            Ok(review) => review.status.and_then(|status| status.user_info?.username),
            // Older than 1.28: it cannot tell.
            Err(kube::Error::Api(status)) if status.code == 404 => None,
            Err(error) => return Err(asked.failed(&error)),
        };
        let user = user.as_deref().unwrap_or(&client.identity);
        Ok(Some(format!(
            "{user} ({}, namespace {})",
            client.server, client.namespace
        )))
    }
}

/// Refuses a namespace that is not there, if that may be asked: rights are told for such a one, too.
async fn namespace_is_there(client: &Client) -> Result<()> {
    let name = &client.namespace;
    let namespaces = Api::<core::Namespace>::all(client.kube.clone());
    match namespaces.get_metadata_opt(name).await {
        Ok(None) => Err(Error::not_found(format!(
            "`{}` has no namespace `{name}`; create it, or correct `namespace`",
            client.server
        ))),
        _ => Ok(()),
    }
}

fn own_name(name: &SecretName) -> Result<String> {
    if name.version.is_some() || name.stage.is_some() {
        return Err(Error::invalid(
            "Kubernetes keeps no versions of a Secret; leave `?version=` and `?stage=` out",
        ));
    }
    let own = names::kubernetes(&name.name);
    if own.is_empty() {
        return Err(Error::invalid(format!(
            "`{name}` has no letter and no digit: no Secret can have that name"
        )));
    }
    Ok(own)
}

/// The key `value`, else the only one; and each key.
fn secret(object: core::Secret) -> Secret {
    let mut fields = Fields::default();
    for (name, bytes) in object.data.unwrap_or_default() {
        // At the edge: from here on nobody can print it.
        fields.values.insert(name, SecretValue::new(bytes.0));
    }
    let only = || {
        (fields.values.len() == 1)
            .then(|| fields.values.values().next())
            .flatten()
    };
    let value = fields.values.get(VALUE).or_else(only).cloned();
    fields.only_by_name = value.is_none();
    let secret = Secret::from(value.unwrap_or_else(|| SecretValue::new(""))).with_fields(fields);
    match object.metadata.resource_version {
        Some(version) => secret.with_version(version),
        None => secret,
    }
}
