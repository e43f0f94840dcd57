//! What `docs/masking.md` promises of a value, written anew and slowly: by encoders that know nothing of the masker's, and by
//! libraries. A form says which of its characters are the value's, and so hidden, and which are not.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// Shorter values and parts are not masked.
pub(super) const SHORTEST: usize = 4;
/// Shorter lines are not masked on their own.
const SHORTEST_LINE: usize = 8;
/// Shorter numbers in JSON are not masked on their own.
const SHORTEST_NUMBER: usize = 6;
/// Longer values are looked for as the common writers write them.
const EVERY: usize = 1 << 10;

/// A part of what an encoder writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Piece {
    Seen(String),
    Hidden(String),
}

/// What one encoder makes of a value.
#[derive(Debug)]
pub(super) struct Form {
    pub(super) encoder: &'static str,
    pub(super) pieces: Vec<Piece>,
}

impl Form {
    fn new(encoder: &'static str, pieces: Vec<Piece>) -> Self {
        Self { encoder, pieces }
    }

    /// The parts that nobody may find anywhere.
    pub(super) fn hidden(&self) -> impl Iterator<Item = &str> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Hidden(text) => Some(text.as_str()),
            Piece::Seen(_) => None,
        })
    }
}

/// Hidden, unless it is too short.
fn hidden(text: impl Into<String>) -> Piece {
    let text = text.into();
    if text.trim_ascii().len() < SHORTEST {
        return Piece::Seen(text);
    }
    Piece::Hidden(text)
}

fn seen(text: impl Into<String>) -> Piece {
    Piece::Seen(text.into())
}

type Encoder = (&'static str, fn(&str) -> String);

/// Encoders whose whole output is the value's.
const COMMON: &[Encoder] = &[
    ("as it is", str::to_owned),
    ("hexadecimal", |value| hex(value, "", false)),
    ("HEXADECIMAL", |value| hex(value, "", true)),
    ("base64", |value| STANDARD.encode(value)),
    ("base64 without padding", |value| {
        STANDARD_NO_PAD.encode(value)
    }),
    ("base64url", |value| URL_SAFE.encode(value)),
    ("base64url without padding", |value| {
        URL_SAFE_NO_PAD.encode(value)
    }),
    ("percent, unreserved", |value| percent(value, UNRESERVED)),
    ("percent, path", |value| percent(value, PATH)),
    ("percent, component", |value| percent(value, COMPONENT)),
    ("percent, lower case", |value| {
        lower_escapes(&percent(value, UNRESERVED))
    }),
    ("form", form),
    ("JSON in JSON", |value| inside(&json(&inside(&json(value))))),
    ("escape_default", |value| value.escape_default().to_string()),
    ("bytes escaped", |value| {
        value.as_bytes().escape_ascii().to_string()
    }),
    ("single quotes", |value| value.replace('\'', r"'\''")),
    ("single quotes as shlex", |value| {
        value.replace('\'', r#"'"'"'"#)
    }),
    ("double quotes", |value| preceded(value, "\"\\$`")),
    ("SQL", |value| value.replace('\'', "''")),
    ("CSV", |value| value.replace('"', "\"\"")),
    ("HTML", |value| entities(value, "&#39;")),
    ("HTML as Python", |value| entities(value, "&#x27;")),
    ("XML", |value| entities(value, "&apos;")),
];

/// Those that escape each character, whether it needs it or not.
const ESCAPED: &[Encoder] = &[
    ("each byte %", |value| hex(value, "%", false)),
    ("EACH BYTE %", |value| hex(value, "%", true)),
    ("each byte \\x", |value| hex(value, "\\x", false)),
    ("each byte octal", |value| {
        each_byte(value, |byte| format!("\\{byte:03o}"))
    }),
    ("each character \\u", |value| {
        each_unit(value, |unit| format!("\\u{unit:04x}"))
    }),
    ("each character &#", |value| {
        each_char(value, |char| format!("&#{};", u32::from(char)))
    }),
    ("each character &#x", |value| {
        each_char(value, |char| format!("&#x{:X};", u32::from(char)))
    }),
];

/// Those that are met less often.
const RARE: &[Encoder] = &[
    ("percent, all", |value| percent(value, NON_ALPHANUMERIC)),
    ("percent, spaces", |value| {
        percent(value, UNRESERVED).replace("%20", "+")
    }),
    ("form, lower case", |value| lower_escapes(&form(value))),
    ("escape_debug", |value| value.escape_debug().to_string()),
    ("regex", |value| {
        preceded(value, "()[]{}?*+-|^$\\.&~# \t\n\r\x0b\x0c")
    }),
];

/// Those that put quotes around it.
const QUOTING: &[Encoder] = &[
    ("JSON", json),
    ("JSON in ASCII", |value| json_in_ascii(value, false)),
    ("JSON IN ASCII", |value| json_in_ascii(value, true)),
    ("JSON of PHP", |value| json(value).replace('/', "\\/")),
    ("JSON of Go", json_of_go),
];

const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');
const PATH: &AsciiSet = &UNRESERVED.remove(b'/');
const COMPONENT: &AsciiSet = &UNRESERVED
    .remove(b'!')
    .remove(b'*')
    .remove(b'\'')
    .remove(b'(')
    .remove(b')');

/// Each form that is promised of a value.
pub(super) fn forms(value: &str) -> Vec<Form> {
    let mut forms = forms_within(value, value);
    forms.extend(
        ESCAPED
            .iter()
            .map(|(name, encode)| Form::new(name, vec![hidden(encode(value))])),
    );
    forms
}

/// Those of a part of a value: each character escaped is not among them.
pub(super) fn forms_within(whole: &str, value: &str) -> Vec<Form> {
    let rare = if whole.len() > EVERY { &[][..] } else { RARE };
    let encoders = COMMON.iter().chain(rare);
    let mut forms: Vec<_> = encoders
        .map(|(name, encode)| Form::new(name, vec![hidden(encode(value))]))
        .collect();
    for (name, encode) in QUOTING {
        let quoted = encode(value);
        forms.push(Form::new(
            name,
            vec![seen("\""), hidden(inside(&quoted)), seen("\"")],
        ));
    }
    for (name, before, after) in [
        ("base64 behind one byte", "u", ""),
        ("base64 behind two bytes", "u:", ""),
        ("base64 behind three bytes", "me:", ""),
        ("base64 of a line", "", "\n"),
        ("base64 between", "me:", "@h"),
        ("base64 of an assignment", "A=", ";b"),
    ] {
        forms.push(Form::new(name, base64_between(before, value, after)));
    }
    let fixed = value.len() * 8 / 6;
    for (name, encoded, fixed, width) in [
        ("base64 as MIME", STANDARD.encode(value), fixed, 76),
        ("base64 as PEM", STANDARD.encode(value), fixed, 64),
        ("base64url wrapped", URL_SAFE.encode(value), fixed, 76),
        ("xxd -p", hex(value, "", false), value.len() * 2, 60),
    ] {
        if encoded.len() > width {
            let own = encoded.len();
            forms.push(Form::new(name, wrapped(&encoded, own, fixed, width)));
        }
    }
    let line = STANDARD.encode(format!("{value}\n"));
    // A part at the end of the value would be hidden to its own last character.
    if line.len() > 80 && parts(value).0.is_empty() {
        let pieces = wrapped(&line, fixed, fixed, 76);
        forms.push(Form::new("base64 of a line as MIME", pieces));
    }
    forms
}

/// The parts of a value that are hidden on their own, and those that are too short for that.
pub(super) fn parts(value: &str) -> (Vec<String>, Vec<String>) {
    let (mut long, mut short) = (Vec::new(), Vec::new());
    let trimmed = value.trim_ascii();
    if trimmed.contains('\n') {
        for line in trimmed.split('\n').map(str::trim_ascii) {
            let to = if line.len() < SHORTEST_LINE {
                &mut short
            } else {
                &mut long
            };
            to.push(line.to_owned());
        }
    }
    if let Ok(json) = serde_json::from_str::<serde_json::Value>(value)
        && (json.is_object() || json.is_array())
    {
        leaves(&json, &mut long, &mut short);
    }
    (long, short)
}

fn leaves(json: &serde_json::Value, long: &mut Vec<String>, short: &mut Vec<String>) {
    match json {
        serde_json::Value::String(text) => {
            let to = if text.trim_ascii().len() < SHORTEST {
                &mut *short
            } else {
                &mut *long
            };
            to.push(text.clone());
            let (more, less) = parts(text);
            long.extend(more);
            short.extend(less);
        }
        serde_json::Value::Number(number) => {
            let text = number.to_string();
            let to = if text.len() < SHORTEST_NUMBER {
                short
            } else {
                long
            };
            to.push(text);
        }
        serde_json::Value::Array(items) => items.iter().for_each(|item| leaves(item, long, short)),
        serde_json::Value::Object(fields) => {
            fields.values().for_each(|field| leaves(field, long, short));
        }
        serde_json::Value::Null | serde_json::Value::Bool(_) => {}
    }
}

/// Base64 of a longer text: what depends on the bytes before and behind is not the value's alone, unless it comes out as it does
/// at the end of the text.
fn base64_between(before: &str, value: &str, after: &str) -> Vec<Piece> {
    let encoded = STANDARD.encode(format!("{before}{value}{after}"));
    let start = (before.len() * 8).div_ceil(6);
    let at_the_end = STANDARD_NO_PAD.encode(format!("{before}{value}"));
    let end = if after.is_empty() {
        encoded.len()
    } else if encoded.starts_with(&at_the_end) {
        at_the_end.len()
    } else {
        (before.len() + value.len()) * 8 / 6
    };
    let mut pieces = vec![
        seen(&encoded[..start]),
        hidden(&encoded[start..end]),
        seen(&encoded[end..]),
    ];
    pieces.retain(|piece| *piece != seen(""));
    pieces
}

/// In lines; the first `own` characters are the value's, `fixed` of them whatever follows. A short last line of either is hidden
/// with the end of the one before it.
fn wrapped(encoded: &str, own: usize, fixed: usize, width: usize) -> Vec<Piece> {
    let lines = |text: &str| -> String {
        let lines = text.as_bytes().chunks(width).map(String::from_utf8_lossy);
        lines.collect::<Vec<_>>().join("\n")
    };
    let joins = [own, fixed]
        .into_iter()
        .any(|end| (1..SHORTEST_LINE).contains(&(end % width)));
    let whole = lines(encoded);
    let own = lines(&encoded[..own]);
    let rest = seen(format!("{}\n", &whole[own.len()..]));
    let mut pieces = Vec::new();
    for line in own.split('\n') {
        match pieces.pop() {
            Some(Piece::Hidden(before)) if joins && own.ends_with(line) => {
                pieces.push(Piece::Hidden(format!("{before}\n{line}")));
            }
            Some(before) => pieces.extend([before, seen("\n"), hidden(line)]),
            None => pieces.push(hidden(line)),
        }
    }
    pieces.push(rest);
    pieces
}

fn each_byte(value: &str, write: impl Fn(u8) -> String) -> String {
    value.bytes().map(write).collect()
}

fn each_char(value: &str, write: impl Fn(char) -> String) -> String {
    value.chars().map(write).collect()
}

fn each_unit(value: &str, write: impl Fn(u16) -> String) -> String {
    value.encode_utf16().map(write).collect()
}

fn hex(value: &str, prefix: &str, upper: bool) -> String {
    each_byte(value, |byte| {
        if upper {
            format!("{prefix}{byte:02X}")
        } else {
            format!("{prefix}{byte:02x}")
        }
    })
}

fn percent(value: &str, escaped: &'static AsciiSet) -> String {
    utf8_percent_encode(value, escaped).to_string()
}

fn form(value: &str) -> String {
    form_urlencoded::byte_serialize(value.as_bytes()).collect()
}

/// The digits of `%..` in lower case, and nothing else.
fn lower_escapes(text: &str) -> String {
    let mut parts = text.split('%');
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (digits, rest) = part.split_at(2);
        out.extend(["%", &digits.to_lowercase(), rest]);
    }
    out
}

fn json(value: &str) -> String {
    serde_json::Value::from(value).to_string()
}

/// Without the quotes around it.
fn inside(quoted: &str) -> String {
    quoted[1..quoted.len() - 1].to_owned()
}

/// All that is not printable ASCII as `\u….`, in UTF-16.
fn json_in_ascii(value: &str, upper: bool) -> String {
    let escaped = each_char(value, |char| match char {
        '"' | '\\' => format!("\\{char}"),
        '\n' => "\\n".to_owned(),
        '\r' => "\\r".to_owned(),
        '\t' => "\\t".to_owned(),
        '\x08' => "\\b".to_owned(),
        '\x0c' => "\\f".to_owned(),
        ' '..='~' => char.to_string(),
        other if upper => each_unit(&other.to_string(), |unit| format!("\\u{unit:04X}")),
        other => each_unit(&other.to_string(), |unit| format!("\\u{unit:04x}")),
    });
    format!("\"{escaped}\"")
}

fn json_of_go(value: &str) -> String {
    each_char(&json(value), |char| match char {
        '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => format!("\\u{:04x}", u32::from(char)),
        other => other.to_string(),
    })
}

/// With a backslash before each of these.
fn preceded(value: &str, special: &str) -> String {
    each_char(value, |char| {
        if special.contains(char) {
            format!("\\{char}")
        } else {
            char.to_string()
        }
    })
}

fn entities(value: &str, apostrophe: &str) -> String {
    let escaped = value
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;");
    escaped.replace('"', "&quot;").replace('\'', apostrophe)
}
