//! The stdout of a program that may outlive us, as a named pipe: whoever comes after us sees whether the program, or a child of
//! it, is still at work.
//!
//! The writing end is locked when it is made. The lock belongs to the open file, which all processes share that have inherited
//! it, so it lasts until the last of them is gone. A pipe it is all the same: nothing that passes through it is on disk, and
//! without a reader the program is told so (`EPIPE`) as by any other.

use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat, open};
use tokio::net::unix::pipe::Receiver;
use tokio::time::{Duration, Instant, sleep};

/// How long a process takes to be gone that was just killed.
const MOMENT: Duration = Duration::from_millis(300);
/// Between two looks. The system has no event for this.
const TRY: Duration = Duration::from_millis(10);

/// A named pipe with both of its ends.
#[derive(Debug)]
pub struct Outlet {
    path: PathBuf,
    reader: Receiver,
    writer: File,
}

impl Outlet {
    /// Makes a pipe of this name, in the place of one that was there.
    ///
    /// # Errors
    ///
    /// A file system without named pipes or locks.
    ///
    /// # Panics
    ///
    /// Outside a runtime.
    pub fn make(path: &Path) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        remove(path)?;
        mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?;
        let reader = File::from(open(
            path,
            OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC,
            Mode::empty(),
        )?);
        // There is a reader, so this does not wait for one.
        let writer = File::from(open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?);
        writer.try_lock()?;
        Ok(Self {
            path: path.to_owned(),
            reader: Receiver::from_file(reader)?,
            writer,
        })
    }

    /// What a program gets as its stdout, what is read here, and where it is. The program must have been started, and our copy
    /// of its stdout dropped, before the end can come.
    pub(crate) fn split(self) -> (Stdio, Receiver, PathBuf) {
        (Stdio::from(self.writer), self.reader, self.path)
    }
}

/// Whether a program has the pipe of this name as its stdout. One that nobody has is put away.
///
/// # Errors
///
/// The pipe cannot be looked at.
pub fn is_held(path: &Path) -> io::Result<bool> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = match open(path, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(rustix::io::Errno::NOENT) => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    if file.metadata()?.file_type().is_fifo()
        && let Err(error) = file.try_lock()
    {
        return match error {
            TryLockError::WouldBlock => Ok(true),
            TryLockError::Error(error) => Err(error),
        };
    }
    remove(path)?;
    Ok(false)
}

/// Whether a pipe is held still, after a moment in which one that was just killed lets go of it.
///
/// # Errors
///
/// Those of `is_held`.
pub async fn until_free(is_held: impl Fn() -> io::Result<bool> + Send) -> io::Result<bool> {
    let deadline = Instant::now() + MOMENT;
    while is_held()? {
        if Instant::now() >= deadline {
            return Ok(true);
        }
        sleep(TRY).await;
    }
    Ok(false)
}

/// Whether a program has any of the pipes in a folder, apart from one. Those that nobody has are put away.
///
/// # Errors
///
/// The folder, or a pipe in it, cannot be looked at.
pub fn is_any_held(folder: &Path, but: Option<&Path>) -> io::Result<bool> {
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        entries => entries?,
    };
    let mut any = false;
    for entry in entries {
        let path = entry?.path();
        any |= Some(&*path) != but && is_held(&path)?;
    }
    Ok(any)
}

/// Forgets a pipe, whoever has it.
///
/// # Errors
///
/// It cannot be removed.
pub fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;
    use tokio::process::Command;
    use tokio::time::timeout;

    use super::*;

    async fn until_free(path: &Path) {
        let free = async {
            while is_held(path).unwrap() {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(Duration::from_secs(30), free)
            .await
            .expect("it is let go of");
    }

    #[tokio::test]
    async fn a_pipe_is_held_as_long_as_a_child_has_it_though_the_program_is_gone_and_so_are_we() {
        let folder = tempfile::tempdir().unwrap();
        let (path, go) = (folder.path().join("out/one"), folder.path().join("go"));
        rustix::fs::mknodat(CWD, &go, FileType::Fifo, Mode::RWXU, 0).unwrap();
        let (stdout, reader, _) = Outlet::make(&path).unwrap().split();
        let mut command = Command::new("/bin/sh");
        // What it leaves behind without the pipe is none of our business.
        command
            .args([
                "-c",
                "sleep 60 >/dev/null & echo $!; { cat \"$0\"; } & wait $!",
            ])
            .arg(&go);
        let mut child = command.stdout(stdout).spawn().unwrap();
        drop(command);
        let mut reader = tokio::io::BufReader::new(reader);
        let mut job = String::new();
        timeout(
            Duration::from_secs(30),
            tokio::io::AsyncBufReadExt::read_line(&mut reader, &mut job),
        )
        .await
        .unwrap()
        .unwrap();
        drop(reader);
        child.kill().await.unwrap();
        assert!(is_held(&path).unwrap(), "the child has it");
        // It opens, and ends.
        drop(std::fs::OpenOptions::new().write(true).open(&go).unwrap());
        until_free(&path).await;
        assert!(!path.exists(), "it is put away");
        let job: i32 = job.trim().parse().unwrap();
        let job = rustix::process::Pid::from_raw(job).unwrap();
        rustix::process::kill_process(job, rustix::process::Signal::KILL).expect("the job lives");
    }

    #[tokio::test]
    async fn it_is_a_pipe_like_another() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("one");
        let (stdout, mut reader, _) = Outlet::make(&path).unwrap().split();
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "head -c 300000 /dev/zero"]);
        let mut child = command.stdout(stdout).spawn().unwrap();
        drop(command);
        let mut read = Vec::new();
        timeout(Duration::from_secs(30), reader.read_to_end(&mut read))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(read.len(), 300_000);
        assert!(child.wait().await.unwrap().success());
        assert!(!is_held(&path).unwrap());
        assert!(!is_held(&folder.path().join("none")).unwrap());
        std::fs::write(&path, "no pipe").unwrap();
        assert!(!is_held(&path).unwrap(), "another file is nobody's stdout");
    }
}
