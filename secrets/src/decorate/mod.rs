//! Wrappers around any provider, each a provider itself.
//!
//! | wrapper | does |
//! |---|---|
//! | [`Timed`] | ends a request that takes too long, as `Unavailable` |
//! | [`Limited`] | lets only so many requests through at a time |
//! | [`Retried`] | asks again after `Unavailable`, later each time |
//! | [`SingleFlight`] | makes one request of many for the same name at the same time |
//! | [`Cached`] | remembers values for a while, and refusals for a moment |
//!
//! [`around`] puts a store that is far away into all of them. `env` and `file` need none: they are
//! near, and a rotated file is to be seen at once.

mod cached;
mod limited;
mod retried;
mod single_flight;
mod timed;

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::sync::Arc;
use std::time::Duration;

use hybrid_runner_core::SecretProvider;
use hybrid_runner_core::unit::Period;
use schemars::JsonSchema;
use serde::Deserialize;

pub use cached::Cached;
pub use limited::Limited;
pub use retried::Retried;
pub use single_flight::SingleFlight;
pub use timed::Timed;

/// What stands around a store that is far away; part of its section as `access = { … }`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Access {
    /// How long one request may take.
    pub timeout: Period,
    /// How many requests at a time.
    pub concurrency: u32,
    /// How often a request is made that finds the store unreachable.
    pub attempts: u32,
    /// How long a value is remembered; zero: not at all.
    pub cache: Period,
    /// How long "not found" and "denied" are remembered; zero: not at all.
    pub negative_cache: Period,
}

impl Default for Access {
    fn default() -> Self {
        Self {
            timeout: Period::seconds(3),
            concurrency: 8,
            attempts: 3,
            cache: Period::seconds(60),
            negative_cache: Period::seconds(5),
        }
    }
}

/// Puts a store that is far away into all wrappers.
pub fn around(provider: impl SecretProvider, access: &Access) -> Arc<dyn SecretProvider> {
    let timed = Timed::new(provider, access.timeout.get());
    let limited = Limited::new(timed, access.concurrency);
    let retried = Retried::new(limited, access.attempts);
    let single = SingleFlight::new(retried);
    Arc::new(Cached::new(
        single,
        access.cache.get(),
        access.negative_cache.get(),
    ))
}

/// A length of time between zero and `most`, by chance.
fn spread(most: Duration) -> Duration {
    // A fresh `RandomState` is keyed by chance; that is all the chance needed here.
    let chance = RandomState::new().build_hasher().finish() >> 32;
    let share = u32::try_from(chance).unwrap_or(u32::MAX);
    most.mul_f64(f64::from(share) / f64::from(u32::MAX))
}

#[cfg(test)]
mod testing;

#[cfg(test)]
mod tests {
    use super::testing::{Script, name};
    use super::*;
    use hybrid_runner_core::{Error, ErrorKind};

    #[test]
    fn a_spread_is_within_its_bound() {
        let most = Duration::from_secs(1);
        let all: Vec<_> = (0..100).map(|_| spread(most)).collect();
        assert!(all.iter().all(|one| *one <= most));
        assert!(all.iter().any(|one| *one != all[0]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_comes_back_is_asked_again_and_then_remembered() {
        let script = Script::new(|call, _| match call {
            1 => Err(Error::unavailable("down")),
            _ => Ok("v".into()),
        });
        let provider = around(script.clone(), &Access::default());
        for _ in 0..3 {
            provider.get(&name("/a")).await.unwrap();
        }
        assert_eq!(script.calls(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_hangs_is_unreachable_after_its_attempts() {
        let script = Script::new(|_, _| Ok("v".into())).taking(Duration::from_hours(1));
        let provider = around(script.clone(), &Access::default());
        let error = provider.get(&name("/a")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert_eq!(script.calls(), 3);
    }
}
