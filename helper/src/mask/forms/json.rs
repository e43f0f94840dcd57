//! The inside of a JSON string, and of JSON that is a string in JSON or in a program.

use super::escape::Case::{self, Lower, Upper};
use super::escape::{Breadth, Distinct, Unit, rewritten};
use super::literal;
use crate::mask::needles::Needles;

/// Line ends of Unicode, which are none in JSON and were some in JavaScript.
const ENDS: &str = "\u{2028}\u{2029}";
/// Control characters that have a letter.
const LETTERS: &[(char, u8)] = &[
    ('\n', b'n'),
    ('\r', b'r'),
    ('\t', b't'),
    ('\u{8}', b'b'),
    ('\u{c}', b'f'),
];
/// Older Go knows only so many of them.
const FEW_LETTERS: usize = 3;

/// What a writer does besides what it must.
#[derive(Clone, Copy)]
struct Json {
    /// `/` becomes `\/`.
    slash: bool,
    /// These become `\u….`.
    extra: [&'static str; 2],
    extra_case: Case,
    /// What is not ASCII becomes `\u….`.
    ascii: Option<Case>,
    /// How many of [`LETTERS`] it knows.
    letters: usize,
}

const fn json(
    slash: bool,
    ascii: Option<Case>,
    extra: [&'static str; 2],
    extra_case: Case,
) -> Json {
    Json {
        slash,
        extra,
        extra_case,
        ascii,
        letters: LETTERS.len(),
    }
}

/// The common ones first.
const WRITERS: &[Json] = &[
    // JavaScript, Rust, Jackson, jq
    json(false, None, ["", ""], Lower),
    // Python, `jq -a`, Perl
    json(false, Some(Lower), ["", ""], Lower),
    // Jackson
    json(false, Some(Upper), ["", ""], Upper),
    // PHP
    json(true, None, ["", ""], Lower),
    json(true, Some(Lower), ["", ""], Lower),
    // Go, Ruby on Rails
    json(false, None, ["<>&", ENDS], Lower),
    // C++; Go without HTML; Ruby in scripts
    json(true, Some(Upper), ["", ""], Upper),
    json(false, None, ["", ENDS], Lower),
    json(true, None, ["", ENDS], Lower),
    // Gson
    json(false, None, ["<>&='", ENDS], Lower),
    // .NET
    json(false, Some(Upper), ["<>&'\"+`", ""], Upper),
    // Python for HTML
    json(false, Some(Lower), ["<>&'", ""], Lower),
    // PHP with `JSON_HEX_…`
    json(true, Some(Lower), ["<>&'\"", ""], Upper),
    json(false, Some(Lower), ["<>&'\"", ""], Upper),
    json(false, None, ["<>&'\"", ""], Upper),
    json(false, None, ["<>&'", ""], Upper),
];

const COMMON: usize = 6;

/// As all these writers do; once more escaped; and as a Python literal of a JSON text.
pub(super) fn add(text: &[u8], breadth: Breadth, needles: &mut Needles) {
    let mut forms = Distinct::new(text, needles);
    for &json in breadth.of(WRITERS, COMMON) {
        let letters = FEW_LETTERS;
        forms.add(|text| json.escape(text));
        // JSON in JSON: by the same writer, by a plain one inside, by a plain one outside.
        forms.add(|text| json.escape(&json.escape(text)));
        forms.add(|text| json.escape(&WRITERS[0].escape(text)));
        forms.add(|text| WRITERS[0].escape(&json.escape(text)));
        for quotes in ["", "'"] {
            forms.add(|text| literal::python(&json.escape(text), quotes));
        }
        forms.add(|text| Json { letters, ..json }.escape(text));
    }
}

/// Each character as `\u….`.
pub(super) fn wholly(text: &[u8], case: Case) -> Vec<u8> {
    rewritten(text, |unit, out| match unit {
        Unit::Char(char) => push_units(char, case, out),
        stray @ Unit::Stray(_) => stray.push_raw(out),
    })
}

impl Json {
    fn escape(self, text: &[u8]) -> Vec<u8> {
        rewritten(text, |unit, out| match unit {
            Unit::Char(char) => self.push(char, out),
            stray @ Unit::Stray(_) => stray.push_raw(out),
        })
    }

    fn push(self, char: char, out: &mut Vec<u8>) {
        let letter = LETTERS[..self.letters]
            .iter()
            .find(|(with, _)| *with == char);
        if self.extra.iter().any(|extra| extra.contains(char)) {
            push_units(char, self.extra_case, out);
        } else if let Some(case) = self.ascii.filter(|_| char > '~') {
            push_units(char, case, out);
        } else if let Some(&(_, letter)) = letter {
            out.extend_from_slice(&[b'\\', letter]);
        } else if matches!(char, '"' | '\\') || self.slash && char == '/' {
            out.push(b'\\');
            Unit::Char(char).push_raw(out);
        } else if char < ' ' {
            push_units(char, self.ascii.unwrap_or(self.extra_case), out);
        } else {
            Unit::Char(char).push_raw(out);
        }
    }
}

/// A character as `\u….`, in UTF-16.
pub(super) fn push_units(char: char, case: Case, out: &mut Vec<u8>) {
    for unit in char.encode_utf16(&mut [0; 2]) {
        out.extend_from_slice(b"\\u");
        case.push(u32::from(*unit), 4, out);
    }
}
