//! What is common to all stores that are far away: how one is built from its section, and a client that is made when it is
//! first needed, and made again when the store no longer accepts its identity.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use hybrid_runner_core::error::{Error, Result};
use hybrid_runner_core::kind::Context;
use hybrid_runner_core::secret::{Secret, SecretName, SecretProvider};
use serde::de::DeserializeOwned;
use tokio::sync::Mutex;

use crate::decorate::{Access, around};
use crate::web::Way;
use crate::{ErrorIs as _, Refusal};

/// The settings of a store that is far away.
pub(crate) trait Section {
    /// Refuses what can be seen to be wrong without a file or a network.
    fn verify(&self) -> Result<()>;

    /// What every such section has.
    fn common(&self) -> Common<'_>;

    /// How the store is reached.
    fn way(&self) -> Way<'_> {
        let Common {
            ca, proxy, access, ..
        } = self.common();
        let timeout = access.timeout.get();
        Way { ca, proxy, timeout }
    }
}

/// What every section of a store that is far away has.
pub(crate) struct Common<'a> {
    /// A PEM file of certificates that are trusted besides the system's.
    pub(crate) ca: Option<&'a Path>,
    /// `http://[user:password@]host:port`, or `none`.
    pub(crate) proxy: Option<&'a str>,
    /// The name of a secret that `check` reads.
    pub(crate) probe: Option<&'a str>,
    /// Time limit, attempts, cache.
    pub(crate) access: &'a Access,
}

/// [`Section::common`] of settings that have these fields by these names.
macro_rules! common {
    () => {
        fn common(&self) -> $crate::remote::Common<'_> {
            $crate::remote::Common {
                ca: self.ca.as_deref(),
                proxy: self.proxy.as_deref(),
                probe: self.probe.as_deref(),
                access: &self.access,
            }
        }
    };
}
pub(crate) use common;

/// One kind of store that is far away: its settings.
#[async_trait]
pub(crate) trait Store: Section + Sized + Send + Sync + 'static {
    /// Its name in configurations.
    const KIND: &'static str;

    /// A connection with an identity.
    type Client: Send + Sync + 'static;

    /// Makes a client; reads the credentials of now.
    async fn connect(&self) -> Result<Self::Client>;

    /// See [`SecretProvider::get`].
    async fn read(&self, client: &Self::Client, name: &SecretName) -> Result<Secret>;

    /// See [`SecretProvider::identity`].
    async fn identity(&self, client: &Self::Client) -> Result<Option<String>>;

    /// See [`SecretProvider::check`].
    async fn check(&self, client: &Self::Client) -> Result<()> {
        self.identity(client).await?;
        probe(self, client).await
    }
}

/// Builds a store from its section.
pub(crate) fn build<S: Store + DeserializeOwned>(
    context: &Context,
) -> Result<Arc<dyn SecretProvider>> {
    let store: S = context.settings("secrets")?;
    provider(store).map_err(|error| error.in_section(context))
}

/// Builds a store from its settings. Nothing is reached yet.
pub(crate) fn provider<S: Store>(store: S) -> Result<Arc<dyn SecretProvider>> {
    store.verify()?;
    store.way().check()?;
    let access = store.common().access.clone();
    if access.timeout.get().is_zero() {
        let message = "`access.timeout` is zero, and no store answers in no time; write \"3s\"";
        return Err(Error::invalid(message));
    }
    Ok(around(Remote::new(store), &access))
}

/// A name that nobody has: asking for it shows whether reading is allowed, and reads nothing.
const NOBODYS: &str = "hybrid-runner-check";

/// Whether the store may be read: the configured name is, or nobody's name is answered "not found".
pub(crate) async fn probe<S: Store>(store: &S, client: &S::Client) -> Result<()> {
    let Some(name) = store.common().probe else {
        return match store.read(client, &SecretName::new(NOBODYS)).await {
            Err(error) if Refusal::of(&error) == Refusal::NotFound => Ok(()),
            Err(error) if Refusal::of(&error) == Refusal::Denied => {
                let hint = "if it may read only some names, set `probe` to one of them";
                Err(error.with_hint(hint))
            }
            answer => answer.map(drop),
        };
    };
    store.read(client, &SecretName::new(name)).await.map(drop)
}

/// A store that is far away, as a provider.
pub(crate) struct Remote<S: Store> {
    store: S,
    client: Mutex<Option<Arc<S::Client>>>,
}

/// The kind alone: settings may hold the password of a proxy.
impl<S: Store> fmt::Debug for Remote<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Remote").field(&S::KIND).finish()
    }
}

impl<S: Store> Remote<S> {
    pub(crate) fn new(store: S) -> Self {
        Self {
            store,
            client: Mutex::default(),
        }
    }

    /// The client, and whether it was made just now. One at a time: a hundred reads log in once.
    async fn client(&self) -> Result<(Arc<S::Client>, bool)> {
        let mut client = self.client.lock().await;
        if let Some(client) = &*client {
            return Ok((Arc::clone(client), false));
        }
        let made = Arc::new(self.store.connect().await?);
        *client = Some(Arc::clone(&made));
        Ok((made, true))
    }

    /// Whether another client may help: the store did not accept the identity of one that is not fresh.
    async fn given_up<T: Sync>(
        &self,
        client: &Arc<S::Client>,
        fresh: bool,
        answer: &Result<T>,
    ) -> bool {
        let Err(error) = answer else { return false };
        if Refusal::of(error) != Refusal::Identity {
            return false;
        }
        let mut known = self.client.lock().await;
        if known
            .as_ref()
            .is_some_and(|known| Arc::ptr_eq(known, client))
        {
            *known = None;
        }
        !fresh
    }
}

/// Asks with the client at hand; once more with a fresh one if the store no longer accepts the identity.
macro_rules! asked {
    ($self:ident, $client:ident => $ask:expr) => {{
        let ($client, fresh) = $self.client().await?;
        let answer = $ask.await;
        if !$self.given_up(&$client, fresh, &answer).await {
            return answer;
        }
        tracing::debug!(
            kind = S::KIND,
            "the identity is no longer accepted, getting another"
        );
        let ($client, _) = $self.client().await?;
        $ask.await
    }};
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<S: Store> SecretProvider for Remote<S> {
    async fn check(&self) -> Result<()> {
        asked!(self, client => self.store.check(&client))
    }

    async fn identity(&self) -> Result<Option<String>> {
        asked!(self, client => self.store.identity(&client))
    }

    async fn get(&self, name: &SecretName) -> Result<Secret> {
        asked!(self, client => self.store.read(&client, name))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::answer::refused;
    use hybrid_runner_core::ErrorKind;

    /// A client is a number; reads with a number below `good` are refused as a bad identity.
    #[derive(Debug, Default)]
    struct Numbers {
        made: AtomicU32,
        good: AtomicU32,
        access: Access,
    }

    impl Section for Numbers {
        fn verify(&self) -> Result<()> {
            Ok(())
        }

        fn common(&self) -> Common<'_> {
            Common {
                ca: None,
                proxy: None,
                probe: None,
                access: &self.access,
            }
        }
    }

    #[async_trait]
    impl Store for Numbers {
        const KIND: &'static str = "numbers";
        type Client = u32;

        async fn connect(&self) -> Result<u32> {
            Ok(self.made.fetch_add(1, Ordering::SeqCst) + 1)
        }

        async fn read(&self, client: &u32, _: &SecretName) -> Result<Secret> {
            tokio::task::yield_now().await;
            if *client < self.good.load(Ordering::SeqCst) {
                return Err(refused(Refusal::Identity, "expired", "401", ""));
            }
            Ok(Secret::new(client.to_string()))
        }

        async fn identity(&self, client: &u32) -> Result<Option<String>> {
            Ok(Some(client.to_string()))
        }
    }

    #[test]
    fn no_time_at_all_is_refused() {
        let mut numbers = Numbers::default();
        numbers.access.timeout = hybrid_runner_core::unit::Period::seconds(0);
        let error = provider(numbers).unwrap_err();
        assert!(error.message().contains("`access.timeout`"), "{error}");
    }

    #[tokio::test]
    async fn an_identity_that_is_no_longer_accepted_is_renewed_once() {
        let remote = Remote::new(Numbers::default());
        let name = SecretName::new("/a");
        let all = futures::future::join_all((0..9).map(|_| remote.get(&name))).await;
        assert!(
            all.iter()
                .all(|one| one.as_ref().unwrap().value.expose() == b"1")
        );
        remote.store.good.store(2, Ordering::SeqCst);
        let all = futures::future::join_all((0..9).map(|_| remote.get(&name))).await;
        assert!(
            all.iter()
                .all(|one| one.as_ref().unwrap().value.expose() == b"2")
        );
        remote.store.good.store(u32::MAX, Ordering::SeqCst);
        let error = remote.get(&name).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied);
        assert_eq!(remote.store.made.load(Ordering::SeqCst), 3, "not for ever");
        assert!(remote.get(&name).await.is_err());
        assert_eq!(
            remote.store.made.load(Ordering::SeqCst),
            4,
            "a fresh one is not tried twice"
        );
    }
}
