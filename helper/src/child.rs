//! Makes the workload's first process.

use std::ffi::CString;
use std::os::fd::{AsFd as _, OwnedFd};

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

/// Starts the command of a payload.
pub(crate) fn spawn(payload: &Payload, cookie: &str) -> Result<Spawned, SpawnFailure> {
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
    let cwd = text(payload.cwd.as_deref().unwrap_or(b"/"))?;
    let cgroup = payload.cgroup.as_deref().map(text).transpose()?;
    let exec = Exec {
        programs: &programs(payload),
        argv: &arguments(payload),
        env: &environment(payload, cookie),
        cwd: &cwd,
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

fn environment(payload: &Payload, cookie: &str) -> Strings {
    let folder = payload.private_dir.as_deref().unwrap_or_default();
    let variables: usize = payload
        .env
        .iter()
        .map(|(name, value)| name.len() + value.expose().len() + 2)
        .sum();
    let paths: usize = payload
        .files
        .iter()
        .filter_map(|file| Some(file.env.as_ref()?.len() + file.name.len()))
        .sum();
    let room = variables
        + paths
        + payload.files.len() * (folder.len() + 3)
        + COOKIE_VARIABLE.len()
        + cookie.len()
        + 2;
    let mut strings = Strings::with_capacity(room);
    for (name, value) in &payload.env {
        strings.push(&[name, b"=", value.expose()]);
    }
    for file in &payload.files {
        if let Some(name) = &file.env {
            strings.push(&[name, b"=", folder, b"/", &file.name]);
        }
    }
    strings.push(&[COOKIE_VARIABLE.as_bytes(), b"=", cookie.as_bytes()]);
    strings
}

/// The paths that the command may have, by the child's own `PATH`.
fn programs(payload: &Payload) -> Strings {
    let program = &payload.argv[0];
    let mut strings = Strings::default();
    if program.contains(&b'/') {
        strings.push(&[program]);
        return strings;
    }
    let path = payload
        .env
        .iter()
        .find(|(name, _)| name == b"PATH")
        .map(|(_, value)| value.expose());
    for folder in path.unwrap_or(DEFAULT_PATH).split(|&byte| byte == b':') {
        strings.push(&[if folder.is_empty() { b"." } else { folder }, b"/", program]);
    }
    strings
}
