//! The record of the end: the file `end` in the folder of the run.
//!
//! Written once, after the last process of the run is gone and its output is spooled. It was made ready under the name
//! `end.tmp` before the start, so that a full disk cannot prevent it, and is renamed.
//!
//! ```text
//! hybrid-runner end 1
//! how=exit
//! code=1
//! started=1764000000000000
//! ended=1764000001000000
//! spool=7341
//! masked=2
//! over_limit=0
//! disk_full=0
//! oom_kills=0
//! left=0
//! .
//! ```
//!
//! | `how` | further keys |
//! |---|---|
//! | `exit` | `code` |
//! | `signal` | `signal` |
//! | `timeout`, `stalled`, `oom` | |
//! | `terminated` | `code` or `signal` |
//! | `stopped` | `by` |
//! | `spawn_failed` | `step`, `errno`, `program` |

use std::fmt;
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;

use crate::text::{TextError, TextReader, TextWriter, needed};

const NAME: &str = "end";
const VERSION: u32 = 1;

/// The record of an end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// How it ended.
    pub how: How,
    /// When the child started, in microseconds since the epoch; absent if it never did.
    pub started: Option<i64>,
    /// When the child ended (not its leftovers), in microseconds since the epoch.
    pub ended: i64,
    /// The length of the spool: whoever has read so far has read all.
    pub spool: u64,
    /// How many places were masked in the output.
    pub masked: u64,
    /// Bytes of output that were dropped because the spool was at its limit.
    pub over_limit: u64,
    /// Bytes of output that were dropped because the disk was full.
    pub disk_full: u64,
    /// How many processes of its control group the kernel killed for want of memory.
    pub oom_kills: u64,
    /// How many processes could not be killed (those of other users, or hung in the kernel).
    pub left: u64,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum How {
    /// The child exited with this code.
    Exited(u8),
    /// The child was killed by this signal, and not by the helper.
    Signaled(u8),
    /// The time limit was over.
    TimedOut,
    /// There was no output for too long.
    Stalled,
    /// It was told to stop.
    Stopped {
        /// By whom.
        by: Option<String>,
    },
    /// In a container: it was told to end from outside, by a signal and not by us; and this is how the child ended.
    Terminated(ChildEnd),
    /// The kernel killed the child for want of memory.
    OutOfMemory,
    /// The child never ran.
    SpawnFailed(SpawnFailure),
}

/// How a child ended, whoever wanted it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChildEnd {
    /// It exited with this code.
    Exited(u8),
    /// It was killed by this signal.
    Signaled(u8),
}

/// Why a child never ran.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpawnFailure {
    /// What failed.
    pub step: Step,
    /// The system's error number.
    pub errno: i32,
    /// The first word of the command.
    pub program: Vec<u8>,
}

/// A step of the spawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step {
    /// Making the private folder and the files in it.
    PrivateFiles,
    /// Making pipes or the process.
    Process,
    /// Entering the control group.
    Cgroup,
    /// Changing to the working directory.
    WorkingDirectory,
    /// Executing the program.
    Program,
    /// The program is there, but the interpreter that it names is not.
    Interpreter,
}

impl Step {
    const ALL: [Self; 6] = [
        Self::PrivateFiles,
        Self::Process,
        Self::Cgroup,
        Self::WorkingDirectory,
        Self::Program,
        Self::Interpreter,
    ];

    /// The name in the record.
    pub fn name(self) -> &'static str {
        match self {
            Self::PrivateFiles => "private_files",
            Self::Process => "process",
            Self::Cgroup => "cgroup",
            Self::WorkingDirectory => "working_directory",
            Self::Program => "program",
            Self::Interpreter => "interpreter",
        }
    }

    /// The step of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|step| step.name() == name)
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl End {
    /// The content of the file.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = self.how.encode(TextWriter::new(NAME, VERSION));
        if let Some(started) = self.started {
            writer = writer.number("started", started);
        }
        writer
            .number("ended", self.ended)
            .number("spool", self.spool)
            .number("masked", self.masked)
            .number("over_limit", self.over_limit)
            .number("disk_full", self.disk_full)
            .number("oom_kills", self.oom_kills)
            .number("left", self.left)
            .finish()
    }

    /// Reads the content of the file.
    pub fn parse(bytes: &[u8]) -> Result<Self, TextError> {
        let fields = TextReader::new(bytes, NAME, VERSION)?;
        Ok(Self {
            how: How::parse(&fields)?,
            started: fields.number("started")?,
            ended: needed("ended", fields.number("ended")?)?,
            spool: needed("spool", fields.number("spool")?)?,
            masked: fields.number("masked")?.unwrap_or(0),
            over_limit: fields.number("over_limit")?.unwrap_or(0),
            disk_full: fields.number("disk_full")?.unwrap_or(0),
            oom_kills: fields.number("oom_kills")?.unwrap_or(0),
            left: fields.number("left")?.unwrap_or(0),
        })
    }
}

impl How {
    pub(crate) fn encode(&self, writer: TextWriter) -> TextWriter {
        match self {
            Self::Exited(code) => ChildEnd::Exited(*code).encode(writer.bytes("how", b"exit")),
            Self::Signaled(signal) => {
                ChildEnd::Signaled(*signal).encode(writer.bytes("how", b"signal"))
            }
            Self::TimedOut => writer.bytes("how", b"timeout"),
            Self::Stalled => writer.bytes("how", b"stalled"),
            Self::OutOfMemory => writer.bytes("how", b"oom"),
            Self::Stopped { by } => writer
                .bytes("how", b"stopped")
                .optional("by", by.as_deref().map(str::as_bytes)),
            Self::Terminated(child) => child.encode(writer.bytes("how", b"terminated")),
            Self::SpawnFailed(failure) => writer
                .bytes("how", b"spawn_failed")
                .bytes("step", failure.step.name().as_bytes())
                .number("errno", failure.errno)
                .bytes("program", &failure.program),
        }
    }

    pub(crate) fn parse(fields: &TextReader<'_>) -> Result<Self, TextError> {
        Ok(match needed("how", fields.text("how")?)?.as_str() {
            "exit" => Self::Exited(needed("code", fields.number("code")?)?),
            "signal" => Self::Signaled(needed("signal", fields.number("signal")?)?),
            "timeout" => Self::TimedOut,
            "stalled" => Self::Stalled,
            "oom" => Self::OutOfMemory,
            "stopped" => Self::Stopped {
                by: fields.text("by")?,
            },
            "terminated" => Self::Terminated(ChildEnd::parse(fields)?),
            "spawn_failed" => Self::SpawnFailed(SpawnFailure {
                step: Step::from_name(&needed("step", fields.text("step")?)?)
                    .ok_or(TextError::Value("step"))?,
                errno: needed("errno", fields.number("errno")?)?,
                program: needed("program", fields.bytes("program")?)?,
            }),
            _ => return Err(TextError::Value("how")),
        })
    }
}

impl ChildEnd {
    /// What a shell makes of it: the code, or 128 and the signal.
    pub(crate) fn exit_code(self) -> u8 {
        match self {
            Self::Exited(code) => code,
            Self::Signaled(signal) => signal.saturating_add(128),
        }
    }

    fn encode(self, writer: TextWriter) -> TextWriter {
        match self {
            Self::Exited(code) => writer.number("code", code),
            Self::Signaled(signal) => writer.number("signal", signal),
        }
    }

    fn parse(fields: &TextReader<'_>) -> Result<Self, TextError> {
        if let Some(signal) = fields.number("signal")? {
            return Ok(Self::Signaled(signal));
        }
        Ok(Self::Exited(needed("code", fields.number("code")?)?))
    }
}

impl From<ExitStatus> for ChildEnd {
    fn from(status: ExitStatus) -> Self {
        let number = |number: i32| u8::try_from(number & 0xFF).unwrap_or(u8::MAX);
        match status.signal() {
            Some(signal) => Self::Signaled(number(signal)),
            None => Self::Exited(number(status.code().unwrap_or(0))),
        }
    }
}

impl From<ChildEnd> for How {
    fn from(child: ChildEnd) -> Self {
        match child {
            ChildEnd::Exited(code) => Self::Exited(code),
            ChildEnd::Signaled(signal) => Self::Signaled(signal),
        }
    }
}
