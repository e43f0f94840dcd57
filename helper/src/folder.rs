//! The folder of a run, which is the working directory of the helper.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::Duration;

use crate::clock;
use crate::end::End;
use crate::files;
use crate::started::Started;
use crate::stop::Stop;
use crate::sys;

/// Records have this length on disk, filled up with line ends, so that overwriting one needs no room.
const RECORD_LEN: usize = 4096;
/// How long a record of the end is tried.
const END_TRIES: u32 = 10;
const END_PAUSE: Duration = Duration::from_millis(100);

/// Opens the spool and takes its lock, the sign of life; `None` if another helper has it.
pub(crate) fn lock_log() -> io::Result<Option<File>> {
    let log = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(files::LOG)?;
    Ok(sys::try_lock(log.as_fd())?.then_some(log))
}

/// Whether this run was started or has ended before.
pub(crate) fn was_used() -> io::Result<bool> {
    Ok(Path::new(files::STARTED).try_exists()? || Path::new(files::END).try_exists()?)
}

/// Whether somebody has deleted the folder.
pub(crate) fn is_gone() -> bool {
    fs::metadata(".").is_ok_and(|folder| folder.nlink() == 0)
}

/// The FIFO that says that the request to stop is to be read.
pub(crate) struct Control(File);

impl Control {
    /// Opens it, and makes it if it is not there.
    pub(crate) fn open() -> io::Result<Self> {
        match sys::make_fifo(c"control") {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        // Also to write, so that it never ends.
        let fifo = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(files::CONTROL)?;
        Ok(Self(fifo))
    }

    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Takes what is in it.
    pub(crate) fn drain(&mut self) {
        let mut bytes = [0; 64];
        while self
            .0
            .read(&mut bytes)
            .is_ok_and(|read| read == bytes.len())
        {}
    }
}

/// The request to stop, if there is one; with `grace` where it does not say.
pub(crate) fn stop_request(grace: Duration) -> Option<Stop> {
    match fs::read(files::STOP) {
        Ok(bytes) => Some(Stop::parse(&bytes).unwrap_or(Stop { grace, by: None })),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(_) => Some(Stop { grace, by: None }),
    }
}

fn padded(mut record: Vec<u8>) -> Vec<u8> {
    if record.len() < RECORD_LEN {
        record.resize(RECORD_LEN, b'\n');
    }
    record
}

/// Makes sure that the end can be written later, even on a full disk.
pub(crate) fn reserve_end() -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(files::END_TMP)?;
    file.write_all(&padded(Vec::new()))
}

/// Writes the record of the end.
pub(crate) fn write_end(end: &End) -> io::Result<()> {
    let record = padded(end.encode());
    let write = || {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(files::END_TMP)?;
        file.write_all_at(&record, 0)?;
        fs::rename(files::END_TMP, files::END)
    };
    let mut result = write();
    for _ in 1..END_TRIES {
        if result.is_ok() {
            break;
        }
        clock::pause(END_PAUSE);
        result = write();
    }
    result
}

/// The claim on the start.
pub(crate) struct Claim(File);

impl Claim {
    /// Creates the record of the start; `None` if there is one.
    pub(crate) fn create(started: &Started) -> io::Result<Option<Self>> {
        let file = match OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(files::STARTED)
        {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(None),
            file => file?,
        };
        if let Err(error) = file.write_all_at(&padded(started.encode()), 0) {
            // Nothing was started, so this run may be tried again.
            fs::remove_file(files::STARTED)?;
            return Err(error);
        }
        Ok(Some(Self(file)))
    }

    /// Completes the record.
    pub(crate) fn complete(self, started: &Started) -> io::Result<()> {
        self.0.write_all_at(&padded(started.encode()), 0)
    }
}
