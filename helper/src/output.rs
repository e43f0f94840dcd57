//! Brings the output of the workload to its outlet: reads a pipe, masks, passes on.

use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::os::fd::{AsFd as _, OwnedFd};

use crate::mask::{Masker, Patterns};
use crate::outlet::Outlet;
use crate::spool::{HEADER_LEN, Kind};
use crate::sys::{self, Wait};

/// Enough for lines as they come.
const SMALL: usize = 4 << 10;
/// Once a read has filled the small buffer.
const LARGE: usize = 64 << 10;
/// The size of the pipe of a workload that writes fast.
const LARGE_PIPE: i32 = 1 << 20;
/// After so many full reads without a pause a workload counts as fast.
const FAST: u32 = 8;
/// So many reads until the other stream and the clock have their turn.
const TURN: u32 = 16;

/// Memory that both streams use in turn. It is given back when there is no output for a while.
#[derive(Default)]
pub(crate) struct Buffers {
    input: Vec<u8>,
    framed: Vec<u8>,
}

impl Buffers {
    /// Whether they hold memory.
    pub(crate) fn are_in_use(&self) -> bool {
        self.input.capacity() > 0
    }

    /// Gives the memory back.
    pub(crate) fn release(&mut self) {
        *self = Self::default();
        sys::trim_heap();
    }
}

/// One of the two streams of a workload.
pub(crate) struct Stream {
    kind: Kind,
    pipe: Option<File>,
    masker: Masker,
    full_reads: u32,
}

impl Stream {
    pub(crate) fn new(kind: Kind, pipe: OwnedFd, patterns: Patterns) -> Self {
        Self {
            kind,
            pipe: Some(pipe.into()),
            masker: Masker::new(patterns),
            full_reads: 0,
        }
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.pipe.is_none()
    }

    /// Waits for more of it, if there is more to come and the outlet takes it.
    pub(crate) fn wait(&self, outlet: &dyn Outlet) -> Wait<'_> {
        match &self.pipe {
            Some(pipe) if !outlet.blocks(self.kind) => Wait::Read(pipe.as_fd()),
            _ => Wait::Never,
        }
    }

    /// How many places were masked.
    pub(crate) fn masked(&self) -> u64 {
        self.masker.masked()
    }

    /// Moves what is there and what the outlet takes, for one turn; whether there was anything.
    pub(crate) fn pump(&mut self, buffers: &mut Buffers, outlet: &mut dyn Outlet) -> bool {
        for turn in 0..TURN {
            if outlet.blocks(self.kind) {
                return turn > 0;
            }
            let Some(pipe) = &mut self.pipe else {
                return turn > 0;
            };
            if buffers.input.is_empty() {
                buffers.input.resize(SMALL, 0);
            }
            match pipe.read(&mut buffers.input) {
                Ok(0) => {
                    self.end(buffers, outlet);
                    return true;
                }
                Ok(read) => {
                    buffers.framed.clear();
                    buffers.framed.resize(HEADER_LEN, 0);
                    self.masker
                        .push(&buffers.input[..read], &mut buffers.framed);
                    outlet.output(self.kind, &mut buffers.framed);
                    self.adapt(read, buffers);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return turn > 0,
                Err(_) => {
                    self.end(buffers, outlet);
                    return true;
                }
            }
        }
        true
    }

    /// Ends the stream, whether or not its pipe has: what was held back is passed on.
    pub(crate) fn end(&mut self, buffers: &mut Buffers, outlet: &mut dyn Outlet) {
        self.pipe = None;
        buffers.framed.clear();
        buffers.framed.resize(HEADER_LEN, 0);
        self.masker.finish(&mut buffers.framed);
        outlet.output(self.kind, &mut buffers.framed);
    }

    /// Whether [`Stream::release`] would write something.
    pub(crate) fn can_release(&self) -> bool {
        self.masker.can_release()
    }

    /// Writes the few bytes that are held although they begin no value, most likely.
    pub(crate) fn release(&mut self, buffers: &mut Buffers, outlet: &mut dyn Outlet) {
        buffers.framed.clear();
        buffers.framed.resize(HEADER_LEN, 0);
        self.masker.release(&mut buffers.framed);
        outlet.output(self.kind, &mut buffers.framed);
    }

    fn adapt(&mut self, read: usize, buffers: &mut Buffers) {
        if read < buffers.input.len() {
            self.full_reads = 0;
            return;
        }
        if buffers.input.len() < LARGE {
            // New ones: growing would copy.
            *buffers = Buffers {
                input: vec![0; LARGE],
                framed: Vec::with_capacity(LARGE + SMALL),
            };
        }
        self.full_reads += 1;
        if self.full_reads == FAST
            && let Some(pipe) = &self.pipe
        {
            // Not permitted beyond the user's share of pipe memory; the small pipe works, too.
            drop(sys::set_pipe_size(pipe.as_fd(), LARGE_PIPE));
        }
    }
}
