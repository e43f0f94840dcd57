//! The forms of values: what real encoders make of them is masked.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose as base64s;
use hybrid_runner_helper::mask::{Patterns, needles_of, too_short};
use percent_encoding::{AsciiSet, CONTROLS, NON_ALPHANUMERIC, utf8_percent_encode};
use proptest::collection::vec;
use proptest::prelude::*;
use serde::Deserialize;

#[derive(Deserialize)]
struct Row {
    value: String,
    outputs: BTreeMap<String, String>,
}

/// What the programs of `encoders/generate` made of awkward values.
fn rows() -> Vec<Row> {
    serde_json::from_str(include_str!("encoders/outputs.json")).expect("the generator wrote it")
}

fn patterns(value: &str) -> Patterns {
    Patterns::of_values([value.as_bytes()])
}

/// Whether nothing of a value is left but what stands around it.
fn is_hidden(patterns: &Patterns, output: &str) -> bool {
    let masked = String::from_utf8_lossy(&patterns.mask(output.as_bytes())).into_owned();
    let around = |char: char| char.is_whitespace() || "'\"`$b".contains(char);
    masked.contains("***") && masked.replace("***", "").chars().all(around)
}

#[test]
fn what_other_languages_write_is_hidden() {
    let mut seen = Vec::new();
    for row in rows() {
        let patterns = patterns(&row.value);
        for (encoder, output) in &row.outputs {
            if !is_hidden(&patterns, output) {
                let masked = patterns.mask(output.as_bytes());
                seen.push(format!(
                    "{encoder}: {output:?} became {}",
                    masked.escape_ascii()
                ));
            }
        }
    }
    assert!(
        seen.is_empty(),
        "{} to be seen:\n{}",
        seen.len(),
        seen.join("\n")
    );
}

type Encoder = (&'static str, fn(&str) -> String);

/// A set of WHATWG's URL standard.
const USERINFO: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'`')
    .add(b'{')
    .add(b'}')
    .add(b'/')
    .add(b':')
    .add(b';')
    .add(b'=')
    .add(b'@')
    .add(b'[')
    .add(b'\\')
    .add(b']')
    .add(b'^')
    .add(b'|');
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');

/// Encoders of Rust.
const ENCODERS: &[Encoder] = &[
    ("as it is", |value| value.to_owned()),
    ("serde_json", |value| json(value)),
    ("serde_json twice", |value| {
        let twice = json(&json(value));
        twice[3..twice.len() - 3].to_owned()
    }),
    ("Debug", |value| format!("{value:?}")),
    ("escape_debug", |value| value.escape_debug().to_string()),
    ("escape_default", |value| value.escape_default().to_string()),
    ("escape_ascii", |value| {
        value.as_bytes().escape_ascii().to_string()
    }),
    ("percent, all", |value| percent(value, NON_ALPHANUMERIC)),
    ("percent, RFC 3986", |value| percent(value, UNRESERVED)),
    ("percent, user information", |value| {
        percent(value, USERINFO)
    }),
    ("percent, lower case", |value| {
        percent(value, UNRESERVED).to_lowercase()
    }),
    ("form", |value| {
        form_urlencoded::byte_serialize(value.as_bytes()).collect()
    }),
    ("base64", |value| base64s::STANDARD.encode(value)),
    ("base64, no padding", |value| {
        base64s::STANDARD_NO_PAD.encode(value)
    }),
    ("base64, URL", |value| base64s::URL_SAFE.encode(value)),
    ("base64, URL, no padding", |value| {
        base64s::URL_SAFE_NO_PAD.encode(value)
    }),
];

fn json(value: &str) -> String {
    serde_json::to_string(value).expect("text is JSON")
}

fn percent(value: &str, set: &'static AsciiSet) -> String {
    utf8_percent_encode(value, set).to_string()
}

fn hides_all(value: &str) {
    let patterns = patterns(value);
    for (name, encode) in ENCODERS {
        // Lower case is for the digits alone; a long value is looked for as common writers write it.
        let left_out = match *name {
            "percent, lower case" => value.chars().any(char::is_uppercase),
            "percent, user information" => value.len() > 1024,
            _ => false,
        };
        if left_out {
            continue;
        }
        let output = encode(value);
        assert!(
            is_hidden(&patterns, &output),
            "{name} of {value:?}: {output} became {}",
            patterns.mask(output.as_bytes()).escape_ascii()
        );
    }
}

#[test]
fn what_rust_writes_is_hidden() {
    for row in rows() {
        hides_all(&row.value);
    }
}

#[test]
fn what_rust_writes_of_a_long_value_is_hidden() {
    let all: String = rows().into_iter().map(|row| row.value).collect();
    hides_all(&all.repeat(3));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn what_rust_writes_of_any_text_is_hidden(
        value in "[a-zA-Z0-9]{2}([ -~]|[\t\nöß密🔑]){2,30}[a-zA-Z0-9]{2}",
    ) {
        hides_all(&value);
    }

    #[test]
    fn base64_is_hidden_at_every_place_of_a_text(
        value in vec(any::<u8>(), 4..40),
        before in vec(any::<u8>(), 0..6),
        after in vec(any::<u8>(), 0..6),
    ) {
        prop_assume!(!too_short(&value));
        let patterns = Patterns::of_values([value.as_slice()]);
        let text = [before.as_slice(), &value, &after].concat();
        for engine in [base64s::STANDARD, base64s::STANDARD_NO_PAD, base64s::URL_SAFE, base64s::URL_SAFE_NO_PAD] {
            let encoded = engine.encode(&text);
            let out = String::from_utf8(patterns.mask(encoded.as_bytes())).expect("text");
            let Some((left, right)) = out.split_once("***") else {
                // Four bytes between others leave too few characters that are theirs alone.
                prop_assert!(value.trim_ascii().len() < 6, "{encoded} became {out}");
                continue;
            };
            // Each neighbour shares at most one character with the value; two may be padding.
            prop_assert!(left.len() <= (before.len() * 8).div_ceil(6) + 2, "{encoded} became {out}");
            prop_assert!(right.len() <= (after.len() * 8).div_ceil(6) + 5, "{encoded} became {out}");
            prop_assert!(!after.is_empty() || right.len() <= 4, "{encoded} became {out}");
        }
    }
}

/// As `base64` and writers of PEM do.
fn wrapped(text: &str, width: usize) -> String {
    let encoded = base64s::STANDARD.encode(text).into_bytes();
    let lines = encoded.chunks(width).map(String::from_utf8_lossy);
    lines.fold(String::new(), |text, line| text + &line + "\n")
}

#[test]
fn base64_that_wraps_is_hidden_of_spaced_values_of_lines_and_of_what_ends_with_a_line() {
    let long = "a value/of+which base64 is wrapped, because it is so long that a line is full";
    let spaced = format!("  {long}  ");
    let lines = format!("first {long}\nsecond {long}");
    for (value, text) in [
        (&spaced, spaced.as_str()),
        (&spaced, long),
        (&lines, &lines),
        (&lines, lines.split_once('\n').expect("two lines").1),
    ] {
        let patterns = patterns(value);
        for width in [64, 76] {
            let output = wrapped(text, width);
            assert!(is_hidden(&patterns, &output), "{text:?} at {width}");
            // Of the last group, which holds the end of the line too, a few characters are not the value's alone.
            let output = wrapped(&format!("{text}\n"), width);
            let masked = patterns.mask(output.as_bytes());
            let masked = String::from_utf8_lossy(&masked);
            let rest = masked.replace("***", "").replace('\n', "");
            assert!(rest.len() <= 6, "{text:?} at {width} became {masked}");
        }
    }
}

#[test]
fn a_long_value_takes_memory_within_bounds() {
    let nasty: String = (' '..='~').chain("ö密🔑\n\t".chars()).collect();
    for (kilobytes, megabytes) in [(1, 1), (4, 2), (16, 4), (64, 6)] {
        let value = nasty.repeat((kilobytes << 10) / nasty.len());
        let patterns = patterns(&value);
        let taken = patterns.memory();
        assert!(taken < megabytes << 20, "{kilobytes} KB: {taken}");
        assert_eq!(patterns.mask(value.as_bytes()), b"***");
    }
}

#[test]
fn a_short_plain_value_has_few_forms_and_a_special_one_not_many() {
    let forms = |value: &str| needles_of(value.as_bytes()).len();
    assert!(forms("plainLetters123") < 25);
    assert!(forms("p@ss/w0rd") < 60);
}

#[test]
fn lines_are_hidden_alone_as_their_whole_is() {
    let rows = rows();
    let lines: Vec<_> = rows
        .iter()
        .flat_map(|row| row.value.split('\n'))
        .filter(|line| line.trim().len() >= 8)
        .collect();
    let patterns = patterns(&lines.join("\n"));
    for line in lines {
        for (name, encode) in ENCODERS {
            if *name != "percent, lower case" {
                let output = encode(line.trim());
                assert!(is_hidden(&patterns, &output), "{name} of {line:?}");
            }
        }
    }
}

#[test]
fn a_value_whose_ends_of_lines_were_changed_is_hidden() {
    for (value, printed) in [
        ("abcd123\r\nwxyz987\r\n", "1<abcd123\nwxyz987\n>"),
        ("abcd123\nwxyz987", "2<abcd123\r\nwxyz987\r\n>"),
        ("user7\r\nhunter2\nend", "3<user7\nhunter2\nend>"),
    ] {
        let masked = patterns(value).mask(printed.as_bytes());
        let masked = String::from_utf8_lossy(&masked).into_owned();
        for line in value.lines() {
            assert!(!masked.contains(line), "{printed:?} became {masked:?}");
        }
    }
}
