//! Passes output on to the standard output and error output of this process, byte by byte as it is.
//!
//! Nothing here waits: what the reader does not take yet is kept, and as long as it is, no more of that stream is read
//! from the workload. So the memory is bounded by one read, and a reader that has gone away for a while (an engine that
//! is being restarted) makes the workload wait and nobody else.

use std::fs::File;
use std::io::{self, ErrorKind, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd};

use crate::sys;

/// One stream on its way out.
pub(crate) struct Relay {
    file: File,
    /// What the reader has not taken yet.
    kept: Vec<u8>,
    /// Nobody will ever read, so that it goes nowhere.
    abandoned: bool,
    /// What it was given does not end with the end of a line.
    in_line: bool,
    total: u64,
}

impl Relay {
    /// To this descriptor, which this makes non-blocking.
    pub(crate) fn new(fd: BorrowedFd<'_>) -> io::Result<Self> {
        let file = File::from(fd.try_clone_to_owned()?);
        sys::set_nonblocking(file.as_fd())?;
        Ok(Self {
            file,
            kept: Vec::new(),
            abandoned: false,
            in_line: false,
            total: 0,
        })
    }

    /// How many bytes of output it was given.
    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    /// Whether what comes next is not at the beginning of a line.
    pub(crate) fn is_in_line(&self) -> bool {
        self.in_line
    }

    /// Whether it waits for its reader.
    pub(crate) fn is_blocked(&self) -> bool {
        !self.kept.is_empty()
    }

    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Passes output on, behind all that came before.
    pub(crate) fn pass(&mut self, bytes: &[u8]) {
        self.total += bytes.len() as u64;
        self.say(bytes);
    }

    /// Passes on what does not count as output; whether it may have a reader.
    pub(crate) fn say(&mut self, bytes: &[u8]) -> bool {
        let Some(last) = bytes.last() else {
            return !self.abandoned;
        };
        self.in_line = *last != b'\n';
        let written = if self.is_blocked() {
            0
        } else {
            self.write(bytes)
        };
        if !self.abandoned {
            self.kept.extend_from_slice(&bytes[written..]);
        }
        !self.abandoned
    }

    /// Passes on what was kept, as far as the reader takes it.
    pub(crate) fn flush(&mut self) {
        let mut kept = std::mem::take(&mut self.kept);
        let written = self.write(&kept);
        if written < kept.len() && !self.abandoned {
            kept.drain(..written);
            self.kept = kept;
        }
    }

    /// Gives up the reader: what was kept and what comes is counted, and goes nowhere.
    pub(crate) fn abandon(&mut self) {
        self.abandoned = true;
        self.kept = Vec::new();
    }

    /// Writes what the reader takes now; how much that is.
    fn write(&mut self, bytes: &[u8]) -> usize {
        let mut written = 0;
        while written < bytes.len() && !self.abandoned {
            match self.file.write(&bytes[written..]) {
                Ok(more) if more > 0 => written += more,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                // There is no reader any more.
                Ok(_) | Err(_) => self.abandon(),
            }
        }
        written
    }
}
