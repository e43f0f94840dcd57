//! Percent-encoding, of URLs and forms. The writers differ in what they leave.

use super::escape::{Breadth, CASES, Distinct, replaced};
use crate::mask::needles::Needles;

/// What is left besides letters and digits, by whom; the common ones first.
const KEPT: &[&[u8]] = &[
    // RFC 3986 and most libraries: Python with no safe characters, Go, curl, jq
    b"-_.~",
    // Python's `quote`
    b"-_.~/",
    // JavaScript's `encodeURIComponent`
    b"-_.!~*'()",
    // Forms as of WHATWG, Java's `URLEncoder`
    b"-_.*",
    // Rust (`NON_ALPHANUMERIC`)
    b"",
    // PHP's `urlencode`
    b"-_.",
    // JavaScript's `encodeURI`
    b"-_.!~*'();,/?:@&=+$#",
    // Python's `requests`
    b"-_.!~*'();,/?:@&=+$#[]%",
    // SQLAlchemy 2
    b"-_.~ +",
    // Go's path segment, user information, path
    b"-_.~$&+=:@",
    b"-_.~$&+,;=",
    b"-_.~$&+,/:;=@",
    // RFC 3986 in user information (sub-delims), in a path, in a query
    b"-_.~!$&'()*+,;=",
    b"-_.~!$&'()*+,;=:@/",
    b"-_.~!$&'()*+,;=:@/?",
];
const COMMON: usize = 5;

/// What alone is encoded besides what is not printable ASCII, by whom.
const ENCODED: &[&[u8]] = &[
    // WHATWG's sets: fragment, query, special query, path (older and newer), user information, component
    b" \"<>`",
    b" \"#<>",
    b" \"#<>'",
    b" \"#<>?`{}",
    b" \"#<>?`{}^",
    b" \"#<>?`{}/:;=@[\\]^|",
    b" \"#<>?`{}/:;=@[\\]^|$%&+,",
    b" \"#<>?`{}/:;=@[\\]^|$%&+,!'()~",
];

/// `SQLAlchemy` before 2 encodes these and nothing else.
const OLD_SQLALCHEMY: &[u8] = b":@/";

/// As all these writers do.
pub(super) fn add(text: &[u8], breadth: Breadth, needles: &mut Needles) {
    let mut forms = Distinct::new(text, needles);
    for kept in breadth.of(KEPT, COMMON) {
        add_set(&mut forms, |byte| {
            byte.is_ascii_alphanumeric() || kept.contains(&byte)
        });
    }
    for encoded in breadth.of(ENCODED, 0) {
        add_set(&mut forms, |byte| {
            matches!(byte, b' '..=b'~') && !encoded.contains(&byte)
        });
    }
    for encoded in breadth.of(&[OLD_SQLALCHEMY], 0) {
        add_set(&mut forms, |byte| !encoded.contains(&byte));
    }
}

fn add_set(forms: &mut Distinct<'_>, keeps: impl Fn(u8) -> bool) {
    for space in [b"%20".as_slice(), b"+"] {
        for case in CASES {
            forms.add(|text| {
                replaced(text, |byte, out| match byte {
                    byte if keeps(byte) => out.push(byte),
                    b' ' => out.extend_from_slice(space),
                    byte => {
                        out.push(b'%');
                        case.push_byte(byte, out);
                    }
                })
            });
        }
    }
}
