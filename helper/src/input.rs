//! The standard input of the first process of a container, through which payloads come.

use std::fs::File;
use std::io::{self, ErrorKind, Read as _};
use std::os::fd::AsFd as _;

use crate::payload::{Decoder, Payload, Private};
use crate::sys::{self, Wait};

/// The input, until it ends.
pub(crate) struct Input {
    file: Option<File>,
    decoder: Decoder,
}

impl Input {
    /// Takes the standard input for its own: whoever is started finds nothing in its place.
    pub(crate) fn standard() -> io::Result<Self> {
        let file = io::stdin().as_fd().try_clone_to_owned()?;
        sys::let_go(0);
        Ok(Self::new(file.into()))
    }

    pub(crate) fn new(file: File) -> Self {
        Self {
            file: Some(file),
            decoder: Decoder::new(),
        }
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.file.is_none()
    }

    /// Waits for more of it, if there is more to come.
    pub(crate) fn wait(&self) -> Wait<'_> {
        match &self.file {
            Some(file) => Wait::Read(file.as_fd()),
            None => Wait::Never,
        }
    }

    /// Reads what is there, and hands over each payload that it completes. Those that cannot be read are passed over:
    /// there may be a better one behind.
    pub(crate) fn read(&mut self, mut take: impl FnMut(Payload)) -> io::Result<()> {
        let Some(file) = &mut self.file else {
            return Ok(());
        };
        let mut buffer: Private = vec![0; 16 << 10].into();
        let read = match file.read(buffer.expose_mut()) {
            Err(error)
                if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) =>
            {
                return Ok(());
            }
            read => read.inspect_err(|_| self.file = None)?,
        };
        if read == 0 {
            self.file = None;
            // With what there was of a payload.
            self.decoder = Decoder::new();
        }
        let mut rest = &buffer.expose()[..read];
        while !rest.is_empty() {
            if let Ok(Some(payload)) = self.decoder.push(&mut rest) {
                take(payload);
            }
        }
        Ok(())
    }
}
