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
    ticks: u64,
    ended: bool,
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
            let same = || read(process.pid).is_some_and(|now| now.ticks == process.ticks);
            if sys::signal(process.pid, signal, same).is_err_and(|error| !is_gone(&error)) {
                refused += 1;
            }
            added.push(process);
        }
        signalled.extend(added);
    }
    refused
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
    // Field 22; the state was the third.
    let ticks = fields.nth(17)?.parse().ok()?;
    Some(Process {
        pid,
        parent,
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
            b"77 (a) R 1 (b\n) S 42 77 77 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 9876 100 200\n";
        let wanted = Process {
            pid: 77,
            parent: 42,
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
