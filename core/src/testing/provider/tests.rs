use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::*;
use crate::error::{Error, ErrorKind, Result};
use crate::secret::{Secret, SecretValue};

mod the_fake_passes {
    crate::provider_contract_tests!(
        #[tokio::test(start_paused = true)]
        crate::testing::FakeProvider::new()
    );
}

#[tokio::test(start_paused = true)]
async fn the_fake_counts_delays_and_fails_as_told() {
    let store = FakeProvider::new().with("/a", "hunter2");
    let a = SecretName::new("/a");
    store.set_latency(Duration::from_secs(3));
    let before = tokio::time::Instant::now();
    assert!(store.get(&a).await.is_ok());
    assert_eq!(before.elapsed(), Duration::from_secs(3));
    store.fail("/a", ErrorKind::Denied, "no");
    assert_eq!(store.get(&a).await.unwrap_err().kind(), ErrorKind::Denied);
    store.set_reachable(false);
    assert!(store.get(&a).await.unwrap_err().is_transient());
    assert_eq!(store.reads_of("/a"), 3);
    assert!(!format!("{store:?}").contains("hunter2"));
}

/// Breaks the answers of a store.
type Break = fn(Result<Secret>) -> Result<Secret>;

#[derive(Clone)]
struct Broken(FakeProvider, Break);

impl fmt::Debug for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Broken")
    }
}

#[async_trait]
impl SecretProvider for Broken {
    async fn check(&self) -> Result<()> {
        self.0.check().await
    }
    async fn get(&self, name: &SecretName) -> Result<Secret> {
        (self.1)(self.0.get(name).await)
    }
}

#[async_trait]
impl ProviderHarness for Broken {
    async fn provider(&self) -> Arc<dyn SecretProvider> {
        Arc::new(self.clone())
    }
    async fn put(&self, label: &str, value: &[u8]) -> Option<SecretName> {
        self.0.put(label, value).await
    }
    async fn denied(&self) -> Option<SecretName> {
        self.0.denied().await
    }
    async fn put_versions(&self, label: &str, values: &[&[u8]]) -> Option<Vec<SecretName>> {
        self.0.put_versions(label, values).await
    }
    async fn disabled(&self) -> Option<SecretName> {
        self.0.disabled().await
    }
    fn impossible(&self) -> Option<SecretName> {
        self.0.impossible()
    }
    async fn not_allowed(&self) -> Option<SecretName> {
        self.0.not_allowed().await
    }
    async fn unreachable(&self) -> Option<Arc<dyn SecretProvider>> {
        let elsewhere = FakeProvider::new();
        elsewhere.set_reachable(false);
        Some(Arc::new(Self(elsewhere, self.1)))
    }
}

/// Reads the value of an answer and makes another of it.
fn with_value(answer: Result<Secret>, change: impl Fn(&[u8]) -> Vec<u8>) -> Result<Secret> {
    answer.map(|mut secret| {
        secret.value = SecretValue::new(change(secret.value.expose()));
        secret
    })
}

fn as_kind(answer: Result<Secret>, from: ErrorKind, to: ErrorKind) -> Result<Secret> {
    answer.map_err(|error| {
        let kind = if error.kind() == from {
            to
        } else {
            error.kind()
        };
        Error::new(kind, error.report())
    })
}

#[tokio::test(start_paused = true)]
async fn each_broken_store_is_caught_by_the_case_meant_for_it() {
    let broken: [(&str, Break); 11] = [
        ("spaces_and_newlines_come_back_byte_for_byte", |answer| {
            with_value(answer, |value| value.trim_ascii().to_vec())
        }),
        ("a_binary_value_comes_back_byte_for_byte", |answer| {
            with_value(answer, |value| {
                String::from_utf8_lossy(value).into_owned().into()
            })
        }),
        ("an_empty_value_comes_back_empty", |answer| match answer {
            Ok(secret) if secret.value.expose().is_empty() => Err(Error::not_found("nothing")),
            other => other,
        }),
        ("a_large_value_comes_back_byte_for_byte", |answer| {
            with_value(answer, |value| value[..value.len().min(4096)].to_vec())
        }),
        ("a_missing_secret_is_not_found", |answer| {
            as_kind(answer, ErrorKind::NotFound, ErrorKind::Unavailable)
        }),
        ("a_forbidden_secret_is_denied", |answer| {
            as_kind(answer, ErrorKind::Denied, ErrorKind::NotFound)
        }),
        ("a_disabled_secret_is_told_apart", |answer| {
            as_kind(answer, ErrorKind::Conflict, ErrorKind::NotFound)
        }),
        ("the_version_is_told_where_there_are_some", |answer| {
            answer.map(|secret| Secret::from(secret.value))
        }),
        ("a_store_that_does_not_answer_is_unavailable", |answer| {
            as_kind(answer, ErrorKind::Unavailable, ErrorKind::NotFound)
        }),
        ("an_impossible_name_is_invalid", |answer| {
            as_kind(answer, ErrorKind::Invalid, ErrorKind::Internal)
        }),
        ("an_error_names_the_secret_and_never_a_value", |answer| {
            answer.map_err(|error| Error::new(error.kind(), "something went wrong"))
        }),
    ];
    for (case, change) in broken {
        let harness = Arc::new(Broken(FakeProvider::new(), change));
        let verdicts = provider_contract(harness).await;
        let failed = |(_, verdict): &&(_, Verdict)| matches!(verdict, Verdict::Failed(_));
        let caught: Vec<&str> = verdicts
            .iter()
            .filter(failed)
            .map(|(case, _)| case.name)
            .collect();
        assert_eq!(caught, [case]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_gives_one_answer_to_all_is_caught_by_every_read() {
    let always: Break = |_| Ok(Secret::new("the same for all"));
    let verdicts = provider_contract(Arc::new(Broken(FakeProvider::new(), always))).await;
    let passed = |(case, verdict): &&(&ProviderCase, Verdict)| {
        case.method == "get" && *verdict == Verdict::Kept
    };
    let passed: Vec<&str> = verdicts
        .iter()
        .filter(passed)
        .map(|(case, _)| case.name)
        .collect();
    assert!(passed.is_empty(), "{passed:?}");
}
