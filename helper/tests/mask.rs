//! The masker against a slow, obviously right reference, and the forms of values.

use hybrid_runner_helper::mask::{Masker, Patterns, needles_of, too_short};
use proptest::prelude::*;

/// Marks each byte that any needle covers; each run of marked bytes becomes one mask.
fn reference(needles: &[Vec<u8>], input: &[u8]) -> Vec<u8> {
    let mut marked = vec![false; input.len()];
    for needle in needles.iter().filter(|needle| needle.len() >= 4) {
        for at in 0..=input.len().saturating_sub(needle.len()) {
            if input[at..].starts_with(needle) {
                marked[at..at + needle.len()].fill(true);
            }
        }
    }
    let mut out = Vec::new();
    for (at, &byte) in input.iter().enumerate() {
        if !marked[at] {
            out.push(byte);
        } else if at == 0 || !marked[at - 1] {
            out.extend(b"***");
        }
    }
    out
}

fn masked(needles: &[Vec<u8>], pieces: &[&[u8]]) -> Vec<u8> {
    let mut masker = Masker::new(Patterns::new(needles.to_vec()));
    let mut out = Vec::new();
    for piece in pieces {
        masker.push(piece, &mut out);
    }
    masker.finish(&mut out);
    out
}

fn at_each_cut(needles: &[Vec<u8>], input: &[u8]) {
    let wanted = reference(needles, input);
    for cut in 0..=input.len() {
        assert_eq!(
            masked(needles, &[&input[..cut], &input[cut..]]),
            wanted,
            "cut at {cut}"
        );
    }
    let bytes: Vec<_> = input.chunks(1).collect();
    assert_eq!(masked(needles, &bytes), wanted, "byte by byte");
}

fn bytes(text: &str) -> Vec<u8> {
    text.as_bytes().to_vec()
}

#[test]
fn overlapping_and_touching_needles_become_one_mask() {
    let needles = [
        bytes("abcde"),
        bytes("cdefg"),
        bytes("hijk"),
        bytes("bcde"),
        bytes("aaaa"),
    ];
    at_each_cut(
        &needles,
        b"xabcdefghijkx abcdabcde cdefg aaaaaaaab abcdefhijk aaa",
    );
}

#[test]
fn values_are_masked_at_each_cut() {
    for value in [
        "p\"a's\\s",
        "two\nlines of it\n",
        "100%&<sure>",
        "pässwörd ≠ 🔑",
        "    spaced    ",
    ] {
        let needles = needles_of(value.as_bytes());
        at_each_cut(
            &needles,
            format!("before {value} after {value}{value}").as_bytes(),
        );
    }
}

#[test]
fn only_what_may_become_a_needle_is_held_back() {
    let mut masker = Masker::new(Patterns::new([bytes("secret-value")]));
    let mut out = Vec::new();
    masker.push(b"a plain line\n", &mut out);
    assert_eq!(out, b"a plain line\n");
    masker.push(b"it is sec", &mut out);
    assert_eq!(out, b"a plain line\nit is ");
    masker.push(b"ond", &mut out);
    assert_eq!(out, b"a plain line\nit is second");
    assert_eq!(masker.masked(), 0);
}

#[test]
fn a_long_needle_is_masked_whole() {
    let needle: Vec<u8> = (0..40_000_u32)
        .map(|at| at.wrapping_mul(2_654_435_761).to_be_bytes()[1])
        .collect();
    let input = [b"before ".as_slice(), &needle, b" after"].concat();
    let pieces: Vec<_> = input.chunks(1000).collect();
    assert_eq!(masked(&[needle], &pieces), b"before *** after");
}

#[test]
fn many_masks_are_counted() {
    let mut masker = Masker::new(Patterns::new([bytes("secret")]));
    let mut out = Vec::new();
    masker.push(&b"secret,".repeat(1000), &mut out);
    masker.finish(&mut out);
    assert_eq!((masker.masked(), out), (1000, b"***,".repeat(1000)));
}

#[test]
fn nothing_to_mask_changes_nothing() {
    assert_eq!(masked(&[], &[b"abc", b"def"]), b"abcdef");
    assert_eq!(masked(&[bytes("abc")], &[b"abc"]), b"abc");
}

#[test]
fn short_values_are_said_to_be_short() {
    assert!(too_short(b"abc") && too_short(b"abc\n \n") && too_short(b""));
    assert!(needles_of(b"abc").is_empty());
    assert!(!too_short(b"abcd"));
    assert_eq!(
        needles_of(b"abcd")
            .iter()
            .filter(|needle| *needle == b"abcd")
            .count(),
        1
    );
}

fn hides(value: &str, text: &str) {
    let out = masked(&needles_of(value.as_bytes()), &[text.as_bytes()]);
    assert_eq!(
        out,
        b"<***>",
        "{} of {value}",
        String::from_utf8_lossy(&out)
    );
}

#[test]
fn the_forms_of_a_value_are_hidden() {
    let value = "p\"ä's/&<w>+ \\";
    for form in [
        value,
        r#"p\"ä's/&<w>+ \\"#,
        r#"p\"ä's\/&<w>+ \\"#,
        r#"p\"\u00e4's/&<w>+ \\"#,
        r#"p\"\u00E4's\/&<w>+ \\"#,
        r#"p\"ä\u0027s/\u0026\u003cw\u003e+ \\"#,
        r#"p\\\"ä's/&<w>+ \\\\"#,
        "p%22%C3%A4%27s%2F%26%3Cw%3E%2B%20%5C",
        "p%22%c3%a4%27s%2f%26%3cw%3e%2b%20%5c",
        "p%22%C3%A4's%2F%26%3Cw%3E%2B%20%5C",
        "p%22%C3%A4%27s/%26%3Cw%3E%2B%20%5C",
        "p%22%C3%A4%27s%2F%26%3Cw%3E%2B+%5C",
        r#"p"ä'\''s/&<w>+ \"#,
        r#"p"ä'"'"'s/&<w>+ \"#,
        "p\"ä's/&amp;&lt;w&gt;+ \\",
        "p&quot;ä&apos;s/&amp;&lt;w&gt;+ \\",
        "p&quot;ä&#39;s/&amp;&lt;w&gt;+ \\",
        "p&quot;ä&#x27;s/&amp;&lt;w&gt;+ \\",
        "p&#34;ä&#39;s/&amp;&lt;w&gt;+ \\",
        "7022c3a427732f263c773e2b205c",
        "7022C3A427732F263C773E2B205C",
    ] {
        hides(value, &format!("<{form}>"));
    }
}

fn base64(bytes: &[u8], alphabet: &[u8], padded: bool) -> String {
    let mut out = String::new();
    for group in bytes.chunks(3) {
        let bits = group
            .iter()
            .fold(0_u32, |bits, &byte| bits << 8 | u32::from(byte))
            << (8 * (3 - group.len()));
        for place in 0..4 {
            if place <= group.len() {
                out.push(char::from(
                    alphabet[(bits >> (18 - 6 * place) & 63) as usize],
                ));
            } else if padded {
                out.push('=');
            }
        }
    }
    out
}

#[test]
fn base64_is_hidden_at_every_place_of_a_text() {
    let standard = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let url_safe = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    for value in [
        "pass",
        "passw",
        "?>passwo~",
        "\u{ff}\u{3ff}password\u{fbff}",
    ] {
        let needles = needles_of(value.as_bytes());
        for (alphabet, padded) in [
            (standard, true),
            (url_safe, true),
            (standard, false),
            (url_safe, false),
        ] {
            for before in 0..6 {
                for after in 0..6 {
                    let text = format!("{}{value}{}", "u".repeat(before), "z".repeat(after));
                    let encoded = base64(text.as_bytes(), alphabet, padded);
                    let out = String::from_utf8(masked(&needles, &[encoded.as_bytes()])).unwrap();
                    let (left, right) = out.split_once("***").expect("masked");
                    // Each neighbour shares at most one character with the value; two may be padding.
                    assert!(
                        left.len() <= (before * 8).div_ceil(6),
                        "{value}: {encoded} became {out}"
                    );
                    assert!(
                        right.len() <= (after * 8).div_ceil(6) + 3,
                        "{value}: {encoded} became {out}"
                    );
                    if after == 0 {
                        assert_eq!(right, "", "{value}: {encoded} became {out}");
                    }
                }
            }
        }
    }
}

#[test]
fn wrapped_base64_is_hidden() {
    let value: String = "012-345-abc-XYZ-~~~-".repeat(12);
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let encoded = base64(format!("{value}\n").as_bytes(), alphabet, true);
    for width in [64, 76] {
        let lines: Vec<_> = encoded
            .as_bytes()
            .chunks(width)
            .map(|line| String::from_utf8(line.to_vec()).unwrap())
            .collect();
        let out = String::from_utf8(masked(
            &needles_of(value.as_bytes()),
            &[lines.join("\n").as_bytes()],
        ))
        .unwrap();
        assert!(
            out.split('\n').all(|line| line.replace('*', "").len() <= 4),
            "{out}"
        );
    }
}

#[test]
fn the_lines_of_a_value_are_hidden_alone() {
    let needles = needles_of(b"-----BEGIN KEY-----\r\nMIIBOgIBAAJB\r\nshort\r\n");
    assert_eq!(
        masked(&needles, &[b"got MIIBOgIBAAJB, short"]),
        b"got ***, short"
    );
}

fn needle() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(prop_oneof![Just(b'a'), Just(b'b'), Just(b'c')], 1..9)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn every_split_gives_the_reference(
        needles in proptest::collection::vec(needle(), 0..8),
        input in proptest::collection::vec(prop_oneof![4 => Just(b'a'), 4 => Just(b'b'), 2 => Just(b'c'), 1 => Just(b'-')], 0..200),
        cuts in proptest::collection::vec(0_usize..200, 0..12),
    ) {
        let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(input.len())).collect();
        cuts.extend([0, input.len()]);
        cuts.sort_unstable();
        let pieces: Vec<_> = cuts.windows(2).map(|cut| &input[cut[0]..cut[1]]).collect();
        let out = masked(&needles, &pieces);
        prop_assert_eq!(String::from_utf8(out).unwrap(), String::from_utf8(reference(&needles, &input)).unwrap());
    }

    #[test]
    fn a_value_never_comes_through(
        value in proptest::collection::vec(any::<u8>(), 4..40),
        before in proptest::collection::vec(any::<u8>(), 0..40),
        cut in 0_usize..120,
    ) {
        prop_assume!(!too_short(&value));
        let input = [before.as_slice(), &value, &before].concat();
        let (left, right) = input.split_at(cut.min(input.len()));
        let needles = needles_of(&value);
        prop_assert_eq!(masked(&needles, &[left, right]), reference(&needles, &input));
    }
}
