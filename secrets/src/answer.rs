//! Why a store gave nothing, as finely as stores tell it.
//!
//! The contract has few kinds, for what the caller can do. People and metrics want to know more: whether a
//! secret is missing or disabled, whether the identity is bad or only lacks a permission. That is a
//! [`Refusal`]; it travels as the cause of the contract's error, together with the store's own code.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

use hybrid_runner_core::error::{Error, ErrorKind};

#[cfg(feature = "_web")]
use crate::echo;

/// The most characters of a store's own words that are passed on.
#[cfg(feature = "_web")]
const WORDS: usize = 400;

/// The most characters of a store's own code.
#[cfg(feature = "_web")]
const CODE: usize = 100;

/// Begins what of a store's words repeats our request.
#[cfg(feature = "_web")]
const REPEATED: &str = "The Canonical String for this request";

/// How tokens begin: signed ones, those of Vault, and Google's.
#[cfg(feature = "_web")]
const TOKENS: [&str; 4] = ["eyJ", "hvs.", "hvb.", "ya29."];
/// None is shorter.
#[cfg(feature = "_web")]
const TOKEN: usize = 16;

/// Why a store gave nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Refusal {
    /// There is no such secret, or no such version or field of it.
    NotFound,
    /// The identity is known and may not read it.
    Denied,
    /// The store does not accept the identity: unknown, expired, wrong.
    Identity,
    /// It is there, and disabled, deleted or destroyed.
    Disabled,
    /// Too many requests.
    Throttled,
    /// No answer, or none of its own: down, slow, not to be found, not to be trusted.
    Unreachable,
    /// A name or a version that this store cannot hold, or a value that cannot be read.
    Malformed,
    /// This store cannot do it at all.
    Unsupported,
    /// Something that should not happen did.
    Internal,
}

impl Refusal {
    /// What the caller can do.
    pub fn kind(self) -> ErrorKind {
        match self {
            Self::NotFound => ErrorKind::NotFound,
            Self::Denied | Self::Identity => ErrorKind::Denied,
            Self::Disabled => ErrorKind::Conflict,
            Self::Throttled | Self::Unreachable => ErrorKind::Unavailable,
            Self::Malformed => ErrorKind::Invalid,
            Self::Unsupported => ErrorKind::Unsupported,
            Self::Internal => ErrorKind::Internal,
        }
    }

    /// Its name in audit lines and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotFound => "not_found",
            Self::Denied => "denied",
            Self::Identity => "bad_identity",
            Self::Disabled => "disabled",
            Self::Throttled => "throttled",
            Self::Unreachable => "unreachable",
            Self::Malformed => "malformed",
            Self::Unsupported => "unsupported",
            Self::Internal => "internal",
        }
    }

    /// What an error says: the store's own answer if there is one in its chain, else what its kind comes to.
    pub fn of(error: &Error) -> Self {
        Self::told(error).unwrap_or(match error.kind() {
            ErrorKind::NotFound => Self::NotFound,
            ErrorKind::Denied => Self::Denied,
            ErrorKind::Conflict => Self::Disabled,
            ErrorKind::Unavailable => Self::Unreachable,
            ErrorKind::Invalid => Self::Malformed,
            ErrorKind::Unsupported => Self::Unsupported,
            _ => Self::Internal,
        })
    }

    /// The store's own answer, if the error carries one.
    pub(crate) fn told(error: &Error) -> Option<Self> {
        let mut next = error.source();
        while let Some(cause) = next {
            if let Some(answer) = cause.downcast_ref::<Answer>() {
                return Some(answer.refusal);
            }
            if let Some(shared) = cause.downcast_ref::<Shared>() {
                return Self::told(&shared.0);
            }
            next = cause.source();
        }
        None
    }
}

/// What the store itself said. Never a value: stores do not put one into an error; nor what we are known by, which some do.
#[derive(Debug)]
struct Answer {
    refusal: Refusal,
    /// The store's own code, and its words.
    said: String,
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.said)
    }
}

impl StdError for Answer {}

/// A refusal: what happened and what to do about it, the store's own code and words as its cause.
#[cfg(feature = "_web")]
pub(crate) fn refused(
    refusal: Refusal,
    message: impl Into<String>,
    code: impl fmt::Display,
    words: &str,
) -> Error {
    let one_line = |words: &str, most: usize| {
        let words: String = words
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .take(most)
            .collect();
        words.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let code = one_line(&code.to_string(), CODE);
    let clean = one_line(words, usize::MAX);
    // Behind these words AWS repeats the whole request that was signed wrongly, with the token in it.
    let clean = clean.split(REPEATED).next().unwrap_or_default();
    let clean = without_tokens(&echo::without_known(clean));
    let cut: String = clean.chars().take(WORDS).collect();
    let cut = cut.trim_end_matches(['.', ' ']);
    let said = if cut.is_empty() {
        format!("`{code}`")
    } else {
        format!("`{code}`: {cut}")
    };
    Error::new(refusal.kind(), message).with_source(Answer { refusal, said })
}

/// What stands before a store may repeat what we are known by.
#[cfg(feature = "_web")]
fn without_tokens(words: &str) -> String {
    let is_part = |c: char| c.is_ascii_alphanumeric() || "-_.~+/".contains(c);
    let mut kept = String::with_capacity(words.len());
    let mut rest = words;
    while !rest.is_empty() {
        let (word, behind) = rest.split_at(rest.find(|c| !is_part(c)).unwrap_or(rest.len()));
        let is_token = word.len() >= TOKEN && TOKENS.iter().any(|begin| word.starts_with(begin));
        kept.push_str(if is_token { "***" } else { word });
        let (between, next) = behind.split_at(behind.find(is_part).unwrap_or(behind.len()));
        kept.push_str(between);
        rest = next;
    }
    kept
}

/// The same error once more, for another who waited for it or comes later.
pub(crate) fn share(error: &Arc<Error>) -> Error {
    let again = Error::new(error.kind(), error.message());
    match error.source() {
        None => again,
        Some(_) => again.with_source(Shared(Arc::clone(error))),
    }
}

/// The cause of an error that several share.
struct Shared(Arc<Error>);

impl Shared {
    fn get(&self) -> &(dyn StdError + 'static) {
        self.0.source().unwrap_or(self.0.as_ref())
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.get(), f)
    }
}

impl fmt::Display for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self.get(), f)
    }
}

impl StdError for Shared {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.get().source()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_alone_tells_the_nearest_refusal() {
        for (kind, refusal) in [
            (ErrorKind::NotFound, Refusal::NotFound),
            (ErrorKind::Denied, Refusal::Denied),
            (ErrorKind::Unavailable, Refusal::Unreachable),
            (ErrorKind::Invalid, Refusal::Malformed),
        ] {
            assert_eq!(Refusal::of(&Error::new(kind, "no")), refusal);
            assert_eq!(refusal.kind(), kind);
        }
    }

    #[test]
    #[cfg(feature = "_web")]
    fn the_stores_answer_survives_sharing_and_its_words_are_cut_and_cleaned() {
        let words = format!("no\r\nway {}", "x".repeat(1000));
        let error = Arc::new(refused(Refusal::Throttled, "slow down", "429", &words));
        let shared = Arc::new(share(&error));
        let again = share(&shared);
        assert_eq!(Refusal::of(&again), Refusal::Throttled);
        assert_eq!(again.report(), error.report());
        assert!(again.report().starts_with("slow down: `429`: no way xxx"));
        assert!(again.report().len() < 500);
    }

    #[test]
    #[cfg(feature = "_web")]
    fn our_own_request_is_not_told_again() {
        let words = "The signature does not match. The Canonical String for this request should have been\n'POST\nx-amz-security-token:FQoGZXIvYXdz'";
        let error = refused(Refusal::Identity, "no", "InvalidSignatureException", words);
        let report = error.report();
        assert_eq!(
            report,
            "no: `InvalidSignatureException`: The signature does not match"
        );
    }

    #[test]
    #[cfg(feature = "_web")]
    fn a_token_that_a_store_repeats_is_left_out() {
        let words = "no: `Authorization: Bearer eyJhbGciOi.eyJzdWIi-_.c2ln`, X-Vault-Token=hvs.CAESIJ0123456789 for arn:aws:iam::123456789012:role/eyJ";
        let error = refused(Refusal::Denied, "denied", 403, words);
        assert_eq!(
            error.report(),
            "denied: `403`: no: `Authorization: Bearer ***`, X-Vault-Token=*** for arn:aws:iam::123456789012:role/eyJ"
        );
    }
}
