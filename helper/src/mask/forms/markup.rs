//! XML and HTML. The writers differ in which characters they write as entities, and by name or number.

use super::escape::{Breadth, Case, Distinct, Unit, rewritten};
use crate::mask::needles::Needles;

/// Characters with what they become, by whom; the common ones first.
#[rustfmt::skip] // a table
const WRITERS: &[&[(char, &str)]] = &[
    // Text; attributes
    &[('&', "&amp;"), ('<', "&lt;"), ('>', "&gt;")],
    &[('&', "&amp;"), ('<', "&lt;"), ('>', "&gt;"), ('"', "&quot;")],
    // All five: Java and Rust; PHP and Ruby; Python
    &[('&', "&amp;"), ('<', "&lt;"), ('>', "&gt;"), ('"', "&quot;"), ('\'', "&apos;")],
    &[('&', "&amp;"), ('<', "&lt;"), ('>', "&gt;"), ('"', "&quot;"), ('\'', "&#39;")],
    &[('&', "&amp;"), ('<', "&lt;"), ('>', "&gt;"), ('"', "&quot;"), ('\'', "&#x27;")],
    // The canonical form; attributes in single quotes; PHP for HTML
    &[('&', "&amp;"), ('<', "&lt;")],
    &[('&', "&amp;"), ('<', "&lt;"), ('"', "&quot;")],
    &[('&', "&amp;"), ('<', "&lt;"), ('>', "&gt;"), ('\'', "&apos;")],
    &[('&', "&amp;"), ('<', "&lt;"), ('>', "&gt;"), ('"', "&quot;"), ('\'', "&#039;")],
    // Go
    &[('&', "&amp;"), ('<', "&lt;"), ('>', "&gt;"), ('"', "&#34;"), ('\'', "&#39;")],
    // JSP
    &[('&', "&amp;"), ('<', "&lt;"), ('>', "&gt;"), ('"', "&#034;"), ('\'', "&#039;")],
    // OWASP, mustache, handlebars, underscore
    &[('&', "&amp;"), ('<', "&lt;"), ('>', "&gt;"), ('"', "&quot;"), ('\'', "&#x27;"), ('/', "&#x2F;")],
    &[('&', "&amp;"), ('<', "&lt;"), ('>', "&gt;"), ('"', "&quot;"), ('\'', "&#39;"), ('/', "&#x2F;"), ('`', "&#x60;"), ('=', "&#x3D;")],
    &[('&', "&amp;"), ('<', "&lt;"), ('>', "&gt;"), ('"', "&quot;"), ('\'', "&#x27;"), ('`', "&#x60;"), ('=', "&#x3D;")],
    &[('&', "&amp;"), ('<', "&lt;"), ('>', "&gt;"), ('"', "&quot;"), ('\'', "&#x27;"), ('`', "&#x60;")],
    // By number
    &[('&', "&#38;"), ('<', "&#60;"), ('>', "&#62;"), ('"', "&#34;"), ('\'', "&#39;")],
    &[('&', "&#x26;"), ('<', "&#x3c;"), ('>', "&#x3e;"), ('"', "&#x22;"), ('\'', "&#x27;")],
    &[('&', "&#x26;"), ('<', "&#x3C;"), ('>', "&#x3E;"), ('"', "&#x22;"), ('\'', "&#x27;")],
];

/// So many of them also write other characters by number.
const XML: usize = 10;
const COMMON: usize = 5;

/// How other characters are written: as they are, or by number (`None`: decimal).
type Number = Option<Option<Case>>;

const DECIMAL: Number = Some(None);
const LOWER: Number = Some(Some(Case::Lower));
const UPPER: Number = Some(Some(Case::Upper));

/// What is not ASCII, and white space as attributes need it.
const NUMBERS: &[(Number, Number)] = &[
    (None, None),
    (DECIMAL, None),
    (LOWER, None),
    (UPPER, None),
    (None, DECIMAL),
    (None, UPPER),
    (DECIMAL, DECIMAL),
    (LOWER, LOWER),
    (UPPER, UPPER),
];

/// As all these writers do.
pub(super) fn add(text: &[u8], breadth: Breadth, needles: &mut Needles) {
    let mut forms = Distinct::new(text, needles);
    for (at, writer) in breadth.of(WRITERS, COMMON).iter().enumerate() {
        let numbers = if at < XML { NUMBERS } else { &NUMBERS[..1] };
        for &(wide, space) in breadth.of(numbers, 2.min(numbers.len())) {
            forms.add(|text| rewritten(text, |unit, out| push(unit, writer, wide, space, out)));
        }
    }
}

/// Each character by number.
pub(super) fn wholly(text: &[u8], case: Option<Case>) -> Vec<u8> {
    rewritten(text, |unit, out| push_number(unit, case, out))
}

fn push(unit: Unit, writer: &[(char, &str)], wide: Number, space: Number, out: &mut Vec<u8>) {
    let Unit::Char(char) = unit else {
        return unit.push_raw(out);
    };
    let number = match char {
        '\n' | '\r' | '\t' => space,
        char if !char.is_ascii() => wide,
        _ => None,
    };
    if let Some((_, entity)) = writer.iter().find(|(with, _)| *with == char) {
        out.extend_from_slice(entity.as_bytes());
    } else if let Some(case) = number {
        push_number(unit, case, out);
    } else {
        unit.push_raw(out);
    }
}

fn push_number(unit: Unit, case: Option<Case>, out: &mut Vec<u8>) {
    let Unit::Char(char) = unit else {
        return unit.push_raw(out);
    };
    out.extend_from_slice(b"&#");
    match case {
        Some(case) => {
            out.push(b'x');
            case.push(u32::from(char), 1, out);
        }
        None => push_decimal(u32::from(char), out),
    }
    out.push(b';');
}

fn push_decimal(number: u32, out: &mut Vec<u8>) {
    if number > 9 {
        push_decimal(number / 10, out);
    }
    out.push(b'0' + u8::try_from(number % 10).expect("one digit"));
}
