//! Measures the masker: `cargo run --profile helper -p hybrid-runner-helper --example mask_speed`.
#![expect(clippy::print_stdout, reason = "it prints a table")]

use std::fmt::Write as _;
use std::time::SystemTime;

use hybrid_runner_helper::mask::{Masker, Patterns, needles_of};

const PASSES: u32 = 100;
const SIZE: usize = 1 << 20;

fn main() {
    for values in [0, 10, 100, 1000] {
        let needles: Vec<_> = (1..=values)
            .flat_map(|seed| needles_of(&noise(seed, 20, PASSWORD)))
            .collect();
        println!("{values} values in {} forms", needles.len());
        let patterns = Patterns::new(needles);
        println!(
            "  log text      {:>6.0} MB/s",
            speed(&patterns, &log_text())
        );
        println!(
            "  base64 noise  {:>6.0} MB/s",
            speed(&patterns, &noise(7, SIZE, &PASSWORD[..64]))
        );
    }
}

const PASSWORD: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/!$%&";

fn noise(seed: u64, length: usize, alphabet: &[u8]) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % 1000).expect("small") * alphabet.len() / 1000
    };
    (0..length).map(|_| alphabet[next()]).collect()
}

fn log_text() -> Vec<u8> {
    let mut text = String::new();
    for line in 0_u64.. {
        let id = line.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let millis = line * 7919 % 1000;
        writeln!(
            text,
            "2026-01-28T12:{:02}:07.{millis:03}Z INFO  ingestion.source - table orders_{line}, {} rows, id={id:x}, \
             sample='The quick brown fox'",
            line % 60,
            line * 31,
        )
        .expect("writing to a string");
        if text.len() > SIZE {
            break;
        }
    }
    text.into_bytes()
}

/// Megabytes a second in blocks of 64 KiB.
fn speed(patterns: &Patterns, data: &[u8]) -> f64 {
    let mut masker = Masker::new(patterns.clone());
    let mut out = Vec::with_capacity(80 << 10);
    let start = SystemTime::now();
    for _ in 0..PASSES {
        for block in data.chunks(64 << 10) {
            out.clear();
            masker.push(block, &mut out);
        }
    }
    let seconds = start
        .elapsed()
        .expect("the clock goes forward")
        .as_secs_f64();
    f64::from(PASSES) * f64::from(u32::try_from(data.len()).expect("1 MiB")) / 1e6 / seconds
}
