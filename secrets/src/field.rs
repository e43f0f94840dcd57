//! Picking a field of a JSON secret.
//!
//! The JSON is walked where it stands, one level at a time, so that no value is copied on the way.

use std::collections::BTreeMap;

use hybrid_runner_core::error::{Error, Result};
use hybrid_runner_core::id::shorten;
use hybrid_runner_core::secret::{Key, Secret, SecretValue};
use serde_json::value::RawValue;
use zeroize::Zeroizing;

/// As many names of fields as an error tells.
const NAMES_SHOWN: usize = 5;

/// The value that a reference means: the whole, or the field that it names.
///
/// A store that keeps fields is asked for its own first; a JSON secret inside of one is looked into next.
pub(crate) fn of(secret: &Secret, key: Option<&Key>) -> Result<SecretValue> {
    let own = secret.fields.as_ref();
    let Some(key) = key else {
        return match own {
            Some(fields) if fields.only_by_name => Err(Error::invalid(format!(
                "the secret has several fields and none that stands for the whole; add `#` and the name of one{}",
                names(fields.values.keys())
            ))),
            _ => Ok(secret.value.clone()),
        };
    };
    let Some(fields) = own else {
        return pick(&secret.value, key);
    };
    let (name, rest) = match key {
        Key::Field(name) => (name.clone(), None),
        Key::Pointer(pointer) => {
            let (name, rest) = pointer[1..].split_once('/').unwrap_or((&pointer[1..], ""));
            let rest = (!rest.is_empty()).then(|| Key::Pointer(format!("/{rest}")));
            (name.replace("~1", "/").replace("~0", "~"), rest)
        }
        _ => return Err(Error::unsupported("this form of `#key` is not known here")),
    };
    match (fields.values.get(&name), rest) {
        (Some(value), None) => Ok(value.clone()),
        (Some(value), Some(rest)) => pick(value, &rest),
        (None, _) => pick(&secret.value, key).map_err(|_| {
            let have = names(fields.values.keys());
            Error::not_found(format!("no field `{}` in the secret{have}", shorten(&name)))
        }),
    }
}

/// The field of a JSON secret: a string's text; anything else as its JSON text.
fn pick(value: &SecretValue, key: &Key) -> Result<SecretValue> {
    // Read in place to find the field; only the field goes on, into a value of its own.
    let mut here: &RawValue = serde_json::from_slice(value.expose()).map_err(|error| {
        // Position only: serde's words may quote the value.
        Error::invalid(format!(
            "the secret is not JSON, so no field of it can be picked (line {}, column {})",
            error.line(),
            error.column()
        ))
    })?;
    match key {
        Key::Field(name) => here = step(here, name)?,
        Key::Pointer(pointer) => {
            for part in pointer.split('/').skip(1) {
                here = step(here, &part.replace("~1", "/").replace("~0", "~"))?;
            }
        }
        _ => return Err(Error::unsupported("this form of `#key` is not known here")),
    }
    text_of(here)
}

/// One level down.
fn step<'a>(here: &'a RawValue, part: &str) -> Result<&'a RawValue> {
    let missing = |have: &str| {
        Err(Error::not_found(format!(
            "no field `{}` in the secret{have}",
            shorten(part)
        )))
    };
    match here.get().as_bytes().first() {
        Some(b'{') => {
            let members: BTreeMap<String, &RawValue> = read(here)?;
            match members.get(part) {
                Some(member) => Ok(member),
                None => missing(&names(members.keys())),
            }
        }
        Some(b'[') => {
            let items: Vec<&RawValue> = read(here)?;
            // RFC 6901: digits without a leading zero.
            let index = part.parse().ok().filter(|i: &usize| i.to_string() == part);
            match index.and_then(|index| items.get(index)) {
                Some(item) => Ok(item),
                None => missing(&format!("; it has {} items there", items.len())),
            }
        }
        _ => missing("; there is neither an object nor an array at that place"),
    }
}

/// A string's text; anything else as its JSON text.
pub(crate) fn text_of(leaf: &RawValue) -> Result<SecretValue> {
    let json = leaf.get();
    if !json.starts_with('"') {
        return Ok(SecretValue::new(json));
    }
    let text: Zeroizing<String> = Zeroizing::new(read(leaf)?);
    Ok(SecretValue::new(text.as_str()))
}

fn read<'a, T: serde::Deserialize<'a>>(raw: &'a RawValue) -> Result<T> {
    T::deserialize(&mut serde_json::Deserializer::from_str(raw.get()))
        .map_err(|_| Error::invalid("the field holds JSON that cannot be read"))
}

/// A few names, and only such as look like names: they are no values, but nobody knows what stands there.
fn names<'a>(all: impl ExactSizeIterator<Item = &'a String>) -> String {
    let count = all.len();
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    let shown: Vec<String> = all
        .filter(|name| name.len() <= 32 && name.chars().all(fits))
        .take(NAMES_SHOWN)
        .map(|name| format!("`{name}`"))
        .collect();
    match (shown.is_empty(), count > shown.len()) {
        (true, _) => format!("; it has {count} fields"),
        (false, true) => format!("; it has {} and others", shown.join(", ")),
        (false, false) => format!("; it has {}", shown.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hybrid_runner_core::ErrorKind;

    fn get(json: &str, key: &str) -> Result<String> {
        let key = if key.starts_with('/') {
            Key::Pointer(key.into())
        } else {
            Key::Field(key.into())
        };
        let value = pick(&SecretValue::new(json), &key)?;
        Ok(value.expose_text()?.to_owned())
    }

    #[test]
    fn fields_are_found_literally_and_by_pointer() {
        let json = r#" {"user":"u\"\u00e9\n","n":1.50,"b":true,"a/b":{"~":[1,{"x":"y"}]},"z":null,"":"e"} "#;
        for (key, value) in [
            ("user", "u\"é\n"),
            ("n", "1.50"),
            ("b", "true"),
            ("z", "null"),
            ("a/b", r#"{"~":[1,{"x":"y"}]}"#),
            ("/a~1b/~0/1/x", "y"),
            ("/a~1b/~0", r#"[1,{"x":"y"}]"#),
            ("/", "e"),
        ] {
            assert_eq!(get(json, key).unwrap(), value, "{key}");
        }
    }

    #[test]
    fn a_missing_field_tells_the_names_and_no_value() {
        let json = r#"{"user":"hunter2","pass":"hunter2","x y":"hunter2","l":["hunter2"]}"#;
        for key in ["password", "/user/x", "/l/1", "/l/00", "/l/-", "/l/x"] {
            let error = get(json, key).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NotFound, "{key}");
            assert!(!error.report().contains("hunter2"), "{error}");
        }
        let error = get(json, "password").unwrap_err();
        assert!(
            error.message().contains("`l`, `pass`, `user` and others"),
            "{error}"
        );
    }

    #[test]
    fn a_field_of_the_store_comes_before_one_of_json() {
        use hybrid_runner_core::secret::Fields;
        let mut fields = Fields::default();
        for (name, value) in [
            ("user", "u"),
            ("a/b", "slash"),
            ("value", r#"{"user":"inner","deep":"d"}"#),
            ("json", r#"{"x":{"y":"z"}}"#),
        ] {
            fields
                .values
                .insert(name.to_owned(), SecretValue::new(value));
        }
        let value = fields.values["value"].clone();
        let mut secret = Secret::from(value).with_fields(fields);
        let get = |secret: &Secret, key: Option<&str>| {
            let key = key.map(|key| {
                if key.starts_with('/') {
                    Key::Pointer(key.to_owned())
                } else {
                    Key::Field(key.to_owned())
                }
            });
            of(secret, key.as_ref()).map(|value| value.expose_text().unwrap().to_owned())
        };
        for (key, expected) in [
            (Some("user"), "u"),
            (Some("a/b"), "slash"),
            (Some("/a~1b"), "slash"),
            (Some("/json/x/y"), "z"),
            (Some("deep"), "d"),
            (None, r#"{"user":"inner","deep":"d"}"#),
        ] {
            assert_eq!(get(&secret, key).unwrap(), expected, "{key:?}");
        }
        let error = get(&secret, Some("gone")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(error.message().contains("`json`, `user`"), "{error}");
        secret.fields.as_mut().unwrap().only_by_name = true;
        let error = get(&secret, None).unwrap_err();
        assert!(error.message().contains("add `#`"), "{error}");
    }

    #[test]
    fn what_is_not_json_is_invalid_and_not_quoted() {
        for json in ["hunter2", "{\"a\": hunter2}", "", "{", "\"hunter2\" x"] {
            let error = get(json, "a").unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid, "{json}");
            assert!(!error.report().contains("hunter2"), "{error}");
        }
        assert!(pick(&SecretValue::new([0xff]), &Key::Field("a".into())).is_err());
    }

    proptest::proptest! {
        #[test]
        fn no_json_makes_it_panic(json in "[\\[\\]{}\":,a1\\\\ ]*", key in "/?[a1/~]*") {
            drop(get(&json, &key));
        }
    }
}
