//! The values inside a value that is JSON: its strings, and its numbers that are long enough to be secrets.
//!
//! It is read here and not where secrets are resolved, because everything that masks needs it: this program, which is
//! handed values; the runner; and what a workload names. It costs this program a few kilobytes.

use super::MIN_NUMBER;

/// As deep as `serde_json` goes.
const DEEPEST: usize = 127;

/// The strings (not the keys) and long numbers of a JSON object or array, at any depth; nothing if it is no JSON.
pub(super) fn leaves(text: &[u8]) -> Vec<Vec<u8>> {
    if !matches!(text.first(), Some(b'{' | b'[')) || std::str::from_utf8(text).is_err() {
        return Vec::new();
    }
    let mut reader = Reader {
        rest: text,
        leaves: Vec::new(),
    };
    match reader.document() {
        Some(()) => reader.leaves,
        None => Vec::new(),
    }
}

struct Reader<'a> {
    rest: &'a [u8],
    leaves: Vec<Vec<u8>>,
}

/// What the innermost open object or array is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Open {
    Object,
    Array,
}

impl<'a> Reader<'a> {
    /// Reads all of it. `None`, here and below: it is no JSON.
    fn document(&mut self) -> Option<()> {
        let mut open: Vec<Open> = Vec::new();
        loop {
            // Before a value.
            let opened = match self.peek()? {
                b'{' => Some(Open::Object),
                b'[' => Some(Open::Array),
                _ => None,
            };
            let Some(kind) = opened else {
                self.scalar()?;
                if !self.go_on(&mut open)? {
                    return self.end();
                }
                continue;
            };
            self.rest = &self.rest[1..];
            if open.len() == DEEPEST {
                return None;
            }
            open.push(kind);
            if self.takes(kind.end()) {
                open.pop();
                if !self.go_on(&mut open)? {
                    return self.end();
                }
            } else if kind == Open::Object {
                self.key()?;
            }
        }
    }

    /// After a value: to before the next one; `false` where there is none.
    fn go_on(&mut self, open: &mut Vec<Open>) -> Option<bool> {
        while let Some(&kind) = open.last() {
            if self.takes(b',') {
                if kind == Open::Object {
                    self.key()?;
                }
                return Some(true);
            }
            if !self.takes(kind.end()) {
                return None;
            }
            open.pop();
        }
        Some(false)
    }

    fn end(&mut self) -> Option<()> {
        self.skip_space();
        self.rest.is_empty().then_some(())
    }

    fn key(&mut self) -> Option<()> {
        self.skip_space();
        self.string().map(drop)?;
        self.takes(b':').then_some(())
    }

    fn scalar(&mut self) -> Option<()> {
        match self.peek()? {
            b'"' => {
                let string = self.string()?;
                self.leaves.push(string);
            }
            b't' => self.word(b"true")?,
            b'f' => self.word(b"false")?,
            b'n' => self.word(b"null")?,
            _ => {
                let number = self.number()?;
                if number.len() >= MIN_NUMBER {
                    self.leaves.push(number.to_vec());
                }
            }
        }
        Some(())
    }

    fn word(&mut self, word: &[u8]) -> Option<()> {
        self.rest = self.rest.strip_prefix(word)?;
        Some(())
    }

    fn number(&mut self) -> Option<&'a [u8]> {
        let text = self.rest;
        let digits = |from: usize| {
            let digits = text[from..].iter().take_while(|byte| byte.is_ascii_digit());
            digits.count()
        };
        let mut end = usize::from(text.first() == Some(&b'-'));
        let whole = digits(end);
        if whole == 0 || whole > 1 && text[end] == b'0' {
            return None;
        }
        end += whole;
        if text.get(end) == Some(&b'.') {
            let part = digits(end + 1);
            end += 1 + (part > 0).then_some(part)?;
        }
        if matches!(text.get(end), Some(b'e' | b'E')) {
            let sign = usize::from(matches!(text.get(end + 1), Some(b'+' | b'-')));
            let part = digits(end + 1 + sign);
            end += 1 + sign + (part > 0).then_some(part)?;
        }
        self.rest = &text[end..];
        Some(&text[..end])
    }

    fn string(&mut self) -> Option<Vec<u8>> {
        let mut text = Vec::new();
        self.rest = self.rest.strip_prefix(b"\"")?;
        loop {
            let (&byte, rest) = self.rest.split_first()?;
            self.rest = rest;
            match byte {
                b'"' => return Some(text),
                b'\\' => {
                    let char = self.escape()?;
                    text.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes());
                }
                ..b' ' => return None,
                byte => text.push(byte),
            }
        }
    }

    /// Behind a `\`.
    fn escape(&mut self) -> Option<char> {
        let (&byte, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(match byte {
            b'"' | b'\\' | b'/' => char::from(byte),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => return self.unicode(),
            _ => return None,
        })
    }

    /// Behind `\u`; half a pair becomes the character for that.
    fn unicode(&mut self) -> Option<char> {
        let first = self.four_digits()?;
        let mut units = vec![first];
        if (0xD800..0xDC00).contains(&first) && self.rest.starts_with(b"\\u") {
            let before = self.rest;
            self.rest = &self.rest[2..];
            units.push(self.four_digits()?);
            if !(0xDC00..0xE000).contains(&units[1]) {
                // No pair: the second one stands for itself.
                self.rest = before;
            }
        }
        let char = char::decode_utf16(units).next()?;
        Some(char.unwrap_or(char::REPLACEMENT_CHARACTER))
    }

    fn four_digits(&mut self) -> Option<u16> {
        let (digits, rest) = self.rest.split_at_checked(4)?;
        self.rest = rest;
        digits.iter().try_fold(0, |number, &digit| {
            let digit = char::from(digit).to_digit(16)?;
            Some(number << 4 | u16::try_from(digit).ok()?)
        })
    }

    /// The next byte that is no white space.
    fn peek(&mut self) -> Option<u8> {
        self.skip_space();
        self.rest.first().copied()
    }

    fn takes(&mut self, byte: u8) -> bool {
        let there = self.peek() == Some(byte);
        if there {
            self.rest = &self.rest[1..];
        }
        there
    }

    fn skip_space(&mut self) {
        let space = |byte: &&u8| matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
        self.rest = &self.rest[self.rest.iter().take_while(space).count()..];
    }
}

impl Open {
    fn end(self) -> u8 {
        match self {
            Self::Object => b'}',
            Self::Array => b']',
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::leaves;
    use crate::mask::MIN_NUMBER;

    fn walk(value: &Value, found: &mut Vec<Vec<u8>>) {
        match value {
            Value::String(text) => found.push(text.clone().into_bytes()),
            Value::Number(number) => {
                let text = number.to_string().into_bytes();
                found.extend((text.len() >= MIN_NUMBER).then_some(text));
            }
            Value::Array(values) => values.iter().for_each(|value| walk(value, found)),
            Value::Object(fields) => fields.values().for_each(|value| walk(value, found)),
            Value::Null | Value::Bool(_) => {}
        }
    }

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "\\PC{0,8}|[\\x00-\\x7f]{0,8}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 30, 6, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                proptest::collection::hash_map("\\PC{0,4}", inner, 0..6)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn the_leaves_are_those_that_a_library_finds(value in json(), pretty in any::<bool>()) {
            let mut wanted = Vec::new();
            if value.is_array() || value.is_object() {
                walk(&value, &mut wanted);
            }
            let text = if pretty { format!("{value:#}") } else { value.to_string() };
            let mut found = leaves(text.as_bytes());
            // The library sorts the fields.
            wanted.sort();
            found.sort();
            prop_assert_eq!(found, wanted);
        }

        #[test]
        fn what_a_library_refuses_has_no_leaves(
            text in "(\\[|\\{|\\]|\\}|,|:|\"a\"|\"\\\\u00e4\"|\"\\\\x\"|1234567|-|01234567|1e|true|nul| ){1,12}",
        ) {
            let is_json = serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok();
            let found = leaves(text.as_bytes());
            prop_assert!(is_json || found.is_empty(), "{found:?}");
        }
    }

    #[test]
    fn escapes_are_read_and_half_pairs_survive() {
        let found = leaves(br#"["a\/\"\\\b\f\n\r\t\u00e4\ud83d\udd11", "\ud83dx", "\ud83d\u0041", 123456, 1.5e+10, 12345]"#);
        let texts: Vec<_> = found
            .iter()
            .map(|leaf| String::from_utf8_lossy(leaf))
            .collect();
        let escaped = "a/\"\\\u{8}\u{c}\n\r\tä🔑";
        assert_eq!(
            texts,
            [escaped, "\u{fffd}x", "\u{fffd}A", "123456", "1.5e+10"]
        );
    }

    #[test]
    fn what_is_nested_too_deep_is_no_json() {
        let nested = |depth: usize| "[".repeat(depth) + "\"leaf\"" + &"]".repeat(depth);
        assert_eq!(leaves(nested(127).as_bytes()).len(), 1);
        assert!(leaves(nested(128).as_bytes()).is_empty());
    }
}
