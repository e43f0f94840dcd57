//! The streaming masker: replaces each value that must not be seen by `***`, however the stream is cut.
//!
//! All places that any needle covers are masked; places that overlap or touch become one `***`. Held back is only what
//! may still become part of a needle: the longest end of the input that begins one. The work is linear in the input,
//! the memory bounded by the needles.
//!
//! | file | what |
//! |---|---|
//! | `patterns` | a set of needles, which can grow |
//! | `masker` | masks one stream |
//! | `needles`, `build`, `automaton`, `heads`, `view`, `bits` | how needles are found |
//! | `forms`, `leaves` | the forms in which a value appears, and the values inside a JSON value |
//! | `command` | `::add-mask::` |
//!
//! # What is masked of a value
//!
//! The value and its forms ([`needles_of`]), if it has [`MIN_NEEDLE`] bytes without the white space at its ends. On their
//! own, too: each line of a value of several lines, from 8 bytes on; if the value is a JSON object or array, each string
//! in it from [`MIN_NEEDLE`] bytes on, treated as a value again, and each number from 6 digits on. `docs/masking.md` tells
//! it to those who use it.
//!
//! # `::add-mask::`
//!
//! A line of the output that begins with `::add-mask::` names a value that is masked from there on: in
//! maskers [of output](Patterns::of_output) the rest of the line is the value. In it `%25`, `%0D` and `%0A` stand for `%`
//! and the ends of lines. What is written is `::add-mask::***`. It works on the lines that follow in the same stream, and
//! in another one on what is read later. It costs the run some time, so the values of one run may have 64 KiB, of which each
//! takes at least 64 bytes.
//!
//! ```
//! use hybrid_runner_helper::mask::{Masker, Patterns};
//!
//! let mut masker = Masker::new(Patterns::of_output([b"hunter22".as_slice()]));
//! let mut out = Vec::new();
//! masker.push(b"password=hunt", &mut out);
//! assert_eq!(out, b"password=");
//! masker.push(b"er22;\n::add-mask::token\ntoken or dG9rZW4=\n", &mut out);
//! masker.finish(&mut out);
//! assert_eq!(out, b"password=***;\n::add-mask::***\n*** or ***\n");
//! ```

mod automaton;
mod bits;
mod build;
mod command;
mod forms;
mod heads;
mod leaves;
mod masker;
mod needles;
mod patterns;
mod view;

pub use forms::{needles_of, too_short};
pub use masker::Masker;
pub use patterns::Patterns;

/// The shortest needle; masking shorter ones would hide half of the log and tell their value by where it is hidden.
pub const MIN_NEEDLE: usize = 4;
/// The shortest line of a value that is masked on its own. Short lines are brackets and words that are no secrets.
const MIN_LINE: usize = 8;
/// The shortest number inside a JSON value that is masked on its own. Shorter ones are ports, years and counts.
const MIN_NUMBER: usize = 6;
