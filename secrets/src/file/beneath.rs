//! Opening a file that cannot be outside of its folder.

use std::ffi::{CString, OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::{Errno, Result};

/// As many links as the kernel follows.
const MAX_LINKS: usize = 40;
/// How often a lookup is tried again that a rename beside it has disturbed.
const TRIES: usize = 8;

/// Opens for reading, without waiting for the other end of a FIFO.
const READ: OFlags = OFlags::RDONLY
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY)
    .union(OFlags::CLOEXEC);

/// Opens a file below `folder`; a link that leaves the folder is `XDEV`, at no moment followed.
pub(super) fn open(folder: impl AsFd, relative: &str) -> Result<OwnedFd> {
    match by_kernel(&folder, relative) {
        // No `openat2` here, or a sandbox that forbids what it does not know.
        Err(Errno::NOSYS | Errno::PERM) => by_steps(folder, relative),
        answer => answer,
    }
}

fn by_kernel(folder: impl AsFd, relative: &str) -> Result<OwnedFd> {
    let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    for _ in 1..TRIES {
        match rustix::fs::openat2(&folder, relative, READ, Mode::empty(), beneath) {
            Err(Errno::AGAIN) => {}
            answer => return answer,
        }
    }
    rustix::fs::openat2(&folder, relative, READ, Mode::empty(), beneath)
}

/// Resolves step by step, links by hand: each step is one `openat` that follows nothing.
fn by_steps(folder: impl AsFd, relative: &str) -> Result<OwnedFd> {
    let mut above = vec![rustix::fs::openat(
        folder,
        ".",
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?];
    let mut todo = steps(OsStr::new(relative));
    let mut links = 0;
    while let Some(step) = todo.pop() {
        if step == ".." {
            above.pop();
        }
        let here = above.last().ok_or(Errno::XDEV)?;
        if step == ".." {
            continue;
        }
        let look = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let found = rustix::fs::openat(here, &step, look, Mode::empty())?;
        match FileType::from_raw_mode(rustix::fs::fstat(&found)?.st_mode) {
            FileType::Symlink => {
                links += 1;
                let target: CString = rustix::fs::readlinkat(&found, c"", Vec::new())?;
                if links > MAX_LINKS {
                    return Err(Errno::LOOP);
                }
                if target.to_bytes().starts_with(b"/") {
                    return Err(Errno::XDEV);
                }
                todo.extend(steps(OsStr::from_bytes(target.to_bytes())));
            }
            FileType::Directory => above.push(found),
            _ if !todo.is_empty() => return Err(Errno::NOTDIR),
            _ => return rustix::fs::openat(here, &step, READ | OFlags::NOFOLLOW, Mode::empty()),
        }
    }
    let last = above.last().ok_or(Errno::XDEV)?;
    rustix::fs::openat(last, ".", READ, Mode::empty())
}

/// The parts of a path, the first one last.
fn steps(path: &OsStr) -> Vec<OsString> {
    path.as_bytes()
        .split(|byte| *byte == b'/')
        .rev()
        .filter(|part| !part.is_empty() && *part != b".")
        .map(|part| OsString::from_vec(part.to_vec()))
        .collect()
}

/// Whether the folder itself can be searched.
pub(super) fn search(folder: impl AsFd) -> Result<()> {
    rustix::fs::statat(folder, "./.", AtFlags::empty()).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn both_ways_open_and_refuse_the_same() {
        let outer = tempfile::tempdir().unwrap();
        fs::write(outer.path().join("outside"), "o").unwrap();
        let inside = outer.path().join("in");
        fs::create_dir_all(inside.join("..1/sub")).unwrap();
        fs::write(inside.join("..1/key"), "v").unwrap();
        symlink("..1", inside.join("..data")).unwrap();
        symlink("..data/key", inside.join("key")).unwrap();
        symlink("../key", inside.join("..1/up")).unwrap();
        symlink("../outside", inside.join("leaves")).unwrap();
        symlink(inside.join("..1/key"), inside.join("absolute")).unwrap();
        symlink("loop", inside.join("loop")).unwrap();
        symlink("..1/sub", inside.join("folder")).unwrap();
        let folder = fs::File::open(&inside).unwrap();
        for (name, want) in [
            ("key", Ok(())),
            ("..data/key", Ok(())),
            ("..1/up", Ok(())),
            ("folder", Ok(())),
            ("leaves", Err(Errno::XDEV)),
            ("absolute", Err(Errno::XDEV)),
            ("../outside", Err(Errno::XDEV)),
            ("loop", Err(Errno::LOOP)),
            ("gone", Err(Errno::NOENT)),
            ("key/x", Err(Errno::NOTDIR)),
        ] {
            assert_eq!(by_steps(&folder, name).map(drop), want, "steps: {name}");
            match by_kernel(&folder, name).map(drop) {
                Err(Errno::NOSYS | Errno::PERM) => {}
                answer => assert_eq!(answer, want, "kernel: {name}"),
            }
        }
    }
}
