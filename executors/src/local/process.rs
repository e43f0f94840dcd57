//! What a killed helper left behind: processes of its run, found in `/proc`.

use std::io;

use hybrid_runner_core::processes::{self, Stat};
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
        for pid in processes::all()? {
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
            || processes::has_variable(pid, &self.cookie)
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
