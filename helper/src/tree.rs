//! The tree of processes below the helper, found in `/proc`.
//!
//! The helper is the subreaper of its descendants: whoever loses its parent becomes a child of the helper. So a process
//! may leave its group and its session, but not the tree.

use std::fs;
use std::io::{self, Read as _};

use libc::c_int;

use crate::sys;

/// So often a round starts anew because there are new processes.
const PASSES: usize = 64;

/// A process at one instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Process {
    pid: u32,
    parent: u32,
    group: u32,
    ticks: u64,
    ended: bool,
}

impl Process {
    fn is(&self, other: &Self) -> bool {
        (self.pid, self.ticks) == (other.pid, other.ticks)
    }

    fn signal(&self, signal: c_int) -> io::Result<()> {
        let same = || read(self.pid).is_some_and(|now| self.is(&now));
        sys::signal(self.pid, signal, same)
    }
}

/// The start time of a process in clock ticks since boot.
pub(crate) fn start_ticks(pid: u32) -> Option<u64> {
    read(pid).map(|process| process.ticks)
}

/// Sends `signal` to all living descendants, and to those that appear meanwhile; how many could not be signalled.
pub(crate) fn signal_all(signal: c_int) -> u64 {
    let mut signalled: Vec<Process> = Vec::new();
    let mut refused = 0;
    for _ in 0..PASSES {
        let living = descendants();
        let mut new = living
            .into_iter()
            .filter(|process| !signalled.contains(process))
            .peekable();
        if new.peek().is_none() {
            break;
        }
        let mut added = Vec::new();
        for process in new {
            if process.signal(signal).is_err_and(|error| !is_gone(&error)) {
                refused += 1;
            }
            added.push(process);
        }
        signalled.extend(added);
    }
    refused
}

/// Asks all living descendants to end, each once. What a process starts after it was asked, it starts to end well (a
/// trap that cleans up), and that is not asked. `leader` leads a group of processes and was not reaped yet, so that its
/// number is still its own: its group is asked in one step, and nothing that starts meanwhile is forgotten or asked twice.
pub(crate) fn ask_to_end(leader: Option<u32>) {
    if let Some(leader) = leader {
        // Its processes may all have ended.
        drop(sys::signal_group(leader, libc::SIGTERM));
    }
    let mut seen: Vec<Process> = Vec::new();
    for pass in 0..PASSES {
        let mut new = descendants();
        new.retain(|process| !seen.iter().any(|before| before.is(process)));
        if new.is_empty() {
            break;
        }
        for process in new {
            // One that has lost its parent may be from before that was asked.
            let by_one_asked =
                || pass > 0 && seen.iter().any(|before| before.pid == process.parent);
            if leader != Some(process.group) && !by_one_asked() {
                drop(process.signal(libc::SIGTERM));
            }
            seen.push(process);
        }
    }
}

/// How many descendants live.
pub(crate) fn count() -> u64 {
    descendants().len() as u64
}

fn is_gone(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ESRCH)
}

fn descendants() -> Vec<Process> {
    let all = all();
    let mut family = vec![std::process::id()];
    let mut found = Vec::new();
    let mut rest = all;
    loop {
        let (below, others): (Vec<_>, Vec<_>) = rest
            .into_iter()
            .partition(|process| family.contains(&process.parent));
        if below.is_empty() {
            break;
        }
        family.extend(below.iter().map(|process| process.pid));
        found.extend(below);
        rest = others;
    }
    found.retain(|process| !process.ended);
    found
}

fn all() -> Vec<Process> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let pids = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(read).collect()
}

fn read(pid: u32) -> Option<Process> {
    let mut stat = [0; 1024];
    let mut file = fs::File::open(format!("/proc/{pid}/stat")).ok()?;
    let length = file.read(&mut stat).ok()?;
    parse(pid, &stat[..length])
}

/// Reads `pid (name) state ppid …`; the name may hold anything.
fn parse(pid: u32, stat: &[u8]) -> Option<Process> {
    let name_end = stat.iter().rposition(|&byte| byte == b')')?;
    let fields = std::str::from_utf8(&stat[name_end + 1..]).ok()?;
    let mut fields = fields.split_ascii_whitespace();
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    let group = fields.next()?.parse().ok()?;
    // Field 22; the group was the fifth.
    let ticks = fields.nth(16)?.parse().ok()?;
    Some(Process {
        pid,
        parent,
        group,
        ticks,
        ended: matches!(state, "Z" | "X"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_pose_as_fields() {
        let stat =
            b"77 (a) R 1 (b\n) S 42 76 75 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 9876 100 200\n";
        let wanted = Process {
            pid: 77,
            parent: 42,
            group: 76,
            ticks: 9876,
            ended: false,
        };
        assert_eq!(parse(77, stat), Some(wanted));
    }

    #[test]
    fn a_truncated_line_is_none() {
        let stat = b"77 (a) Z 42 77 77 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 9876";
        assert!(parse(77, stat).is_some_and(|process| process.ended));
        for end in 0..stat.len() - 4 {
            assert_eq!(parse(77, &stat[..end]), None, "cut at {end}");
        }
    }

    #[test]
    fn this_process_is_found() {
        assert!(start_ticks(std::process::id()).is_some_and(|ticks| ticks > 0));
    }
}
