//! The helper's program: carried inside this one, run from memory, or from a private file where that is refused.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};
use tokio::process::{Child, Command};

use super::folder::random;
use crate::helper;

const NAME: &str = "hybrid-runner-helper";

/// Spawns helpers.
#[derive(Debug)]
pub(super) struct Program {
    /// Where the file goes if memory is refused.
    folder: PathBuf,
    source: Mutex<Option<Arc<Source>>>,
}

#[derive(Debug)]
enum Source {
    /// `/proc/self/fd/N`; the file lives as long as the descriptor.
    Memory(OwnedFd),
    File(PathBuf),
}

impl Source {
    fn path(&self) -> PathBuf {
        match self {
            Self::Memory(fd) => format!("/proc/self/fd/{}", fd.as_raw_fd()).into(),
            Self::File(path) => path.clone(),
        }
    }
}

impl Program {
    pub(super) fn new(folder: PathBuf) -> Self {
        Self {
            folder,
            source: Mutex::new(None),
        }
    }

    /// Spawns the helper of a run. It inherits nothing but its three standard descriptors.
    ///
    /// Blocks; must be called inside a runtime.
    pub(super) fn spawn(&self, run_folder: &Path) -> io::Result<Child> {
        let source = self.source()?;
        match run(&source.path(), run_folder) {
            Err(error) if matches!(*source, Source::Memory(_)) && is_refusal(&error) => {
                let path = in_file(&self.folder)?;
                tracing::info!(%error, path = %path.display(), "memory cannot be executed here; the helper runs from a file");
                *self.slot() = Some(Arc::new(Source::File(path.clone())));
                run(&path, run_folder)
            }
            outcome => outcome,
        }
    }

    fn source(&self) -> io::Result<Arc<Source>> {
        let mut slot = self.slot();
        if let Some(source) = &*slot {
            return Ok(Arc::clone(source));
        }
        let source = match in_memory() {
            Ok(fd) => Source::Memory(fd),
            Err(_) => Source::File(in_file(&self.folder)?),
        };
        Ok(Arc::clone(slot.insert(Arc::new(source))))
    }

    fn slot(&self) -> MutexGuard<'_, Option<Arc<Source>>> {
        self.source.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Without `pre_exec`, so that it is `posix_spawn`: fast, and no copy of our memory.
fn run(program: &Path, run_folder: &Path) -> io::Result<Child> {
    Command::new(program)
        .arg0(NAME)
        .arg("run")
        .arg(run_folder)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
}

/// Whether the system does not let files in memory be executed, or has no `/proc`.
fn is_refusal(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::ACCESS | Errno::PERM | Errno::NOENT | Errno::NOEXEC | Errno::NOSYS)
    )
}

fn in_memory() -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let fd = match rustix::fs::memfd_create(NAME, flags | MemfdFlags::EXEC) {
        // Kernels before 6.3 do not know the flag.
        Err(Errno::INVAL) => rustix::fs::memfd_create(NAME, flags)?,
        made => made?,
    };
    let mut file = File::from(fd);
    file.write_all(helper::program())?;
    let seals = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&file, seals)?;
    Ok(file.into())
}

/// The file is named by its content, and used again only if that is what is in it.
fn in_file(folder: &Path) -> io::Result<PathBuf> {
    let digest = Sha256::digest(helper::program());
    let tag = digest[..8]
        .iter()
        .fold(0_u64, |tag, byte| (tag << 8) | u64::from(*byte));
    let path = folder.join(format!("{NAME}-{tag:016x}"));
    if fs::read(&path).is_ok_and(|found| found == helper::program()) {
        return Ok(path);
    }
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)?;
    let nonce = u64::from_ne_bytes(random()?);
    let unfinished = folder.join(format!("{NAME}-{tag:016x}.{nonce:016x}"));
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o700)
        .open(&unfinished)?;
    let written = file
        .write_all(helper::program())
        .and_then(|()| fs::rename(&unfinished, &path));
    if written.is_err() {
        fs::remove_file(&unfinished).ok();
    }
    written.map(|()| path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_of_the_helper_is_private_and_mended_when_damaged() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let path = in_file(folder.path()).unwrap();
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o700
        );
        fs::write(&path, "torn").unwrap();
        assert_eq!(in_file(folder.path()).unwrap(), path);
        assert_eq!(fs::read(&path).unwrap(), helper::program());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[tokio::test]
    async fn where_memory_cannot_be_executed_the_helper_runs_from_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let program = Program::new(folder.path().to_owned());
        let refused = rustix::fs::memfd_create("empty", MemfdFlags::CLOEXEC).unwrap();
        *program.slot() = Some(Arc::new(Source::Memory(refused)));
        let child = program.spawn(&folder.path().join("no such run")).unwrap();
        let output = child.wait_with_output().await.unwrap();
        assert!(output.stdout.starts_with(b"failed "), "{output:?}");
        assert!(matches!(
            **program.slot().as_ref().unwrap(),
            Source::File(_)
        ));
    }
}
