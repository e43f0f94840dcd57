//! Makes a child.

use std::ffi::{CStr, c_char, c_int};
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::ptr;

use super::{check, empty_set, pipe, wait_for, wipe};
use crate::end::Step;

/// C strings in one block that is wiped on drop.
#[derive(Default)]
pub(crate) struct Strings {
    bytes: Vec<u8>,
    starts: Vec<usize>,
}

impl Strings {
    /// Room for so many bytes, so that growing leaves no copies behind.
    pub(crate) fn with_capacity(bytes: usize) -> Self {
        Self {
            bytes: Vec::with_capacity(bytes),
            starts: Vec::new(),
        }
    }

    /// Adds the string that `parts` make together; they must hold no zero byte.
    pub(crate) fn push(&mut self, parts: &[&[u8]]) {
        self.starts.push(self.bytes.len());
        for part in parts {
            self.bytes.extend_from_slice(part);
        }
        self.bytes.push(0);
    }

    fn pointers(&self) -> Vec<*const c_char> {
        let strings = self
            .starts
            .iter()
            .map(|&start| self.bytes[start..].as_ptr().cast());
        strings.chain([ptr::null()]).collect()
    }
}

impl Drop for Strings {
    fn drop(&mut self) {
        wipe(&mut self.bytes);
    }
}

/// What is executed.
pub(crate) struct Exec<'a> {
    /// Paths to try in turn.
    pub(crate) programs: &'a Strings,
    pub(crate) argv: &'a Strings,
    pub(crate) env: &'a Strings,
    /// A folder to be entered before `cwd`.
    pub(crate) home: Option<BorrowedFd<'a>>,
    pub(crate) cwd: Option<&'a CStr>,
    /// The folder of the control group.
    pub(crate) cgroup: Option<&'a CStr>,
    pub(crate) out: BorrowedFd<'a>,
    pub(crate) err: BorrowedFd<'a>,
}

/// The same as plain pointers and numbers, so that nothing is allocated between fork and exec.
struct Plan<'a> {
    exec: &'a Exec<'a>,
    programs: Vec<*const c_char>,
    argv: Vec<*const c_char>,
    env: Vec<*const c_char>,
    no_signals: libc::sigset_t,
    parent: libc::pid_t,
    report: c_int,
    /// The folder of the control group that the child must join by itself.
    join: Option<c_int>,
}

/// Starts a child in a session of its own, which dies with this process. Returns once it executes the program.
pub(crate) fn spawn(exec: &Exec<'_>) -> Result<u32, (Step, i32)> {
    let process = |error: io::Error| (Step::Process, error.raw_os_error().unwrap_or(0));
    let (reports, report) = pipe().map_err(process)?;
    let cgroup = exec.cgroup.map(open_folder).transpose();
    let cgroup = cgroup.map_err(|error| (Step::Cgroup, error.raw_os_error().unwrap_or(0)))?;
    let mut plan = Plan {
        exec,
        programs: exec.programs.pointers(),
        argv: exec.argv.pointers(),
        env: exec.env.pointers(),
        no_signals: empty_set(),
        // SAFETY: no pointers.
        parent: unsafe { libc::getpid() },
        report: report.as_raw_fd(),
        join: None,
    };
    // SAFETY: this process has one thread, so that the child may do whatever the parent may; it only makes system
    // calls, and ends in `execve` or `_exit`.
    let fork = || check(unsafe { libc::fork() });
    let pid = match &cgroup {
        // SAFETY: as above.
        Some(folder) => unsafe { fork_into(folder) }.or_else(|_| {
            plan.join = Some(folder.as_raw_fd());
            fork()
        }),
        None => fork(),
    };
    let pid = pid.map_err(process)?;
    if pid == 0 {
        // SAFETY: this is the child, and `plan` with all it borrows lives in its copy of the memory.
        unsafe { run_child(&plan) }
    }
    drop(report);
    let mut failure = [0; 8];
    if File::from(reports).read_exact(&mut failure).is_err() {
        return Ok(pid.unsigned_abs());
    }
    wait_for(pid);
    let [step, errno] =
        [0, 4].map(|at| i32::from_ne_bytes(failure[at..at + 4].try_into().expect("four bytes")));
    let step = usize::try_from(step)
        .ok()
        .and_then(|step| CHILD_STEPS.get(step))
        .copied();
    Err((step.unwrap_or(Step::Process), errno))
}

fn open_folder(path: &CStr) -> io::Result<OwnedFd> {
    let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC;
    // SAFETY: `path` is a C string.
    let fd = check(unsafe { libc::open(path.as_ptr(), flags) })?;
    // SAFETY: it was just opened, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// As `fork`, with the child in this control group from its first moment. A child that joins later, by a write to
/// `cgroup.procs`, waits some 15 ms until every processor has been quiet. Fails before Linux 5.7 and where a sandbox
/// does not know the call.
///
/// # Safety
///
/// As `fork`; besides, the child must not use what the C library knows about threads: it thinks to be its parent.
unsafe fn fork_into(folder: &OwnedFd) -> io::Result<libc::pid_t> {
    const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
    let mut args = [0_u64; 11];
    args[0] = CLONE_INTO_CGROUP;
    args[4] = libc::SIGCHLD.unsigned_abs().into();
    args[10] = folder.as_raw_fd().unsigned_abs().into();
    // SAFETY: `args` is a `struct clone_args` (flags first, exit_signal fifth, cgroup last), without a stack of its own.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, args.as_ptr(), size_of_val(&args)) };
    match libc::pid_t::try_from(pid) {
        Ok(pid) if pid >= 0 => Ok(pid),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The steps that a child can report, by the number that it does it with.
const CHILD_STEPS: [Step; 5] = [
    Step::Process,
    Step::Cgroup,
    Step::WorkingDirectory,
    Step::Program,
    Step::Interpreter,
];

/// # Safety
///
/// To be called in a forked child only; the pointers in `plan` must be valid C strings and null-terminated lists.
unsafe fn run_child(plan: &Plan<'_>) -> ! {
    // SAFETY: as promised by the caller.
    let (step, errno) = unsafe { prepare_and_exec(plan) };
    let number = CHILD_STEPS
        .iter()
        .position(|&known| known == step)
        .unwrap_or(0);
    let mut report = [0; 8];
    report[..4].copy_from_slice(&i32::try_from(number).unwrap_or(0).to_ne_bytes());
    report[4..].copy_from_slice(&errno.to_ne_bytes());
    // SAFETY: the pipe is open, and `report` has that many bytes; `_exit` ends the child without running what belongs
    // to the parent.
    unsafe {
        libc::write(plan.report, report.as_ptr().cast(), report.len());
        libc::_exit(127)
    }
}

fn errno() -> i32 {
    io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

/// Returns only what failed.
///
/// # Safety
///
/// As [`run_child`].
unsafe fn prepare_and_exec(plan: &Plan<'_>) -> (Step, i32) {
    // SAFETY: as promised by the caller; descriptors are borrowed and so open.
    unsafe {
        if libc::setsid() < 0 || libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) < 0 {
            return (Step::Process, errno());
        }
        if libc::getppid() != plan.parent {
            // It died before it could be watched.
            libc::_exit(127);
        }
        if let Some(folder) = plan.join {
            let flags = libc::O_WRONLY | libc::O_CLOEXEC;
            let fd = libc::openat(folder, c"cgroup.procs".as_ptr(), flags);
            if fd < 0 || libc::write(fd, c"0".as_ptr().cast(), 1) < 0 {
                return (Step::Cgroup, errno());
            }
        }
        let (out, err) = (plan.exec.out.as_raw_fd(), plan.exec.err.as_raw_fd());
        if libc::dup2(out, 1) < 0 || libc::dup2(err, 2) < 0 {
            return (Step::Process, errno());
        }
        let home = plan.exec.home.map(|home| home.as_raw_fd());
        if home.is_some_and(|home| libc::fchdir(home) < 0) {
            return (Step::WorkingDirectory, errno());
        }
        let cwd = plan.exec.cwd.map(CStr::as_ptr);
        if cwd.is_some_and(|cwd| libc::chdir(cwd) < 0) {
            return (Step::WorkingDirectory, errno());
        }
        for signal in 1..=64 {
            // Not by the C library, which keeps two signals to itself.
            let default = [0_u64; 4];
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                default.as_ptr(),
                ptr::null::<u64>(),
                size_of::<u64>(),
            );
        }
        libc::sigprocmask(
            libc::SIG_SETMASK,
            &raw const plan.no_signals,
            ptr::null_mut(),
        );
        try_programs(plan)
    }
}

/// As `execvp`, but a file that is no program is an error instead of a shell script.
///
/// # Safety
///
/// As [`run_child`].
unsafe fn try_programs(plan: &Plan<'_>) -> (Step, i32) {
    let mut failure = (Step::Program, libc::ENOENT);
    for &program in plan
        .programs
        .iter()
        .take_while(|program| !program.is_null())
    {
        // SAFETY: as promised by the caller.
        unsafe { libc::execve(program, plan.argv.as_ptr(), plan.env.as_ptr()) };
        match errno() {
            libc::ENOENT => {
                // SAFETY: `program` is a C string.
                if unsafe { libc::access(program, libc::F_OK) } == 0 {
                    failure = (Step::Interpreter, libc::ENOENT);
                }
            }
            libc::ENOTDIR => {}
            libc::EACCES => failure = (Step::Program, libc::EACCES),
            other => return (Step::Program, other),
        }
    }
    failure
}
