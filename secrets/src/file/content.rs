//! The bytes of an opened file.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::OwnedFd;

use hybrid_runner_core::error::{Error, ErrorKind, Result};
use rustix::fs::FileType;
use rustix::io::Errno;
use zeroize::Zeroizing;

/// The largest file that is read: as large as a Kubernetes Secret may be.
pub(super) const MAX_BYTES: u64 = 1 << 20;

/// Reads a regular file of at most [`MAX_BYTES`]; `what` names it in errors.
pub(super) fn read(file: OwnedFd, what: &str) -> Result<Zeroizing<Vec<u8>>> {
    let stat = rustix::fs::fstat(&file).map_err(|errno| failed(what, errno))?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => {}
        FileType::Directory => {
            return Err(Error::invalid(format!(
                "{what} is a folder; name a file in it"
            )));
        }
        _ => return Err(Error::invalid(format!("{what} is not a regular file"))),
    }
    let size = u64::try_from(stat.st_size).unwrap_or(0).min(MAX_BYTES);
    // Room for all at once, so that no growth leaves a copy behind.
    let room = usize::try_from(size + 1).unwrap_or(0);
    let mut bytes = Zeroizing::new(Vec::with_capacity(room));
    File::from(file)
        .take(MAX_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| Error::unavailable(format!("failed to read {what}")).with_source(error))?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(Error::invalid(format!("{what} is larger than 1 MiB")));
    }
    Ok(bytes)
}

/// The error of a system call on `what`, in words of the contract.
pub(super) fn failed(what: &str, errno: Errno) -> Error {
    let (kind, message) = match errno {
        Errno::NOENT | Errno::NOTDIR => (ErrorKind::NotFound, "does not exist"),
        Errno::ACCESS | Errno::PERM => (
            ErrorKind::Denied,
            "cannot be read by this user; give it read permission",
        ),
        Errno::XDEV | Errno::LOOP => (
            ErrorKind::Denied,
            "is a link that leaves the folder, or never ends; put the file itself there",
        ),
        Errno::INVAL | Errno::NAMETOOLONG => {
            (ErrorKind::Invalid, "is no name that a folder can hold")
        }
        Errno::NXIO | Errno::NODEV => (ErrorKind::Invalid, "is not a regular file"),
        _ => (ErrorKind::Unavailable, "cannot be opened"),
    };
    let error = Error::new(kind, format!("{what} {message}"));
    if kind == ErrorKind::Unavailable {
        return error.with_source(std::io::Error::from(errno));
    }
    error
}
