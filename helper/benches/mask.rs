//! Megabytes a second of the masker, beside a plain copy and a plain pass of the crate `aho-corasick`.
//!
//! `cargo bench -p hybrid-runner-helper` prints tables as Markdown. Each figure is the best of several rounds, in which
//! all take turns, by the processor time of this thread: what else the machine does changes little.
#![expect(clippy::print_stdout, reason = "the table is the product")]
#![expect(clippy::cast_precision_loss, reason = "figures for people")]

use std::fmt::Write as _;
use std::hint::black_box;
use std::time::Duration;

use aho_corasick::{AhoCorasick, MatchKind};
use hybrid_runner_helper::mask::{Masker, Patterns, needles_of};

const ROUNDS: u32 = 5;
const SIZE: usize = 8 << 20;
/// What the helper reads at once from a workload that writes fast.
const BLOCK: usize = 64 << 10;

fn main() {
    if !std::env::args().any(|argument| argument == "--bench") {
        return; // `cargo test --all-targets` only wants it to compile.
    }
    println!(
        "| needles | text | masker | aho-corasick, searching only | copy | masker / aho-corasick |"
    );
    println!("|---|---|---|---|---|---|");
    for needles in [10, 100, 1000] {
        let all = forms(50);
        let some: Vec<_> = (0..needles)
            .map(|at| all[at * all.len() / needles].clone())
            .collect();
        rows(&format!("{needles}"), &some);
    }
    for values in [10, 50, 1000] {
        let all = forms(values);
        rows(&format!("{} ({values} values)", all.len()), &all);
    }
    let nested: Vec<_> = (4..1004)
        .map(|length| [vec![b'a'; length], b"b".to_vec()].concat())
        .collect();
    row("1000 of `a…ab`", "`aaaa…`", &nested, &vec![b'a'; SIZE]);
    println!();
    println!("| values | needles | bytes of needles | memory | made in |");
    println!("|---|---|---|---|---|");
    for (name, value) in values() {
        memory(name, 1, &needles_of(&value));
    }
    for count in [10, 50, 1000] {
        memory("passwords of 20 characters", count, &forms(count));
    }
}

fn rows(name: &str, needles: &[Vec<u8>]) {
    row(name, "log", needles, &log_text(&[]));
    row(
        name,
        "log, a needle in each line",
        needles,
        &log_text(needles),
    );
    row(name, "beginnings of needles", needles, &beginnings(needles));
    row(name, "needles", needles, &all_needles(needles));
    row(
        name,
        "hexadecimal noise",
        needles,
        &noise(7, SIZE, b"0123456789abcdef"),
    );
}

fn row(name: &str, text: &str, needles: &[Vec<u8>], data: &[u8]) {
    let patterns = Patterns::new(needles.to_vec());
    let searcher = AhoCorasick::builder()
        .match_kind(MatchKind::LeftmostLongest)
        .build(needles)
        .expect("few enough");
    let mut best = [f64::MAX; 3];
    for _ in 0..ROUNDS {
        let times = [mask(&patterns, data), search(&searcher, data), copy(data)];
        for (best, time) in best.iter_mut().zip(times) {
            *best = best.min(time.as_secs_f64());
        }
    }
    let [masker, searcher, copy] = best.map(|seconds| data.len() as f64 / 1e6 / seconds);
    println!(
        "| {name} | {text} | {masker:.0} MB/s | {searcher:.0} MB/s | {copy:.0} MB/s | {:.1} |",
        masker / searcher
    );
}

fn timed(work: impl FnOnce()) -> Duration {
    let start = processor_time();
    work();
    processor_time().saturating_sub(start)
}

fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(time).expect("it is not negative")
}

fn mask(patterns: &Patterns, data: &[u8]) -> Duration {
    let mut masker = Masker::new(patterns.clone());
    let mut out = Vec::with_capacity(BLOCK + 1024);
    timed(|| {
        for block in data.chunks(BLOCK) {
            out.clear();
            masker.push(block, &mut out);
            black_box(&out);
        }
    })
}

fn search(searcher: &AhoCorasick, data: &[u8]) -> Duration {
    timed(|| {
        for block in data.chunks(BLOCK) {
            black_box(searcher.find_iter(block).count());
        }
    })
}

fn copy(data: &[u8]) -> Duration {
    let mut out = Vec::with_capacity(BLOCK);
    timed(|| {
        for block in data.chunks(BLOCK) {
            out.clear();
            out.extend_from_slice(block);
            black_box(&out);
        }
    })
}

fn memory(name: &str, count: u64, needles: &[Vec<u8>]) {
    let (forms, bytes) = (needles.len(), needles.iter().map(Vec::len).sum::<usize>());
    let (mut best, mut taken) = (Duration::MAX, 0);
    for _ in 0..ROUNDS {
        let needles = needles.to_vec();
        best = best.min(timed(|| taken = Patterns::new(needles).memory()));
    }
    let micros = best.as_micros();
    println!("| {count} × {name} | {forms} | {bytes} | {taken} | {micros} µs |");
}

const PASSWORD: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/!$%&";

/// So many passwords in all their forms.
fn forms(values: u64) -> Vec<Vec<u8>> {
    let values = (1..=values).map(|seed| noise(seed, 20, PASSWORD));
    values.flat_map(|value| needles_of(&value)).collect()
}

fn values() -> Vec<(&'static str, Vec<u8>)> {
    let letters = &PASSWORD[..62];
    let key: Vec<u8> = noise(5, 1600, letters)
        .chunks(64)
        .flat_map(|line| [line, b"\n"].concat())
        .collect();
    let key = [
        b"-----BEGIN KEY-----\n".as_slice(),
        &key,
        b"-----END KEY-----\n",
    ]
    .concat();
    let json = format!(
        "{{\"type\": \"service_account\", \"project\": \"orders\", \"key\": \"{}\"}}",
        String::from_utf8_lossy(&key).replace('\n', "\\n")
    );
    let nasty = "p\"a's\\s ö≠🔑 %d&<b>/+=$HOME `x`;|*?[k]\t".repeat(100);
    vec![
        ("letters and digits, 20", noise(1, 20, letters)),
        ("PEM, 1.7 KB", key),
        ("service account, 1.8 KB", json.into_bytes()),
        ("special characters, 4.5 KB", nasty.into_bytes()),
        (
            "random bytes, 4 KB",
            noise(9, 4096, &(0..=255).collect::<Vec<_>>()),
        ),
    ]
}

fn noise(seed: u64, length: usize, alphabet: &[u8]) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % 100_000).expect("small") * alphabet.len() / 100_000
    };
    (0..length).map(|_| alphabet[next()]).collect()
}

/// Lines as a real log has them, each with one of `values`.
fn log_text(values: &[Vec<u8>]) -> Vec<u8> {
    let mut text = Vec::with_capacity(SIZE + 4096);
    let mut line = String::new();
    for number in 0_u64.. {
        let id = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let (minute, millis, rows) = (number % 60, number * 7919 % 1000, number * 31);
        line.clear();
        write!(
            line,
            "2026-01-28T12:{minute:02}:07.{millis:03}Z INFO  ingestion.source - table orders_{number}, {rows} rows, \
             id={id:x}, sample='The quick brown fox' ",
        )
        .expect("writing to a string");
        text.extend_from_slice(line.as_bytes());
        if !values.is_empty() {
            text.extend_from_slice(&values[index(number * 31) % values.len()]);
        }
        text.push(b'\n');
        if text.len() > SIZE {
            break;
        }
    }
    text
}

/// Needles without their ends.
fn beginnings(needles: &[Vec<u8>]) -> Vec<u8> {
    let mut text = Vec::with_capacity(SIZE + 4096);
    for number in 0_u64.. {
        let needle = &needles[index(number.wrapping_mul(0x9E37_79B1)) % needles.len()];
        let length = 4 + index(number * 7919) % (needle.len() - 3);
        text.extend_from_slice(&needle[..length.min(needle.len() - 1)]);
        if text.len() > SIZE {
            break;
        }
    }
    text
}

fn all_needles(needles: &[Vec<u8>]) -> Vec<u8> {
    let mut text = Vec::with_capacity(SIZE + 4096);
    for needle in needles.iter().cycle() {
        text.extend_from_slice(needle);
        text.push(b',');
        if text.len() > SIZE {
            break;
        }
    }
    text
}

fn index(number: u64) -> usize {
    usize::try_from(number).expect("64 bits")
}
