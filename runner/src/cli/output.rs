//! Data to stdout; progress, hints and errors to stderr.

use std::io::{self, IsTerminal as _, Write as _};

use hybrid_runner_core::log::{LogChunk, LogItem};
use serde::Serialize;

use super::args::{Look, When};
use crate::tame::tame;

/// Where a command writes, and how.
#[derive(Debug, Clone, Copy)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent yes-or-no facts, as the flags are"
)]
pub(crate) struct Output {
    pub(crate) json: bool,
    quiet: bool,
    color: bool,
    color_err: bool,
}

#[expect(
    clippy::unused_self,
    reason = "all that is written goes through one value, whether or not it asks the flags"
)]
impl Output {
    /// As the flags and `NO_COLOR` say.
    pub(crate) fn new(look: Look) -> Self {
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let wanted = |terminal: bool| match look.color {
            When::Always => true,
            When::Never => false,
            When::Auto => terminal && !plain,
        };
        Self {
            json: look.json,
            quiet: look.quiet,
            color: wanted(io::stdout().is_terminal()),
            color_err: wanted(io::stderr().is_terminal()),
        }
    }

    /// A line of data.
    pub(crate) fn line(self, text: impl AsRef<str>) -> io::Result<()> {
        let mut out = io::stdout().lock();
        out.write_all(tame(text.as_ref()).as_bytes())?;
        out.write_all(b"\n")
    }

    /// Data as JSON: pretty if it is all there is, one line in a stream.
    pub(crate) fn object(self, data: &impl Serialize) -> io::Result<()> {
        self.line(serde_json::to_string_pretty(data)?)
    }

    /// One object of a stream.
    pub(crate) fn record(self, data: &impl Serialize) -> io::Result<()> {
        self.line(serde_json::to_string(data)?)
    }

    /// A chunk of a log: as it was written, or as one object.
    pub(crate) fn chunk(self, chunk: &LogChunk) -> io::Result<()> {
        if self.json {
            return self.record(chunk);
        }
        self.log(&chunk.item)
    }

    /// A piece of a log as it was written; what is missing is one visible line.
    pub(crate) fn log(self, item: &LogItem) -> io::Result<()> {
        let mut out = io::stdout().lock();
        match item {
            LogItem::Data { bytes, .. } => out.write_all(bytes)?,
            LogItem::Gap { bytes, why } => writeln!(out, "{}", gap_line(*bytes, why.in_words()))?,
            _ => {}
        }
        out.flush()
    }

    /// Bytes as they are.
    pub(crate) fn bytes(self, bytes: &[u8]) -> io::Result<()> {
        let mut out = io::stdout().lock();
        out.write_all(bytes)?;
        out.flush()
    }

    /// Progress or a hint; not with `--quiet`.
    pub(crate) fn note(self, text: impl AsRef<str>) {
        if !self.quiet {
            self.to_stderr(text.as_ref());
        }
    }

    /// How a run ended: a hint if it went well, else an error, which `--quiet` keeps.
    pub(crate) fn end(self, text: &str, succeeded: bool) {
        if succeeded {
            self.note(text);
        } else {
            self.to_stderr(text);
        }
    }

    /// A warning.
    pub(crate) fn warning(self, text: &str) {
        let head = paint(self.color_err, "33", "warning:");
        self.note(format!("{head} {text}"));
    }

    /// An error.
    pub(crate) fn error(self, text: &str) {
        let head = paint(self.color_err, "1;31", "error:");
        self.to_stderr(&format!("{head} {text}"));
    }

    /// Whether stderr has colours.
    pub(crate) fn color_err(self) -> bool {
        self.color_err
    }

    fn to_stderr(self, text: &str) {
        // Nobody reads it: nothing is left to say it to.
        drop(writeln!(io::stderr().lock(), "{}", tame(text)));
    }

    /// The name of a state in its colour.
    pub(crate) fn state(self, name: &str) -> String {
        paint(self.color, color_of(name), name)
    }

    /// A text in the colour of a state.
    #[cfg(feature = "plugin")]
    pub(crate) fn state_as(self, name: &str, text: &str) -> String {
        paint(self.color, color_of(name), text)
    }

    /// The same for stderr.
    pub(crate) fn state_err(self, name: &str) -> String {
        paint(self.color_err, color_of(name), name)
    }

    /// Rows under a heading, columns aligned. Colours count as nothing.
    pub(crate) fn table(self, heading: &[&str], rows: &[Vec<String>]) -> io::Result<()> {
        let heading: Vec<String> = heading.iter().map(|&cell| cell.to_owned()).collect();
        let width = |column: usize| {
            let cells = std::iter::once(&heading)
                .chain(rows)
                .filter_map(|row| row.get(column));
            cells.map(|cell| visible(cell)).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..heading.len()).map(width).collect();
        for row in std::iter::once(&heading).chain(rows) {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                line.push_str(cell);
                line.extend(std::iter::repeat_n(
                    ' ',
                    width + 2 - visible(cell).min(*width),
                ));
            }
            self.line(line.trim_end())?;
        }
        Ok(())
    }
}

/// What stands in place of a missing part.
pub(crate) fn gap_line(bytes: Option<u64>, why: &str) -> String {
    let size = bytes.map_or_else(|| "a part".to_owned(), |bytes| format!("{bytes} bytes"));
    format!("[{size} of the log missing: {why}]")
}

fn color_of(state: &str) -> &'static str {
    match state {
        "succeeded" | "connected" => "32",
        "failed" | "lost" | "refused" => "31",
        "stopped" | "disconnected" => "33",
        _ => "36",
    }
}

fn paint(on: bool, code: &str, text: &str) -> String {
    if on {
        format!("\x1b[{code}m{text}\x1b[0m")
    } else {
        text.to_owned()
    }
}

fn visible(cell: &str) -> usize {
    let mut count = 0;
    let mut escape = false;
    for c in cell.chars() {
        match (escape, c) {
            (false, '\x1b') => escape = true,
            (true, 'm') => escape = false,
            (true, _) => {}
            (false, _) => count += 1,
        }
    }
    count
}
