//! Literals of programming languages with the escapes of C, and with doubled quotes as in SQL, YAML and CSV.

use super::escape::Case::{self, Lower, Upper};
use super::escape::{Breadth, Distinct, Unit, doubled, replaced, rewritten};
use super::json::push_units;
use crate::mask::needles::Needles;

/// How characters are written that are not printable ASCII.
#[derive(Clone, Copy)]
enum Style {
    /// `\xc3\xa4`, each byte.
    Hex(Case),
    /// `\303\244`, each byte.
    Octal,
    /// `\xe4`, `\u5bc6`, `\U0001f511`: Python, YAML.
    Code(Case),
    /// `\u00e4`, `\U0001f511`: Go.
    Go,
    /// `\u{e4}`: Rust, JavaScript.
    Braces,
    /// `\ud83d\udd11`, in UTF-16: Java, C#, JavaScript.
    Utf16(Case),
    /// As they are.
    Raw,
}

/// Control characters with their letters, by whom.
type Letters = (&'static [u8], &'static [u8]);

const PYTHON: Letters = (b"\n\r\t", b"nrt");
const RUST: Letters = (b"\n\r\t\0", b"nrt0");
const C: Letters = (b"\n\r\t\x07\x08\x0c\x0b", b"nrtabfv");
const JAVA: Letters = (b"\n\r\t\x08\x0c", b"nrtbf");
const BASH: Letters = (b"\n\r\t\x07\x08\x0c\x0b\x1b", b"nrtabfvE");
const GCC: Letters = (b"\n\r\t\x07\x08\x0c\x0b\x1b", b"nrtabfve");
const PROPERTIES: Letters = (b"\n\r\t\x0c", b"nrtf");
const YAML: Letters = (b"\n\r\t\x07\x08\x0c\x0b\x1b\0", b"nrtabfve0");
const MYSQL: Letters = (b"\n\r\0\x1a", b"nr0Z");

/// Which characters that are not ASCII stay as they are.
#[derive(Clone, Copy)]
enum Wide {
    None,
    Printable,
    AllButControls,
}

/// What a writer does.
#[derive(Clone, Copy)]
struct Literal {
    letters: Letters,
    style: Style,
    /// Which characters stay that are not ASCII.
    wide: Wide,
    /// What else gets a `\`: which quotes do depends on those around the whole.
    quotes: &'static [&'static str],
}

const fn literal(
    letters: Letters,
    style: Style,
    wide: Wide,
    quotes: &'static [&'static str],
) -> Literal {
    Literal {
        letters,
        style,
        wide,
        quotes,
    }
}

/// The common ones first.
const WRITERS: &[Literal] = &[
    // Python: text, `ascii`, bytes
    literal(PYTHON, Style::Code(Lower), Wide::Printable, &["", "'"]),
    literal(PYTHON, Style::Code(Lower), Wide::None, &["", "'"]),
    literal(PYTHON, Style::Hex(Lower), Wide::None, &["", "'", "\"'"]),
    // Rust: `Debug`, `escape_debug`, `escape_default` (its bytes are as those above)
    literal(RUST, Style::Braces, Wide::Printable, &["\"", "\"'"]),
    literal(PYTHON, Style::Braces, Wide::None, &["\"'"]),
    // Go
    literal(C, Style::Go, Wide::Printable, &["\""]),
    literal(C, Style::Go, Wide::None, &["\""]),
    // C, and what writes for it
    literal(C, Style::Octal, Wide::AllButControls, &["", "\"", "'"]),
    literal(C, Style::Octal, Wide::None, &["", "\"", "'"]),
    literal(GCC, Style::Octal, Wide::None, &["\""]),
    literal(PYTHON, Style::Octal, Wide::None, &["\"'"]),
    literal(C, Style::Hex(Lower), Wide::None, &["\""]),
    literal(C, Style::Hex(Upper), Wide::None, &["\""]),
    // bash
    literal(BASH, Style::Octal, Wide::AllButControls, &["'"]),
    literal(BASH, Style::Octal, Wide::None, &["'"]),
    // JavaScript, Java and its properties, C#
    literal(
        JAVA,
        Style::Hex(Upper),
        Wide::AllButControls,
        &["", "'", "\""],
    ),
    literal(JAVA, Style::Utf16(Lower), Wide::None, &["", "'", "\""]),
    literal(JAVA, Style::Utf16(Upper), Wide::None, &["", "'", "\""]),
    literal(PROPERTIES, Style::Utf16(Upper), Wide::None, &["=:#!"]),
    literal(PROPERTIES, Style::Raw, Wide::AllButControls, &["=:#!"]),
    // Tables with tabs
    literal(PYTHON, Style::Raw, Wide::AllButControls, &[""]),
    // YAML
    literal(YAML, Style::Code(Upper), Wide::AllButControls, &["\""]),
    literal(YAML, Style::Code(Upper), Wide::None, &["\""]),
    // MySQL
    literal(MYSQL, Style::Raw, Wide::AllButControls, &["\"'"]),
];

const COMMON: usize = 9;

/// As all these writers do.
pub(super) fn add(text: &[u8], breadth: Breadth, needles: &mut Needles) {
    let mut forms = Distinct::new(text, needles);
    for literal in breadth.of(WRITERS, COMMON) {
        for quotes in literal.quotes {
            forms.add(|text| literal.escape(text, quotes));
        }
    }
    for quote in [b'\'', b'"'] {
        forms.add(|text| doubled(text, quote));
    }
}

/// A Python literal in these quotes.
pub(super) fn python(text: &[u8], quotes: &str) -> Vec<u8> {
    WRITERS[0].escape(text, quotes)
}

/// Each byte as `\….`.
pub(super) fn octal(text: &[u8]) -> Vec<u8> {
    replaced(text, push_octal)
}

impl Wide {
    fn keeps(self, char: char) -> bool {
        match self {
            Self::None => false,
            Self::Printable => is_printable(char),
            Self::AllButControls => !char.is_control(),
        }
    }
}

/// Whether one can see it. The rarer of those that cannot be seen are left out.
fn is_printable(char: char) -> bool {
    let invisible = matches!(
        char,
        '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{e000}'..='\u{f8ff}'
    );
    !(char.is_control() || char.is_whitespace() || invisible)
}

impl Literal {
    fn escape(&self, text: &[u8], quotes: &str) -> Vec<u8> {
        rewritten(text, |unit, out| match unit {
            Unit::Char(char) if char.is_ascii() => self.push_ascii(char, quotes, out),
            Unit::Char(char) if self.wide.keeps(char) => unit.push_raw(out),
            unit => self.style.push(unit, out),
        })
    }

    fn push_ascii(&self, char: char, quotes: &str, out: &mut Vec<u8>) {
        let (controls, letters) = self.letters;
        if let Some(place) = controls.iter().position(|&with| char::from(with) == char) {
            out.extend_from_slice(&[b'\\', letters[place]]);
        } else if char == '\\' || quotes.contains(char) {
            out.push(b'\\');
            Unit::Char(char).push_raw(out);
        } else if char.is_control() {
            self.style.push(Unit::Char(char), out);
        } else {
            Unit::Char(char).push_raw(out);
        }
    }
}

impl Style {
    fn push(self, unit: Unit, out: &mut Vec<u8>) {
        let char = match unit {
            Unit::Char(char) => char,
            Unit::Stray(byte) => return self.push_bytes(&[byte], out),
        };
        let code = u32::from(char);
        match self {
            Self::Code(case) if code < 0x100 => push_code(b"\\x", code, 2, case, out),
            // Go writes control characters of ASCII by their byte.
            Self::Go if code < 0x80 => push_code(b"\\x", code, 2, Lower, out),
            Self::Code(case) if code < 0x1_0000 => push_code(b"\\u", code, 4, case, out),
            Self::Go if code < 0x1_0000 => push_code(b"\\u", code, 4, Lower, out),
            Self::Code(case) => push_code(b"\\U", code, 8, case, out),
            Self::Go => push_code(b"\\U", code, 8, Lower, out),
            Self::Braces => {
                push_code(b"\\u{", code, 1, Lower, out);
                out.push(b'}');
            }
            Self::Utf16(case) => push_units(char, case, out),
            Self::Hex(_) | Self::Octal | Self::Raw => {
                self.push_bytes(char.encode_utf8(&mut [0; 4]).as_bytes(), out);
            }
        }
    }

    fn push_bytes(self, bytes: &[u8], out: &mut Vec<u8>) {
        for &byte in bytes {
            match self {
                Self::Raw => out.push(byte),
                Self::Octal => push_octal(byte, out),
                Self::Hex(case) | Self::Code(case) => {
                    push_code(b"\\x", u32::from(byte), 2, case, out);
                }
                _ => push_code(b"\\x", u32::from(byte), 2, Lower, out),
            }
        }
    }
}

fn push_code(prefix: &[u8], code: u32, digits: u32, case: Case, out: &mut Vec<u8>) {
    out.extend_from_slice(prefix);
    case.push(code, digits, out);
}

fn push_octal(byte: u8, out: &mut Vec<u8>) {
    out.push(b'\\');
    out.extend([byte >> 6, byte >> 3 & 7, byte & 7].map(|digit| b'0' + digit));
}
