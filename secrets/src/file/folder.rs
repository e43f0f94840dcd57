//! A folder in which each file is a secret.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use hybrid_runner_core::error::{Error, ErrorKind, Result};
use hybrid_runner_core::id::shorten;
use hybrid_runner_core::secret::{Secret, SecretName};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;

use super::{beneath, content};

#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    trim: bool,
}

impl Folder {
    pub(super) fn new(path: PathBuf, trim: bool) -> Self {
        Self { path, trim }
    }

    pub(super) fn check(&self) -> Result<()> {
        let folder = self.open()?;
        beneath::search(&folder).map_err(|errno| content::failed(&self.what(), errno))
    }

    pub(super) fn get(&self, name: &SecretName) -> Result<Secret> {
        let relative = name.relative();
        let impossible = |part: &str| matches!(part, "" | "." | "..");
        if relative.split('/').any(impossible) {
            return Err(Error::invalid(format!(
                "`{}` is no name of a file: `..`, `.` and empty parts cannot stand in it",
                shorten(relative)
            )));
        }
        let what = format!("file `{}` in {}", shorten(relative), self.what());
        let file =
            beneath::open(self.open()?, relative).map_err(|errno| content::failed(&what, errno))?;
        let mut bytes = content::read(file, &what)?;
        if self.trim {
            while bytes.pop_if(|byte| matches!(byte, b'\n' | b'\r')).is_some() {}
        }
        Ok(Secret::new(std::mem::take(&mut *bytes)))
    }

    /// Opened anew each time: a mount may have been replaced.
    fn open(&self) -> Result<OwnedFd> {
        let look = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::openat(CWD, &self.path, look, Mode::empty()).map_err(|errno| {
            let error = content::failed(&self.what(), errno);
            match error.kind() {
                ErrorKind::Denied => error,
                _ if errno == Errno::NOTDIR && self.path.is_file() => Error::invalid(format!(
                    "`{}` is a file, no folder; for a dotenv file write `dotenv` instead of `path`",
                    self.path.display()
                )),
                _ => Error::unavailable(format!(
                    "{} is not there; mount it, or correct `path`",
                    self.what()
                ))
                .with_source(std::io::Error::from(errno)),
            }
        })
    }

    fn what(&self) -> String {
        format!("folder `{}`", self.path.display())
    }
}

#[cfg(test)]
mod tests;
