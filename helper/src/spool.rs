//! The output of a run: the file `log` in its folder, a sequence of records that is only appended to.
//!
//! # Format
//!
//! ```text
//! length u32 · kind u8 · flags u8 (0) · reserved u16 (0) · time i64 · payload (`length` bytes, at most 64 KiB)
//! ```
//!
//! Numbers are little endian, time is in microseconds since the epoch. Kinds are 1 (output), 2 (error output), and 3 (a
//! gap: `bytes lost u64, u64::MAX if unknown · reason u8`, 1 = disk full, 2 = the spool's limit). A position in the
//! spool, and so a cursor, is the offset of the next record. Each record is appended by one write; what a full disk
//! cuts is truncated again, so that an incomplete record can only be the last, and only for an instant or after the
//! death of the helper.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Length of a header.
pub const HEADER_LEN: usize = 16;
/// The longest payload of a record.
pub const MAX_PAYLOAD: usize = 64 << 10;

const UNKNOWN: u64 = u64::MAX;
const GAP_LEN: usize = 9;

/// The head of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Length of the payload.
    pub len: u32,
    /// What the payload is.
    pub kind: Kind,
    /// Microseconds since the epoch.
    pub time: i64,
}

/// The kind of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Bytes of the output.
    Out,
    /// Bytes of the error output.
    Err,
    /// A gap.
    Gap,
}

/// Why bytes are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum GapReason {
    /// The disk was full.
    DiskFull,
    /// The spool was at its limit; the record of the end says how much was dropped.
    Limit,
    /// A reason of a newer version.
    Other(u8),
}

/// What a record holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// Bytes of the output.
    Out(Vec<u8>),
    /// Bytes of the error output.
    Err(Vec<u8>),
    /// Bytes are missing here.
    Gap {
        /// How many, if known.
        bytes: Option<u64>,
        /// Why.
        reason: GapReason,
    },
}

/// A record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// When it was written, in microseconds since the epoch.
    pub time: i64,
    /// What it holds.
    pub item: Item,
}

/// Why a spool could not be read.
#[derive(Debug)]
#[non_exhaustive]
pub enum SpoolError {
    /// There is no record at this offset, or a damaged one.
    Corrupt {
        /// The offset.
        offset: u64,
    },
    /// The offset is behind the end of the spool.
    BehindEnd {
        /// The offset.
        offset: u64,
        /// The length of the spool.
        len: u64,
    },
    /// The system could not read it.
    Io(io::Error),
}

impl fmt::Display for SpoolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Corrupt { offset } => write!(f, "no whole record at offset {offset}"),
            Self::BehindEnd { offset, len } => {
                write!(f, "offset {offset} is behind the end of the spool, {len}")
            }
            Self::Io(_) => f.write_str("cannot read the spool"),
        }
    }
}

impl std::error::Error for SpoolError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io(error) => Some(error),
            _ => None,
        }
    }
}

impl Header {
    /// Its bytes.
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let kind = match self.kind {
            Kind::Out => 1,
            Kind::Err => 2,
            Kind::Gap => 3,
        };
        let mut bytes = [0; HEADER_LEN];
        bytes[..4].copy_from_slice(&self.len.to_le_bytes());
        bytes[4] = kind;
        bytes[8..].copy_from_slice(&self.time.to_le_bytes());
        bytes
    }

    /// Reads its bytes; `None` if they cannot be one.
    pub fn decode(bytes: [u8; HEADER_LEN]) -> Option<Self> {
        let (&len, rest) = bytes.split_first_chunk()?;
        let (&[kind, _flags, _, _], time) = rest.split_first_chunk()?;
        let header = Self {
            len: u32::from_le_bytes(len),
            kind: match kind {
                1 => Kind::Out,
                2 => Kind::Err,
                3 => Kind::Gap,
                _ => return None,
            },
            time: i64::from_le_bytes(time.try_into().ok()?),
        };
        let fits = header.payload_len() <= MAX_PAYLOAD
            && (header.kind != Kind::Gap || header.payload_len() >= GAP_LEN);
        fits.then_some(header)
    }

    fn payload_len(&self) -> usize {
        usize::try_from(self.len).unwrap_or(usize::MAX)
    }
}

impl GapReason {
    fn code(self) -> u8 {
        match self {
            Self::DiskFull => 1,
            Self::Limit => 2,
            Self::Other(code) => code,
        }
    }

    /// The reason of this number in a record.
    pub fn from_code(code: u8) -> Self {
        match code {
            1 => Self::DiskFull,
            2 => Self::Limit,
            other => Self::Other(other),
        }
    }
}

impl Record {
    /// Its bytes, header and payload. The payload of output must not be longer than [`MAX_PAYLOAD`].
    pub fn encode(&self) -> Vec<u8> {
        let mut gap = [0; GAP_LEN];
        let (kind, payload): (_, &[u8]) = match &self.item {
            Item::Out(bytes) => (Kind::Out, bytes),
            Item::Err(bytes) => (Kind::Err, bytes),
            Item::Gap { bytes, reason } => {
                gap[..8].copy_from_slice(&bytes.unwrap_or(UNKNOWN).to_le_bytes());
                gap[8] = reason.code();
                (Kind::Gap, &gap)
            }
        };
        let len = u32::try_from(payload.len()).expect("a payload is at most 64 KiB");
        let mut record = Header {
            len,
            kind,
            time: self.time,
        }
        .encode()
        .to_vec();
        record.extend_from_slice(payload);
        record
    }

    fn decode(header: &Header, payload: &[u8]) -> Option<Self> {
        let item = match header.kind {
            Kind::Out => Item::Out(payload.to_vec()),
            Kind::Err => Item::Err(payload.to_vec()),
            Kind::Gap => {
                let (&bytes, rest) = payload.split_first_chunk()?;
                let bytes = u64::from_le_bytes(bytes);
                Item::Gap {
                    bytes: (bytes != UNKNOWN).then_some(bytes),
                    reason: GapReason::from_code(*rest.first()?),
                }
            }
        };
        Some(Self {
            time: header.time,
            item,
        })
    }
}

/// Reads a spool, also one that is being written. It reads ahead, so that small records cost no system call each.
#[derive(Debug)]
pub struct Reader {
    file: File,
    window: Vec<u8>,
    /// Offset of the window in the file.
    at: u64,
}

impl Reader {
    /// Reads `file` at offsets of its own; the file's position is not used.
    pub fn new(file: File) -> Self {
        Self {
            file,
            window: Vec::new(),
            at: 0,
        }
    }

    /// The record at `offset` and the offset of the next one; `None` if there is no whole record yet.
    pub fn read_at(&mut self, offset: u64) -> Result<Option<(Record, u64)>, SpoolError> {
        if let Some(found) = self.parse(offset)? {
            return Ok(Some(found));
        }
        self.fill(offset)?;
        if self.window.is_empty() {
            let len = self.file.metadata().map_err(SpoolError::Io)?.len();
            if offset > len {
                return Err(SpoolError::BehindEnd { offset, len });
            }
        }
        let found = self.parse(offset);
        if matches!(found, Ok(None)) {
            // At the end: many readers wait here for long.
            self.window = Vec::new();
        }
        found
    }

    fn parse(&self, offset: u64) -> Result<Option<(Record, u64)>, SpoolError> {
        let start = offset
            .checked_sub(self.at)
            .and_then(|start| usize::try_from(start).ok());
        let Some(bytes) = start.and_then(|start| self.window.get(start..)) else {
            return Ok(None);
        };
        let Some((&header, rest)) = bytes.split_first_chunk() else {
            return Ok(None);
        };
        let corrupt = || SpoolError::Corrupt { offset };
        let header = Header::decode(header).ok_or_else(corrupt)?;
        let Some(payload) = rest.get(..header.payload_len()) else {
            return Ok(None);
        };
        let record = Record::decode(&header, payload).ok_or_else(corrupt)?;
        Ok(Some((record, offset + (HEADER_LEN + payload.len()) as u64)))
    }

    fn fill(&mut self, offset: u64) -> Result<(), SpoolError> {
        self.window.resize(HEADER_LEN + MAX_PAYLOAD, 0);
        self.at = offset;
        let mut filled = 0;
        while filled < self.window.len() {
            match self
                .file
                .read_at(&mut self.window[filled..], offset + filled as u64)
            {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.window.clear();
                    return Err(SpoolError::Io(error));
                }
            }
        }
        self.window.truncate(filled);
        Ok(())
    }
}
