//! The contract of secret stores as a library: one named case for each promise; and a store in memory.
//!
//! | file | holds |
//! |---|---|
//! | `cases` | the cases |
//! | `fake` | [`FakeProvider`]: values, errors, delays and counts as a test wants them |

mod cases;
mod fake;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::future::BoxFuture;

use super::verdict::{Tried, Verdict, failed};
use crate::secret::{SecretName, SecretProvider};

pub use fake::FakeProvider;

/// What the suite must know about a store. Whoever writes a provider writes one of these.
#[async_trait]
pub trait ProviderHarness: Send + Sync {
    /// The provider over all that was put so far.
    async fn provider(&self) -> Arc<dyn SecretProvider>;

    /// Lays a secret into the store, so that a provider made afterwards finds it, and says under which name.
    /// `label` is a lowercase word for it; `None` if the store cannot hold such a value.
    async fn put(&self, label: &str, value: &[u8]) -> Option<SecretName>;

    /// A name that could be there, and is not. It must hold `label`.
    fn missing(&self, label: &str) -> SecretName {
        SecretName::new(format!("/contract/{label}"))
    }

    /// The name of a secret that the store will not let us read.
    async fn denied(&self) -> Option<SecretName> {
        None
    }

    /// A name that this store cannot hold.
    fn impossible(&self) -> Option<SecretName> {
        None
    }

    /// The name of a value that exists and that the section does not allow to be served.
    async fn not_allowed(&self) -> Option<SecretName> {
        None
    }

    /// A provider whose store does not answer.
    async fn unreachable(&self) -> Option<Arc<dyn SecretProvider>> {
        None
    }

    /// Lays versions of one secret into the store, oldest first, and names each one.
    /// `None` if the store has no versions.
    async fn put_versions(&self, label: &str, values: &[&[u8]]) -> Option<Vec<SecretName>> {
        let _ = (label, values);
        None
    }

    /// The name of a secret that is there and disabled.
    async fn disabled(&self) -> Option<SecretName> {
        None
    }

    /// The name of a secret that was there and is deleted.
    async fn deleted(&self) -> Option<SecretName> {
        None
    }

    /// The provider over all that was put so far, with a store, or a way to it, in such trouble.
    async fn in_trouble(&self, trouble: Trouble) -> Option<Arc<dyn SecretProvider>> {
        let _ = trouble;
        None
    }

    /// The credentials that the store in trouble was shown so far.
    fn shown(&self) -> Vec<String> {
        Vec::new()
    }

    /// How long one answer may take.
    fn patience(&self) -> Duration {
        Duration::from_secs(10)
    }

    /// Cases that this store cannot be tried in, each with the reason.
    fn declines(&self) -> &[(&'static str, &'static str)] {
        &[]
    }
}

/// What may be wrong with a store that is far away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Trouble {
    /// It answers twice that there are too many requests, and then as ever.
    ThrottlesTwice,
    /// It goes on answering that there are too many requests.
    Throttles,
    /// It fails twice by itself (5xx), and then answers as ever.
    FailsTwice,
    /// Its answers take longer than anybody waits.
    Slow,
    /// Its certificate is of an authority that nobody trusts.
    Untrusted,
    /// The identity has been used, and is then no longer accepted; another can be had.
    Expired,
    /// Its answers begin, and never end.
    Endless,
    /// It answers that it is at another place (307).
    Elsewhere,
    /// It refuses, and its words repeat what it was asked with.
    Repeats,
}

/// One promise of the contract of secret stores.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct ProviderCase {
    /// The promise, in `snake_case`.
    pub name: &'static str,
    /// The method that promises it.
    pub method: &'static str,
    run: for<'a> fn(&'a dyn ProviderHarness) -> BoxFuture<'a, Tried>,
}

impl ProviderCase {
    /// The promise in words.
    pub fn title(&self) -> String {
        self.name.replace('_', " ")
    }

    /// Tries the promise, within its own time limit.
    pub async fn check(&self, harness: Arc<dyn ProviderHarness>) -> Verdict {
        let declined = harness.declines().iter();
        if let Some((_, why)) = declined.into_iter().find(|(name, _)| *name == self.name) {
            return Verdict::NotOffered((*why).to_owned());
        }
        let limit = harness.patience() * 12;
        let tried = tokio::time::timeout(limit, (self.run)(&*harness)).await;
        let tried = tried.unwrap_or_else(|_| {
            let expected = format!("the whole case within {limit:?}");
            Err(failed(expected, "no end of it"))
        });
        tried.into()
    }
}

/// Tries each promise of the contract, one after the other.
pub async fn provider_contract(
    harness: Arc<dyn ProviderHarness>,
) -> Vec<(&'static ProviderCase, Verdict)> {
    let mut verdicts = Vec::with_capacity(PROVIDER_CASES.len());
    for case in PROVIDER_CASES {
        verdicts.push((case, case.check(Arc::clone(&harness)).await));
    }
    verdicts
}

/// Tries the promise of that name and panics if it is not kept: the body of one test.
pub async fn check_provider_case(name: &str, harness: Arc<dyn ProviderHarness>) {
    let case = PROVIDER_CASES.iter().find(|case| case.name == name);
    let case = case.unwrap_or_else(|| panic!("the provider contract has no case `{name}`"));
    case.check(harness).await.assert_kept(name);
}

macro_rules! table {
    ({} $($method:ident in $module:ident: $($name:ident)+;)+) => {
        /// Every promise of the contract of secret stores.
        pub const PROVIDER_CASES: &[ProviderCase] = &[$($(ProviderCase {
            name: stringify!($name),
            method: stringify!($method),
            run: |harness| Box::pin($module::$name(harness)),
        }),+),+];
    };
}
crate::__provider_cases!(table {});

/// Makes one test of each promise of the contract of secret stores.
///
/// ```
/// # use hybrid_runner_core::testing::FakeProvider;
/// mod contract {
///     hybrid_runner_core::provider_contract_tests!(super::FakeProvider::new());
/// }
/// # fn main() {}
/// ```
///
/// The expression makes a [`ProviderHarness`](crate::testing::ProviderHarness); it is evaluated anew in each test.
#[macro_export]
macro_rules! provider_contract_tests {
    (# $test:tt $harness:expr) => {
        $crate::__provider_cases!($crate::__contract_tests { # $test ($harness) check_provider_case });
    };
    ($harness:expr) => {
        $crate::provider_contract_tests!(#[tokio::test] $harness);
    };
}

/// The one list of cases of the provider contract; hands it to another macro.
#[doc(hidden)]
#[macro_export]
macro_rules! __provider_cases {
    ($callback:path { $($given:tt)* }) => {
        $callback! {
            { $($given)* }
            check in cases:
                check_answers_without_side_effects
                check_says_what_is_missing;
            identity in cases:
                the_identity_is_told_twice_the_same;
            get in cases:
                text_comes_back_byte_for_byte
                unicode_comes_back_byte_for_byte
                spaces_and_newlines_come_back_byte_for_byte
                a_binary_value_comes_back_byte_for_byte
                an_empty_value_comes_back_empty
                a_large_value_comes_back_byte_for_byte
                each_name_has_its_own_value
                reading_at_the_same_time_gives_the_same
                a_read_dropped_at_any_await_harms_nothing
                a_missing_secret_is_not_found
                a_missing_version_is_an_error
                each_version_comes_back_by_its_name
                the_newest_version_comes_without_a_name
                the_version_is_told_where_there_are_some
                a_disabled_secret_is_told_apart
                a_deleted_secret_is_refused
                a_store_that_throttles_twice_is_asked_again
                a_store_that_goes_on_throttling_is_unavailable
                a_store_that_fails_twice_is_asked_again
                a_slow_store_is_given_up_in_time
                a_store_that_cannot_be_trusted_is_not_read
                an_identity_that_expired_is_renewed
                an_answer_that_never_ends_is_not_read_on
                a_store_that_sends_elsewhere_is_not_followed
                a_refusal_that_repeats_the_request_tells_no_credential
                a_forbidden_secret_is_denied
                a_store_that_does_not_answer_is_unavailable
                an_impossible_name_is_invalid
                an_error_names_the_secret_and_never_a_value
                what_is_not_allowed_is_not_served;
        }
    };
}
