//! Runs the real helper in a folder of its own.
#![allow(dead_code, reason = "each test file uses its part")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, SystemTime};

use hybrid_runner_helper::end::End;
use hybrid_runner_helper::payload::{self, Payload};
use hybrid_runner_helper::report::Report;
use hybrid_runner_helper::spool::{Item, Reader, Record};
use hybrid_runner_helper::started::Started;
use hybrid_runner_helper::stop::Stop;

/// Long enough for the slowest machine; nothing waits so long unless it is broken.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until something holds that no event tells.
pub(crate) fn eventually<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let start = SystemTime::now();
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(
            start.elapsed().unwrap_or_default() < PATIENCE,
            "in vain: {what}"
        );
        #[expect(
            clippy::disallowed_methods,
            reason = "polls what has no event, in a thread of its own"
        )]
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A payload that runs a shell script.
pub(crate) fn script(text: &str) -> Payload {
    static RUNS: AtomicU64 = AtomicU64::new(0);
    let mut nonce = [0; 16];
    let run = u64::from(std::process::id()) << 32 | RUNS.fetch_add(1, Ordering::Relaxed);
    let time = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap()
        .subsec_nanos();
    nonce[..8].copy_from_slice(&run.to_be_bytes());
    nonce[8..12].copy_from_slice(&time.to_be_bytes());
    Payload {
        nonce,
        argv: vec![b"sh".to_vec(), b"-c".to_vec(), text.as_bytes().to_vec()],
        env: vec![(b"PATH".to_vec(), b"/usr/local/bin:/usr/bin:/bin".into())],
        grace: Duration::from_secs(20),
        spool_limit: 1 << 30,
        ..Payload::default()
    }
}

/// A helper in a folder.
pub(crate) struct Run {
    pub(crate) folder: PathBuf,
    pub(crate) pid: u32,
    pub(crate) report: Option<Report>,
    exited: Receiver<ExitStatus>,
    cookie: String,
}

/// Starts a helper without giving it a payload.
pub(crate) fn helper(folder: &Path) -> (Child, ChildStdout) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_hybrid-runner-helper"))
        .arg("run")
        .arg(folder)
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    let stdout = child.stdout.take().unwrap();
    (child, stdout)
}

/// Gives a helper its input, and reads its report.
pub(crate) fn feed(folder: &Path, mut child: Child, stdout: ChildStdout, input: &[u8]) -> Run {
    // It may have ended already, with a report that says why.
    drop(child.stdin.take().unwrap().write_all(input));
    let (sender, exited) = channel();
    let pid = child.id();
    std::thread::spawn(move || sender.send(child.wait().unwrap()));
    let (sender, line) = channel();
    std::thread::spawn(move || {
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).unwrap();
        sender.send(line)
    });
    let report = Report::parse(&line.recv_timeout(PATIENCE).expect("a report"));
    Run {
        folder: folder.to_owned(),
        pid,
        report,
        exited,
        cookie: String::new(),
    }
}

impl Run {
    /// Runs a payload in `folder`.
    pub(crate) fn start(folder: &Path, payload: &Payload) -> Self {
        let (child, stdout) = helper(folder);
        let mut run = feed(
            folder,
            child,
            stdout,
            payload::encode(payload).unwrap().expose(),
        );
        run.cookie = format!("{:032x}", u128::from_be_bytes(payload.nonce));
        run
    }

    /// Waits for the end of the helper; its exit code, or its signal as a negative number.
    pub(crate) fn exit(&self) -> i32 {
        let status = self.exited.recv_timeout(PATIENCE).expect("the helper ends");
        status.code().unwrap_or_else(|| -status.signal().unwrap())
    }

    /// Waits for the end of the run, and reads its record.
    pub(crate) fn end(&self) -> End {
        assert_eq!(self.exit(), 0, "{:?}", self.report);
        End::parse(&fs::read(self.folder.join("end")).unwrap()).unwrap()
    }

    pub(crate) fn started(&self) -> Started {
        Started::parse(&fs::read(self.folder.join("started")).unwrap()).unwrap()
    }

    pub(crate) fn child(&self) -> u32 {
        self.started().child.unwrap().pid
    }

    pub(crate) fn records(&self) -> Vec<Record> {
        let mut reader = Reader::new(File::open(self.folder.join("log")).unwrap());
        let (mut records, mut offset) = (Vec::new(), 0);
        while let Some((record, next)) = reader.read_at(offset).unwrap() {
            records.push(record);
            offset = next;
        }
        records
    }

    /// What was written to the output so far.
    pub(crate) fn out(&self) -> Vec<u8> {
        let outs = self
            .records()
            .into_iter()
            .filter_map(|record| match record.item {
                Item::Out(bytes) => Some(bytes),
                _ => None,
            });
        outs.collect::<Vec<_>>().concat()
    }

    pub(crate) fn err(&self) -> Vec<u8> {
        let errs = self
            .records()
            .into_iter()
            .filter_map(|record| match record.item {
                Item::Err(bytes) => Some(bytes),
                _ => None,
            });
        errs.collect::<Vec<_>>().concat()
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.out()).unwrap()
    }

    pub(crate) fn wait_for_output(&self, text: &str) {
        eventually(text, || self.text().contains(text).then_some(()));
    }

    /// Asks to stop.
    pub(crate) fn stop(&self, grace: Duration) {
        request_stop(&self.folder, grace);
        // Not blocking: a helper that has ended reads no more.
        let control = File::options()
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(self.folder.join("control"));
        match control {
            Ok(mut control) => control.write_all(b"!").unwrap(),
            Err(error) => assert_eq!(error.raw_os_error(), Some(libc::ENXIO)),
        }
    }

    /// The processes of the workload that live, found by the cookie.
    pub(crate) fn living(&self) -> Vec<u32> {
        assert!(!self.cookie.is_empty());
        let has_cookie = |pid: &u32| {
            let environ = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environ
                .windows(self.cookie.len())
                .any(|window| window == self.cookie.as_bytes())
        };
        pids().filter(has_cookie).collect()
    }
}

pub(crate) fn request_stop(folder: &Path, grace: Duration) {
    let stop = Stop {
        grace,
        by: Some("alice".to_owned()),
    };
    fs::write(folder.join("stop.tmp"), stop.encode()).unwrap();
    fs::rename(folder.join("stop.tmp"), folder.join("stop")).unwrap();
}

pub(crate) fn pids() -> impl Iterator<Item = u32> {
    fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// The state and the parent of a process.
pub(crate) fn state_and_parent(pid: u32) -> Option<(String, u32)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    Some((fields.next()?.to_owned(), fields.next()?.parse().ok()?))
}

pub(crate) fn kill(pid: u32, signal: &str) {
    assert!(
        Command::new("kill")
            .arg(format!("-{signal}"))
            .arg(pid.to_string())
            .status()
            .unwrap()
            .success()
    );
}

/// A private folder that does not exist yet.
pub(crate) fn private_dir(name: &str) -> Vec<u8> {
    let parent = if Path::new("/dev/shm").is_dir() {
        "/dev/shm"
    } else {
        "/tmp"
    };
    format!("{parent}/hr-test-{}-{name}", std::process::id()).into_bytes()
}
