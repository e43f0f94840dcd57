//! One request for many.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use futures::FutureExt as _;
use futures::future::{BoxFuture, Shared, WeakShared};
use hybrid_runner_core::secret::{Secret, SecretName};
use hybrid_runner_core::{Error, Result, SecretProvider};

use crate::answer::share;

type Flight = BoxFuture<'static, Result<Secret, Arc<Error>>>;

/// Makes one request of many for the same name at the same time.
///
/// Whoever waits drives the request, so it lives as long as one of them does, and no longer.
pub struct SingleFlight<P> {
    inner: Arc<P>,
    flights: Mutex<HashMap<SecretName, WeakShared<Flight>>>,
}

impl<P: SecretProvider> SingleFlight<P> {
    /// Around `inner`.
    pub fn new(inner: P) -> Self {
        Self {
            inner: Arc::new(inner),
            flights: Mutex::default(),
        }
    }

    /// Joins the request that is under way, or begins one.
    fn join(&self, name: &SecretName) -> Shared<Flight> {
        let mut flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
        let under_way = flights.get(name).and_then(WeakShared::upgrade);
        if let Some(flight) = under_way.filter(|flight| flight.peek().is_none()) {
            return flight;
        }
        flights.retain(|_, flight| flight.upgrade().is_some());
        let (inner, asked) = (Arc::clone(&self.inner), name.clone());
        let flight = async move { inner.get(&asked).await.map_err(Arc::new) };
        let flight = flight.boxed().shared();
        if let Some(weak) = flight.downgrade() {
            flights.insert(name.clone(), weak);
        }
        flight
    }
}

impl<P: fmt::Debug> fmt::Debug for SingleFlight<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SingleFlight")
            .field("inner", &self.inner)
            .finish_non_exhaustive()
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<P: SecretProvider> SecretProvider for SingleFlight<P> {
    async fn check(&self) -> Result<()> {
        self.inner.check().await
    }

    async fn identity(&self) -> Result<Option<String>> {
        self.inner.identity().await
    }

    async fn get(&self, name: &SecretName) -> Result<Secret> {
        let flight = self.join(name);
        flight.await.map_err(|error| share(&error))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Script, name};
    use super::*;
    use futures::future::join_all;

    #[tokio::test(start_paused = true)]
    async fn a_hundred_at_once_make_one_request() {
        let script = Script::new(|_, _| Ok("v".into()));
        let single = SingleFlight::new(script.clone());
        let asked = name("/a");
        let all = join_all((0..100).map(|_| single.get(&asked))).await;
        assert!(
            all.iter()
                .all(|one| one.as_ref().unwrap().value.expose() == b"v")
        );
        assert_eq!(script.calls(), 1);
        single.get(&asked).await.unwrap();
        assert_eq!(script.calls(), 2, "a later one asks anew");
        single.get(&name("/b")).await.unwrap();
        assert_eq!(
            single.flights.lock().unwrap().len(),
            1,
            "the past is forgotten"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_may_leave_and_the_others_get_their_answer() {
        let script = Script::new(|_, _| Ok("v".into()));
        let single = SingleFlight::new(script.clone());
        let asked = name("/a");
        let mut first = single.get(&asked);
        assert!(futures::poll!(&mut first).is_pending());
        let second = single.get(&asked);
        drop(first);
        second.await.unwrap();
        assert_eq!(script.calls(), 2, "nobody waited for the first any more");

        let mut first = single.get(&asked);
        let mut second = single.get(&asked);
        assert!(futures::poll!(&mut first).is_pending());
        assert!(futures::poll!(&mut second).is_pending());
        drop(first);
        second.await.unwrap();
        assert_eq!(script.calls(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn each_gets_the_whole_error() {
        let script = Script::new(|_, _| {
            Err(Error::denied("no")
                .with_source(Error::internal("403").with_source(Error::internal("policy"))))
        });
        let single = SingleFlight::new(script);
        let asked = name("/a");
        for error in join_all((0..3).map(|_| single.get(&asked))).await {
            assert_eq!(error.unwrap_err().report(), "no: 403: policy");
        }
    }
}
