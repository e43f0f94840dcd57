//! How shells and those who write for them quote. What stands around the whole (`'…'`, `"…"`, `$'…'`) is no part of a form;
//! the inside of `$'…'` is among the literals.

use super::escape::{Breadth, Distinct, replaced};
use crate::mask::needles::Needles;

/// What stays without a `\` besides letters and digits, by whom; the common one first.
const KEPT: &[&[u8]] = &[
    // bash's `%q`
    b"_-./:@%+=#~",
    b"_-./:@%+=~",
    // Perl's `quotemeta`
    b"_",
    // Ruby's `shellescape`
    b"_-.,:+/@",
    // zsh
    b"_-./:@%+,",
];
/// What alone gets a `\`; the common one first.
const ESCAPED: &[&[u8]] = &[
    // Between double quotes, and in an interactive shell
    b"\"\\$`",
    b"\"\\$`!",
    // Python's `re.escape`
    b"()[]{}?*+-|^$\\.&~# \t\n\r\x0b\x0c",
];

/// As all these do.
pub(super) fn add(text: &[u8], breadth: Breadth, needles: &mut Needles) {
    if text.contains(&b'\'') {
        needles.take(in_runs(text));
    }
    if text.windows(2).any(|two| two == b"=~" || two == b":~") {
        needles.take(as_bash(text));
    }
    let mut forms = Distinct::new(text, needles);
    // bash and most others; Python's `shlex`.
    for quote in [br"'\''".as_slice(), br#"'"'"'"#] {
        forms.add(|text| {
            replaced(text, |byte, out| match byte {
                b'\'' => out.extend_from_slice(quote),
                byte => out.push(byte),
            })
        });
    }
    for escaped in breadth.of(ESCAPED, 1) {
        forms.add(|text| with_backslash(text, |byte| escaped.contains(&byte)));
    }
    for kept in breadth.of(KEPT, 1) {
        forms.add(|text| with_backslash(text, |byte| is_special(byte, kept)));
    }
}

fn with_backslash(text: &[u8], escapes: impl Fn(u8) -> bool) -> Vec<u8> {
    replaced(text, |byte, out| {
        if escapes(byte) {
            out.push(b'\\');
        }
        out.push(byte);
    })
}

/// As bash's `%q` does, to which a `~` behind `=` or `:` is a home folder.
fn as_bash(text: &[u8]) -> Vec<u8> {
    let mut before = 0;
    replaced(text, |byte, out| {
        let is_home = byte == b'~' && matches!(before, b'=' | b':');
        if is_home || is_special(byte, KEPT[0]) {
            out.push(b'\\');
        }
        out.push(byte);
        before = byte;
    })
}

/// Whether a byte gets a `\` of who leaves these alone.
fn is_special(byte: u8, kept: &[u8]) -> bool {
    byte.is_ascii() && !byte.is_ascii_alphanumeric() && !kept.contains(&byte)
}

/// As dash does: runs of quotes between double ones, all else between single ones. Without a quote around the whole.
fn in_runs(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len() * 2);
    for run in text.chunk_by(|a, b| (*a == b'\'') == (*b == b'\'')) {
        let around = if run[0] == b'\'' { b'"' } else { b'\'' };
        out.push(around);
        out.extend_from_slice(run);
        out.push(around);
    }
    let start = usize::from(out.first() == Some(&b'\''));
    let end = out.len() - usize::from(out.last() == Some(&b'\''));
    out[start..end].to_vec()
}
