//! Which values a run was given, as a note on disk: references and versions, never a value.
//!
//! JSON, tolerant of members that it does not know. An empty note is one of an earlier version: nothing is known.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::id::SectionName;
use crate::secret::{Origin, Reference, References, SecretValue, Secrets};

/// The values that a run was given.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Given {
    /// An attempt whose start was made again may have been given another version: all of them are meant.
    values: Vec<One>,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct One {
    /// As it stands in the run, without `secret:`.
    reference: String,
    /// Where it was found; absent if that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    store: Option<SectionName>,
    /// The store's own name of the version; absent if it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    /// It was the reference's own `?default=`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    default: bool,
}

impl Given {
    pub(super) fn of(secrets: &Secrets) -> Self {
        let note = |(reference, _): (&str, _)| {
            let (store, version, default) = match secrets.origin(reference) {
                Some(Origin::Store(store, version)) => {
                    (Some(store.clone()), version.clone(), false)
                }
                Some(Origin::Default) => (None, None, true),
                None => (None, None, false),
            };
            One {
                reference: reference.to_owned(),
                store,
                version,
                default,
            }
        };
        Self {
            values: secrets.iter().map(note).collect(),
        }
    }

    pub(super) fn read(text: &[u8]) -> Result<Self> {
        serde_json::from_slice(text).map_err(|error| {
            let what = "the note of what the run was given cannot be read";
            Error::internal(what).with_source(error)
        })
    }

    pub(super) fn text(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("texts and names are JSON")
    }

    pub(super) fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// What may be other values than those there. Without a version, one may be another each time.
    pub(super) fn without(mut self, other: &Self) -> Self {
        let is_certain = |one: &One| one.version.is_some() || one.default;
        self.values
            .retain(|one| !is_certain(one) || !other.values.contains(one));
        self
    }

    /// Both together.
    pub(super) fn and(mut self, other: Self) -> Self {
        let new = other.values.into_iter();
        let new: Vec<_> = new.filter(|one| !self.values.contains(one)).collect();
        self.values.extend(new);
        self
    }

    /// The same values once more, or why one of them cannot be had. Never a newer one.
    pub(super) async fn again(&self, references: &References) -> Result<Vec<SecretValue>> {
        if self.is_empty() {
            return Err(Error::not_found("nothing is noted of their versions"));
        }
        let each = self.values.iter().map(|one| one.again(references));
        futures::future::try_join_all(each).await
    }
}

impl One {
    async fn again(&self, references: &References) -> Result<SecretValue> {
        let reference: Reference = self.reference.parse()?;
        if self.default {
            let default = reference.default.as_deref().unwrap_or_default();
            return Ok(SecretValue::new(default));
        }
        match (&self.store, &self.version) {
            (Some(store), Some(version)) => {
                references.read_version(&reference, store, version).await
            }
            (Some(store), None) => Err(Error::not_found(format!(
                "store `{store}` has no versions, so that `{reference}` may be another value by now"
            ))),
            (None, _) => Err(Error::not_found(format!(
                "it is not known where `{reference}` was found"
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;
    use crate::ErrorKind;
    use crate::secret::Secret;

    const VALUE: &str = "kestrel-umbrella-4711";

    fn given(version: Option<&str>) -> Given {
        let mut secrets = Secrets::none();
        secrets.insert("/a?stage=new", SecretValue::new(VALUE));
        let origin = Origin::Store("prod".parse().unwrap(), version.map(str::to_owned));
        secrets.set_origin("/a?stage=new", origin);
        Given::of(&secrets)
    }

    /// A store whose present version is 2; `exact`: whether it can be asked for another one.
    fn store(exact: bool) -> References {
        References::through(move |_, reference| {
            assert_eq!(
                reference.store.as_ref().map(SectionName::as_str),
                Some("prod")
            );
            let asked = reference.name.version;
            let answer = match asked.as_deref() {
                Some(_) if !exact => Err(Error::invalid("no versions")),
                Some("1") => Ok(Secret::new(VALUE).with_version("1")),
                Some("2") | None => Ok(Secret::new("another").with_version("2")),
                Some(_) => Err(Error::not_found("gone")),
            };
            async { answer }.boxed()
        })
    }

    #[tokio::test]
    async fn the_same_version_is_read_again_and_never_another_one() {
        let note = Given::read(&given(Some("1")).text()).unwrap();
        let values = note.again(&store(true)).await.unwrap();
        assert_eq!(values[0].expose(), VALUE.as_bytes());
        let error = note.again(&store(false)).await.unwrap_err();
        assert!(error.message().contains("another version"), "{error}");
        let present = given(Some("2")).again(&store(false)).await.unwrap();
        assert_eq!(present[0].expose(), b"another");
        let error = given(Some("0")).again(&store(true)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        let error = given(None).again(&store(true)).await.unwrap_err();
        assert!(error.message().contains("has no versions"), "{error}");
    }

    #[tokio::test]
    async fn a_default_is_known_and_an_early_note_says_nothing() {
        let mut secrets = Secrets::none();
        secrets.insert("/b?default=x", SecretValue::new("x"));
        secrets.set_origin("/b?default=x", Origin::Default);
        let note = Given::of(&secrets);
        let values = note.again(&References::none()).await.unwrap();
        assert_eq!(values[0].expose(), b"x");
        assert!(Given::default().again(&References::none()).await.is_err());
    }

    #[test]
    fn a_note_holds_no_value_and_both_versions_of_a_start_made_again() {
        let (one, two) = (given(Some("1")), given(Some("2")));
        let both = one.clone().and(two.clone());
        assert_eq!(both, one.clone().and(two).and(one));
        let text = String::from_utf8(both.text()).unwrap();
        assert!(!text.contains(VALUE), "{text}");
        insta::assert_snapshot!(text);
    }
}
