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

use std::fmt;
use std::time::Duration;

use crate::sys;

/// Starts each frame.
pub const MAGIC: [u8; 8] = *b"\xF5HRPAY\x01\n";
/// The longest body.
pub const MAX_BODY: usize = 16 << 20;

const STUFFED: u8 = 0xF5;
const NONCE: usize = 16;
const PREFIX: usize = NONCE + 4;
const CHECKSUM: usize = 8;

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
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Payload {
    /// Random; tells frames apart, and in hexadecimal it is the run's cookie ([`crate::COOKIE_VARIABLE`]).
    pub nonce: [u8; NONCE],
    /// The command; not empty. A first word without `/` is searched in the `PATH` of `env`.
    pub argv: Vec<Vec<u8>>,
    /// The whole environment of the workload, but for the cookie and the variables of `files`.
    pub env: Vec<(Vec<u8>, Private)>,
    /// Where the workload starts; absent: `/`.
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
    /// How long the spool may become, headers included; what follows is dropped and counted.
    pub spool_limit: u64,
    /// The folder of a control group (v2) that the runner has made: the workload enters it before it is executed.
    pub cgroup: Option<Vec<u8>>,
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

mod tag {
    pub(super) const ARGUMENT: u16 = 1;
    pub(super) const VARIABLE: u16 = 2;
    pub(super) const CWD: u16 = 3;
    pub(super) const FILE: u16 = 4;
    pub(super) const PRIVATE_DIR: u16 = 5;
    pub(super) const NEEDLE: u16 = 6;
    pub(super) const TIMEOUT: u16 = 7;
    pub(super) const STALL_TIMEOUT: u16 = 8;
    pub(super) const GRACE: u16 = 9;
    pub(super) const SPOOL_LIMIT: u16 = 10;
    pub(super) const CGROUP: u16 = 11;

    pub(super) const FILE_NAME: u16 = 1;
    pub(super) const FILE_CONTENT: u16 = 2;
    pub(super) const FILE_MODE: u16 = 3;
    pub(super) const FILE_ENV: u16 = 4;
}

/// The frame of a payload. Fails if it could not be run, or is too long.
pub fn encode(payload: &Payload) -> Result<Private, PayloadError> {
    payload.validate()?;
    let mut frame = Private(Vec::with_capacity(PREFIX + payload.size_hint() + CHECKSUM));
    frame.0.extend_from_slice(&payload.nonce);
    frame.0.extend_from_slice(&[0; 4]);
    payload.encode_body(&mut frame.0);
    let length = frame.0.len() - PREFIX;
    let short = u32::try_from(length).unwrap_or(u32::MAX);
    if length > MAX_BODY {
        return Err(PayloadError::TooLong(short));
    }
    frame.0[NONCE..PREFIX].copy_from_slice(&short.to_le_bytes());
    let checksum = fnv1a(&frame.0);
    frame.0.extend_from_slice(&checksum.to_le_bytes());

    let stuffing: usize = frame
        .0
        .iter()
        .map(|&byte| usize::from(byte == STUFFED))
        .sum();
    let mut wire = Private(Vec::with_capacity(MAGIC.len() + frame.0.len() + stuffing));
    wire.0.extend_from_slice(&MAGIC);
    for &byte in &frame.0 {
        wire.0.push(byte);
        if byte == STUFFED {
            wire.0.push(0);
        }
    }
    Ok(wire)
}

impl Payload {
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

    fn size_hint(&self) -> usize {
        let argv: usize = self.argv.iter().map(|word| word.len() + 6).sum();
        let env: usize = self
            .env
            .iter()
            .map(|(name, value)| name.len() + value.0.len() + 10)
            .sum();
        let files: usize = self
            .files
            .iter()
            .map(|file| file.content.0.len() + file.name.len() + 128)
            .sum();
        let needles: usize = self.needles.iter().map(|needle| needle.0.len() + 6).sum();
        argv + env + files + needles + 1024
    }

    fn encode_body(&self, out: &mut Vec<u8>) {
        for word in &self.argv {
            put(out, tag::ARGUMENT, &[word]);
        }
        for (name, value) in &self.env {
            put(
                out,
                tag::VARIABLE,
                &[&short(name.len()), name, value.expose()],
            );
        }
        for file in &self.files {
            file.encode(out);
        }
        for needle in &self.needles {
            put(out, tag::NEEDLE, &[needle.expose()]);
        }
        for (tag, path) in [
            (tag::CWD, &self.cwd),
            (tag::PRIVATE_DIR, &self.private_dir),
            (tag::CGROUP, &self.cgroup),
        ] {
            if let Some(path) = path {
                put(out, tag, &[path]);
            }
        }
        let durations = [
            (tag::TIMEOUT, self.timeout),
            (tag::STALL_TIMEOUT, self.stall_timeout),
        ];
        for (tag, duration) in durations
            .into_iter()
            .chain([(tag::GRACE, Some(self.grace))])
        {
            if let Some(duration) = duration {
                put(out, tag, &[&millis(duration)]);
            }
        }
        put(out, tag::SPOOL_LIMIT, &[&self.spool_limit.to_le_bytes()]);
    }

    fn decode_body(nonce: [u8; NONCE], body: &[u8]) -> Result<Self, PayloadError> {
        let mut payload = Self {
            nonce,
            spool_limit: u64::MAX,
            ..Self::default()
        };
        for (tag, value) in fields(body).ok_or(PayloadError::Corrupt)? {
            let malformed = PayloadError::Field(tag);
            let duration = || number(value).map(Duration::from_millis).ok_or(malformed);
            match tag {
                tag::ARGUMENT => payload.argv.push(value.to_vec()),
                tag::VARIABLE => payload.env.push(variable(value).ok_or(malformed)?),
                tag::CWD => payload.cwd = Some(value.to_vec()),
                tag::FILE => payload
                    .files
                    .push(PrivateFile::decode(value).ok_or(malformed)?),
                tag::PRIVATE_DIR => payload.private_dir = Some(value.to_vec()),
                tag::NEEDLE => payload.needles.push(value.into()),
                tag::TIMEOUT => payload.timeout = Some(duration()?),
                tag::STALL_TIMEOUT => payload.stall_timeout = Some(duration()?),
                tag::GRACE => payload.grace = duration()?,
                tag::SPOOL_LIMIT => payload.spool_limit = number(value).ok_or(malformed)?,
                tag::CGROUP => payload.cgroup = Some(value.to_vec()),
                _ => {}
            }
        }
        payload.validate()?;
        Ok(payload)
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

    fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        put(out, tag::FILE, &[]);
        put(out, tag::FILE_NAME, &[&self.name]);
        put(out, tag::FILE_CONTENT, &[self.content.expose()]);
        put(out, tag::FILE_MODE, &[&self.mode.to_le_bytes()]);
        if let Some(name) = &self.env {
            put(out, tag::FILE_ENV, &[name]);
        }
        let length = short(out.len() - start - 6);
        out[start + 2..start + 6].copy_from_slice(&length);
    }

    fn decode(value: &[u8]) -> Option<Self> {
        let mut file = Self {
            mode: 0o600,
            ..Self::default()
        };
        for (tag, value) in fields(value)? {
            match tag {
                tag::FILE_NAME => file.name = value.to_vec(),
                tag::FILE_CONTENT => file.content = value.into(),
                tag::FILE_MODE => file.mode = u32::from_le_bytes(value.try_into().ok()?) & 0o777,
                tag::FILE_ENV => file.env = Some(value.to_vec()),
                _ => {}
            }
        }
        Some(file)
    }
}

fn is_variable(name: &[u8]) -> bool {
    !name.is_empty() && !name.iter().any(|byte| matches!(byte, 0 | b'='))
}

fn variable(value: &[u8]) -> Option<(Vec<u8>, Private)> {
    let (&length, rest) = value.split_first_chunk()?;
    let (name, value) = rest.split_at_checked(usize::try_from(u32::from_le_bytes(length)).ok()?)?;
    Some((name.to_vec(), value.into()))
}

fn number(value: &[u8]) -> Option<u64> {
    value.try_into().ok().map(u64::from_le_bytes)
}

fn millis(duration: Duration) -> [u8; 8] {
    u64::try_from(duration.as_millis())
        .unwrap_or(u64::MAX)
        .to_le_bytes()
}

/// A length on the wire. Saturates: such a body is over [`MAX_BODY`] and refused as a whole.
fn short(length: usize) -> [u8; 4] {
    u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes()
}

fn put(out: &mut Vec<u8>, tag: u16, parts: &[&[u8]]) {
    out.extend_from_slice(&tag.to_le_bytes());
    out.extend_from_slice(&short(parts.iter().map(|part| part.len()).sum()));
    for part in parts {
        out.extend_from_slice(part);
    }
}

/// The fields of a list; `None` if it is malformed.
fn fields(mut list: &[u8]) -> Option<Vec<(u16, &[u8])>> {
    let mut fields = Vec::new();
    while !list.is_empty() {
        let (&tag, rest) = list.split_first_chunk()?;
        let (&length, rest) = rest.split_first_chunk()?;
        let (value, rest) =
            rest.split_at_checked(usize::try_from(u32::from_le_bytes(length)).ok()?)?;
        fields.push((u16::from_le_bytes(tag), value));
        list = rest;
    }
    Some(fields)
}

fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Finds payloads in a stream of bytes, however it is cut.
#[derive(Debug)]
pub struct Decoder {
    /// How much of the magic has been seen, up to [`MAGIC`]'s length: then a frame is being read.
    matched: usize,
    /// In a frame: how much of a magic (or of a stuffed byte) has been seen; 0 or more.
    escape: usize,
    frame: Private,
    /// How long the frame is, as far as is known.
    wanted: usize,
}

impl Default for Decoder {
    fn default() -> Self {
        Self {
            matched: 0,
            escape: 0,
            frame: Private::default(),
            wanted: PREFIX,
        }
    }
}

impl Decoder {
    /// A decoder before the first byte.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes bytes from the front of `input` up to the end of a payload. `None`: all was taken, and more is needed.
    /// After an error it looks for the next payload; call it again with what is left.
    pub fn push(&mut self, input: &mut &[u8]) -> Result<Option<Payload>, PayloadError> {
        while !input.is_empty() {
            if self.matched < MAGIC.len() {
                self.hunt(input);
            } else if self.escape > 0 {
                self.unescape(input)?;
            } else {
                self.copy(input);
            }
            if self.frame.0.len() == self.wanted && self.escape == 0 {
                if self.wanted > PREFIX {
                    return self.complete().map(Some);
                }
                self.learn_length()?;
            }
        }
        Ok(None)
    }

    /// The error of an input that ends here.
    pub fn end(&self) -> PayloadError {
        PayloadError::Truncated
    }

    fn hunt(&mut self, input: &mut &[u8]) {
        let Some((&byte, rest)) = input.split_first() else {
            return;
        };
        *input = rest;
        self.matched = match byte {
            byte if byte == MAGIC[self.matched] => self.matched + 1,
            STUFFED => 1,
            _ => 0,
        };
    }

    /// After `F5` inside a frame: a stuffed byte, or the magic of another frame, since this one was cut.
    fn unescape(&mut self, input: &mut &[u8]) -> Result<(), PayloadError> {
        let Some((&byte, rest)) = input.split_first() else {
            return Ok(());
        };
        if self.escape == 1 && byte == 0 {
            *input = rest;
            self.escape = 0;
            self.frame.0.push(STUFFED);
        } else if byte == MAGIC[self.escape] {
            *input = rest;
            self.escape += 1;
            if self.escape == MAGIC.len() {
                self.restart(MAGIC.len());
            }
        } else {
            self.restart(0);
            return Err(PayloadError::Corrupt);
        }
        Ok(())
    }

    fn copy(&mut self, input: &mut &[u8]) {
        let room = self.wanted - self.frame.0.len();
        let near = &input[..room.min(input.len())];
        let plain = near
            .iter()
            .position(|&byte| byte == STUFFED)
            .unwrap_or(near.len());
        self.frame.0.extend_from_slice(&near[..plain]);
        *input = &input[plain..];
        if plain < near.len() {
            *input = &input[1..];
            self.escape = 1;
        }
    }

    fn learn_length(&mut self) -> Result<(), PayloadError> {
        let length = u32::from_le_bytes(
            self.frame.0[NONCE..PREFIX]
                .try_into()
                .expect("the length has 4 bytes"),
        );
        let body = usize::try_from(length).unwrap_or(usize::MAX);
        if body > MAX_BODY {
            self.restart(0);
            return Err(PayloadError::TooLong(length));
        }
        self.wanted = PREFIX + body + CHECKSUM;
        // Once, so that growing leaves no copies of values behind.
        self.frame.0.reserve_exact(body + CHECKSUM);
        Ok(())
    }

    fn complete(&mut self) -> Result<Payload, PayloadError> {
        let frame = std::mem::take(&mut self.frame);
        self.restart(0);
        let (checked, checksum) = frame.0.split_at(frame.0.len() - CHECKSUM);
        if fnv1a(checked).to_le_bytes() != checksum {
            return Err(PayloadError::Corrupt);
        }
        let nonce = checked[..NONCE]
            .try_into()
            .expect("the nonce has its length");
        Payload::decode_body(nonce, &checked[PREFIX..])
    }

    fn restart(&mut self, matched: usize) {
        *self = Self {
            matched,
            ..Self::default()
        };
    }
}
