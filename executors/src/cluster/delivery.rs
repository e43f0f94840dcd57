//! The Secret by which values reach the workload, and out of which they are masked.
//!
//! One Secret for each run that has any, owned by the run's object and gone with it. It holds what the workload gets (variables,
//! files) and, beside that, the bare values: whoever comes back after a restart masks the output by them.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hybrid_runner_core::error::{Error, Result};
use hybrid_runner_core::secret::{SecretValue, Secrets};
use hybrid_runner_helper::mask::Patterns;
use k8s_openapi::api::core::v1::Secret;
use kube::Resource as _;
use kube::api::{DeleteParams, PostParams};
use kube::core::Request;
use kube::core::params::GetParams;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::client::Connected;
use super::error::{failed, found, is_status};

/// Kubernetes takes so much in one Secret.
const MOST: usize = 1 << 20;
/// The keys of bare values begin with it.
const VALUE: &str = "value.";

/// What a run is given.
pub(crate) struct Delivery {
    name: String,
    data: BTreeMap<String, SecretValue>,
    /// Which key becomes which file.
    files: Vec<(String, String)>,
    /// Bare values besides those of the run's secrets.
    hidden: Vec<SecretValue>,
}

impl Delivery {
    pub(crate) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            data: BTreeMap::new(),
            files: Vec::new(),
            hidden: Vec::new(),
        }
    }

    /// The Secret's name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Adds a variable; gives it as a container wants it.
    pub(crate) fn variable(&mut self, name: &str, value: SecretValue) -> Value {
        let key = format!("env.{}", self.data.len());
        self.data.insert(key.clone(), value);
        let source = json!({ "secretKeyRef": { "name": self.name, "key": key } });
        json!({ "name": name, "valueFrom": source })
    }

    /// Adds a value that is masked although it came out of no store.
    pub(crate) fn hide(&mut self, value: SecretValue) {
        self.hidden.push(value);
    }

    /// Adds a file.
    pub(crate) fn file(&mut self, key: &str, path: &str, content: SecretValue) {
        self.data.insert(key.to_owned(), content);
        self.files.push((key.to_owned(), path.to_owned()));
    }

    /// Adds the bare values. `None` if there is nothing to deliver.
    pub(crate) fn filled(mut self, secrets: &Secrets) -> Result<Option<Self>> {
        let hidden = std::mem::take(&mut self.hidden);
        let values = secrets.iter().map(|(_, value)| value).chain(&hidden);
        for (at, value) in values.enumerate() {
            self.data.insert(format!("{VALUE}{at}"), value.clone());
        }
        // Counted, not shown.
        let size = self.data.iter();
        let size: usize = size
            .map(|(key, value)| key.len() + value.expose().len())
            .sum();
        if size >= MOST {
            return Err(Error::invalid(format!(
                "config, files, and variables with secrets are {size} bytes together, and a Secret of Kubernetes takes less than 1 MiB: make `config` or `files` smaller"
            )));
        }
        Ok((!self.data.is_empty()).then_some(self))
    }

    /// What of it becomes files, as a volume wants it.
    pub(crate) fn items(&self) -> Vec<Value> {
        let files = self.files.iter();
        files
            .map(|(key, path)| json!({ "key": key, "path": path }))
            .collect()
    }

    /// The object without its values and its owner, for people.
    pub(crate) fn preview(&self) -> Value {
        let data: BTreeMap<&str, &str> =
            self.data.keys().map(|key| (key.as_str(), "***")).collect();
        json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": { "name": self.name },
            "data": data,
        })
    }

    /// The object, to be sent. Everything in `data` may be secret.
    fn body(&self, labels: &BTreeMap<String, String>, owner: &Value) -> Vec<u8> {
        let metadata = json!({ "name": self.name, "labels": labels, "ownerReferences": [owner] });
        let mut body = format!(
            r#"{{"apiVersion":"v1","kind":"Secret","type":"Opaque","immutable":true,"metadata":{metadata},"data":{{"#
        );
        for (at, (key, value)) in self.data.iter().enumerate() {
            if at > 0 {
                body.push(',');
            }
            body.push_str(&json!(key).to_string());
            body.push_str(":\"");
            // Onto the connection to the API server, which keeps it for the pod.
            BASE64.encode_string(value.expose(), &mut body);
            body.push('"');
        }
        body.push_str("}}");
        body.into_bytes()
    }

    /// Makes the Secret, or finds the one that was made before for the same object. `owner` is a reference to that.
    pub(crate) async fn make(
        &self,
        connected: &Connected,
        labels: &BTreeMap<String, String>,
        owner: &Value,
    ) -> Result<()> {
        loop {
            let place = Request::new(Secret::url_path(&(), Some(&connected.namespace)));
            let body = self.body(labels, owner);
            let request = place
                .create(&PostParams::default(), body)
                .map_err(|_| Error::internal("the Secret of the run cannot be asked for"))?;
            // As text: the client would log a whole answer that it cannot read, and it is not needed.
            match connected.client().request_text(request).await {
                Ok(answer) => {
                    drop(Zeroizing::new(answer));
                    return Ok(());
                }
                Err(error) if is_status(&error, 409) => {
                    if self.is_of(connected, owner).await? {
                        return Ok(());
                    }
                    remove(connected, &self.name).await?;
                }
                Err(error) => {
                    return Err(failed(connected, "make the Secret of the run", &error));
                }
            }
        }
    }

    /// Whether the Secret that is there belongs to this object, and not to one of the same name before it.
    async fn is_of(&self, connected: &Connected, owner: &Value) -> Result<bool> {
        let Some(secret) = read(connected, &self.name).await? else {
            return Ok(false);
        };
        let owners = secret.metadata.owner_references.unwrap_or_default();
        Ok(owners.iter().any(|found| owner["uid"] == found.uid))
    }
}

async fn read(connected: &Connected, name: &str) -> Result<Option<Secret>> {
    let place = Request::new(Secret::url_path(&(), Some(&connected.namespace)));
    let request = place
        .get(name, &GetParams::default())
        .map_err(|_| Error::internal("the Secret of the run cannot be asked for"))?;
    let answer = connected.client().request_text(request).await;
    let answer =
        found(answer).map_err(|error| failed(connected, "read the Secret of the run", &error))?;
    let Some(answer) = answer.map(Zeroizing::new) else {
        return Ok(None);
    };
    serde_json::from_str(&answer)
        .map(Some)
        .map_err(|_| Error::internal("the answer for the Secret of the run is no Secret"))
}

/// What the output of a run is masked by, out of its Secret. `None` if that is gone.
pub(crate) async fn patterns(connected: &Connected, name: &str) -> Result<Option<Patterns>> {
    let Some(secret) = read(connected, name).await? else {
        return Ok(None);
    };
    let values = secret.data.unwrap_or_default();
    // Searched for, so that they are not shown.
    let values: Vec<SecretValue> = values
        .into_iter()
        .filter(|(key, _)| key.starts_with(VALUE))
        .map(|(_, value)| SecretValue::new(value.0))
        .collect();
    let values = values.iter().map(SecretValue::expose);
    Ok(Some(Patterns::of_values(values)))
}

/// Removes the Secret, if it is there.
pub(crate) async fn remove(connected: &Connected, name: &str) -> Result<()> {
    let removed = connected
        .api::<Secret>()
        .delete(name, &DeleteParams::default())
        .await;
    found(removed)
        .map(drop)
        .map_err(|error| failed(connected, "remove the Secret of the run", &error))
}
