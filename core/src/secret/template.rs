//! Strings with references in them.

use serde_json::Value;

use super::reference::malformed;
use super::{Reference, SecretValue, Secrets};
use crate::error::{Error, Result};
use crate::id::SectionName;

/// A string of `env` or `config`: a whole `secret:REF`, or text with `${secret:REF}` in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(Vec<Piece>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Secret(Reference),
}

const OPEN: &str = "${secret:";
const WHOLE: &str = "secret:";

impl Template {
    /// Reads a string. Text without references is a template too.
    pub fn parse(text: &str) -> Result<Self> {
        if let Some(reference) = text.strip_prefix(WHOLE) {
            return Ok(Self(vec![Piece::Secret(Reference::read(reference)?)]));
        }
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find(OPEN) {
            if at > 0 {
                pieces.push(Piece::Text(rest[..at].to_owned()));
            }
            let inside = &rest[at + OPEN.len()..];
            let Some(end) = inside.find('}') else {
                let what = "`${secret:` is never closed by `}`";
                return Err(malformed(inside, inside.len(), what));
            };
            pieces.push(Piece::Secret(Reference::read(&inside[..end])?));
            rest = &inside[end + 1..];
        }
        if !rest.is_empty() {
            pieces.push(Piece::Text(rest.to_owned()));
        }
        Ok(Self(pieces))
    }

    /// The references in it.
    pub fn references(&self) -> impl Iterator<Item = &Reference> {
        self.0.iter().filter_map(|piece| match piece {
            Piece::Secret(reference) => Some(reference),
            Piece::Text(_) => None,
        })
    }

    /// The string with its values in place.
    pub fn render(&self, secrets: &Secrets) -> Result<SecretValue> {
        let mut out = zeroize::Zeroizing::new(Vec::new());
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => out.extend_from_slice(text.as_bytes()),
                Piece::Secret(reference) if secrets.are_left_to_the_workload() => {
                    out.extend_from_slice(reference.to_string().as_bytes());
                }
                Piece::Secret(reference) => {
                    let value = secrets.get(reference.as_str()).ok_or_else(|| {
                        Error::internal(format!("the value of `{reference}` was not handed over"))
                    })?;
                    // The one place where a value joins the text around it, on its way to the workload.
                    out.extend_from_slice(value.expose());
                }
            }
        }
        Ok(SecretValue::new(std::mem::take(&mut *out)))
    }

    /// Whether a string merely contains `secret:/` without being a reference: probably a slip.
    pub fn looks_like_a_slip(text: &str) -> bool {
        !text.starts_with(WHOLE) && text.replace(OPEN, "").contains("secret:/")
    }

    /// The first reference in a text where none is resolved.
    ///
    /// Only one with a path or an ARN is taken for one: a shell has its own use for `${secret:-none}`.
    pub fn hidden_in(text: &str) -> Option<&str> {
        let whole = text.starts_with(WHOLE).then_some(text);
        let inside = text.match_indices(OPEN).map(|(at, _)| {
            let end = text[at..].find('}').map_or(text.len(), |end| at + end + 1);
            &text[at..end]
        });
        whole
            .into_iter()
            .chain(inside)
            .find(|written| names_a_place(written))
    }
}

/// Whether what is written as a reference has a path or is an ARN, well-formed or not.
fn names_a_place(written: &str) -> bool {
    let name = written
        .strip_prefix(OPEN)
        .or_else(|| written.strip_prefix(WHOLE))
        .unwrap_or(written);
    let path = match name.split_once(":/") {
        Some((store, path)) if store.parse::<SectionName>().is_ok() => Some(path),
        _ => name.strip_prefix('/'),
    };
    path.is_some_and(|path| !path.is_empty() && !path.starts_with('/')) || name.starts_with("arn:")
}

/// The references in all strings of a JSON value, keys excluded.
pub fn references_in(value: &Value) -> Result<Vec<Reference>> {
    let mut found = Vec::new();
    let mut todo = vec![value];
    while let Some(value) = todo.pop() {
        match value {
            Value::String(text) => found.extend(Template::parse(text)?.references().cloned()),
            Value::Array(items) => todo.extend(items),
            Value::Object(members) => todo.extend(members.values()),
            _ => {}
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(text: &str) -> Vec<u8> {
        let mut secrets = Secrets::none();
        secrets.insert("/a", SecretValue::new("A}$"));
        secrets.insert("s:/b#k", SecretValue::new(vec![0xff]));
        Template::parse(text)
            .unwrap()
            .render(&secrets)
            .unwrap()
            .expose()
            .to_vec()
    }

    #[test]
    fn values_stand_in_their_places_and_are_not_read_again() {
        assert_eq!(render("secret:/a"), b"A}$");
        assert_eq!(render("x${secret:/a}y${secret:s:/b#k}"), b"xA}$y\xff");
        assert_eq!(render("plain $HOME ${other}"), b"plain $HOME ${other}");
        assert_eq!(render(""), b"");
    }

    #[test]
    fn a_reference_that_is_left_to_the_workload_stays_as_it_is_written() {
        let left = Secrets::left_to_the_workload();
        let text = "secret:prod:/a?version=1#b%23c";
        let rendered = Template::parse(text).unwrap().render(&left).unwrap();
        assert_eq!(rendered.expose(), text.as_bytes());
    }

    #[test]
    fn an_open_reference_is_refused() {
        let error = Template::parse("a ${secret:/a").unwrap_err().to_string();
        let caret = error.lines().last().unwrap().find('^');
        assert_eq!(caret, Some("  secret:/a".len()), "{error}");
        assert!(Template::looks_like_a_slip("mysql://u:secret:/prod/x@db"));
        assert!(!Template::looks_like_a_slip(
            "mysql://u:${secret:/prod/x}@db"
        ));
    }
}
