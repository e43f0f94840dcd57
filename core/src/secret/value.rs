//! Values that cannot be printed.

use std::collections::BTreeMap;
use std::fmt;

use secrecy::{ExposeSecret as _, SecretBox};

use crate::error::{Error, Result};
use crate::id::SectionName;

/// The bytes of a secret: no `Debug`, no `Serialize`, zeroized on drop.
#[derive(Clone)]
pub struct SecretValue(SecretBox<Bytes>);

/// What is inside: zeroized on drop by `SecretBox`.
#[derive(Clone)]
struct Bytes(Vec<u8>);

impl zeroize::Zeroize for Bytes {
    fn zeroize(&mut self) {
        self.0.zeroize();
    }
}

impl secrecy::CloneableSecret for Bytes {}

impl SecretValue {
    /// Takes the bytes over.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(SecretBox::new(Box::new(Bytes(bytes.into()))))
    }

    /// The bytes. Call it only at the point of use, and say why there.
    pub fn expose(&self) -> &[u8] {
        &self.0.expose_secret().0
    }

    /// The value as text; an error if it is binary (and never the value in the error).
    pub fn expose_text(&self) -> Result<&str> {
        std::str::from_utf8(self.expose())
            .map_err(|_| Error::invalid("the value is binary where text is needed"))
    }
}

impl fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// A secret as a store gave it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Secret {
    /// The value.
    pub value: SecretValue,
    /// The store's own name of this version, if it has versions.
    pub version: Option<String>,
    /// The fields of a secret that its store keeps as several values under names; `value` is then what stands for the whole.
    pub fields: Option<Fields>,
}

impl Secret {
    /// A value without a version.
    pub fn new(value: impl Into<Vec<u8>>) -> Self {
        Self::from(SecretValue::new(value))
    }

    /// Adds the store's own name of this version.
    #[must_use]
    pub fn with_version(mut self, version: impl Into<String>) -> Self {
        self.version = Some(version.into());
        self
    }

    /// Adds the fields of a secret that its store keeps as several values under names.
    #[must_use]
    pub fn with_fields(mut self, fields: Fields) -> Self {
        self.fields = Some(fields);
        self
    }
}

/// The fields of a secret that its store keeps as several values under names, as Kubernetes and Vault do.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Fields {
    /// Each value under its name.
    pub values: BTreeMap<String, SecretValue>,
    /// Whether nothing can stand for the whole, so that a reference must name a field.
    pub only_by_name: bool,
}

impl From<SecretValue> for Secret {
    fn from(value: SecretValue) -> Self {
        Self {
            value,
            version: None,
            fields: None,
        }
    }
}

/// Where a value was found, so that the same one can be read again.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Origin {
    /// A store, and its own name of the version, if it has versions.
    Store(SectionName, Option<String>),
    /// The reference's own `?default=`.
    Default,
}

/// The values for one start: reference (as written) → value. Travels beside the spec, never in it.
#[derive(Clone, Default)]
pub struct Secrets {
    values: BTreeMap<String, SecretValue>,
    /// Where the values were found, as far as that is known.
    origins: BTreeMap<String, Origin>,
    /// The workload resolves its references itself: they are written as they are.
    left: bool,
}

impl Secrets {
    /// No values: on the link.
    pub fn none() -> Self {
        Self::default()
    }

    /// No values, because the workload resolves its references itself: each stays in its place, as it is written.
    pub fn left_to_the_workload() -> Self {
        Self {
            left: true,
            ..Self::default()
        }
    }

    /// Whether the workload resolves its references itself.
    pub fn are_left_to_the_workload(&self) -> bool {
        self.left
    }

    /// Adds the value of a reference, written without `secret:`.
    pub fn insert(&mut self, reference: impl Into<String>, value: SecretValue) {
        self.values.insert(reference.into(), value);
    }

    /// Adds where the value of a reference was found.
    pub fn set_origin(&mut self, reference: impl Into<String>, origin: Origin) {
        self.origins.insert(reference.into(), origin);
    }

    /// Where the value of a reference was found, if that is known.
    pub fn origin(&self, reference: &str) -> Option<&Origin> {
        self.origins.get(reference)
    }

    /// The value of a reference, written without `secret:`.
    pub fn get(&self, reference: &str) -> Option<&SecretValue> {
        self.values.get(reference)
    }

    /// Each reference with its value.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &SecretValue)> {
        self.values
            .iter()
            .map(|(reference, value)| (reference.as_str(), value))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.values.len()
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map()
            .entries(self.values.keys().map(|reference| (reference, "***")))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_never_prints_a_value() {
        let mut secrets = Secrets::none();
        secrets.insert("/a", SecretValue::new("hunter2"));
        let secret = Secret::new("hunter2");
        assert!(!format!("{secrets:?} {secret:?} {:?}", secret.value).contains("hunter2"));
    }
}
