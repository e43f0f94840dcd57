//! The contract of secret stores over a session: the asking half and the answering half.

use std::sync::Arc;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::serve::PutValue;
use crate::error::{Error, Result};
use crate::executor::Progress;
use crate::kind::Context;
use crate::secret::{Secret, SecretName, SecretProvider};
use crate::session::{Items, Service, Session, WireValue, unknown_method};

/// Parameters of `get`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct GetParams {
    /// The name, as `/prod/db/password`.
    pub(crate) name: String,
    /// The version that is asked for; absent: the present one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) version: Option<String>,
    /// The stage that is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) stage: Option<String>,
}

impl GetParams {
    fn of(name: &SecretName) -> Self {
        Self {
            name: name.name.clone(),
            version: name.version.clone(),
            stage: name.stage.clone(),
        }
    }

    fn name(self) -> SecretName {
        let mut name = SecretName::new(self.name);
        (name.version, name.stage) = (self.version, self.stage);
        name
    }
}

/// The answer to `get`.
#[derive(Serialize, Deserialize, JsonSchema)]
pub(crate) struct Got {
    pub(crate) value: WireValue,
    /// The store's own name of this version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) version: Option<String>,
}

/// The answer to `identity`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Identified {
    /// As whom the store sees the plugin, for people; absent where it knows nobody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) identity: Option<String>,
}

/// Parameters of `put`, which only a test asks for.
#[derive(Serialize, Deserialize, JsonSchema)]
pub(crate) struct PutParams {
    /// A word for the secret; the store chooses its name.
    pub(crate) label: String,
    pub(crate) value: WireValue,
}

/// The answer to `put`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Put {
    /// The name it is found by; absent if the store cannot hold such a value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Nothing {}

/// The asking half: a store that lives behind a session.
#[derive(Debug, Clone)]
pub struct RemoteStore(Session);

impl RemoteStore {
    /// The store behind this session.
    pub fn new(session: Session) -> Self {
        Self(session)
    }

    /// Puts a value where the store will find it, and tells its name: for tests, if the store offers it.
    pub async fn put(&self, label: &str, value: &[u8]) -> Result<Option<SecretName>> {
        let params = PutParams {
            label: label.to_owned(),
            value: WireValue::of(&crate::secret::SecretValue::new(value)),
        };
        let put: Put = self.0.call("put", &params).await?;
        Ok(put.name.map(SecretName::new))
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl SecretProvider for RemoteStore {
    async fn check(&self) -> Result<()> {
        self.0.call("check", &Nothing {}).await.map(|Nothing {}| ())
    }

    async fn identity(&self) -> Result<Option<String>> {
        let identified: Identified = self.0.call("identity", &Nothing {}).await?;
        Ok(identified.identity)
    }

    async fn get(&self, name: &SecretName) -> Result<Secret> {
        let got: Box<RawValue> = self.0.call("get", &GetParams::of(name)).await?;
        // The cause is left out: it could quote the value.
        let wrong = |_| {
            Error::internal(format!(
                "the answer to `get` of `{name}` is not of its form"
            ))
        };
        let got: Got = serde_json::from_str(got.get()).map_err(wrong)?;
        let secret = Secret::from(got.value.into_value()?);
        Ok(match got.version {
            Some(version) => secret.with_version(version),
            None => secret,
        })
    }
}

/// The answering half: serves a store to the other side.
#[derive(Debug, Clone)]
pub struct StoreService {
    store: Arc<dyn SecretProvider>,
    put: Option<(PutValue, Context)>,
}

impl StoreService {
    /// Serves this store.
    pub fn new(store: Arc<dyn SecretProvider>) -> Self {
        Self { store, put: None }
    }

    pub(super) fn with_put(mut self, put: Option<(PutValue, Context)>) -> Self {
        self.put = put;
        self
    }

    fn put(&self, raw: &RawValue) -> Result<Put> {
        let (put, context) = self.put.as_ref().ok_or_else(|| unknown_method("put"))?;
        // The cause is left out: it could quote the value.
        let wrong = |_| Error::invalid("the parameters of `put` do not fit");
        let params: PutParams = serde_json::from_str(raw.get()).map_err(wrong)?;
        let name = put(context, &params.label, &params.value.into_value()?)?;
        let name = name.map(|name| name.name);
        Ok(Put { name })
    }
}

#[async_trait]
impl Service for StoreService {
    async fn call(&self, method: &str, raw: &RawValue, _: &Progress) -> Result<Box<RawValue>> {
        let answer = match method {
            "check" => {
                self.store.check().await?;
                serde_json::value::to_raw_value(&Nothing {})
            }
            "identity" => serde_json::value::to_raw_value(&Identified {
                identity: self.store.identity().await?,
            }),
            "get" => {
                let params: GetParams = serde_json::from_str(raw.get()).map_err(|error| {
                    Error::invalid("the parameters of `get` do not fit").with_source(error)
                })?;
                let secret = self.store.get(&params.name()).await?;
                // On its way to the runner that asked for it.
                let value = WireValue::of(&secret.value);
                let version = secret.version;
                serde_json::value::to_raw_value(&Got { value, version })
            }
            "put" => serde_json::value::to_raw_value(&self.put(raw)?),
            _ => return Err(unknown_method(method)),
        };
        answer.map_err(|_| Error::internal(format!("failed to write the answer to `{method}`")))
    }

    fn open(&self, _: &str, _: &RawValue) -> Option<Result<Items>> {
        None
    }
}
