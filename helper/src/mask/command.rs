//! The line with which a workload names a value that is to be masked from there on: `::add-mask::VALUE`.

use super::patterns::{NotAdded, Patterns};
use crate::sys;

/// What such a line begins with.
pub(super) const COMMAND: &[u8] = b"::add-mask::";
/// Longer values are not kept.
const MAX_VALUE: usize = 64 << 10;

/// Such a line, from behind the command on.
#[derive(Default)]
pub(super) struct Line {
    value: Vec<u8>,
    too_long: bool,
}

impl Line {
    /// Takes what belongs to the line; what follows it, once it has ended.
    pub(super) fn take<'a>(&mut self, input: &'a [u8]) -> Option<&'a [u8]> {
        let end = input.iter().position(|&byte| byte == b'\n');
        let part = &input[..end.unwrap_or(input.len())];
        if self.value.len() + part.len() > MAX_VALUE {
            self.too_long = true;
        } else {
            self.value.extend_from_slice(part);
        }
        end.map(|end| &input[end + 1..])
    }

    /// Ends it: adds the value to those that will be masked. What the log says about it instead, if it is not.
    pub(super) fn end(&self, patterns: &Patterns, named: &mut Vec<Vec<u8>>) -> &'static str {
        if self.too_long {
            return " (not masked: too long)";
        }
        let line = self.value.strip_suffix(b"\r").unwrap_or(&self.value);
        let mut value = decoded(line);
        match patterns.admit(&value) {
            Ok(()) => {
                named.push(value);
                ""
            }
            Err(why) => {
                sys::wipe(&mut value);
                match why {
                    NotAdded::TooShort => " (not masked: shorter than 4 bytes)",
                    NotAdded::TooMuch => " (not masked: too many values were added)",
                }
            }
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        sys::wipe(&mut self.value);
    }
}

/// With `%25`, `%0D` and `%0A` decoded, which is how a line can hold a value of several lines.
fn decoded(line: &[u8]) -> Vec<u8> {
    let mut value = Vec::with_capacity(line.len());
    let mut rest = line;
    while let Some((&first, after)) = rest.split_first() {
        let byte = match rest.get(..3).map(<[u8]>::to_ascii_uppercase).as_deref() {
            Some(b"%25") => Some(b'%'),
            Some(b"%0D") => Some(b'\r'),
            Some(b"%0A") => Some(b'\n'),
            _ => None,
        };
        value.push(byte.unwrap_or(first));
        rest = byte.map_or(after, |_| &rest[3..]);
    }
    value
}

#[cfg(test)]
mod tests {
    use super::decoded;

    #[test]
    fn only_percent_and_line_ends_are_decoded() {
        assert_eq!(decoded(b"100%25 %0a%0Dx%20%2"), b"100% \n\rx%20%2");
    }
}
