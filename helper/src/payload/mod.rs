//! What the runner writes to the helper's standard input: the command, its values, its limits.
//!
//! # Format
//!
//! ```text
//! magic (8 bytes: F5 "HRPAY" 01 0A) · stuffed( nonce 16 · length u32 · body · checksum u64 )
//! ```
//!
//! Numbers are little endian. *Stuffed*: each byte `F5` is followed by `00`, so that the magic cannot occur inside a
//! frame, whatever the values are. A reader therefore finds the next frame after any garbage and after a frame that
//! was cut (its writer died), and no value can pose as a frame. The length is that of the body before stuffing; the
//! checksum is FNV-1a over nonce, length and body.
//!
//! The body is a list of `tag u16 · length u32 · value`; unknown tags are skipped. Tags may repeat where the table says
//! "each"; for others the last one wins. Durations are milliseconds.
//!
//! | tag | value |
//! |---|---|
//! | 1 | argument, each |
//! | 2 | variable, each: `length of the name u32 · name · value` |
//! | 3 | working directory |
//! | 4 | private file, each: a list of `1` name, `2` content, `3` mode u32, `4` variable |
//! | 5 | private folder |
//! | 6 | value to mask, each |
//! | 7, 8, 9 | timeout, stall timeout, grace, u64 |
//! | 10 | limit of the spool in bytes, u64 |
//! | 11 | control group |
//! | 12 | (empty) the environment of the helper is the workload's too |
//! | 13 | note, each: UTF-8 |

mod body;
mod frame;

use std::fmt;
use std::time::Duration;

use crate::sys;

pub use frame::{Decoder, MAGIC, MAX_BODY, encode};

const NONCE: usize = 16;

/// Bytes that are printed by nothing and wiped on drop.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Private(Vec<u8>);

impl Private {
    /// The bytes.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    pub(crate) fn expose_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

impl<T: Into<Vec<u8>>> From<T> for Private {
    fn from(bytes: T) -> Self {
        Self(bytes.into())
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        sys::wipe(&mut self.0);
    }
}

impl fmt::Debug for Private {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// All that a helper needs to run one workload.
///
/// In a container the workload gets no cookie: the namespace holds all that it leaves behind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Payload {
    /// Random; tells frames apart, and in hexadecimal it is the run's cookie ([`crate::COOKIE_VARIABLE`]).
    pub nonce: [u8; NONCE],
    /// The command; not empty. A first word without `/` is searched in the `PATH` of `env`.
    pub argv: Vec<Vec<u8>>,
    /// The whole environment of the workload, but for the cookie and the variables of `files`.
    pub env: Vec<(Vec<u8>, Private)>,
    /// Adds the helper's own environment, without the variables that are in `env` or `files`: in a container that is
    /// what the image and the engine say.
    pub inherit: bool,
    /// Where the workload starts; absent: `/`, and in a container where the engine has started the helper.
    pub cwd: Option<Vec<u8>>,
    /// Files in the private folder.
    pub files: Vec<PrivateFile>,
    /// The private folder: absolute, on a memory file system, its parent there and itself not. Made with mode 0700,
    /// removed after the run. Needed if there are `files`.
    pub private_dir: Option<Vec<u8>>,
    /// Values to mask in the output; the helper derives their encoded forms ([`crate::mask::needles_of`]).
    pub needles: Vec<Private>,
    /// How long the workload may run; then it is stopped with `grace`.
    pub timeout: Option<Duration>,
    /// How long it may be silent; then it is stopped with `grace`.
    pub stall_timeout: Option<Duration>,
    /// How long it may take to end after `SIGTERM`, where a request to stop does not say.
    pub grace: Duration,
    /// How long the spool may become, headers included; what follows is dropped and counted. A container has none.
    pub spool_limit: u64,
    /// The folder of a control group (v2) that the runner has made: the workload enters it before it is executed.
    /// Removed after the run if it is empty.
    pub cgroup: Option<Vec<u8>>,
    /// In a container: lines for people that the log begins with, each behind `hybrid-runner: `. They are not masked.
    pub notes: Vec<String>,
}

/// A file that only the workload can read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PrivateFile {
    /// Its name in the private folder.
    pub name: Vec<u8>,
    /// What is in it.
    pub content: Private,
    /// Its mode.
    pub mode: u32,
    /// The variable that gets its path.
    pub env: Option<Vec<u8>>,
}

/// Why there is no payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum PayloadError {
    /// The input ended before a whole one.
    Truncated,
    /// It says that it is longer than [`MAX_BODY`].
    TooLong(u32),
    /// The checksum is wrong, or the frame is no frame.
    Corrupt,
    /// A field is not as this tag needs it.
    Field(u16),
    /// It could not be run.
    Invalid(&'static str),
}

impl fmt::Display for PayloadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated => f.write_str("input ended before a whole payload"),
            Self::TooLong(length) => write!(f, "payload of {length} bytes, more than {MAX_BODY}"),
            Self::Corrupt => f.write_str("payload is corrupt"),
            Self::Field(tag) => write!(f, "field {tag} of the payload is malformed"),
            Self::Invalid(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for PayloadError {}

impl Payload {
    /// The value of [`crate::COOKIE_VARIABLE`].
    pub(crate) fn cookie(&self) -> String {
        format!("{:032x}", u128::from_be_bytes(self.nonce))
    }

    fn validate(&self) -> Result<(), PayloadError> {
        let invalid = |why| Err(PayloadError::Invalid(why));
        if self.argv.first().is_none_or(Vec::is_empty) {
            return invalid("the command is empty");
        }
        let paths = self.cwd.iter().chain(&self.private_dir).chain(&self.cgroup);
        if self
            .argv
            .iter()
            .chain(paths)
            .any(|bytes| bytes.contains(&0))
        {
            return invalid("a zero byte in the command or a path");
        }
        if self
            .env
            .iter()
            .any(|(name, value)| !is_variable(name) || value.expose().contains(&0))
        {
            return invalid("a variable has an empty name, `=` in its name, or a zero byte");
        }
        if !self.files.iter().all(PrivateFile::is_valid) {
            return invalid("a private file has an impossible name or variable");
        }
        match &self.private_dir {
            None if !self.files.is_empty() => invalid("private files without a private folder"),
            Some(folder) if folder.len() < 2 || folder[0] != b'/' => {
                invalid("the private folder is not absolute")
            }
            _ => Ok(()),
        }
    }
}

impl PrivateFile {
    fn is_valid(&self) -> bool {
        let name = &self.name;
        let plain = !name.is_empty()
            && name != b"."
            && name != b".."
            && !name.iter().any(|byte| matches!(byte, 0 | b'/'));
        plain && self.env.as_deref().is_none_or(is_variable)
    }
}

fn is_variable(name: &[u8]) -> bool {
    !name.is_empty() && !name.iter().any(|byte| matches!(byte, 0 | b'='))
}
