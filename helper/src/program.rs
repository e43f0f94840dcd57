//! What the helper does, from the command line to the record of the end.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use crate::child::{self, Spawned};
use crate::clock;
use crate::end::{End, How, SpawnFailure, Step};
use crate::folder::{self, Claim, Control};
use crate::mask::Patterns;
use crate::output::Stream;
use crate::payload::{Decoder, Payload, PayloadError, Private};
use crate::private::PrivateFolder;
use crate::report::{Report, exit};
use crate::spool::Kind;
use crate::started::{Child, Started};
use crate::supervise::{Limits, Outcome, Supervisor};
use crate::sys::{self, SignalFd};
use crate::tree;
use crate::writer::Writer;

/// How often gaps that are due are tried at the end, and how long it waits in between.
const SETTLE_TRIES: u32 = 20;
const SETTLE_PAUSE: Duration = Duration::from_millis(50);
/// By how much the workload is rather killed for want of memory than its helper.
const OOM_BIAS: i32 = 100;

/// The body of `main`.
pub(crate) fn main(mut args: impl Iterator<Item = OsString>) -> ExitCode {
    sys::close_inherited();
    let (command, folder, rest) = (args.nth(1), args.next(), args.next());
    let (Some(folder), None, Some(b"run")) = (
        folder,
        rest,
        command.as_ref().map(|word| word.as_encoded_bytes()),
    ) else {
        return ExitCode::from(exit::USAGE);
    };
    let code = match run(Path::new(&folder)) {
        Ok(code) => code,
        Err(report) => answer(&report),
    };
    ExitCode::from(code)
}

/// A failure of the folder of the run.
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

/// Puts `/dev/null` in the place of a standard descriptor, so that its other end sees it closed.
fn let_go(place: i32) {
    if let Ok(null) = File::options().read(true).write(true).open("/dev/null") {
        drop(sys::replace_standard(null.as_fd(), place));
    }
}

/// Does it all; an error is what was reported instead of a start.
fn run(folder: &Path) -> Result<u8, Report> {
    for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGPIPE] {
        sys::ignore(signal);
    }
    // Fails only for one that leads a session already.
    drop(sys::lead_session());
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
    start(payload, log, control, signals)
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

fn start(payload: Payload, log: File, control: Control, signals: SignalFd) -> Result<u8, Report> {
    folder::reserve_end().map_err(failed("reserve room for the end"))?;
    let length = log.metadata().map_err(failed("open the log"))?.len();
    let mut started = Started {
        helper: std::process::id(),
        boot: fs::read_to_string("/proc/sys/kernel/random/boot_id")
            .unwrap_or_default()
            .trim()
            .to_owned(),
        cookie: format!("{:032x}", u128::from_be_bytes(payload.nonce)),
        private_dir: payload.private_dir.clone(),
        cgroup: payload.cgroup.clone(),
        child: None,
    };
    let claim = Claim::create(&started)
        .map_err(failed("record the start"))?
        .ok_or(Report::Already)?;
    let (private, spawned) = match launch(&payload, &started.cookie) {
        Ok(launched) => launched,
        Err(failure) => {
            folder::write_end(&not_started(How::SpawnFailed(failure)))
                .map_err(failed("write the end"))?;
            return Ok(answer(&Report::SpawnFailed));
        }
    };
    let child = Child {
        pid: spawned.pid,
        ticks: tree::start_ticks(spawned.pid).unwrap_or(0),
        time: clock::now_micros(),
    };
    started.child = Some(child);
    // Where this fails, the record still says that the run was started, and how its leftovers are found.
    drop(claim.complete(&started));
    answer(&Report::Started {
        pid: child.pid,
        time: child.time,
    });
    prefer_for_oom(child.pid);
    Ok(watch(
        payload,
        log,
        length,
        Running {
            child,
            spawned,
            private,
            control,
            signals,
        },
    ))
}

/// Makes the private files, and the process.
fn launch(
    payload: &Payload,
    cookie: &str,
) -> Result<(Option<PrivateFolder>, Spawned), SpawnFailure> {
    let private = match &payload.private_dir {
        Some(path) => Some(
            PrivateFolder::create(path, &payload.files).map_err(|error| SpawnFailure {
                step: Step::PrivateFiles,
                errno: error.raw_os_error().unwrap_or(0),
                program: payload.argv[0].clone(),
            })?,
        ),
        None => None,
    };
    Ok((private, child::spawn(payload, cookie)?))
}

/// Makes the kernel kill the workload before the helper when memory runs out. Raising is always permitted.
fn prefer_for_oom(child: u32) {
    let own = fs::read_to_string("/proc/self/oom_score_adj")
        .ok()
        .and_then(|text| text.trim().parse::<i32>().ok());
    let score = (own.unwrap_or(0) + OOM_BIAS).min(1000);
    // A kernel without it has no such preference.
    drop(fs::write(
        format!("/proc/{child}/oom_score_adj"),
        score.to_string(),
    ));
}

/// What there is once the workload runs.
struct Running {
    child: Child,
    spawned: Spawned,
    private: Option<PrivateFolder>,
    control: Control,
    signals: SignalFd,
}

/// Watches to the end, and records it.
fn watch(payload: Payload, log: File, length: u64, running: Running) -> u8 {
    let Running {
        child,
        spawned,
        private,
        control,
        signals,
    } = running;
    let patterns = Patterns::of_output(payload.needles.iter().map(Private::expose));
    let mut streams = [(Kind::Out, spawned.out), (Kind::Err, spawned.err)]
        .map(|(kind, pipe)| Stream::new(kind, pipe, patterns.clone()));
    let mut writer = Writer::new(log, length, payload.spool_limit);
    let cgroup = payload
        .cgroup
        .as_deref()
        .map(|path| PathBuf::from(OsStr::from_bytes(path)));
    let limits = Limits {
        timeout: payload.timeout,
        stall_timeout: payload.stall_timeout,
        grace: payload.grace,
        kill_file: cgroup.as_ref().map(|folder| folder.join("cgroup.kill")),
    };
    // From here on the values are in the needles alone.
    drop((payload, patterns));
    sys::trim_heap();
    let supervisor = Supervisor {
        child: child.pid,
        limits,
        signals,
        control,
        streams: &mut streams,
        writer: &mut writer,
    };
    let Ok(outcome) = supervisor.run() else {
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
    drop(private);
    let oom_kills = cgroup.map_or(0, |folder| {
        let kills = oom_kills(&folder);
        // Empty now; where something is left in it, the runner removes it with the run.
        drop(fs::remove_dir(folder));
        kills
    });
    let Outcome { how, ended, left } = outcome;
    let end = End {
        how: if oom_kills > 0 && matches!(how, How::Signaled(9) | How::Exited(137)) {
            How::OutOfMemory
        } else {
            how
        },
        started: Some(child.time),
        ended,
        spool: writer.len(),
        masked: streams.iter().map(Stream::masked).sum(),
        over_limit: writer.over_limit(),
        disk_full: writer.disk_full(),
        oom_kills,
        left,
    };
    if folder::write_end(&end).is_ok() {
        exit::DONE
    } else {
        exit::FAILED
    }
}

/// How many processes of a control group the kernel has killed for want of memory.
fn oom_kills(folder: &Path) -> u64 {
    let events = fs::read_to_string(folder.join("memory.events")).unwrap_or_default();
    events
        .lines()
        .find_map(|line| line.strip_prefix("oom_kill ")?.parse().ok())
        .unwrap_or(0)
}
