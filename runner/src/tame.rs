//! Text for a terminal that others wrote.

use std::borrow::Cow;

/// A text without what would move the cursor, change the terminal, or turn the order of a line around: it may come from a plugin, a
/// backend, or a server. Our own colours stay.
pub(crate) fn tame(text: &str) -> Cow<'_, str> {
    let is_wild = |c: char| {
        (c.is_control() && c != '\n' && c != '\t')
            || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{2028}' | '\u{2029}')
    };
    if !text.contains(is_wild) {
        return Cow::Borrowed(text);
    }
    let mut tamed = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let len = colour(rest).unwrap_or(c.len_utf8());
        if len > c.len_utf8() || !is_wild(c) {
            tamed.push_str(&rest[..len]);
        } else {
            tamed.push('\u{fffd}');
        }
        rest = &rest[len..];
    }
    Cow::Owned(tamed)
}

/// The length of the sequence for a colour at the beginning of a text.
fn colour(text: &str) -> Option<usize> {
    let (codes, _) = text.strip_prefix("\x1b[")?.split_once('m')?;
    let is_ours = |code: &str| {
        matches!(
            code,
            "0" | "1" | "2" | "3" | "31" | "32" | "33" | "34" | "35" | "36"
        )
    };
    codes.split(';').all(is_ours).then_some(2 + codes.len() + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_is_told_moves_the_cursor() {
        for (told, shown) in [
            ("plain\ttext\nof two lines", "plain\ttext\nof two lines"),
            ("\x1b[1;31merror:\x1b[0m ü", "\x1b[1;31merror:\x1b[0m ü"),
            ("\x1b[2Jgone", "\u{fffd}[2Jgone"),
            ("\x1b]0;title\x07", "\u{fffd}]0;title\u{fffd}"),
            ("over\rwritten\u{8}", "over\u{fffd}written\u{fffd}"),
            ("\u{9b}2J", "\u{fffd}2J"),
            ("\x1b[", "\u{fffd}["),
            ("\x1b[8mhidden", "\u{fffd}[8mhidden"),
            ("a\u{202e}b\u{2028}", "a\u{fffd}b\u{fffd}"),
        ] {
            assert_eq!(tame(told), shown, "{told:?}");
        }
    }
}
