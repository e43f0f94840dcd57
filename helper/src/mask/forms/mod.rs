//! The forms in which a value appears in a log.
//!
//! Values are printed raw, but also inside JSON, URLs, shell traces, markup, literals of programming languages, dumps, and
//! base64 (HTTP basic authentication, Kubernetes secrets). Writers differ in what they escape, and how; each family has
//! a file with what its common writers do. Forms that come out alike are one needle, and most do for an ordinary
//! password.

mod base64;
mod escape;
mod json;
mod literal;
mod markup;
mod percent;
mod shell;

use super::leaves::leaves;
use super::needles::Needles;
use super::{MIN_LINE, MIN_NEEDLE};
use crate::sys;
use escape::{Breadth, CASES, Case};

/// Longer values, and what is in them, are looked for as the common writers write them: else a few values of some
/// kilobytes would take all the memory of a small machine.
const MAX_EVERY: usize = 1 << 10;
/// Longer values are not looked for with each of their characters escaped, only with those that need it.
const MAX_WHOLLY_ESCAPED: usize = 8 << 10;
/// Of longer ones nothing is looked for but themselves, base64 and hexadecimal digits.
const MAX_ESCAPED: usize = 16 << 10;
/// Longer texts are looked for in parts where characters are escaped.
const MAX_UNDIVIDED: usize = 256;
const PART: usize = 64;
/// How deep values inside of values are looked for: a JSON value that holds a JSON value as text that holds a key.
const NESTED: u32 = 3;
/// At which length `xxd -p` wraps.
const HEX_WRAP: usize = 60;

/// Whether a value is too short to be masked: white space at its ends does not count.
pub fn too_short(value: &[u8]) -> bool {
    value.trim_ascii().len() < MIN_NEEDLE
}

/// The value itself, its encoded forms, and those of its parts: its lines, and what is in it if it is JSON. Empty if it is
/// [`too_short`]. What counts as a part is said in [`crate::mask`].
pub fn needles_of(value: &[u8]) -> Vec<Vec<u8>> {
    let mut needles = Needles::default();
    add_needles(value, &mut needles);
    needles.sorted().into_iter().map(<[u8]>::to_vec).collect()
}

/// Adds the [`needles_of`] a value.
pub(super) fn add_needles(value: &[u8], needles: &mut Needles) {
    let breadth = if value.len() <= MAX_EVERY {
        Some(Breadth::Every)
    } else if value.len() <= MAX_ESCAPED {
        Some(Breadth::Common)
    } else {
        None
    };
    add_value(value, breadth, NESTED, needles);
}

fn add_value(value: &[u8], breadth: Option<Breadth>, nested: u32, needles: &mut Needles) {
    if too_short(value) {
        return;
    }
    let trimmed = value.trim_ascii();
    add_whole(trimmed, breadth, needles);
    if trimmed.len() < value.len() {
        add_whole(value, breadth, needles);
    }
    if trimmed.contains(&b'\n') {
        add_other_ends(trimmed, needles);
        for line in trimmed.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii) {
            if line.len() >= MIN_LINE {
                add_forms(line, breadth, needles);
                add_wrapped(line, needles);
            }
        }
    }
    if nested > 0 {
        for mut leaf in leaves(trimmed) {
            add_value(&leaf, breadth, nested - 1, needles);
            sys::wipe(&mut leaf);
        }
    }
}

/// The text with the other ends of lines: text modes and terminals change them, and what runs pods drops a CR before an LF.
fn add_other_ends(text: &[u8], needles: &mut Needles) {
    let lines: Vec<&[u8]> = text
        .split(|&byte| byte == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
        .collect();
    for end in [&b"\n"[..], b"\r\n"] {
        let mut other = lines.join(end);
        needles.push(&other);
        sys::wipe(&mut other);
    }
}

fn add_whole(text: &[u8], breadth: Option<Breadth>, needles: &mut Needles) {
    add_forms(text, breadth, needles);
    add_wrapped(text, needles);
    if text.len() <= MAX_WHOLLY_ESCAPED && breadth.is_some() {
        add_wholly_escaped(text, needles);
    }
}

/// The forms that writers give a text.
fn add_forms(text: &[u8], breadth: Option<Breadth>, needles: &mut Needles) {
    needles.push(text);
    for case in CASES {
        needles.take(hex(text, b"", case));
    }
    base64::add(text, needles);
    let Some(breadth) = breadth else { return };
    if text.iter().all(u8::is_ascii_alphanumeric) {
        // Nobody escapes that.
        return;
    }
    let parts = parts(text);
    if parts.len() > 1 {
        // A writer leaves a part as it is that has nothing to escape, and what is around it not.
        for part in &parts {
            needles.push(part);
        }
    }
    for part in parts {
        percent::add(part, breadth, needles);
        json::add(part, breadth, needles);
        literal::add(part, breadth, needles);
        shell::add(part, breadth, needles);
        markup::add(part, breadth, needles);
    }
}

/// A long text in parts that cover it, cut between characters. The forms of the parts make those of the whole.
///
/// A text with many kinds of special characters has hundreds of escaped forms; a part of it has few kinds.
fn parts(text: &[u8]) -> Vec<&[u8]> {
    if text.len() <= MAX_UNDIVIDED {
        return vec![text];
    }
    let boundary = |mut at: usize| {
        for _ in 0..3 {
            let inside = at > 0 && text[at] & 0b1100_0000 == 0b1000_0000;
            at -= usize::from(inside);
        }
        at
    };
    let starts = (0..text.len()).step_by(PART);
    let part = |start: usize| {
        let start = boundary(start.min(text.len() - PART));
        let end = start + PART + 3;
        &text[start..if end < text.len() {
            boundary(end)
        } else {
            text.len()
        }]
    };
    starts.map(part).collect()
}

/// Each character escaped, whether it needs it or not: by hand, for a whole value.
fn add_wholly_escaped(text: &[u8], needles: &mut Needles) {
    for case in CASES {
        needles.take(hex(text, b"\\x", case));
        needles.take(hex(text, b"%", case));
        needles.take(json::wholly(text, case));
        needles.take(markup::wholly(text, Some(case)));
    }
    needles.take(markup::wholly(text, None));
    needles.take(literal::octal(text));
}

/// Each byte as hexadecimal digits behind a prefix.
fn hex(text: &[u8], prefix: &[u8], case: Case) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() * (prefix.len() + 2));
    for &byte in text {
        out.extend_from_slice(prefix);
        case.push_byte(byte, &mut out);
    }
    out
}

/// The lines of what wraps when it is long.
fn add_wrapped(text: &[u8], needles: &mut Needles) {
    base64::add_lines(text, needles);
    if text.len() * 2 > HEX_WRAP {
        let mut digits = hex(text, b"", Case::Lower);
        add_lines(&digits, HEX_WRAP, needles);
        sys::wipe(&mut digits);
    }
}

/// The lines of a text that is longer than one. A short last one could be any number or word: it is looked for behind
/// the end of the line before it, and not alone.
fn add_lines(text: &[u8], width: usize, needles: &mut Needles) {
    for line in text.chunks(width).filter(|line| line.len() >= MIN_LINE) {
        needles.push(line);
    }
    let short = text.len() % width;
    if (1..MIN_LINE).contains(&short) && text.len() > width {
        let (before, last) = text.split_at(text.len() - short);
        let before = &before[before.len() - MIN_LINE..];
        for end in [b"\n".as_slice(), b"\r\n"] {
            needles.take([before, end, last].concat());
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::mask::Patterns;

    #[test]
    fn of_a_long_value_with_one_character_to_escape_nothing_is_left() {
        let words: Vec<String> = (0..90).map(|at| format!("{:05x}", at * 7919)).collect();
        let words = words.join("-");
        for value in [
            format!("p\"w {words}"),
            format!("{words}&end"),
            format!("{words} é{words}"),
        ] {
            let patterns = Patterns::of_values([value.as_bytes()]);
            let json = value.replace('"', "\\\"");
            let unicode = json.replace('é', "\\u00e9");
            let markup = value.replace('&', "&amp;").replace('"', "&quot;");
            let percent = value
                .replace('"', "%22")
                .replace(' ', "%20")
                .replace('&', "%26")
                .replace('é', "%C3%A9");
            let doubled = value.replace('"', "\"\"");
            for written in [&value, &json, &unicode, &markup, &percent, &doubled] {
                let masked = patterns.mask(format!("<{written}>").as_bytes());
                let masked = String::from_utf8(masked).unwrap();
                assert!(masked.len() < 8, "{written}: {masked}");
            }
        }
    }
}
