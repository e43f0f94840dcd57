//! The first role: beside a run on this machine, from its folder to the record of its end.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::child::Place;
use crate::clock;
use crate::end::{End, How};
use crate::folder::{self, Claim, Control};
use crate::memory::{Kills, Standing};
use crate::payload::{Decoder, Payload, PayloadError, Private};
use crate::report::{Report, exit};
use crate::started::Started;
use crate::supervise::{Kill, Orders};
use crate::sys::{self, SignalFd, let_go};
use crate::tree;
use crate::workload::{self, Running, Watch};
use crate::writer::Writer;

/// How often gaps that are due are tried at the end, and how long it waits in between.
const SETTLE_TRIES: u32 = 20;
const SETTLE_PAUSE: Duration = Duration::from_millis(50);

/// The exit code.
pub(crate) fn main(folder: &Path) -> u8 {
    match run(folder) {
        Ok(code) => code,
        Err(report) => answer(&report),
    }
}

/// The report of a failure of the folder of the run.
fn failed(what: &str) -> impl FnOnce(io::Error) -> Report + '_ {
    move |error| Report::Failed {
        errno: error.raw_os_error().unwrap_or(0),
        what: what.to_owned(),
    }
}

/// Writes the line of report and lets go of the standard descriptors; the exit code that goes with it.
fn answer(report: &Report) -> u8 {
    // The runner may be gone; the run goes on.
    if let Ok(stdout) = io::stdout().as_fd().try_clone_to_owned() {
        drop(File::from(stdout).write_all(format!("{report}\n").as_bytes()));
    }
    for place in [1, 2] {
        let_go(place);
    }
    report.exit_code()
}

/// Does it all; an error is what was reported instead of a start.
fn run(folder: &Path) -> Result<u8, Report> {
    for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGPIPE] {
        sys::ignore(signal);
    }
    // Fails only for one that leads a session already.
    drop(sys::lead_session());
    let standing = Standing::open();
    sys::harden(c"hr-helper").map_err(failed("protect the helper"))?;
    std::env::set_current_dir(folder).map_err(failed("enter the folder of the run"))?;
    let log = folder::lock_log()
        .map_err(failed("open the log"))?
        .ok_or(Report::Busy)?;
    let payload = read_payload()?;
    // The workload's standard input, too.
    let_go(0);
    if folder::was_used().map_err(failed("look into the folder of the run"))? {
        return Err(Report::Already);
    }
    // First the FIFO, then the look for a request: one that comes later finds it open.
    let control = Control::open().map_err(failed("open the control FIFO"))?;
    let signals =
        sys::signal_fd(&[libc::SIGCHLD, libc::SIGTERM]).map_err(failed("receive signals"))?;
    if let Some(stop) = folder::stop_request(payload.grace) {
        let end = not_started(How::Stopped { by: stop.by });
        folder::write_end(&end).map_err(failed("write the end"))?;
        return Ok(answer(&Report::Stopped));
    }
    start(payload, log, standing.as_ref(), control, signals)
}

fn read_payload() -> Result<Payload, Report> {
    let bad = |error: PayloadError| Report::BadPayload(error.to_string());
    // Not through the buffer of `std`, which would keep values.
    let stdin = io::stdin()
        .as_fd()
        .try_clone_to_owned()
        .map_err(failed("read the payload"))?;
    let mut stdin = File::from(stdin);
    let mut decoder = Decoder::new();
    let mut buffer: Private = vec![0; 16 << 10].into();
    loop {
        let read = match stdin.read(buffer.expose_mut()) {
            Ok(0) => return Err(bad(decoder.end())),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(failed("read the payload")(error)),
        };
        if let Some(payload) = decoder.push(&mut &buffer.expose()[..read]).map_err(bad)? {
            return Ok(payload);
        }
    }
}

fn not_started(how: How) -> End {
    End {
        how,
        started: None,
        ended: clock::now_micros(),
        spool: 0,
        masked: 0,
        over_limit: 0,
        disk_full: 0,
        oom_kills: 0,
        left: 0,
    }
}

/// The record of a start before there is a child.
fn starting(payload: &Payload) -> Started {
    Started {
        helper: std::process::id(),
        boot: fs::read_to_string("/proc/sys/kernel/random/boot_id")
            .unwrap_or_default()
            .trim()
            .to_owned(),
        cookie: payload.cookie(),
        private_dir: payload.private_dir.clone(),
        cgroup: payload.cgroup.clone(),
        child: None,
    }
}

fn start(
    payload: Payload,
    log: File,
    standing: Option<&Standing>,
    control: Control,
    signals: SignalFd,
) -> Result<u8, Report> {
    folder::reserve_end().map_err(failed("reserve room for the end"))?;
    let length = log.metadata().map_err(failed("open the log"))?.len();
    let mut started = starting(&payload);
    let claim = Claim::create(&started)
        .map_err(failed("record the start"))?
        .ok_or(Report::Already)?;
    let running = match workload::launch(&payload, Place::Machine, standing) {
        Ok(running) => running,
        Err(failure) => {
            folder::write_end(&not_started(How::SpawnFailed(failure)))
                .map_err(failed("write the end"))?;
            return Ok(answer(&Report::SpawnFailed));
        }
    };
    let child = running.child;
    started.child = Some(child);
    // Where this fails, the record still says that the run was started, and how its leftovers are found.
    drop(claim.complete(&started));
    answer(&Report::Started {
        pid: child.pid,
        time: child.time,
    });
    let writer = Writer::new(log, length, payload.spool_limit);
    Ok(watch(payload, running, writer, control, signals))
}

/// Watches to the end, and records it.
fn watch(
    payload: Payload,
    running: Running,
    mut writer: Writer<File>,
    control: Control,
    mut signals: SignalFd,
) -> u8 {
    let started = running.child.time;
    let cgroup = payload
        .cgroup
        .as_deref()
        .map(|path| PathBuf::from(OsStr::from_bytes(path)));
    let watch = Watch {
        signals: &mut signals,
        orders: Orders::Fifo(control),
        kill: match &cgroup {
            Some(folder) => Kill::Group(folder.join("cgroup.kill")),
            None => Kill::Tree,
        },
        outlet: &mut writer,
        memory: cgroup.as_deref().map(Kills::of_group),
    };
    let Ok(ended) = workload::watch(payload, running, watch) else {
        // It cannot be watched, so it must not go on; without a record of the end it counts as lost.
        tree::signal_all(libc::SIGKILL);
        return exit::FAILED;
    };
    for _ in 0..SETTLE_TRIES {
        if writer.settle() {
            break;
        }
        clock::pause(SETTLE_PAUSE);
    }
    if let Some(folder) = cgroup {
        // Empty now; where something is left in it, the runner removes it with the run.
        drop(fs::remove_dir(folder));
    }
    let outcome = ended.outcome;
    let end = End {
        started: Some(started),
        ended: outcome.ended,
        spool: writer.len(),
        masked: ended.masked,
        over_limit: writer.over_limit(),
        disk_full: writer.disk_full(),
        oom_kills: ended.oom_kills,
        left: outcome.left,
        ..not_started(outcome.how)
    };
    if folder::write_end(&end).is_ok() {
        exit::DONE
    } else {
        exit::FAILED
    }
}
