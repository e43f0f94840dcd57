//! A dotenv file: `KEY=VALUE` lines.
//!
//! ```text
//! # a comment
//! export KEY = plain text      # a comment after white space
//! KEY='as it is'
//! KEY="with \n \r \t \\ \" \$ escapes,
//! over several lines"
//! ```
//!
//! Nothing is expanded: `$OTHER` stays as it is. The last of equal keys counts, as in a shell.

use std::collections::BTreeMap;
use std::path::PathBuf;

use hybrid_runner_core::error::{Error, ErrorKind, Result};
use hybrid_runner_core::id::shorten;
use hybrid_runner_core::secret::{Secret, SecretName, SecretValue};
use rustix::fs::{CWD, Mode, OFlags};
use zeroize::Zeroizing;

use super::content;
use crate::variable::variable_of;

#[derive(Debug)]
pub(super) struct Dotenv {
    path: PathBuf,
}

impl Dotenv {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    pub(super) fn check(&self) -> Result<()> {
        self.read().map(drop)
    }

    pub(super) fn get(&self, name: &SecretName) -> Result<Secret> {
        let mut values = self.read()?;
        let mapped = variable_of(name);
        let value = values
            .remove(name.relative())
            .or_else(|| values.remove(&mapped));
        value.map(Secret::from).ok_or_else(|| {
            Error::not_found(format!(
                "neither `{}` nor `{}` is in {}",
                shorten(name.relative()),
                shorten(&mapped),
                self.what()
            ))
        })
    }

    fn read(&self) -> Result<BTreeMap<String, SecretValue>> {
        let what = self.what();
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = rustix::fs::openat(CWD, &self.path, flags, Mode::empty()).map_err(|errno| {
            let error = content::failed(&what, errno);
            match error.kind() {
                ErrorKind::NotFound => Error::unavailable(error.message()),
                _ => error,
            }
        })?;
        let bytes = content::read(file, &what)?;
        parse(&bytes)
            .map_err(|wrong| Error::invalid(format!("{what}, line {}: {}", wrong.line, wrong.what)))
    }

    fn what(&self) -> String {
        format!("dotenv file `{}`", self.path.display())
    }
}

/// What is wrong and where; never the content.
#[derive(Debug, PartialEq)]
struct Wrong {
    line: usize,
    what: &'static str,
}

fn parse(bytes: &[u8]) -> Result<BTreeMap<String, SecretValue>, Wrong> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut reader = Reader { bytes, at: 0 };
    let mut values = BTreeMap::new();
    loop {
        reader.skip(|byte| byte.is_ascii_whitespace());
        match reader.peek() {
            None => return Ok(values),
            Some(b'#') => reader.skip(|byte| byte != b'\n'),
            Some(_) => {
                let (key, value) = reader.pair()?;
                values.insert(key, value);
            }
        }
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn skip(&mut self, while_true: impl Fn(u8) -> bool) {
        self.take(while_true);
    }

    fn take(&mut self, while_true: impl Fn(u8) -> bool) -> &'a [u8] {
        let rest = &self.bytes[self.at..];
        let end = rest
            .iter()
            .position(|byte| !while_true(*byte))
            .unwrap_or(rest.len());
        self.at += end;
        &rest[..end]
    }

    fn skip_blanks(&mut self) -> bool {
        !self.take(|byte| matches!(byte, b' ' | b'\t')).is_empty()
    }

    fn wrong(&self, at: usize, what: &'static str) -> Wrong {
        let before = &self.bytes[..at];
        let line = before.split(|byte| *byte == b'\n').count();
        Wrong { line, what }
    }

    fn pair(&mut self) -> Result<(String, SecretValue), Wrong> {
        let mut key = self.key()?;
        if key == "export" && self.skip_blanks() && self.peek() != Some(b'=') {
            key = self.key()?;
        }
        self.skip_blanks();
        if self.peek() != Some(b'=') {
            return Err(self.wrong(self.at, "expected `=` after the key"));
        }
        self.at += 1;
        self.skip_blanks();
        let value = match self.peek() {
            Some(quote @ (b'\'' | b'"')) => self.quoted(quote)?,
            _ => self.plain(),
        };
        Ok((key, value))
    }

    fn key(&mut self) -> Result<String, Wrong> {
        let start = self.at;
        let key =
            self.take(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'));
        if key.is_empty() || key[0].is_ascii_digit() {
            return Err(self.wrong(start, "expected `KEY=VALUE`"));
        }
        Ok(String::from_utf8_lossy(key).into_owned())
    }

    /// To the end of the line, or to a `#` after white space.
    fn plain(&mut self) -> SecretValue {
        let line = self.take(|byte| byte != b'\n');
        let comment = (0..line.len())
            .find(|at| line[*at] == b'#' && (*at == 0 || line[at - 1].is_ascii_whitespace()));
        SecretValue::new(line[..comment.unwrap_or(line.len())].trim_ascii())
    }

    fn quoted(&mut self, quote: u8) -> Result<SecretValue, Wrong> {
        let start = self.at;
        let open = || "a quote is opened here and never closed";
        // Room for all at once, so that no growth leaves a copy behind.
        let mut value = Zeroizing::new(Vec::with_capacity(self.bytes.len() - start));
        loop {
            self.at += 1;
            match self.peek() {
                None => return Err(self.wrong(start, open())),
                Some(byte) if byte == quote => break,
                Some(b'\\') if quote == b'"' => {
                    self.at += 1;
                    match self.peek() {
                        None => return Err(self.wrong(start, open())),
                        Some(b'n') => value.push(b'\n'),
                        Some(b'r') => value.push(b'\r'),
                        Some(b't') => value.push(b'\t'),
                        Some(byte @ (b'\\' | b'"' | b'$' | b'`')) => value.push(byte),
                        Some(byte) => value.extend([b'\\', byte]),
                    }
                }
                Some(byte) => value.push(byte),
            }
        }
        self.at += 1;
        self.skip(|byte| matches!(byte, b' ' | b'\t' | b'\r'));
        match self.peek() {
            None | Some(b'\n' | b'#') => Ok(SecretValue::new(value.as_slice())),
            Some(_) => Err(self.wrong(self.at, "text follows the closing quote")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<(String, String)> {
        let text_of = |value: &SecretValue| value.expose_text().unwrap().to_owned();
        parse(text.as_bytes())
            .unwrap()
            .iter()
            .map(|(key, value)| (key.clone(), text_of(value)))
            .collect()
    }

    #[test]
    fn each_form_is_read() {
        for (text, value) in [
            ("A=b", "b"),
            ("A=", ""),
            ("A", "!"),
            ("  export A = b c  # comment", "b c"),
            ("A=b#c", "b#c"),
            ("A=#c", ""),
            ("A='$X # \\n'", "$X # \\n"),
            ("A=\"a\\n\\\"\\$\\q\" # c", "a\n\"$\\q"),
            ("A=\"two\nlines\"\r\n", "two\nlines"),
            ("\u{feff}# c\r\n\r\nA=b\r\n", "b"),
            ("A=1\nA=2", "2"),
            ("A=é=x", "é=x"),
        ] {
            if value == "!" {
                assert!(parse(text.as_bytes()).is_err());
            } else {
                assert_eq!(read(text), [("A".into(), value.into())], "{text:?}");
            }
        }
        assert_eq!(read("export=1"), [("export".into(), "1".into())]);
        assert_eq!(read("").len(), 0);
    }

    #[test]
    fn an_error_has_the_line_and_never_its_content() {
        for (text, line) in [
            ("A=1\nhunter2\n", 2),
            ("A=1\n\nB='hunter2\nmore\n", 3),
            ("A=\"x\ny\" hunter2", 2),
            ("1=hunter2", 1),
            ("A=\"hunter2\\", 1),
        ] {
            assert_eq!(parse(text.as_bytes()).unwrap_err().line, line, "{text:?}");
            let place = tempfile::tempdir().unwrap();
            let path = place.path().join("env");
            std::fs::write(&path, text).unwrap();
            let error = Dotenv::new(path).check().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid);
            assert!(error.message().contains(&format!("line {line}")), "{error}");
            assert!(!error.report().contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn a_rotated_value_is_seen() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("env");
        let dotenv = Dotenv::new(path.clone());
        let get = || dotenv.get(&SecretName::new("/db/password"));
        assert_eq!(get().unwrap_err().kind(), ErrorKind::Unavailable);
        for value in ["old", "new"] {
            std::fs::write(&path, format!("DB_PASSWORD={value}\n")).unwrap();
            assert_eq!(get().unwrap().value.expose(), value.as_bytes());
        }
        std::fs::write(&path, "").unwrap();
        assert_eq!(get().unwrap_err().kind(), ErrorKind::NotFound);
    }

    #[test]
    fn a_fifo_is_refused_without_waiting() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("env");
        rustix::fs::mkfifoat(CWD, &path, Mode::RUSR).unwrap();
        let (tell, told) = std::sync::mpsc::channel();
        std::thread::spawn(move || tell.send(Dotenv::new(path).check().map_err(|e| e.kind())));
        let kind = told.recv_timeout(std::time::Duration::from_secs(20));
        assert_eq!(kind, Ok(Err(ErrorKind::Invalid)));
    }

    proptest::proptest! {
        #[test]
        fn no_file_makes_it_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200), text in "[A=\\\\'\"#\n x]*") {
            drop(parse(&bytes));
            drop(parse(text.as_bytes()));
        }
    }
}
