//! The promises of references, for whatever somebody writes: the same as the fuzz target `reference` checks for longer.

mod properties;

use proptest::prelude::*;

/// What references are made of, and what is nearly that.
fn part() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => proptest::sample::select(&[
            "secret:", "${secret:", "}", "/", ":/", "?", "#", "&", "=", "version=", "stage=", "default=", "%", "%2", "%23",
            "%3f", "%7D", "%c3%a4", "%ff", "%+5", "prod", "arn:aws:", "a", "ä🔑", "\n", "\u{7f}", " ",
        ][..]).prop_map(str::to_owned),
        1 => "\\PC{0,4}",
        1 => "[a-z/]{0,40}",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn whatever_is_written_is_read_again_or_refused_at_a_place(
        parts in proptest::collection::vec(part(), 0..12),
        prefixed in any::<bool>(),
    ) {
        let text = parts.concat();
        properties::check(&if prefixed { format!("secret:{text}") } else { text });
    }

    #[test]
    fn any_text_is_read_again_or_refused_at_a_place(text in any::<String>()) {
        properties::check(&text);
    }
}

#[test]
fn an_escape_is_two_digits_and_nothing_else() {
    for wrong in ["/a%+5", "/a%-1", "/a% 1", "/a%1", "/a%"] {
        let refused = wrong.parse::<hybrid_runner_core::secret::Reference>();
        assert!(refused.is_err(), "{wrong}");
    }
}
