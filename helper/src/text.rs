//! The text of the small records: a first line with name and version, `key=value` lines, a line with a dot.
//!
//! ```text
//! hybrid-runner end 1
//! how=exit
//! code=0
//! .
//! ```
//!
//! Values are bytes: everything but printable ASCII, and `%`, is written as `%XX`. Unknown keys are skipped, and so is
//! whatever follows the dot (the helper pads records with line ends, so that they can be overwritten in place on a full disk).
//!
//! In the log of a container a record is one line ([`crate::container`]): fields with a space before each, in whose
//! values spaces are written as `%20`.

use std::fmt;

/// Why a record could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum TextError {
    /// The first line is not that of such a record; a file that lost its content in a crash is this, too.
    NotARecord,
    /// It was written by a newer version.
    Version(u32),
    /// The closing dot is missing.
    Truncated,
    /// A line is not `key=value`.
    Line(usize),
    /// A needed key is missing.
    Missing(&'static str),
    /// A value cannot be what its key says.
    Value(&'static str),
}

impl fmt::Display for TextError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotARecord => f.write_str("not such a record, or empty"),
            Self::Version(version) => write!(f, "written by a newer version ({version})"),
            Self::Truncated => f.write_str("truncated"),
            Self::Line(number) => write!(f, "line {number} is not `key=value`"),
            Self::Missing(key) => write!(f, "`{key}` is missing"),
            Self::Value(key) => write!(f, "`{key}` has an impossible value"),
        }
    }
}

impl std::error::Error for TextError {}

/// Writes one record.
pub(crate) struct TextWriter {
    text: String,
    /// What stands before each field.
    separator: char,
    end: &'static str,
}

impl TextWriter {
    pub(crate) fn new(name: &str, version: u32) -> Self {
        Self {
            text: format!("hybrid-runner {name} {version}"),
            separator: '\n',
            end: "\n.\n",
        }
    }

    /// A record that is one line and begins so.
    pub(crate) fn line(start: String) -> Self {
        Self {
            text: start,
            separator: ' ',
            end: "\n",
        }
    }

    pub(crate) fn number(self, key: &str, value: impl Into<i128>) -> Self {
        let value: i128 = value.into();
        self.bytes(key, value.to_string().as_bytes())
    }

    pub(crate) fn bytes(mut self, key: &str, value: &[u8]) -> Self {
        self.text.push(self.separator);
        self.text.push_str(key);
        self.text.push('=');
        for &byte in value {
            let char = char::from(byte);
            if matches!(char, ' '..='~') && char != '%' && char != self.separator {
                self.text.push(char);
            } else {
                self.text.push('%');
                self.text.push(char::from(HEX[usize::from(byte >> 4)]));
                self.text.push(char::from(HEX[usize::from(byte & 15)]));
            }
        }
        self
    }

    pub(crate) fn optional(self, key: &str, value: Option<&[u8]>) -> Self {
        match value {
            Some(value) => self.bytes(key, value),
            None => self,
        }
    }

    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.text.push_str(self.end);
        self.text.into_bytes()
    }
}

/// The fields of one record.
pub(crate) struct TextReader<'a>(Vec<(&'a str, &'a str)>);

impl<'a> TextReader<'a> {
    pub(crate) fn new(bytes: &'a [u8], name: &str, version: u32) -> Result<Self, TextError> {
        let text = std::str::from_utf8(bytes).map_err(|_| TextError::NotARecord)?;
        let mut lines = text.split('\n');
        let first = lines.next().unwrap_or_default();
        let (found, number) = first.rsplit_once(' ').ok_or(TextError::NotARecord)?;
        if found.strip_prefix("hybrid-runner ") != Some(name) {
            return Err(TextError::NotARecord);
        }
        let number = number.parse().map_err(|_| TextError::NotARecord)?;
        if number > version {
            return Err(TextError::Version(number));
        }
        let mut fields = Vec::new();
        for (at, line) in lines.enumerate() {
            if line == "." {
                return Ok(Self(fields));
            }
            match line.split_once('=') {
                Some(field) => fields.push(field),
                None if line.is_empty() => return Err(TextError::Truncated),
                None => return Err(TextError::Line(at + 2)),
            }
        }
        Err(TextError::Truncated)
    }

    /// The fields of a record that is one line.
    pub(crate) fn line(fields: &'a str) -> Result<Self, TextError> {
        let fields = fields.split(' ').map(|field| field.split_once('='));
        let fields: Option<_> = fields.collect();
        fields.map(Self).ok_or(TextError::Line(1))
    }

    pub(crate) fn bytes(&self, key: &'static str) -> Result<Option<Vec<u8>>, TextError> {
        let Some((_, value)) = self.0.iter().find(|(found, _)| *found == key) else {
            return Ok(None);
        };
        unescape(value.as_bytes())
            .map(Some)
            .ok_or(TextError::Value(key))
    }

    pub(crate) fn text(&self, key: &'static str) -> Result<Option<String>, TextError> {
        let Some(bytes) = self.bytes(key)? else {
            return Ok(None);
        };
        String::from_utf8(bytes)
            .map(Some)
            .map_err(|_| TextError::Value(key))
    }

    pub(crate) fn number<T: std::str::FromStr>(
        &self,
        key: &'static str,
    ) -> Result<Option<T>, TextError> {
        let Some(text) = self.text(key)? else {
            return Ok(None);
        };
        text.parse().map(Some).map_err(|_| TextError::Value(key))
    }
}

/// Turns an absent value into an error.
pub(crate) fn needed<T>(key: &'static str, value: Option<T>) -> Result<T, TextError> {
    value.ok_or(TextError::Missing(key))
}

const HEX: &[u8; 16] = b"0123456789ABCDEF";

fn unescape(value: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(value.len());
    let mut rest = value;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let (&[high, low], tail) = rest.split_first_chunk()?;
        out.push(hex_digit(high)? << 4 | hex_digit(low)?);
        rest = tail;
    }
    Some(out)
}

fn hex_digit(byte: u8) -> Option<u8> {
    char::from(byte)
        .to_digit(16)
        .and_then(|digit| u8::try_from(digit).ok())
}
