//! The forms in which a value appears in a log.
//!
//! Values are printed raw, but also inside JSON, URLs, shell traces, XML, dumps, and base64 (HTTP basic authentication,
//! Kubernetes secrets). Forms that come out alike are one needle, and most do for an ordinary password.

use crate::mask::MIN_NEEDLE;

/// Lines of a multi-line value are masked on their own from this length on.
const MIN_LINE: usize = 8;
/// At which lengths tools wrap base64 (MIME and `base64`, PEM).
const WRAPS: [usize; 2] = [76, 64];

/// Whether a value is too short to be masked.
pub fn too_short(value: &[u8]) -> bool {
    value.trim_ascii().len() < MIN_NEEDLE
}

/// The value itself, its encoded forms, and those of its lines; empty if it is [`too_short`].
pub fn needles_of(value: &[u8]) -> Vec<Vec<u8>> {
    if too_short(value) {
        return Vec::new();
    }
    let trimmed = value.trim_ascii();
    let mut needles = Vec::new();
    add_forms(trimmed, &mut needles);
    add_base64(trimmed, &mut needles);
    if trimmed.len() < value.len() {
        add_forms(value, &mut needles);
        add_base64(value, &mut needles);
    }
    if trimmed.contains(&b'\n') {
        for line in trimmed.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii) {
            if line.len() >= MIN_LINE {
                add_forms(line, &mut needles);
            }
        }
    }
    needles.retain(|needle| needle.len() >= MIN_NEEDLE);
    needles.sort_unstable();
    needles.dedup();
    needles
}

fn add_forms(value: &[u8], needles: &mut Vec<Vec<u8>>) {
    needles.push(value.to_vec());
    needles.push(hex(value, Case::Lower));
    needles.push(hex(value, Case::Upper));
    add_percent(value, needles);
    add_shell(value, needles);
    add_xml(value, needles);
    add_json(value, needles);
}

/// The case of hexadecimal digits.
#[derive(Clone, Copy)]
enum Case {
    Lower,
    Upper,
}

const CASES: [Case; 2] = [Case::Lower, Case::Upper];

impl Case {
    fn digit(self, digit: u8) -> u8 {
        let digits = match self {
            Self::Lower => b"0123456789abcdef",
            Self::Upper => b"0123456789ABCDEF",
        };
        digits[usize::from(digit & 15)]
    }

    fn push_byte(self, byte: u8, out: &mut Vec<u8>) {
        out.extend([self.digit(byte >> 4), self.digit(byte)]);
    }
}

fn hex(value: &[u8], case: Case) -> Vec<u8> {
    let mut out = Vec::with_capacity(value.len() * 2);
    for &byte in value {
        case.push_byte(byte, &mut out);
    }
    out
}

/// Percent-encoding as of RFC 3986, of JavaScript, of Python (which leaves `/`), and of forms, where a space is `+`.
fn add_percent(value: &[u8], needles: &mut Vec<Vec<u8>>) {
    let kept: [&[u8]; 4] = [b"-_.~", b"-_.!~*'()", b"-_.~/", b"-_.*"];
    for kept in kept {
        for space in [b"%20".as_slice(), b"+"] {
            for case in CASES {
                needles.push(replaced(value, |byte, out| match byte {
                    b' ' => out.extend(space),
                    byte if byte.is_ascii_alphanumeric() || kept.contains(&byte) => out.push(byte),
                    byte => {
                        out.push(b'%');
                        case.push_byte(byte, out);
                    }
                }));
            }
        }
    }
}

/// A quote inside single quotes, as `set -x` and Python's `shlex` write it.
fn add_shell(value: &[u8], needles: &mut Vec<Vec<u8>>) {
    for quote in [br"'\''".as_slice(), br#"'"'"'"#] {
        needles.push(replaced(value, |byte, out| match byte {
            b'\'' => out.extend(quote),
            byte => out.push(byte),
        }));
    }
}

/// Entities as the libraries write them.
fn add_xml(value: &[u8], needles: &mut Vec<Vec<u8>>) {
    let quotes: [[&[u8]; 2]; 6] = [
        [b"\"", b"'"],
        [b"&quot;", b"'"],
        [b"&quot;", b"&apos;"],
        [b"&quot;", b"&#39;"],
        [b"&quot;", b"&#x27;"],
        [b"&#34;", b"&#39;"],
    ];
    for [double, single] in quotes {
        needles.push(replaced(value, |byte, out| match byte {
            b'&' => out.extend(b"&amp;"),
            b'<' => out.extend(b"&lt;"),
            b'>' => out.extend(b"&gt;"),
            b'"' => out.extend(double),
            b'\'' => out.extend(single),
            byte => out.push(byte),
        }));
    }
}

/// The inside of a JSON string: as short as can be, with `\/`, in ASCII only, safe for HTML; and once more escaped,
/// as JSON inside JSON.
fn add_json(value: &[u8], needles: &mut Vec<Vec<u8>>) {
    for slash in [false, true] {
        for ascii in [false, true] {
            for html in [false, true] {
                for case in CASES {
                    let json = Json {
                        slash,
                        ascii,
                        html,
                        case,
                    };
                    let once = json.escape(value);
                    needles.push(json.escape(&once));
                    needles.push(once);
                }
            }
        }
    }
}

struct Json {
    slash: bool,
    ascii: bool,
    html: bool,
    case: Case,
}

impl Json {
    fn escape(&self, value: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(value.len());
        for chunk in value.utf8_chunks() {
            for char in chunk.valid().chars() {
                self.push_char(char, &mut out);
            }
            out.extend(chunk.invalid());
        }
        out
    }

    fn push_char(&self, char: char, out: &mut Vec<u8>) {
        let short = match char {
            '"' => b'"',
            '\\' => b'\\',
            '\n' => b'n',
            '\r' => b'r',
            '\t' => b't',
            '\u{8}' => b'b',
            '\u{c}' => b'f',
            '/' if self.slash => b'/',
            char => {
                let html =
                    self.html && matches!(char, '<' | '>' | '&' | '\'' | '\u{2028}' | '\u{2029}');
                if char < ' '
                    || char == '\u{7f}' && self.ascii
                    || html
                    || self.ascii && !char.is_ascii()
                {
                    self.push_units(char, out);
                } else {
                    out.extend(char.encode_utf8(&mut [0; 4]).as_bytes());
                }
                return;
            }
        };
        out.extend([b'\\', short]);
    }

    fn push_units(&self, char: char, out: &mut Vec<u8>) {
        for unit in char.encode_utf16(&mut [0; 2]) {
            out.extend(b"\\u");
            unit.to_be_bytes()
                .into_iter()
                .for_each(|byte| self.case.push_byte(byte, out));
        }
    }
}

fn replaced(value: &[u8], mut replace: impl FnMut(u8, &mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::with_capacity(value.len());
    for &byte in value {
        replace(byte, &mut out);
    }
    out
}

const STANDARD: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const URL_SAFE: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Base64 of the value inside a text, at each of the three places that it can have in a group of three bytes: the
/// characters that do not depend on its neighbours, and the last one as it is at the end of the text.
fn add_base64(value: &[u8], needles: &mut Vec<Vec<u8>>) {
    for alphabet in [STANDARD, URL_SAFE] {
        for before in 0..3 {
            let mut shifted = vec![0; before];
            shifted.extend_from_slice(value);
            let mut encoded = base64(&shifted, alphabet);
            let padding = encoded.len();
            // The characters that hold bits of the bytes before.
            encoded.drain(..(before * 8).div_ceil(6));
            let stable = encoded.len() - usize::from(shifted.len() % 3 != 0);
            needles.push(encoded[..stable].to_vec());
            needles.push(encoded.clone());
            if before == 0 {
                add_wrapped(&encoded[..stable], needles);
            }
            let mut padded = encoded;
            padded.resize(padded.len() + (4 - padding % 4) % 4, b'=');
            needles.push(padded);
        }
    }
}

/// The lines of a whole value's base64.
fn add_wrapped(encoded: &[u8], needles: &mut Vec<Vec<u8>>) {
    for width in WRAPS {
        if encoded.len() > width {
            needles.extend(encoded.chunks(width).map(<[u8]>::to_vec));
        }
    }
}

/// Base64 without padding.
fn base64(bytes: &[u8], alphabet: &[u8; 64]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let bits = group
            .iter()
            .fold(0_u32, |bits, &byte| bits << 8 | u32::from(byte))
            << (8 * (3 - group.len()));
        for place in 0..=group.len() {
            out.push(alphabet[(bits >> (18 - 6 * place) & 63) as usize]);
        }
    }
    out
}
