//! The system calls that `std` does not have, as safe functions: the only unsafe code of the workspace.
#![expect(
    unsafe_code,
    reason = "safe wrappers of system calls, each with the reason why it is sound"
)]

mod spawn;

use std::ffi::{CStr, c_int};
use std::fs::File;
use std::io::{self, Read as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::ExitStatus;
use std::ptr;
use std::time::Duration;

pub(crate) use spawn::{Exec, Strings, spawn};

/// Overwrites bytes so that the compiler cannot leave it out.
pub(crate) fn wipe(bytes: &mut [u8]) {
    for byte in bytes {
        // SAFETY: `byte` is a valid, aligned, exclusive reference.
        unsafe { ptr::write_volatile(byte, 0) };
    }
}

fn check(result: c_int) -> io::Result<c_int> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// The same for what `syscall` gives.
fn check_long(result: libc::c_long) -> io::Result<c_int> {
    check(c_int::try_from(result).unwrap_or(-1))
}

/// Repeats a call as long as a signal interrupts it.
fn retry(mut call: impl FnMut() -> c_int) -> io::Result<c_int> {
    loop {
        match check(call()) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Makes this process the leader of a session, so that no terminal and no group signal of its parent reaches it.
pub(crate) fn lead_session() -> io::Result<()> {
    // SAFETY: no pointers.
    check(unsafe { libc::setsid() }).map(drop)
}

/// Makes the child of a command the leader of a session. Not for one that is to lead a process group of its parent's session.
pub(crate) fn lead_session_as(command: &mut std::process::Command) {
    // SAFETY: between fork and exec one system call is made, which is async-signal-safe, and nothing is allocated.
    unsafe { command.pre_exec(lead_session) };
}

/// Gives this process a name, the orphans of its descendants, and keeps its memory to itself: no core dump, no reader
/// in `/proc` but root.
pub(crate) fn harden(name: &CStr) -> io::Result<()> {
    let none = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `name` is a C string, and `none` a valid limit, both live during the calls.
    unsafe {
        check(libc::prctl(libc::PR_SET_NAME, name.as_ptr()))?;
        check(libc::prctl(libc::PR_SET_DUMPABLE, 0))?;
        check(libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1))?;
        check(libc::setrlimit(libc::RLIMIT_CORE, &raw const none))?;
    }
    Ok(())
}

/// Closes all descriptors but the first three.
pub(crate) fn close_inherited() {
    // SAFETY: called first in `main`; nothing owns a descriptor above 2 yet.
    let closed = unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0) };
    if closed == 0 {
        return;
    }
    let Ok(entries) = std::fs::read_dir("/proc/self/fd") else {
        return;
    };
    let open: Vec<c_int> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    for fd in open.into_iter().filter(|&fd| fd > 2) {
        // SAFETY: as above; the folder itself is closed already, and closing a free number does nothing.
        unsafe { libc::close(fd) };
    }
}

/// Ignores a signal.
pub(crate) fn ignore(signal: c_int) {
    // SAFETY: no handler is installed.
    unsafe { libc::signal(signal, libc::SIG_IGN) };
}

/// Gives freed memory back to the system.
pub(crate) fn trim_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: no pointers; it may be called at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Takes the exclusive lock of a file without waiting; `false` if another has it.
pub(crate) fn try_lock(file: BorrowedFd<'_>) -> io::Result<bool> {
    // SAFETY: the descriptor is borrowed and so open.
    match retry(|| unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) }) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        Err(error) => Err(error),
    }
}

/// What is left for this user of the file system of a file, and how large that is, in bytes.
pub(crate) fn room(file: BorrowedFd<'_>) -> io::Result<(u64, u64)> {
    let mut found = MaybeUninit::<libc::statvfs>::zeroed();
    // SAFETY: the descriptor is borrowed and so open; `found` is valid to write.
    check(unsafe { libc::fstatvfs(file.as_raw_fd(), found.as_mut_ptr()) })?;
    // SAFETY: all of its fields are numbers, for which zero is a value too.
    let found = unsafe { found.assume_init() };
    let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
    Ok((bytes(found.f_bavail), bytes(found.f_blocks)))
}

/// Makes a FIFO that only this user can use.
pub(crate) fn make_fifo(path: &CStr) -> io::Result<()> {
    // SAFETY: `path` is a C string.
    check(unsafe { libc::mkfifo(path.as_ptr(), 0o600) }).map(drop)
}

/// Makes a pipe: the end to read, the end to write.
pub(crate) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut fds = [-1; 2];
    // SAFETY: there is room for two descriptors.
    check(unsafe { libc::pipe2(fds.as_mut_ptr(), libc::O_CLOEXEC) })?;
    // SAFETY: the call succeeded, so both are open and nobody else owns them.
    Ok(unsafe { (OwnedFd::from_raw_fd(fds[0]), OwnedFd::from_raw_fd(fds[1])) })
}

/// Lets reads and writes return at once.
pub(crate) fn set_nonblocking(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: the descriptor is borrowed and so open; no pointers.
    let flags = check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) })?;
    // SAFETY: as above.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, flags | libc::O_NONBLOCK) }).map(drop)
}

/// Asks for a larger pipe.
pub(crate) fn set_pipe_size(fd: BorrowedFd<'_>, size: c_int) -> io::Result<()> {
    // SAFETY: the descriptor is borrowed and so open; no pointers.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETPIPE_SZ, size) }).map(drop)
}

/// Puts `/dev/null` in the place of a standard descriptor, so that its other end sees it closed; where there is none, a
/// pipe without another end.
pub(crate) fn let_go(place: c_int) {
    let null = File::options().read(true).write(true).open("/dev/null");
    let nothing = null.map(OwnedFd::from).or_else(|_| {
        let (read, write) = pipe()?;
        io::Result::Ok(if place == 0 { read } else { write })
    });
    if let Ok(nothing) = nothing {
        drop(replace_standard(nothing.as_fd(), place));
    }
}

/// Puts `fd` in the place of the standard descriptor `place`.
fn replace_standard(fd: BorrowedFd<'_>, place: c_int) -> io::Result<()> {
    assert!(
        (0..=2).contains(&place),
        "only standard descriptors are replaced"
    );
    // SAFETY: nothing owns the standard descriptors; `std` uses them by number.
    retry(|| unsafe { libc::dup2(fd.as_raw_fd(), place) }).map(drop)
}

/// The clock for deadlines. It stands still while the machine sleeps, so that nothing times out by being asleep.
pub(crate) fn monotonic() -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is valid to write; this clock exists on every Linux.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    Duration::new(
        time.tv_sec.unsigned_abs(),
        u32::try_from(time.tv_nsec).unwrap_or(0),
    )
}

/// What is waited for.
#[derive(Clone, Copy)]
pub(crate) enum Wait<'a> {
    /// Nothing.
    Never,
    /// That something can be read from it, or that it has ended.
    Read(BorrowedFd<'a>),
    /// That something can be written to it, or that nobody reads it.
    Write(BorrowedFd<'a>),
}

/// Waits until one of these happens; says which.
pub(crate) fn poll<const N: usize>(
    waits: [Wait<'_>; N],
    timeout: Option<Duration>,
) -> io::Result<[bool; N]> {
    let mut polls = waits.map(|wait| {
        let (fd, events) = match wait {
            Wait::Never => (-1, 0),
            Wait::Read(fd) => (fd.as_raw_fd(), libc::POLLIN),
            Wait::Write(fd) => (fd.as_raw_fd(), libc::POLLOUT),
        };
        libc::pollfd {
            fd,
            events,
            revents: 0,
        }
    });
    // Rounded up, so that a deadline has passed when the wait ends.
    let millis = timeout.map_or(-1, |wait| {
        c_int::try_from(wait.as_nanos().div_ceil(1_000_000)).unwrap_or(c_int::MAX)
    });
    let count = libc::nfds_t::try_from(N).expect("a handful of descriptors");
    // SAFETY: `polls` has that many entries.
    match check(unsafe { libc::poll(polls.as_mut_ptr(), count, millis) }) {
        Err(error) if error.kind() != io::ErrorKind::Interrupted => Err(error),
        Err(_) => Ok([false; N]),
        Ok(_) => Ok(polls.map(|poll| poll.revents != 0)),
    }
}

/// Blocks `signals` and gives a descriptor from which they are read, without blocking.
pub(crate) fn signal_fd(signals: &[c_int]) -> io::Result<SignalFd> {
    // Not by the C library, which keeps some signals to itself. To the kernel a set is 64 bits.
    let set = signals
        .iter()
        .fold(0_u64, |set, signal| set | 1 << (signal - 1));
    let size = size_of_val(&set);
    // SAFETY: `set` lives during the call and has that size; the old one is not asked for.
    let blocked = unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_BLOCK,
            &raw const set,
            ptr::null_mut::<u64>(),
            size,
        )
    };
    check_long(blocked)?;
    let flags = libc::SFD_CLOEXEC | libc::SFD_NONBLOCK;
    // SAFETY: as above.
    let fd = unsafe { libc::syscall(libc::SYS_signalfd4, -1, &raw const set, size, flags) };
    let fd = check_long(fd)?;
    // SAFETY: the call succeeded, so it is open and nobody else owns it.
    Ok(SignalFd(unsafe { OwnedFd::from_raw_fd(fd) }.into()))
}

fn empty_set() -> libc::sigset_t {
    // SAFETY: a set is plain integers, and is then initialized by `sigemptyset`.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        set
    }
}

/// A descriptor from which signals are read.
pub(crate) struct SignalFd(File);

impl SignalFd {
    /// The next signal that has come.
    pub(crate) fn next(&mut self) -> Option<c_int> {
        let mut info = [0; size_of::<libc::signalfd_siginfo>()];
        self.0.read_exact(&mut info).ok()?;
        let (&signal, _) = info.split_first_chunk()?;
        c_int::try_from(u32::from_ne_bytes(signal)).ok()
    }

    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        std::os::fd::AsFd::as_fd(&self.0)
    }
}

/// What waiting for a child gave.
pub(crate) enum Waited {
    /// This one has ended.
    Ended(u32, ExitStatus),
    /// There are children; none has ended.
    NotYet,
    /// There are no children.
    None,
}

/// Takes notice of the end of any child, without waiting.
pub(crate) fn wait_any() -> Waited {
    let mut status = 0;
    // SAFETY: `status` is valid to write.
    match retry(|| unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) }) {
        Ok(0) => Waited::NotYet,
        Ok(pid) => Waited::Ended(pid.unsigned_abs(), ExitStatus::from_raw(status)),
        Err(_) => Waited::None,
    }
}

/// Waits for one child.
fn wait_for(pid: libc::pid_t) {
    let mut status = 0;
    // SAFETY: `status` is valid to write. An error means that there is nothing to wait for.
    drop(retry(|| unsafe { libc::waitpid(pid, &raw mut status, 0) }));
}

/// Kills all processes of the namespace of which this process is the first, in one go: none can escape by forking.
pub(crate) fn kill_namespace() {
    // SAFETY: no pointers.
    let first = unsafe { libc::getpid() } == 1;
    assert!(first, "only the first process may kill all others");
    // SAFETY: no pointers. An error means that there are no others.
    unsafe { libc::kill(-1, libc::SIGKILL) };
}

/// Sends a signal to a group of processes, also to those that are just being started. Its leader must not have been
/// reaped, or the number may be another's.
pub(crate) fn signal_group(leader: u32, signal: c_int) -> io::Result<()> {
    let leader = libc::pid_t::try_from(leader).map_err(io::Error::other)?;
    assert!(leader > 1, "only groups of our own get signals");
    // SAFETY: no pointers.
    check(unsafe { libc::kill(-leader, signal) }).map(drop)
}

/// Sends a signal to a process if `is_it`, asked after the process was pinned, still holds: so its number cannot pass to
/// another process in between. Kernels before 5.3 cannot pin; there the signal goes to the number.
pub(crate) fn signal(pid: u32, signal: c_int, is_it: impl FnOnce() -> bool) -> io::Result<()> {
    let Ok(pid) = libc::pid_t::try_from(pid) else {
        return Ok(());
    };
    assert!(pid > 1, "only single processes get signals");
    // SAFETY: no pointers.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let pinned = c_int::try_from(fd).ok().filter(|&fd| fd >= 0);
    // SAFETY: the call succeeded, so it is open and nobody else owns it.
    let pinned = pinned.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) });
    if !is_it() {
        return Ok(());
    }
    // SAFETY: no pointers but the null one, which stands for plain information.
    let sent = unsafe {
        match &pinned {
            Some(fd) => libc::syscall(
                libc::SYS_pidfd_send_signal,
                fd.as_raw_fd(),
                signal,
                ptr::null::<libc::siginfo_t>(),
                0,
            ),
            None => libc::c_long::from(libc::kill(pid, signal)),
        }
    };
    if sent < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
