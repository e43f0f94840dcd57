//! What is common to all stores that are far away: a client that is made when it is first needed, and made
//! again when the store no longer accepts its identity.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use hybrid_runner_core::error::Result;
use hybrid_runner_core::secret::{Secret, SecretName, SecretProvider};
use tokio::sync::Mutex;

use crate::{ErrorIs as _, Refusal};

/// One kind of store that is far away.
#[async_trait]
pub(crate) trait Store: fmt::Debug + Send + Sync + 'static {
    /// A connection with an identity.
    type Client: Send + Sync + 'static;

    /// Makes a client; reads the credentials of now.
    async fn connect(&self) -> Result<Self::Client>;

    /// See [`SecretProvider::get`].
    async fn read(&self, client: &Self::Client, name: &SecretName) -> Result<Secret>;

    /// See [`SecretProvider::check`].
    async fn check(&self, client: &Self::Client) -> Result<()>;

    /// See [`SecretProvider::identity`].
    async fn identity(&self, client: &Self::Client) -> Result<Option<String>>;
}

/// A name that nobody has: asking for it shows whether reading is allowed, and reads nothing.
const NOBODYS: &str = "hybrid-runner-check";

/// Whether the store may be read: the configured name is, or nobody's name is answered "not found".
pub(crate) async fn probe<S: Store>(
    store: &S,
    client: &S::Client,
    name: Option<&str>,
) -> Result<()> {
    let Some(name) = name else {
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

impl<S: Store> fmt::Debug for Remote<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.store.fmt(f)
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
        tracing::debug!(store = ?$self.store, "the identity is no longer accepted, getting another");
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
    }

    #[async_trait]
    impl Store for Numbers {
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

        async fn check(&self, _: &u32) -> Result<()> {
            Ok(())
        }

        async fn identity(&self, client: &u32) -> Result<Option<String>> {
            Ok(Some(client.to_string()))
        }
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
