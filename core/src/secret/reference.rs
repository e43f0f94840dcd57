//! The grammar of references, as people write them.
//!
//! ```text
//! secret:REF            a whole value
//! ${secret:REF}         inside a string of `env` and `config`
//! REF   = [store ":"] "/" path [query] ["#" key]     a path in a store (the default one without a name)
//!       | id [query] ["#" key]                        a store's own id, as arn:aws:…, in the default store
//! query = "?" name "=" value { "&" name "=" value }   names: version, stage, default
//! key   = NAME | "/" JSON Pointer                     a field of a JSON secret, literally or by pointer
//! ```
//!
//! `%23` and `%3F` stand for `#` and `?` in path, id and values; `%26` for `&` in values, `%25` for `%`, `%7D` for `}`.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};
use crate::id::{SectionName, shorten};

/// The name of a secret inside a store: a path (`/a/b`) or the store's own id, with the version wanted.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub struct SecretName {
    /// The path with its leading slash, or the store's own id.
    pub name: String,
    /// The version wanted (`?version=`).
    pub version: Option<String>,
    /// The stage wanted (`?stage=`), for stores that have them.
    pub stage: Option<String>,
    /// Whether the store itself must be asked, past what is remembered of it.
    pub fresh: bool,
}

impl SecretName {
    /// A name without a version.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            version: None,
            stage: None,
            fresh: false,
        }
    }

    /// The same name, for the store itself: past what is remembered of it.
    #[must_use]
    pub fn afresh(mut self) -> Self {
        self.fresh = true;
        self
    }

    /// The path without its leading slash, or the id.
    pub fn relative(&self) -> &str {
        self.name.strip_prefix('/').unwrap_or(&self.name)
    }
}

impl fmt::Display for SecretName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// Which field of a JSON secret.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Key {
    /// A member of the object, by its literal name.
    Field(String),
    /// A JSON Pointer (RFC 6901), with its leading slash.
    Pointer(String),
}

/// A parsed reference.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Reference {
    /// The store's name in the configuration; `None` is the default store.
    pub store: Option<SectionName>,
    /// The secret in the store.
    pub name: SecretName,
    /// The field of a JSON secret.
    pub key: Option<Key>,
    /// The value to take if, and only if, the secret is not found.
    pub default: Option<String>,
    text: String,
}

impl Reference {
    /// The reference as it was written, without `secret:`.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// An error about this reference, with a caret under the byte `at`.
    pub fn refusal(&self, at: usize, what: &str) -> Error {
        malformed(&self.text, at, what)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "secret:{}", self.text)
    }
}

impl FromStr for Reference {
    type Err = Error;

    /// Reads a reference, with or without `secret:` before it.
    fn from_str(written: &str) -> Result<Self> {
        Self::read(written.strip_prefix("secret:").unwrap_or(written))
    }
}

impl Reference {
    /// Reads what stands behind `secret:`; a store may be called `secret`, too.
    pub(super) fn read(text: &str) -> Result<Self> {
        let fail = |at: usize, what: &str| Err(malformed(text, at, what));
        if text.is_empty() {
            return fail(
                0,
                "a reference needs a path, as in `secret:/path`, or a store's own id",
            );
        }
        if let Some(at) = text.find(|c: char| c.is_control()) {
            return fail(at, "control characters cannot stand in a reference");
        }
        if let Some(at) = text.find("${secret:") {
            let what = "one reference is the whole string, or each stands within `${…}`";
            return fail(at, what);
        }
        if let Some(at) = another(text) {
            let what =
                "one reference is the whole string; write each as `${secret:…}` in a longer one";
            return fail(at, what);
        }
        let (before_key, key) = match text.find('#') {
            None => (text, None),
            Some(at) => (&text[..at], Some((at + 1, &text[at + 1..]))),
        };
        let (place, query) = match before_key.find('?') {
            None => (before_key, None),
            Some(at) => (&before_key[..at], Some((at + 1, &before_key[at + 1..]))),
        };
        let (store, name_at) = match place.find(":/") {
            Some(at) if place[..at].parse::<SectionName>().is_ok() => {
                (Some(place[..at].parse()?), at + 1)
            }
            _ => (None, 0),
        };
        let name = unescape_name(text, name_at, &place[name_at..])?;
        if name.trim_matches('/').is_empty() {
            return fail(name_at, "the path is empty");
        }
        let mut reference = Self {
            store,
            name: SecretName::new(name),
            key: None,
            default: None,
            text: text.to_owned(),
        };
        if let Some((at, query)) = query {
            reference.read_query(at, query)?;
        }
        if let Some((at, key)) = key {
            let key = unescape_name(text, at, key)?;
            reference.key = Some(match key {
                key if key.is_empty() => return fail(at, "the key after `#` is empty"),
                key if key.starts_with('/') => Key::Pointer(key),
                key => Key::Field(key),
            });
        }
        Ok(reference)
    }

    fn read_query(&mut self, start: usize, query: &str) -> Result<()> {
        let text = self.text.clone();
        let mut at = start;
        for pair in query.split('&') {
            let Some((name, value)) = pair.split_once('=') else {
                return Err(malformed(&text, at, "expected `name=value` after `?`"));
            };
            let value_at = at + name.len() + 1;
            let value = match name {
                "default" => unescape(&text, value_at, value)?,
                _ => unescape_name(&text, value_at, value)?,
            };
            let slot = match name {
                "version" => &mut self.name.version,
                "stage" => &mut self.name.stage,
                "default" => &mut self.default,
                _ => {
                    return Err(malformed(
                        &text,
                        at,
                        "only `version`, `stage` and `default` can stand here",
                    ));
                }
            };
            if slot.replace(value).is_some() {
                return Err(malformed(&text, at, "this stands here twice"));
            }
            at += pair.len() + 1;
        }
        Ok(())
    }
}

/// An error with a caret under the place (in characters, after `secret:`).
pub(super) fn malformed(text: &str, at: usize, what: &str) -> Error {
    let column = text[..text.floor_char_boundary(at)].chars().count();
    // One character for each, so that the caret stands right, and none that a terminal obeys.
    let text = text.replace(char::is_control, "\u{fffd}");
    if text.chars().count() > 80 {
        return Error::invalid(format!(
            "malformed reference `secret:{}`: {what} (at character {})",
            shorten(&text),
            column + 1
        ));
    }
    Error::invalid(format!(
        "malformed reference: {what}\n  secret:{text}\n  {:width$}^",
        "",
        width = "secret:".len() + column
    ))
}

/// Where a second reference begins that stands behind the first.
fn another(text: &str) -> Option<usize> {
    let mut begins = text.match_indices("secret:").map(|(at, _)| at);
    begins.find(|&at| {
        let before = text[..at].chars().next_back();
        before.is_some_and(|c| c.is_whitespace() || matches!(c, ',' | ';' | '|'))
    })
}

/// A part that names something in a store.
fn unescape_name(text: &str, start: usize, part: &str) -> Result<String> {
    let name = unescape(text, start, part)?;
    let Some(control) = name.find(char::is_control) else {
        return Ok(name);
    };
    // As many escapes and bytes of the part make as many bytes of the name.
    let mut at = 0;
    for _ in 0..control {
        at += if part.as_bytes()[at] == b'%' { 3 } else { 1 };
    }
    let what = "control characters cannot stand in a reference, not even as `%…`";
    Err(malformed(text, start + at, what))
}

fn unescape(text: &str, start: usize, part: &str) -> Result<String> {
    let mut out = Vec::with_capacity(part.len());
    let bytes = part.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at] != b'%' {
            out.push(bytes[at]);
            at += 1;
            continue;
        }
        let hex = part.get(at + 1..at + 3);
        let hex = hex
            // `from_str_radix` would take a sign.
            .filter(|hex| hex.bytes().all(|byte| byte.is_ascii_hexdigit()))
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        let Some(byte) = hex else {
            return Err(malformed(
                text,
                start + at,
                "`%` must be followed by two hexadecimal digits; write `%25` for `%` itself",
            ));
        };
        out.push(byte);
        at += 3;
    }
    String::from_utf8(out).map_err(|_| malformed(text, start, "the escapes do not make UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Reference {
        text.parse()
            .unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn each_form_is_read() {
        let plain = parse("secret:/path/to");
        assert_eq!(
            (plain.store, plain.name.name.as_str(), plain.key),
            (None, "/path/to", None)
        );
        let full = parse("secret:prod:/db?version=3&default=a%26b#user");
        assert_eq!(full.store.unwrap().as_str(), "prod");
        assert_eq!(full.name.name, "/db");
        assert_eq!(full.name.version.as_deref(), Some("3"));
        assert_eq!(full.default.as_deref(), Some("a&b"));
        assert_eq!(full.key, Some(Key::Field("user".into())));
        assert_eq!(
            parse("secret:/db#/a/b").key,
            Some(Key::Pointer("/a/b".into()))
        );
        assert_eq!(parse("secret:/a%23b%3Fc").name.name, "/a#b?c");
        let default = parse("secret:/a?default=b%0a").default;
        assert_eq!(default.as_deref(), Some("b\n"));
        assert_eq!(parse("secret:my-secret:/a b").name.name, "/a b");
    }

    #[test]
    fn an_id_of_a_store_is_not_taken_for_a_store() {
        let arn = parse("secret:arn:aws:secretsmanager:eu-west-1:123:secret:/a/b-AbCdEf");
        assert_eq!(arn.store, None);
        assert!(arn.name.name.starts_with("arn:aws"));
    }

    #[test]
    fn a_wrong_reference_has_a_caret_under_the_place() {
        let error = "secret:/a?colour=red"
            .parse::<Reference>()
            .unwrap_err()
            .to_string();
        let lines: Vec<&str> = error.lines().collect();
        assert_eq!(lines[1].find("colour"), lines[2].find('^'), "{error}");
        for before in ["secret:/a%20b", "secret:/%C3%A9"] {
            for escape in ["%0a", "%C2%85"] {
                let error = format!("{before}{escape}")
                    .parse::<Reference>()
                    .unwrap_err();
                let caret = error.message().lines().last().unwrap().find('^');
                assert_eq!(caret, Some("  ".len() + before.len()), "{error}");
            }
        }
        for wrong in [
            "secret:",
            "secret:/",
            "secret:/a#",
            "secret:/a?x",
            "secret:/a?version=1&version=2",
            "secret:/a%2",
            "secret:a\nb",
            "secret:prod:/",
            "secret:/a%00b",
            "secret:/a%0a",
            "secret:/a#b%0a",
            "secret:/a?version=%7f",
            "secret:/a secret:/b",
            "secret:/a,secret:prod:/b",
            "secret:/a, secret:/b",
        ] {
            assert!(wrong.parse::<Reference>().is_err(), "{wrong}");
        }
    }
}
