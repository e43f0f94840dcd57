//! The private folder: files with values, on a memory file system.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use crate::payload::PrivateFile;

/// The private folder of a run; removed on drop.
pub(crate) struct PrivateFolder(PathBuf);

impl PrivateFolder {
    /// Makes it with its files; it must not be there.
    pub(crate) fn create(path: &[u8], files: &[PrivateFile]) -> io::Result<Self> {
        let path = Path::new(OsStr::from_bytes(path));
        DirBuilder::new().mode(0o700).create(path)?;
        let folder = Self(path.to_owned());
        for file in files {
            let path = path.join(OsStr::from_bytes(&file.name));
            let mut opened = OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(path)?;
            opened.write_all(file.content.expose())?;
            opened.set_permissions(Permissions::from_mode(file.mode))?;
        }
        Ok(folder)
    }
}

impl Drop for PrivateFolder {
    fn drop(&mut self) {
        // What cannot be removed is named in `started`, and left to the runner.
        drop(fs::remove_dir_all(&self.0));
    }
}
