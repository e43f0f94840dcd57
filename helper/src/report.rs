//! The one line that the helper writes to its standard output, and its exit codes.
//!
//! The runner reads the line to its end: it is the answer to the start. End of file without a line means that the
//! helper died before it started anything if there is no `started` file, and else that nothing is known.
//!
//! | line | meaning | exit code |
//! |---|---|---|
//! | `started PID MICROSECONDS` | the program runs (`exec` has succeeded) | 0, after the run |
//! | `spawn_failed` | it never ran; `end` says why | 0 |
//! | `stopped` | a request to stop was there before; `end` says so | 0 |
//! | `bad_payload TEXT` | nothing was started, nothing written | 65 |
//! | `failed ERRNO TEXT` | the folder of the run cannot be used (disk full, say); nothing was started | 74 |
//! | `busy` | another helper holds the lock of this run | 75 |
//! | `already` | this run was started or has ended before | 76 |
//!
//! In a container there is no such line ([`crate::container`] has others). The exit code is that of the workload (128
//! and the signal if one has killed it; 127 if the command was not found, 126 if it could not be executed), or one of
//! these, with which nothing was started:
//!
//! | exit code | meaning |
//! |---|---|
//! | 0 | a stop came first; the line of the end says so |
//! | 64 | bad command line |
//! | 66 | no whole payload came: the input ended, or `SIGTERM` came, or ten minutes were over; the same container may be started again |
//! | 74 | the system refused what the helper needs; the last line of the log says what |

use std::fmt;

/// The exit codes of the helper (those of `sysexits.h` where they fit).
pub mod exit {
    /// The run is over and recorded.
    pub const DONE: u8 = 0;
    /// Bad command line.
    pub const USAGE: u8 = 64;
    /// The payload was incomplete or wrong.
    pub const BAD_PAYLOAD: u8 = 65;
    /// In a container: no whole payload came, and nothing was started.
    pub const NO_PAYLOAD: u8 = 66;
    /// The folder of the run could not be used.
    pub const FAILED: u8 = 74;
    /// Another helper has this run.
    pub const BUSY: u8 = 75;
    /// The run was started before.
    pub const ALREADY: u8 = 76;
}

/// What the helper answers.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Report {
    /// The program runs.
    Started {
        /// Its process id.
        pid: u32,
        /// When it started, in microseconds since the epoch.
        time: i64,
    },
    /// The program could not be run; the record of the end says why.
    SpawnFailed,
    /// A request to stop was there first; the record of the end says so.
    Stopped,
    /// The payload was incomplete or wrong.
    BadPayload(String),
    /// The folder of the run cannot be used.
    Failed {
        /// The system's error number.
        errno: i32,
        /// What failed.
        what: String,
    },
    /// Another helper has this run.
    Busy,
    /// This run was started or has ended before.
    Already,
}

impl Report {
    /// The code with which the helper exits after this report.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Started { .. } | Self::SpawnFailed | Self::Stopped => exit::DONE,
            Self::BadPayload(_) => exit::BAD_PAYLOAD,
            Self::Failed { .. } => exit::FAILED,
            Self::Busy => exit::BUSY,
            Self::Already => exit::ALREADY,
        }
    }

    /// Reads the line, with or without its end.
    pub fn parse(line: &str) -> Option<Self> {
        let line = line.strip_suffix('\n').unwrap_or(line);
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        Some(match word {
            "started" => {
                let (pid, time) = rest.split_once(' ')?;
                Self::Started {
                    pid: pid.parse().ok()?,
                    time: time.parse().ok()?,
                }
            }
            "spawn_failed" => Self::SpawnFailed,
            "stopped" => Self::Stopped,
            "bad_payload" => Self::BadPayload(rest.to_owned()),
            "failed" => {
                let (errno, what) = rest.split_once(' ')?;
                Self::Failed {
                    errno: errno.parse().ok()?,
                    what: what.to_owned(),
                }
            }
            "busy" => Self::Busy,
            "already" => Self::Already,
            _ => return None,
        })
    }
}

/// The line, without its end.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Started { pid, time } => write!(f, "started {pid} {time}"),
            Self::SpawnFailed => f.write_str("spawn_failed"),
            Self::Stopped => f.write_str("stopped"),
            Self::BadPayload(text) => write!(f, "bad_payload {text}"),
            Self::Failed { errno, what } => write!(f, "failed {errno} {what}"),
            Self::Busy => f.write_str("busy"),
            Self::Already => f.write_str("already"),
        }
    }
}
