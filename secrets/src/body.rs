//! The body of a store's answer, bounded.

#![cfg_attr(
    not(any(feature = "aws", feature = "azure", feature = "gcp", feature = "vault")),
    expect(
        dead_code,
        reason = "Kubernetes has a client of its own and takes the bound only"
    )
)]

use std::error::Error as StdError;
use std::fmt;

#[cfg(any(feature = "aws", feature = "gcp", feature = "vault"))]
use zeroize::Zeroizing;

/// No store's answer is longer: values are at most 1 MiB, and come in base64.
pub(crate) const LONGEST: usize = 4 << 20;

/// An answer was not read to its end.
#[derive(Debug)]
pub(crate) enum Failed {
    /// There was no end.
    Way(reqwest::Error),
    /// It is longer than any store's.
    TooLong,
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Way(error) => error.fmt(f),
            Self::TooLong => write!(f, "the answer is longer than {LONGEST} bytes"),
        }
    }
}

impl StdError for Failed {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Way(error) => error.source(),
            Self::TooLong => None,
        }
    }
}

impl From<reqwest::Error> for Failed {
    fn from(error: reqwest::Error) -> Self {
        Self::Way(error)
    }
}

impl Failed {
    /// What was wrong with the way.
    #[cfg(any(feature = "aws", feature = "gcp"))]
    pub(crate) fn way(&self) -> Option<&reqwest::Error> {
        match self {
            Self::Way(error) => Some(error),
            Self::TooLong => None,
        }
    }
}

/// The body of an answer.
#[cfg(any(feature = "aws", feature = "gcp", feature = "vault"))]
pub(crate) async fn read(mut answer: reqwest::Response) -> Result<Zeroizing<Vec<u8>>, Failed> {
    let mut body = Zeroizing::new(Vec::new());
    while let Some(part) = answer.chunk().await? {
        if body.len() + part.len() > LONGEST {
            return Err(Failed::TooLong);
        }
        body.extend_from_slice(&part);
    }
    Ok(body)
}
