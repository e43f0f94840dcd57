//! What the harnesses of all stores share: fronts that live as long as they do, and the way to each trouble.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use hybrid_runner_core::secret::{SecretName, SecretProvider};
use hybrid_runner_core::testing::Trouble;
use hybrid_runner_core::unit::Period;
use hybrid_runner_core::{Error, Result};
use hybrid_runner_secrets::decorate::Access;

use crate::authority::Authority;
use crate::front::{Answer, Front};
use crate::services::http;

/// Longer than anybody waits.
const LATE: Duration = Duration::from_mins(1);

/// How a store says what is wrong: code, type of content, text.
pub(crate) type Words = (u16, &'static str, String);

/// A store in the words of which trouble is told.
#[derive(Debug, Clone)]
pub(crate) struct Dialect {
    /// What only a read of a secret holds.
    pub(crate) read: &'static str,
    pub(crate) throttled: Words,
    pub(crate) failing: Words,
    pub(crate) expired: Words,
}

/// The fronts of one harness.
pub(crate) struct Fronts {
    pub(crate) authority: Authority,
    stranger: Authority,
    to: String,
    dialect: Dialect,
    all: Mutex<Vec<Arc<Front>>>,
}

impl Fronts {
    pub(crate) fn new(to: &str, dialect: Dialect) -> Self {
        Self {
            authority: Authority::new(),
            stranger: Authority::new(),
            to: to.to_owned(),
            dialect,
            all: Mutex::default(),
        }
    }

    /// A front that only passes on.
    pub(crate) async fn front(&self) -> Arc<Front> {
        self.keep(Front::before(&self.to, Some(&self.authority), http()).await)
    }

    fn keep(&self, front: Front) -> Arc<Front> {
        let front = Arc::new(front);
        self.all.lock().unwrap().push(Arc::clone(&front));
        front
    }

    /// A front in trouble; that of `Expired` begins with the next call of [`Fronts::expire`].
    pub(crate) async fn in_trouble(&self, trouble: Trouble) -> Option<Arc<Front>> {
        if trouble == Trouble::Untrusted {
            return Some(self.keep(Front::before(&self.to, Some(&self.stranger), http()).await));
        }
        let front = self.front().await;
        let says = |(code, kind, text): &Words| Answer::Says(*code, kind, text.clone());
        let (times, answer) = match trouble {
            Trouble::ThrottlesTwice => (2, says(&self.dialect.throttled)),
            Trouble::Throttles => (u32::MAX, says(&self.dialect.throttled)),
            Trouble::FailsTwice => (2, says(&self.dialect.failing)),
            Trouble::Slow => (u32::MAX, Answer::Late(LATE)),
            Trouble::Endless => (u32::MAX, Answer::Endless),
            Trouble::Elsewhere => (u32::MAX, Answer::Elsewhere),
            Trouble::Repeats => {
                let (code, kind, text) = &self.dialect.expired;
                (u32::MAX, Answer::Repeats(*code, kind, text.clone()))
            }
            Trouble::Expired => return Some(front),
            _ => return None,
        };
        front.trouble(self.dialect.read, times, answer);
        Some(front)
    }

    /// The credentials that were shown to fronts that repeated them.
    pub(crate) fn shown(&self) -> Vec<String> {
        let all = self.all.lock().unwrap();
        all.iter().flat_map(|front| front.shown()).collect()
    }

    /// From now on the store does not accept the identity, once.
    pub(crate) fn expire(&self, front: &Front) {
        let (code, kind, text) = &self.dialect.expired;
        front.trouble(
            self.dialect.read,
            1,
            Answer::Says(*code, kind, text.clone()),
        );
    }
}

/// Why a store refuses a secret.
pub(crate) async fn refused(store: Result<Arc<dyn SecretProvider>>, name: &SecretName) -> Error {
    store.unwrap().get(name).await.unwrap_err()
}

/// Panics unless an error says each of these.
#[track_caller]
pub(crate) fn assert_says(error: &Error, parts: &[&str]) {
    for part in parts {
        assert!(error.report().contains(part), "no `{part}`: {error:?}");
    }
}

/// An address where nobody listens.
pub(crate) fn nobody(scheme: &str) -> String {
    // The port is taken and let go of: nobody else gets it for a while.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    format!(
        "{scheme}://localhost:{}",
        listener.local_addr().unwrap().port()
    )
}

/// Without a cache, so that each read is one.
pub(crate) fn uncached() -> Access {
    let mut access = Access::default();
    access.cache = Period::seconds(0);
    access.negative_cache = Period::seconds(0);
    access
}

/// A key as identity providers have one.
#[cfg(any(feature = "aws", feature = "gcp", feature = "vault"))]
pub(crate) fn rsa() -> rcgen::KeyPair {
    rcgen::KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap()
}

/// A token of an identity provider, signed by its key.
#[cfg(any(feature = "aws", feature = "vault"))]
pub(crate) fn signed(key: &rcgen::KeyPair, claims: &serde_json::Value) -> String {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use rcgen::SigningKey as _;
    let part = |value: &serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let head = part(&serde_json::json!({"alg": "RS256", "typ": "JWT"}));
    let text = format!("{head}.{}", part(claims));
    let signature = key.sign(text.as_bytes()).unwrap();
    format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
}
