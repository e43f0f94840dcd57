//! What a killed helper left behind: processes of its run, found in `/proc`.

use std::fs;
use std::io;

use hybrid_runner_helper::COOKIE_VARIABLE;
use hybrid_runner_helper::started::{Child, Started};
use rustix::process::{Pid, PidfdFlags, Signal};

/// How to tell the processes of one run.
#[derive(Debug, Clone)]
pub(super) struct Leftovers {
    /// `NAME=value`, as it stands in their environment.
    cookie: Vec<u8>,
    child: Option<Child>,
}

/// What one round found.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Round {
    pub(super) killed: usize,
    /// Those that we may not kill.
    pub(super) refused: usize,
}

impl Leftovers {
    pub(super) fn of(started: &Started) -> Self {
        Self {
            cookie: format!("{COOKIE_VARIABLE}={}", started.cookie).into_bytes(),
            child: started.child,
        }
    }

    /// Kills what is there now. What they have just forked is found in the next round.
    pub(super) fn kill(&self) -> io::Result<Round> {
        let mut round = Round::default();
        let leader = self.child.map(|child| Leader::look(&child));
        for entry in fs::read_dir("/proc")? {
            let name = entry?.file_name();
            let Some(pid) = name.to_str().and_then(|name| name.parse::<i32>().ok()) else {
                continue;
            };
            // Held first and looked at then, so that it cannot be another by the time it is killed.
            let Some(held) = Pid::from_raw(pid)
                .and_then(|pid| rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok())
            else {
                continue;
            };
            if !self.is_ours(pid, leader) {
                continue;
            }
            match rustix::process::pidfd_send_signal(&held, Signal::KILL) {
                Ok(()) => round.killed += 1,
                Err(rustix::io::Errno::PERM) => round.refused += 1,
                Err(_) => {}
            }
        }
        Ok(round)
    }

    fn is_ours(&self, pid: i32, leader: Option<Leader>) -> bool {
        let Some(stat) = Stat::read(pid) else {
            return false;
        };
        if stat.is_dead {
            return false;
        }
        let in_session = self.child.is_some_and(|child| {
            let pid = i32::try_from(child.pid).unwrap_or(-1);
            (stat.session == pid || stat.group == pid) && stat.ticks >= child.ticks
        });
        (in_session && leader.is_some_and(|leader| leader != Leader::Another))
            || self.has_cookie(pid)
    }

    fn has_cookie(&self, pid: i32) -> bool {
        fs::read(format!("/proc/{pid}/environ")).is_ok_and(|environment| {
            environment
                .split(|byte| *byte == 0)
                .any(|variable| variable == self.cookie)
        })
    }
}

/// The process that has the number of the workload's first process now. As long as its session has members, the
/// number is given to no other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leader {
    Itself,
    Gone,
    Another,
}

impl Leader {
    fn look(child: &Child) -> Self {
        let stat = i32::try_from(child.pid).ok().and_then(Stat::read);
        match stat {
            None => Self::Gone,
            Some(stat) if stat.ticks == child.ticks => Self::Itself,
            Some(_) => Self::Another,
        }
    }
}

/// What is needed of `/proc/<pid>/stat`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stat {
    is_dead: bool,
    group: i32,
    session: i32,
    ticks: u64,
}

impl Stat {
    fn read(pid: i32) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// The second field is the name in parentheses, in which anything may stand.
    fn parse(text: &str) -> Option<Self> {
        let (_, rest) = text.rsplit_once(") ")?;
        let fields: Vec<&str> = rest.split(' ').collect();
        Some(Self {
            is_dead: matches!(*fields.first()?, "Z" | "X"),
            group: fields.get(2)?.parse().ok()?,
            session: fields.get(3)?.parse().ok()?,
            ticks: fields.get(19)?.parse().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_is_read_whatever_the_process_calls_itself() {
        let line = "42 (a) R 1 (x) S 1 40 41 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 12345 0 0";
        let stat = Stat::parse(line).unwrap();
        assert_eq!((stat.group, stat.session, stat.ticks), (40, 41, 12345));
        assert!(!stat.is_dead);
        assert_eq!(Stat::parse("nonsense"), None);
    }
}
