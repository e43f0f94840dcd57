//! Makes the workload's first process.

use std::ffi::CString;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;

use crate::COOKIE_VARIABLE;
use crate::end::{SpawnFailure, Step};
use crate::payload::Payload;
use crate::sys::{self, Exec, Strings};

const DEFAULT_PATH: &[u8] = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A child, just started.
pub(crate) struct Spawned {
    pub(crate) pid: u32,
    pub(crate) out: OwnedFd,
    pub(crate) err: OwnedFd,
}

/// Where a workload runs.
#[derive(Clone, Copy)]
pub(crate) enum Place<'a> {
    /// On this machine, among others.
    Machine,
    /// In a container of its own.
    Container {
        /// Where the engine has started the helper.
        home: BorrowedFd<'a>,
    },
}

/// Starts the command of a payload.
pub(crate) fn spawn(payload: &Payload, place: Place<'_>) -> Result<Spawned, SpawnFailure> {
    let failure = |step, errno| SpawnFailure {
        step,
        errno,
        program: payload.argv[0].clone(),
    };
    let pipe =
        || sys::pipe().map_err(|error| failure(Step::Process, error.raw_os_error().unwrap_or(0)));
    let (out, out_end) = pipe()?;
    let (err, err_end) = pipe()?;
    for pipe in [&out, &err] {
        sys::set_nonblocking(pipe.as_fd())
            .map_err(|error| failure(Step::Process, error.raw_os_error().unwrap_or(0)))?;
    }
    let text = |bytes: &[u8]| CString::new(bytes).map_err(|_| failure(Step::Process, libc::EINVAL));
    let (home, cwd) = match place {
        Place::Machine => (None, Some(payload.cwd.as_deref().unwrap_or(b"/"))),
        Place::Container { home } => (Some(home), payload.cwd.as_deref()),
    };
    let cwd = cwd.map(text).transpose()?;
    let cgroup = payload.cgroup.as_deref().map(text).transpose()?;
    let env = environment(payload, place);
    let exec = Exec {
        programs: &programs(payload),
        argv: &arguments(payload),
        env: &env,
        home,
        cwd: cwd.as_deref(),
        cgroup: cgroup.as_deref(),
        out: out_end.as_fd(),
        err: err_end.as_fd(),
    };
    let pid = sys::spawn(&exec).map_err(|(step, errno)| failure(step, errno))?;
    Ok(Spawned { pid, out, err })
}

fn arguments(payload: &Payload) -> Strings {
    let mut strings = Strings::default();
    for word in &payload.argv {
        strings.push(&[word]);
    }
    strings
}

fn environment(payload: &Payload, place: Place<'_>) -> Strings {
    let folder = payload.private_dir.as_deref().unwrap_or_default();
    let inherited = inherited(payload);
    let cookie = matches!(place, Place::Machine).then(|| payload.cookie());
    let mut variables: Vec<[&[u8]; 5]> = Vec::new();
    for (name, value) in &inherited {
        variables.push([name, b"=", value, b"", b""]);
    }
    for (name, value) in &payload.env {
        variables.push([name, b"=", value.expose(), b"", b""]);
    }
    for file in &payload.files {
        if let Some(name) = &file.env {
            variables.push([name, b"=", folder, b"/", &file.name]);
        }
    }
    if let Some(cookie) = &cookie {
        variables.push([
            COOKIE_VARIABLE.as_bytes(),
            b"=",
            cookie.as_bytes(),
            b"",
            b"",
        ]);
    }
    let room: usize = variables.iter().flatten().map(|part| part.len()).sum();
    let mut strings = Strings::with_capacity(room + variables.len());
    for variable in &variables {
        strings.push(variable);
    }
    strings
}

/// The helper's own variables that the payload wants and does not override.
fn inherited(payload: &Payload) -> Vec<(Vec<u8>, Vec<u8>)> {
    if !payload.inherit {
        return Vec::new();
    }
    let of_files = payload.files.iter().filter_map(|file| file.env.as_ref());
    let overridden: Vec<&Vec<u8>> = payload
        .env
        .iter()
        .map(|(name, _)| name)
        .chain(of_files)
        .collect();
    std::env::vars_os()
        .map(|(name, value)| (name.into_vec(), value.into_vec()))
        .filter(|(name, _)| !overridden.contains(&name))
        .collect()
}

/// The paths that the command may have, by the child's own `PATH`.
fn programs(payload: &Payload) -> Strings {
    let program = &payload.argv[0];
    let mut strings = Strings::default();
    if program.contains(&b'/') {
        strings.push(&[program]);
        return strings;
    }
    let own = payload
        .inherit
        .then(|| std::env::var_os("PATH"))
        .flatten()
        .map(OsStringExt::into_vec);
    let path = payload
        .env
        .iter()
        .find(|(name, _)| name == b"PATH")
        .map(|(_, value)| value.expose())
        .or(own.as_deref());
    for folder in path.unwrap_or(DEFAULT_PATH).split(|&byte| byte == b':') {
        strings.push(&[if folder.is_empty() { b"." } else { folder }, b"/", program]);
    }
    strings
}
