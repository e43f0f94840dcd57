//! What runs on this machine, as `/proc` shows it.

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use memchr::memmem;
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::{Instant, sleep};

/// `/proc` tells nobody when it changes: it is looked at this often.
const LOOK: Duration = Duration::from_millis(20);

/// A process at the moment it was looked at.
#[derive(Debug, Clone)]
pub struct Process {
    /// Its number.
    pub pid: i32,
    /// The number of its parent.
    pub parent: i32,
    /// The letter of its state; `Z` has ended already.
    pub state: char,
    /// Its arguments, each ended by NUL.
    pub arguments: Vec<u8>,
    /// Its environment, each variable ended by NUL.
    pub environment: Vec<u8>,
    /// Its working directory.
    pub folder: Option<PathBuf>,
}

impl Process {
    /// The process of that number, if it is there and has not ended.
    pub fn read(pid: i32) -> Option<Self> {
        let path = PathBuf::from(format!("/proc/{pid}"));
        let stat = fs::read_to_string(path.join("stat")).ok()?;
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
        let state = fields.next()?.chars().next()?;
        let parent = fields.next()?.parse().ok()?;
        let process = Self {
            pid,
            parent,
            state,
            arguments: fs::read(path.join("cmdline")).unwrap_or_default(),
            environment: fs::read(path.join("environ")).unwrap_or_default(),
            folder: fs::read_link(path.join("cwd")).ok(),
        };
        (process.state != 'Z' && process.state != 'X').then_some(process)
    }

    /// Whether its arguments or its environment hold `mark`.
    pub fn mentions(&self, mark: &str) -> bool {
        holds(&self.arguments, mark.as_bytes()) || holds(&self.environment, mark.as_bytes())
    }

    /// Whether it has to do with this folder.
    pub fn belongs_to(&self, folder: &Path) -> bool {
        let inside = self
            .folder
            .as_ref()
            .is_some_and(|cwd| cwd.starts_with(folder));
        let text = folder.as_os_str().as_bytes();
        inside || holds(&self.arguments, text) || holds(&self.environment, text)
    }

    /// Its arguments as one line.
    pub fn line(&self) -> String {
        String::from_utf8_lossy(&self.arguments).replace('\0', " ")
    }
}

/// Whether `needle` stands somewhere in `text`.
pub fn holds(text: &[u8], needle: &[u8]) -> bool {
    !needle.is_empty() && memmem::find(text, needle).is_some()
}

/// Every process but this one.
pub fn all() -> Vec<Process> {
    let own = i32::try_from(std::process::id()).unwrap_or(0);
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter(|pid| *pid != own)
        .filter_map(Process::read)
        .collect()
}

/// The processes whose arguments or environment hold `mark`.
pub fn marked(mark: &str) -> Vec<Process> {
    all()
        .into_iter()
        .filter(|process| process.mentions(mark))
        .collect()
}

/// Waits until no process holds `mark`; panics after `limit` and names those that do.
pub async fn gone(mark: &str, limit: Duration) {
    let deadline = Instant::now() + limit;
    loop {
        let left = marked(mark);
        if left.is_empty() {
            return;
        }
        let lines: Vec<String> = left.iter().map(Process::line).collect();
        assert!(
            Instant::now() < deadline,
            "still alive after {limit:?}: {lines:?}"
        );
        sleep(LOOK).await;
    }
}

/// Waits until as many processes as that hold `mark`; panics after `limit`.
pub async fn appear(mark: &str, count: usize, limit: Duration) -> Vec<Process> {
    let deadline = Instant::now() + limit;
    loop {
        let found = marked(mark);
        if found.len() >= count {
            return found;
        }
        assert!(
            Instant::now() < deadline,
            "{} of {count} processes with `{mark}` after {limit:?}",
            found.len()
        );
        sleep(LOOK).await;
    }
}

/// Sends a signal to one process. That it has ended meanwhile is fine.
pub fn signal(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        kill_process(pid, signal).ok();
    }
}

/// Waits until a look answers; panics after `limit` with what was waited for.
pub fn until<T, L: FnMut() -> Option<T>>(
    what: &str,
    limit: Duration,
    mut look: L,
) -> impl Future<Output = T> + use<T, L> {
    let what = what.to_owned();
    async move {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(found) = look() {
                return found;
            }
            assert!(
                Instant::now() < deadline,
                "waited {limit:?} in vain: {what}"
            );
            sleep(LOOK).await;
        }
    }
}
