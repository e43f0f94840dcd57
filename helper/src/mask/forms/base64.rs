//! Base64, in both alphabets, with and without padding, at each place in a text.

use crate::mask::needles::Needles;
use crate::sys;

const STANDARD: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const URL_SAFE: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
/// At which lengths tools wrap it (MIME and `base64`, PEM).
const WRAPS: [usize; 2] = [76, 64];

/// Base64 of the value inside a text, at each of the three places that it can have in a group of three bytes: the
/// characters that do not depend on its neighbours, and the last one as it is at the end of the text.
pub(super) fn add(text: &[u8], needles: &mut Needles) {
    for alphabet in [STANDARD, URL_SAFE] {
        for before in 0..3 {
            let (encoded, stable) = encoded_behind(text, before, alphabet);
            needles.push(&encoded[..stable]);
            needles.push(&encoded);
            let mut padded = encoded;
            padded.resize(padded.len() + padding(text.len() + before), b'=');
            needles.take(padded);
        }
    }
}

/// The lines of a whole value's base64; the last one also as it is when more follows, as the end of a line.
pub(super) fn add_lines(text: &[u8], needles: &mut Needles) {
    for alphabet in [STANDARD, URL_SAFE] {
        let (mut encoded, stable) = encoded_behind(text, 0, alphabet);
        encoded.resize(encoded.len() + padding(text.len()), b'=');
        for width in WRAPS {
            if encoded.len() > width {
                super::add_lines(&encoded, width, needles);
                super::add_lines(&encoded[..stable], width, needles);
            }
        }
    }
}

/// Without padding, and without the characters that hold bits of the so many bytes before it; and how many of its
/// characters hold no bits of what comes after it.
fn encoded_behind(text: &[u8], before: usize, alphabet: &[u8; 64]) -> (Vec<u8>, usize) {
    let mut shifted = vec![0; before];
    shifted.extend_from_slice(text);
    let mut encoded = encode(&shifted, alphabet);
    encoded.drain(..(before * 8).div_ceil(6));
    let stable = encoded.len() - usize::from(!shifted.len().is_multiple_of(3));
    sys::wipe(&mut shifted);
    (encoded, stable)
}

fn padding(bytes: usize) -> usize {
    (3 - bytes % 3) % 3
}

/// Without padding.
fn encode(bytes: &[u8], alphabet: &[u8; 64]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let bits = group
            .iter()
            .fold(0_u32, |bits, &byte| bits << 8 | u32::from(byte))
            << (8 * (3 - group.len()));
        for place in 0..=group.len() {
            out.push(alphabet[(bits >> (18 - 6 * place) & 63) as usize]);
        }
    }
    out
}
