//! Secrets: references, values, and the contract of secret stores.

mod reference;
mod references;
mod template;
mod value;

use std::fmt;

use async_trait::async_trait;

use crate::error::Result;

pub use reference::{Key, Reference, SecretName};
pub use references::References;
pub use template::{Template, references_in};
pub use value::{Fields, Origin, Secret, SecretValue, Secrets};

/// A store of secrets in the customer's own place.
///
/// # Contract
///
/// Every provider passes [`crate::testing::provider_contract`]; each bullet below has a test of its name.
#[async_trait]
pub trait SecretProvider: fmt::Debug + Send + Sync + 'static {
    /// Whether the store can be reached and read, without reading a value.
    ///
    /// # Behavior
    ///
    /// - has no side effects and answers within the provider's own time limit;
    /// - an error says what is missing and what to do about it.
    async fn check(&self) -> Result<()>;

    /// As whom the store sees us, for people: a user, a role, an account. None where a store has no identities.
    ///
    /// The one method with a default, because most stores outside of the clouds know nobody.
    ///
    /// # Behavior
    ///
    /// - never holds a credential;
    /// - an error says which identity was tried and what to do about it.
    async fn identity(&self) -> Result<Option<String>> {
        Ok(None)
    }

    /// Reads one secret.
    ///
    /// # Behavior
    ///
    /// - `NotFound`, `Denied` and `Unavailable` are told apart; `Invalid` is a name that this store cannot hold;
    /// - the value comes back byte for byte, the empty one and binary ones too;
    /// - an error names the secret and the store's own code, and never holds a value;
    /// - serves no more than it must: only what its section allows.
    ///
    /// # Cancel safety
    ///
    /// May be dropped at any await.
    async fn get(&self, name: &SecretName) -> Result<Secret>;
}
