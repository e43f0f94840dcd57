//! A slow, obviously right masker, and the comparison of the real one with it. The fuzz target uses this file too.

use hybrid_runner_helper::mask::{MIN_NEEDLE, Masker, Patterns, needles_of};

/// What is done to a masker.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Step {
    /// So many bytes come.
    Push(usize),
    /// It has been silent for a moment.
    Release,
    /// Needles are added that are there already: the needles are prepared anew, and nothing may change.
    AddAgain,
}

/// What must have been written after each step.
struct Reference<'a> {
    needles: &'a [Vec<u8>],
    input: &'a [u8],
    come: usize,
    /// The bytes that some needle covers that has come whole.
    covered: Vec<bool>,
    /// Bytes that were released before it was known that they are covered.
    released: usize,
}

impl<'a> Reference<'a> {
    fn new(needles: &'a [Vec<u8>], input: &'a [u8]) -> Self {
        Self {
            needles,
            input,
            come: 0,
            covered: vec![false; input.len()],
            released: 0,
        }
    }

    fn push(&mut self, bytes: usize) {
        for _ in 0..bytes {
            self.come += 1;
            for needle in self.needles {
                if self.input[..self.come].ends_with(needle) {
                    for at in self.come - needle.len()..self.come {
                        // What was shown cannot be taken back.
                        self.covered[at] |= at >= self.released;
                    }
                }
            }
        }
    }

    /// How many of the last bytes are the longest end that begins a needle.
    fn open(&self) -> usize {
        let come = &self.input[..self.come];
        let begins = |length: &usize| {
            let end = &come[come.len() - length..];
            self.needles
                .iter()
                .any(|needle| needle.len() > *length && needle.starts_with(end))
        };
        let longest = self.needles.iter().map(Vec::len).max().unwrap_or(0);
        (1..=longest.min(come.len()))
            .rev()
            .find(begins)
            .unwrap_or(0)
    }

    /// How far it must be written: all but what may become a needle, and a mask to its end.
    fn written(&self) -> usize {
        let mut written = (self.come - self.open()).max(self.released);
        while written < self.come && self.covered[written] {
            written += 1;
        }
        written
    }

    fn release(&mut self) {
        if self.open() < MIN_NEEDLE {
            self.released = self.come;
        }
    }

    /// Each run of covered bytes becomes one mask.
    fn output(&self, end: usize) -> Vec<u8> {
        let mut out = Vec::new();
        for at in 0..end {
            if !self.covered[at] {
                out.push(self.input[at]);
            } else if at == 0 || !self.covered[at - 1] {
                out.extend_from_slice(b"***");
            }
        }
        out
    }
}

/// What the whole input must become.
pub(crate) fn masked(needles: &[Vec<u8>], input: &[u8]) -> Vec<u8> {
    let needles: Vec<_> = long_enough(needles);
    let mut reference = Reference::new(&needles, input);
    reference.push(input.len());
    reference.output(input.len())
}

fn long_enough(needles: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let long = needles.iter().filter(|needle| needle.len() >= MIN_NEEDLE);
    long.cloned().collect()
}

/// Compares what is written after each step, and at the end.
///
/// # Panics
///
/// Where they differ.
pub(crate) fn compare(needles: &[Vec<u8>], input: &[u8], steps: impl IntoIterator<Item = Step>) {
    let patterns = Patterns::new(needles.to_vec());
    let mut masker = Masker::new(patterns.clone());
    let needles = long_enough(needles);
    let mut reference = Reference::new(&needles, input);
    let mut out = Vec::new();
    let mut done = Vec::new();
    for step in steps {
        done.push(step);
        match step {
            Step::Push(bytes) => {
                let bytes = bytes.min(input.len() - reference.come);
                let start = reference.come;
                reference.push(bytes);
                masker.push(&input[start..start + bytes], &mut out);
            }
            Step::Release => {
                reference.release();
                masker.release(&mut out);
            }
            Step::AddAgain => patterns.add(needles.iter().take(1).cloned()),
        }
        let wanted = reference.output(reference.written());
        assert_same(
            &out,
            &wanted,
            &format!("{needles:?} {input:?} after {done:?}"),
        );
    }
    let start = reference.come;
    reference.push(input.len() - start);
    masker.push(&input[start..], &mut out);
    masker.finish(&mut out);
    assert_same(&out, &reference.output(input.len()), "at the end");
}

/// Compares for the output of a workload that may name values, whatever its cuts are. The values hold no `:`.
///
/// # Panics
///
/// Where they differ.
pub(crate) fn compare_obeying(
    values: &[Vec<u8>],
    input: &[u8],
    cuts: impl IntoIterator<Item = usize>,
) {
    let patterns = Patterns::of_output(values.iter().map(Vec::as_slice));
    let mut masker = Masker::new(patterns);
    let mut out = Vec::new();
    let mut rest = input;
    for cut in cuts {
        let (piece, after) = rest.split_at(cut.min(rest.len()));
        masker.push(piece, &mut out);
        rest = after;
    }
    masker.push(rest, &mut out);
    masker.finish(&mut out);
    assert_same(&out, &obeyed(values, input), "with commands");
}

fn obeyed(values: &[Vec<u8>], input: &[u8]) -> Vec<u8> {
    const COMMAND: &[u8] = b"::add-mask::";
    let mut needles: Vec<_> = values.iter().flat_map(|value| needles_of(value)).collect();
    let mut out = Vec::new();
    // Where the text starts that the last command left, and where the next line does.
    let (mut start, mut next) = (0, 0);
    while next < input.len() {
        let end = input[next..].iter().position(|&byte| byte == b'\n');
        let end = end.map_or(input.len(), |length| next + length + 1);
        if let Some(value) = input[next..end].strip_prefix(COMMAND) {
            out.extend(masked(&needles, &input[start..next]));
            out.extend_from_slice(b"::add-mask::***");
            let ended = value.strip_suffix(b"\n");
            let value = named(ended.unwrap_or(value));
            if value.trim_ascii().len() < MIN_NEEDLE {
                out.extend_from_slice(b" (not masked: shorter than 4 bytes)");
            }
            needles.extend(needles_of(&value));
            out.extend(ended.map(|_| b'\n'));
            start = end;
        }
        next = end;
    }
    out.extend(masked(&needles, &input[start..]));
    out
}

/// The value of a command.
fn named(line: &[u8]) -> Vec<u8> {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let text: String = line.iter().copied().map(char::from).collect();
    let ends = [
        ("%0A", "\n"),
        ("%0a", "\n"),
        ("%0D", "\r"),
        ("%0d", "\r"),
        ("%25", "%"),
    ];
    let text = ends
        .iter()
        .fold(text, |text, (code, char)| text.replace(code, char));
    let bytes = text.chars().map(|char| u8::try_from(u32::from(char)));
    bytes.collect::<Result<_, _>>().expect("they were bytes")
}

/// A comparison of any bytes: they are read as needles, steps and input.
///
/// # Panics
///
/// Where the masker and the reference differ.
pub(crate) fn run(data: &[u8]) {
    let mut data = data.iter().copied();
    let kind = data.next().unwrap_or(0);
    let mut text = |longest: u8| -> Vec<u8> {
        let length = data.next().unwrap_or(0) % longest;
        data.by_ref().take(usize::from(length)).collect()
    };
    let needles: Vec<_> = (0..kind % 8).map(|_| text(40)).collect();
    let steps = text(40);
    let input: Vec<u8> = data.collect();
    let input = &input[..input.len().min(400)];
    if kind >= 248 {
        // Values, and commands in the input.
        let plain = |byte: &u8| if *byte == b':' { b'.' } else { *byte };
        let values: Vec<Vec<u8>> = needles
            .iter()
            .map(|value| value.iter().take(12).map(plain).collect())
            .collect();
        return compare_obeying(&values, input, steps.into_iter().map(usize::from));
    }
    let steps = steps.into_iter().map(|step| match step {
        0..=7 => Step::AddAgain,
        8..=31 => Step::Release,
        bytes => Step::Push(usize::from(bytes % 32)),
    });
    compare(&needles, input, steps);
}

fn assert_same(out: &[u8], wanted: &[u8], when: &str) {
    assert!(
        out == wanted,
        "{when}:\n   got {}\nwanted {}",
        out.escape_ascii(),
        wanted.escape_ascii()
    );
}
