//! The contract of secret stores through a plugin.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::RwLock;
use tokio::time::timeout;

use super::Host;
use super::masking::{Asked, Masking};
use crate::error::{Error, ErrorKind, Result};
use crate::plugin::store::RemoteStore;
use crate::secret::{Secret, SecretName, SecretProvider};

/// How often a request is made whose process ends under it.
const ATTEMPTS: u32 = 3;

/// A secret store that a plugin serves.
#[derive(Debug, Clone)]
pub struct PluginStore {
    host: Host,
    /// A question under which a process ended is asked again with no other beside it: which of them ended it is not known,
    /// and the others must not end with it again.
    alone: Arc<RwLock<()>>,
}

impl PluginStore {
    /// The store behind this plugin.
    pub fn new(host: Host) -> Self {
        let alone = Arc::default();
        Self { host, alone }
    }

    /// The plugin itself.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Puts a value into the store, for a test; `None` if it cannot hold it.
    pub async fn put(&self, label: &str, value: &[u8]) -> Result<Option<SecretName>> {
        let put = async |remote: RemoteStore| remote.put(label, value).await;
        self.ask("put", self.host.timeouts().get.get(), put).await
    }

    async fn ask<T, Asked: Future<Output = Result<T>>>(
        &self,
        method: &str,
        limit: Duration,
        question: impl Fn(RemoteStore) -> Asked,
    ) -> Result<T> {
        self.answer(method, limit, question).await.flatten()
    }

    /// Asks, and asks the next process if this one ends meanwhile: reading twice is reading once. An error: there was no
    /// answer.
    async fn answer<T, Asked: Future<Output = Result<T>>>(
        &self,
        method: &str,
        limit: Duration,
        question: impl Fn(RemoteStore) -> Asked,
    ) -> Result<Result<T>> {
        let mut attempt = 1;
        loop {
            let (_together, _alone) = match attempt {
                1 => (Some(self.alone.read().await), None),
                _ => (None, Some(self.alone.write().await)),
            };
            let life = self.host.life().await?;
            let remote = RemoteStore::new(life.session.clone());
            let error = match timeout(limit, question(remote)).await {
                Ok(Ok(answer)) => return Ok(Ok(answer)),
                Ok(Err(_)) if life.session.is_closed() => {
                    let program = self.host.launch().shown();
                    let what =
                        format!("the plugin `{program}` ended while it was asked to `{method}`");
                    Error::unavailable(what).with_source(life.obituary().await)
                }
                Ok(Err(error)) => return Ok(Err(self.host.masking().error(error))),
                Err(_) => {
                    return Err(Error::unavailable(format!(
                        "the plugin did not answer `{method}` within {limit:?}"
                    )));
                }
            };
            if attempt == ATTEMPTS {
                return Err(error);
            }
            attempt += 1;
        }
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl SecretProvider for PluginStore {
    async fn check(&self) -> Result<()> {
        let limit = self.host.timeouts().check.get();
        self.ask("check", limit, async |remote: RemoteStore| {
            remote.check().await
        })
        .await
    }

    async fn identity(&self) -> Result<Option<String>> {
        if !self.host.welcome().await?.answers("identity") {
            return Ok(None);
        }
        let limit = self.host.timeouts().check.get();
        let ask = async |remote: RemoteStore| remote.identity().await;
        let identity = self.ask("identity", limit, ask).await?;
        Ok(identity.map(|who| self.host.masking().text(&who)))
    }

    async fn get(&self, name: &SecretName) -> Result<Secret> {
        let limit = self.host.timeouts().get.get();
        let get = |remote: RemoteStore| {
            let (name, masking) = (name.clone(), Arc::clone(self.host.masking()));
            // Until the answer is known, what the plugin writes to its stderr waits: also when nobody waits for the answer any more.
            let asked = self.host.launch().mask.then(|| masking.ask());
            self.host.hear(async move {
                let answer = remote.get(&name).await;
                note(&masking, &name, &answer, asked);
                answer
            })
        };
        self.ask("get", limit, get).await
    }
}

/// Remembers a value, so that it is masked from here on.
fn note(masking: &Masking, name: &SecretName, answer: &Result<Secret>, asked: Option<Asked>) {
    match answer {
        Ok(secret) => masking.remember(name.to_string(), secret.value.clone()),
        // There is no value that could have been read.
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Denied) => {}
        Err(_) => return,
    }
    asked.into_iter().for_each(Asked::answered);
}
