//! The masker against a slow, obviously right reference, and what it promises of streams.

mod reference;

use hybrid_runner_helper::mask::{Masker, Patterns, needles_of, too_short};
use proptest::collection::vec;
use proptest::prelude::*;
use reference::{Step, compare, compare_obeying};

fn masked(needles: &[Vec<u8>], pieces: &[&[u8]]) -> Vec<u8> {
    let mut masker = Masker::new(Patterns::new(needles.to_vec()));
    through(&mut masker, pieces)
}

fn through(masker: &mut Masker, pieces: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::new();
    for piece in pieces {
        masker.push(piece, &mut out);
    }
    masker.finish(&mut out);
    out
}

fn at_each_cut(needles: &[Vec<u8>], input: &[u8]) {
    let wanted = reference::masked(needles, input);
    for cut in 0..=input.len() {
        let (left, right) = input.split_at(cut);
        assert_eq!(masked(needles, &[left, right]), wanted, "cut at {cut}");
    }
    compare(needles, input, input.iter().map(|_| Step::Push(1)));
}

fn bytes(text: &str) -> Vec<u8> {
    text.as_bytes().to_vec()
}

#[test]
fn overlapping_and_touching_needles_become_one_mask() {
    let needles = ["abcde", "cdefg", "hijk", "bcde", "aaaa"].map(bytes);
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
        "^(regex|[a-z]+)*$\\d{3}",
        r#"{"user": "svc-orders", "password": "p/w\"ö"}"#,
    ] {
        let needles = needles_of(value.as_bytes());
        let input = format!("before {value} after {value}{value}");
        let wanted = reference::masked(&needles, input.as_bytes());
        assert_eq!(wanted, b"before *** after ***", "of {value}");
        for cut in 0..=input.len() {
            let (left, right) = input.as_bytes().split_at(cut);
            assert_eq!(masked(&needles, &[left, right]), wanted, "cut at {cut}");
        }
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
fn a_prompt_shows_after_a_release_and_the_rest_of_a_needle_is_masked() {
    let mut masker = Masker::new(Patterns::new([bytes("> secret")]));
    let mut out = Vec::new();
    masker.push(b"login> ", &mut out);
    assert_eq!(out, b"login");
    assert!(masker.can_release());
    masker.release(&mut out);
    assert_eq!(out, b"login> ");
    assert!(!masker.can_release());
    masker.push(b"secret> secret", &mut out);
    masker.finish(&mut out);
    assert_eq!(out, b"login> ***");
}

#[test]
fn no_more_than_three_bytes_of_a_needle_are_released() {
    let mut masker = Masker::new(Patterns::new([bytes("secret")]));
    let mut out = Vec::new();
    for byte in b"secret" {
        masker.push(&[*byte], &mut out);
        masker.release(&mut out);
    }
    masker.finish(&mut out);
    assert_eq!(out, b"sec***");
}

#[test]
fn what_is_held_and_longer_is_not_released_at_all() {
    let mut masker = Masker::new(Patterns::new([bytes("secret")]));
    let mut out = Vec::new();
    masker.push(b"a secr", &mut out);
    assert!(!masker.can_release());
    masker.release(&mut out);
    assert_eq!(out, b"a ");
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
fn four_kilobytes_of_special_characters_are_masked_whole_in_each_writing() {
    let value = "p\"a's\\s ö≠🔑 %d&<b>/+=$HOME `x`;|*?[k]\t\n".repeat(90);
    let needles = needles_of(value.as_bytes());
    let json = serde_json::to_string(&value).expect("it is text");
    for text in [
        value.as_str(),
        json.trim_matches('"'),
        &value.escape_default().to_string(),
    ] {
        let input = format!("<{text}>");
        let pieces: Vec<_> = input.as_bytes().chunks(777).collect();
        let out = masked(&needles, &pieces);
        assert_eq!(out.escape_ascii().to_string(), "<***>");
    }
}

#[test]
fn many_masks_are_counted() {
    let mut masker = Masker::new(Patterns::new([bytes("secret")]));
    let out = through(&mut masker, &[&b"secret,".repeat(1000)]);
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
    let needles = needles_of(b"abcd");
    let same = needles.iter().filter(|needle| *needle == b"abcd");
    assert_eq!(same.count(), 1);
}

#[test]
fn the_lines_of_a_value_are_hidden_alone_and_encoded() {
    let needles = needles_of(b"-----BEGIN KEY-----\r\nMIIB/gIBAAJB\r\nshort\r\n");
    let text = b"got MIIB/gIBAAJB, short, MIIB%2FgIBAAJB, MIIB\\/gIBAAJB";
    assert_eq!(masked(&needles, &[text]), b"got ***, short, ***, ***");
}

#[test]
fn what_is_in_a_json_value_is_hidden_alone_and_encoded() {
    let value = r#" {"user": "svc", "hosts": ["db-1.local", "x"], "port": 5432, "pin": 20261128, "on": true,
        "password": "p/w \u00e4\"", "key": "{\"inner\": \"-----BEGIN\\nline of it\"}"} "#;
    let text =
        "svc db-1.local x 5432 20261128 true password p/w ä\" p%2Fw%20%C3%A4%22 inner line of it";
    assert_eq!(
        String::from_utf8_lossy(&masked(&needles_of(value.as_bytes()), &[text.as_bytes()])),
        "svc *** x 5432 *** true password *** *** inner ***"
    );
}

#[test]
fn a_whole_text_is_masked_at_once() {
    let patterns = Patterns::of_values([b"hunter22".as_slice()]);
    assert_eq!(
        patterns.mask(b"denied for `hunter22` (aHVudGVyMjI=)"),
        b"denied for `***` (***)"
    );
}

#[test]
fn needles_added_meanwhile_are_masked_from_there_on_and_the_old_ones_too() {
    let patterns = Patterns::new([bytes("a long old needle")]);
    let mut masker = Masker::new(patterns.clone());
    let mut out = Vec::new();
    masker.push(b"new-one, a long ", &mut out);
    patterns.add([bytes("new-one"), bytes("long new")]);
    masker.push(b"old needle, new-one, a long", &mut out);
    patterns.add([bytes("newest")]);
    masker.push(b" new, newest", &mut out);
    masker.finish(&mut out);
    assert_eq!(out, b"new-one, ***, ***, a ***, ***");
}

#[test]
fn a_set_with_more_needles_leaves_the_first_one_alone() {
    let few = Patterns::new([bytes("first")]);
    let more = few.with([bytes("second")]);
    assert_eq!(few.mask(b"first second"), b"*** second");
    assert_eq!(more.mask(b"first second"), b"*** ***");
}

fn obeying(pieces: &[&[u8]]) -> String {
    let patterns = Patterns::of_output([b"hunter22".as_slice()]);
    let out = through(&mut Masker::new(patterns), pieces);
    String::from_utf8(out).expect("text")
}

#[test]
fn a_value_that_the_workload_names_is_masked_wherever_the_line_is_cut() {
    let input = b"token-1\n::add-mask::token-1\r\nhunter22 token-1\n::add-mask::two%0Alines of%25it%0A\nlines of%it\n";
    let wanted = "token-1\n::add-mask::***\n*** ***\n::add-mask::***\n***\n";
    for cut in 0..=input.len() {
        let (left, right) = input.split_at(cut);
        assert_eq!(obeying(&[left, right]), wanted, "cut at {cut}");
    }
    assert_eq!(obeying(&input.chunks(1).collect::<Vec<_>>()), wanted);
}

#[test]
fn only_a_whole_line_is_a_command() {
    let input = b" ::add-mask::token-1\nsay ::add-mask::token-2\n:::add-mask::token-3\ntoken-1 token-2 token-3";
    assert_eq!(obeying(&[input]).as_bytes(), input);
    let plain = Patterns::of_values([b"hunter22".as_slice()]);
    assert_eq!(
        plain.mask(b"::add-mask::token-1\n"),
        b"::add-mask::token-1\n"
    );
}

#[test]
fn a_command_at_the_end_of_the_output_hides_its_value() {
    assert_eq!(obeying(&[b"a\n::add-mask::token"]), "a\n::add-mask::***");
}

#[test]
fn the_log_says_which_named_values_are_not_masked() {
    assert_eq!(
        obeying(&[b"::add-mask::abc\n::add-mask::\nabc"]),
        "::add-mask::*** (not masked: shorter than 4 bytes)\n::add-mask::*** (not masked: shorter than 4 bytes)\nabc"
    );
    let long = [b"::add-mask::".as_slice(), &b"x".repeat(70_000), b"\nnext"].concat();
    assert_eq!(
        obeying(&long.chunks(999).collect::<Vec<_>>()),
        "::add-mask::*** (not masked: too long)\nnext"
    );
}

#[test]
fn a_workload_can_name_only_so_many_values() {
    let lines: Vec<_> = (0..1500)
        .map(|at| format!("::add-mask::value-{at}\n"))
        .collect();
    let lines = lines.concat();
    let out = obeying(&[lines.as_bytes(), b"value-1023 value-1024"]);
    let (lines, last) = out.rsplit_once('\n').expect("lines");
    assert_eq!(last, "*** ***4");
    let refused = lines.matches("(not masked: too many values were added)");
    assert_eq!(refused.count(), 1500 - 1024);
}

#[test]
fn what_one_stream_names_is_masked_in_the_other() {
    let patterns = Patterns::of_output([]);
    let [mut out, mut err] = [(); 2].map(|()| Masker::new(patterns.clone()));
    let mut log = Vec::new();
    out.push(b"::add-mask::token-1\n", &mut log);
    err.push(b"token-1\n", &mut log);
    assert_eq!(log, b"::add-mask::***\n***\n");
}

#[test]
fn a_command_is_found_after_a_release_of_its_beginning() {
    let mut masker = Masker::new(Patterns::of_output([]));
    let mut out = Vec::new();
    masker.push(b"::", &mut out);
    masker.release(&mut out);
    assert_eq!(out, b"::");
    masker.push(b"add-mask::token\ntoken", &mut out);
    masker.finish(&mut out);
    assert_eq!(out, b"::add-mask::***\n***");
}

fn letter() -> impl Strategy<Value = u8> {
    prop_oneof![3 => Just(b'a'), 2 => Just(b'b'), 1 => Just(b'c')]
}

/// Needles that are beginnings, ends and overlaps of one another.
fn alike() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => vec(letter(), 1..9),
        2 => vec(letter(), 12..40),
        1 => (0_usize..30).prop_map(|length| vec![b'a'; length]),
    ]
}

/// What is special anywhere, and long enough to be cut.
fn nasty() -> impl Strategy<Value = Vec<u8>> {
    let pieces = [
        "\"",
        "'",
        "\\",
        "\n",
        "\r\n",
        "ö",
        "🔑",
        "%",
        "&",
        "$(",
        ".*",
        "[",
        "abc",
        "\0",
        "\u{ff}",
        " ",
        "{\"a\":\"bcde\"}",
    ];
    let piece = proptest::sample::select(pieces.to_vec()).prop_map(bytes);
    vec(piece, 1..8).prop_map(|pieces| pieces.concat())
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1_usize..4).prop_map(Step::Push),
        3 => (1_usize..60).prop_map(Step::Push),
        2 => Just(Step::Release),
        1 => Just(Step::AddAgain),
    ]
}

/// A text of needles, of parts of them, and of other things.
fn text_of(needles: Vec<Vec<u8>>) -> impl Strategy<Value = (Vec<Vec<u8>>, Vec<u8>)> {
    let of_needle = (
        any::<prop::sample::Index>(),
        any::<prop::sample::Index>(),
        any::<bool>(),
    );
    let piece = prop_oneof![
        3 => of_needle.prop_map(Some),
        1 => Just(None),
    ];
    (vec((piece, vec(letter(), 0..3)), 0..12)).prop_map(move |pieces| {
        let mut text = Vec::new();
        for (piece, other) in pieces {
            if let Some((which, cut, from_start)) = piece.filter(|_| !needles.is_empty()) {
                let needle = which.get(&needles);
                let cut = cut.index(needle.len() + 1);
                text.extend_from_slice(if from_start {
                    &needle[..cut]
                } else {
                    &needle[cut..]
                });
            }
            text.extend(other);
        }
        (needles.clone(), text)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn each_step_writes_what_the_reference_writes(
        (needles, input) in vec(alike(), 0..8).prop_flat_map(text_of),
        steps in vec(step(), 0..60),
    ) {
        compare(&needles, &input, steps);
    }

    #[test]
    fn nasty_needles_are_found_as_the_reference_finds_them(
        (needles, input) in vec(nasty(), 1..6).prop_flat_map(text_of),
        steps in vec(step(), 0..60),
    ) {
        compare(&needles, &input, steps);
    }
}

proptest! {
    #[test]
    fn any_bytes_as_the_fuzzer_gives_them_pass(data in vec(any::<u8>(), 0..400)) {
        reference::run(&data);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn the_forms_of_any_value_are_masked_and_nothing_else(
        value in prop_oneof![nasty(), vec(any::<u8>(), 4..40)],
        pick in vec((any::<prop::sample::Index>(), "[ -~]{0,6}"), 1..6),
        step in 1_usize..50,
    ) {
        prop_assume!(!too_short(&value));
        let needles = needles_of(&value);
        let input: Vec<u8> = pick
            .iter()
            .flat_map(|(which, between)| [which.get(&needles).as_slice(), between.as_bytes()].concat())
            .collect();
        compare(&needles, &input, input.chunks(step).map(|piece| Step::Push(piece.len())));
    }

    #[test]
    fn commands_are_obeyed_as_the_reference_does(
        lines in vec(prop_oneof![
            Just("::add-mask::".to_owned()),
            "::add-mask::[a-c%]{0,8}",
            "[a-c]{0,12}",
            "::add-[a-c]{0,3}",
        ], 0..8),
        end in "\n|",
        cuts in vec(0_usize..20, 0..12),
    ) {
        let input = lines.join("\n") + &end;
        compare_obeying(&[bytes("abcabc")], input.as_bytes(), cuts);
    }
}
