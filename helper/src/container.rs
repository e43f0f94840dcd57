//! What an executor and the first process of a container agree on: paths, lines in the log, signals.
//!
//! A volume that many containers may share and none may write to is mounted at [`FOLDER`]; it holds the helper and an
//! empty folder, over which each container has a memory file system of mode 1777 of its own. The command is
//! `/.hr/init init MARK`, where `MARK` is 32 hexadecimal digits, random for each container and no secret. The payload
//! comes through the standard input; a container whose input ends before a whole one may be started again.
//!
//! # Lines
//!
//! The engine gets the output of the workload, byte by byte as it is but for what is masked, and between it lines that
//! begin with [`needle`]:
//!
//! ```text
//! ␞0123456789abcdef0123456789abcdef hybrid-runner started pid=7 time=1764000000000000
//! ␞0123456789abcdef0123456789abcdef hybrid-runner end how=exit code=1 started=1764000000000000 ended=… out=120 err=14 …
//! ```
//!
//! The first stands before all output of the workload, and is said again for every further payload, of which none is
//! run. The last stands behind all output; where nothing was started it is the only one. They are on the error output if
//! a line begins there, else on the output if one begins there, else behind the unfinished line of the error output:
//! nothing is ever added to the output to make room for them. `out` and `err` do not count them.
//!
//! # Signals
//!
//! [`stop_signal`] is a stop of ours, `SIGTERM` one by anybody else; a later one can only shorten the grace. All others
//! are for the workload.

use std::time::Duration;

use crate::end::How;
use crate::text::{TextError, TextReader, TextWriter, needed};

/// Where the volume is mounted.
pub const FOLDER: &str = "/.hr";
/// The helper.
pub const INIT: &str = "/.hr/init";
/// Its first argument, before the mark.
pub const ROLE: &str = "init";
/// Where the memory file system is mounted.
pub const PRIVATE: &str = "/.hr/private";
/// The private folder of the workload, below it.
pub const PRIVATE_RUN: &str = "/.hr/private/run";

/// The graces that a stop can have; their signals are 34 and those that follow, so that there can be 31.
pub const GRACES: [Duration; 30] = [
    Duration::ZERO,
    Duration::from_millis(100),
    Duration::from_millis(200),
    Duration::from_millis(300),
    Duration::from_millis(500),
    Duration::from_millis(700),
    Duration::from_secs(1),
    Duration::from_millis(1500),
    Duration::from_secs(2),
    Duration::from_secs(3),
    Duration::from_secs(4),
    Duration::from_secs(5),
    Duration::from_secs(6),
    Duration::from_secs(8),
    Duration::from_secs(10),
    Duration::from_secs(15),
    Duration::from_secs(20),
    Duration::from_secs(25),
    Duration::from_secs(30),
    Duration::from_secs(45),
    Duration::from_mins(1),
    Duration::from_mins(2),
    Duration::from_mins(3),
    Duration::from_mins(5),
    Duration::from_mins(10),
    Duration::from_mins(15),
    Duration::from_mins(30),
    Duration::from_hours(1),
    Duration::from_hours(3),
    Duration::from_hours(12),
];

/// The first real-time signal that C libraries leave to programs.
const FIRST_STOP: i32 = 34;

/// The signal that stops a container within `grace`, or within the next shorter one that there is.
pub fn stop_signal(grace: Duration) -> i32 {
    let longer = GRACES.iter().skip(1).take_while(|known| **known <= grace);
    (FIRST_STOP..)
        .zip(longer)
        .last()
        .map_or(FIRST_STOP, |(before, _)| before + 1)
}

/// The grace of a stop by this signal; `None` if it is no stop of ours.
pub fn grace_of(signal: i32) -> Option<Duration> {
    let place = usize::try_from(signal.checked_sub(FIRST_STOP)?).ok()?;
    GRACES.get(place).copied()
}

/// Whether this is a mark.
pub fn is_mark(mark: &str) -> bool {
    mark.len() == 32 && mark.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// What lines of a helper with this mark begin with.
pub fn needle(mark: &str) -> Vec<u8> {
    format!("\x1e{mark} hybrid-runner ").into_bytes()
}

/// A line of the helper.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Line {
    /// The program runs (`exec` has succeeded).
    Started {
        /// Its process id in the container.
        pid: u32,
        /// When it started, in microseconds since the epoch.
        time: i64,
    },
    /// All is over, and all output stands before this line.
    End(End),
}

/// How a container ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// How it ended.
    pub how: How,
    /// When the child started, in microseconds since the epoch; absent if it never did.
    pub started: Option<i64>,
    /// When the child ended (not its leftovers), in microseconds since the epoch.
    pub ended: i64,
    /// How many bytes of output, masked, were given to the engine. Who has read fewer has lost some.
    pub out: u64,
    /// The same of the error output, notes included.
    pub err: u64,
    /// How many places were masked.
    pub masked: u64,
    /// How many processes of the container the kernel killed for want of memory.
    pub oom_kills: u64,
    /// How many processes could not be killed (those hung in the kernel).
    pub left: u64,
}

impl Line {
    /// The whole line, its needle and its end included.
    pub fn encode(&self, mark: &str) -> Vec<u8> {
        let writer = |word| TextWriter::line(format!("\x1e{mark} hybrid-runner {word}"));
        match self {
            Self::Started { pid, time } => writer("started")
                .number("pid", *pid)
                .number("time", *time)
                .finish(),
            Self::End(end) => end.encode(writer("end")),
        }
    }

    /// Reads what follows the needle, up to the end of the line, which must be there: a part of a line is none.
    pub fn parse(text: &[u8]) -> Result<Self, TextError> {
        let end = text.iter().position(|&byte| byte == b'\n');
        let line = &text[..end.ok_or(TextError::Truncated)?];
        let line = std::str::from_utf8(line).map_err(|_| TextError::NotARecord)?;
        let (word, fields) = line.split_once(' ').ok_or(TextError::NotARecord)?;
        let fields = TextReader::line(fields)?;
        match word {
            "started" => Ok(Self::Started {
                pid: needed("pid", fields.number("pid")?)?,
                time: needed("time", fields.number("time")?)?,
            }),
            "end" => End::parse(&fields).map(Self::End),
            _ => Err(TextError::NotARecord),
        }
    }
}

impl End {
    fn encode(&self, writer: TextWriter) -> Vec<u8> {
        let mut writer = self.how.encode(writer);
        if let Some(started) = self.started {
            writer = writer.number("started", started);
        }
        writer
            .number("ended", self.ended)
            .number("out", self.out)
            .number("err", self.err)
            .number("masked", self.masked)
            .number("oom_kills", self.oom_kills)
            .number("left", self.left)
            .finish()
    }

    fn parse(fields: &TextReader<'_>) -> Result<Self, TextError> {
        Ok(Self {
            how: How::parse(fields)?,
            started: fields.number("started")?,
            ended: needed("ended", fields.number("ended")?)?,
            out: needed("out", fields.number("out")?)?,
            err: needed("err", fields.number("err")?)?,
            masked: fields.number("masked")?.unwrap_or(0),
            oom_kills: fields.number("oom_kills")?.unwrap_or(0),
            left: fields.number("left")?.unwrap_or(0),
        })
    }
}
