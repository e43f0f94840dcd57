//! Fifty secrets of nasty shapes.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::json;

/// A secret as it lies in the store.
#[derive(Debug)]
pub(super) struct Value {
    /// Its name in the store.
    pub(super) name: String,
    pub(super) text: String,
    /// What programs of other languages made of it, by name.
    pub(super) recorded: BTreeMap<String, String>,
}

impl Value {
    /// The variable in which the workload gets it.
    pub(super) fn variable(&self) -> String {
        format!("V_{}", self.name.to_uppercase().replace('-', "_"))
    }
}

/// Name and shape.
const SHAPES: &[(&str, &str)] = &[
    ("plain", "hunter2-correct-horse-{}"),
    ("prefix", "prefix-{}"),
    ("prefix-longer", "prefix-{}-longer"),
    ("prefix-longest", "prefix-{}-longer-still"),
    ("periodic", "abababab{}abababab"),
    ("shortest", "q~Z|"),
    ("quotes", r#"it's "{}" \and\ `ticked`"#),
    ("single", "'{}'"),
    ("double", "\"{}\""),
    ("backslashes", r"\\server\{}\new\table\u0041\"),
    ("percent", "100%s of %d%% {} %n%20%"),
    (
        "templates",
        "${HOME} $(id) {} %(x)s {{.Field}} #{y} <%= z %>",
    ),
    ("regex", r"^({}|[a-z]+)*?\d{3}$."),
    ("glob", "*{}?[!x]~/"),
    ("shell", "a;b|c&d>e<f(g)h{}i#m~n=o!"),
    ("url", "https://user:{}@host:8443/a?b=c&d=e#f"),
    ("unicode", "pässwörd-密码-🔑-{}"),
    ("direction", "\u{202e}שלום-{}"),
    ("combining", "e\u{301}a\u{308}\u{a0}{}\u{a0}x"),
    ("separators", "line\u{2028}{}\u{2029}s\u{feff}"),
    (
        "lines",
        "first-line-{}\nsecond 'line' of {}\nthird \"line\" {}\nend",
    ),
    (
        "crlf",
        "-----BEGIN {}-----\r\nMIIB/gIBAAJB{}+/\r\n-----END {}-----",
    ),
    ("control", "\x01\x02\x1b[31m{}\x7f\x08\x0b\x0c."),
    ("tabs", "\tcolumn\t{}\tcolumn"),
    ("spaced", "   {} between spaces   "),
    (
        "spaced-long",
        "  {} is long enough for base64 of it to be wrapped, with white space at both of its ends  ",
    ),
    (
        "json",
        r#"{"user": "svc-{}", "password": "p/w \"ö\" {}", "port": 5432, "pin": 90817263, "tls": true, "hosts": ["db-{}.local"]}"#,
    ),
    (
        "json-array",
        r#"["{}-one", {"deep": "{}/two\n\u00e4 in it"}]"#,
    ),
    ("jwt", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ7{}.Q-{}_w"),
    ("like-base64", "QUJD{}+/=="),
    ("markup", "<a b=\"{}\">&amp;&lt;</a>"),
    ("command", "::add-mask::{}"),
    ("mask", "***{}***"),
];

/// How many there are.
pub(super) const COUNT: usize = 51;

/// All of them, before (0) and after (1) the store is rotated.
pub(super) fn values(generation: usize) -> Vec<Value> {
    let shapes = SHAPES.iter().map(|(name, shape)| {
        // The prefixes are those of one another.
        let family = if name.starts_with("prefix") {
            "prefix"
        } else {
            name
        };
        (*name, shape.replace("{}", &tag(family, generation)))
    });
    let tag = |name: &str| tag(name, generation);
    let nasty = "p\"a's\\s ö≠🔑 %d&<b>/+=$HOME `x`;|*?[k]\t";
    let long = [
        ("pem", pem(&tag("pem"))),
        ("service-account", service_account(&tag("service"))),
        ("kilobyte", long(&tag("kilobyte"), 1000, "k1")),
        ("four-kilobytes", long(&tag("four"), 4096, nasty)),
        (
            "many-lines",
            long(&tag("lines"), 4000, "line 'of' \"it\" <&> ä\n"),
        ),
    ];
    let made = shapes.chain(long).map(|(name, text)| Value {
        name: name.to_owned(),
        text,
        recorded: BTreeMap::new(),
    });
    let values: Vec<_> = made.chain(recorded()).collect();
    assert_eq!(values.len(), COUNT);
    values
}

/// What stands for `{}` in a value: eight letters and digits that no other value has, and that one not before it is rotated.
fn tag(name: &str, generation: usize) -> String {
    const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    let text = format!("{name} {generation}");
    let mut state = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |state, byte| {
        (state ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let letters = (0..8).map(|_| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let place = (state >> 33) % LETTERS.len() as u64;
        char::from(LETTERS[usize::try_from(place).unwrap_or(0)])
    });
    letters.collect()
}

/// So many bytes, of which no part is like another.
fn long(seed: &str, bytes: usize, shape: &str) -> String {
    let mut text = String::new();
    let mut number = 0;
    while text.len() < bytes {
        number += 1;
        text += &(tag(seed, number) + shape);
    }
    text.truncate(text.floor_char_boundary(bytes));
    text.trim_ascii_end().to_owned()
}

fn pem(tag: &str) -> String {
    let body = long(tag, 640, "+/");
    let lines: Vec<_> = (0..10).map(|line| &body[line * 64..][..64]).collect();
    let body = lines.join("\n");
    format!("-----BEGIN {tag} KEY-----\n{body}\n-----END {tag} KEY-----")
}

/// A key inside of JSON inside of JSON.
fn service_account(tag: &str) -> String {
    let inner = json!({
        "type": "service_account",
        "client_email": format!("runner-{tag}@project.iam.example"),
        "private_key": pem(&tag.chars().rev().collect::<String>()),
    });
    json!({"credentials": inner.to_string()}).to_string()
}

#[derive(Deserialize)]
struct Row {
    value: String,
    outputs: BTreeMap<String, String>,
}

/// The values of which it was recorded what encoders of other languages make of them, but for one that is a common word. They
/// are not rotated.
fn recorded() -> impl Iterator<Item = Value> {
    let rows = include_str!("../../../../helper/tests/encoders/outputs.json");
    let rows: Vec<Row> = serde_json::from_str(rows).expect("the generator wrote it");
    let rows = rows.into_iter().filter(|row| row.value != "it's");
    rows.enumerate().map(|(number, row)| Value {
        name: format!("recorded-{number}"),
        text: row.value,
        recorded: row.outputs,
    })
}
