//! What changes while a workload is watched over, and what it comes to.

use std::time::Duration;

use crate::clock::{self, Instant};
use crate::end::{ChildEnd, How};
use crate::output::Buffers;
use crate::tree;

/// Between two looks whether the folder of the run is still there: without it nobody can find the run any more.
const LOOK: Duration = Duration::from_secs(5);
/// After so much silence memory is given back.
const IDLE: Duration = Duration::from_secs(1);

/// What is known once the last process is gone.
pub(crate) struct Outcome {
    pub(crate) how: How,
    pub(crate) child: ChildEnd,
    /// When the child ended, in microseconds since the epoch.
    pub(crate) ended: i64,
    /// How many processes could not be killed.
    pub(crate) left: u64,
    /// When readers of the output are given up, if somebody wanted a stop.
    pub(crate) abandon_at: Option<Instant>,
}

/// Why a workload is being stopped.
pub(crate) enum Cause {
    TimedOut,
    Stalled,
    Stopped {
        by: Option<String>,
    },
    /// By a signal from outside.
    Terminated,
}

/// What changes.
pub(crate) struct State {
    pub(crate) started: Instant,
    pub(crate) last_output: Instant,
    pub(crate) buffers: Buffers,
    /// The child's end, and when.
    pub(crate) status: Option<(ChildEnd, i64)>,
    /// There is no process left.
    pub(crate) alone: bool,
    /// What the child has left behind was told to end.
    pub(crate) leftovers_told: bool,
    /// Why the workload is being stopped.
    pub(crate) cause: Option<Cause>,
    /// When what is left is killed.
    pub(crate) kill_at: Option<Instant>,
    pub(crate) killing: Option<Killing>,
    pub(crate) left: u64,
    /// When readers of the output are given up.
    pub(crate) abandon_at: Option<Instant>,
    /// When the folder of the run is looked for again.
    pub(crate) next_look: Instant,
}

/// The killing, once it has begun.
pub(crate) struct Killing {
    pub(crate) since: Instant,
    pub(crate) next_round: Instant,
    pub(crate) pause: Duration,
}

impl State {
    pub(crate) fn new() -> Self {
        let now = Instant::now();
        Self {
            started: now,
            last_output: now,
            buffers: Buffers::default(),
            status: None,
            alone: false,
            leftovers_told: false,
            cause: None,
            kill_at: None,
            killing: None,
            left: 0,
            abandon_at: None,
            next_look: now.after(LOOK),
        }
    }

    /// Running, and nobody wants that to end.
    pub(crate) fn is_running(&self) -> bool {
        self.status.is_none() && self.cause.is_none()
    }

    /// When memory is given back.
    pub(crate) fn idle(&self) -> Option<Instant> {
        self.buffers
            .are_in_use()
            .then(|| self.last_output.after(IDLE))
    }

    pub(crate) fn look_later(&mut self) {
        self.next_look = Instant::now().after(LOOK);
    }

    /// Asks all processes to end, as [`tree::ask_to_end`].
    pub(crate) fn terminate(&mut self, leader: Option<u32>, grace: Duration) {
        tree::ask_to_end(leader);
        // One that is halted could not hear it.
        tree::signal_all(libc::SIGCONT);
        self.kill_within(grace);
    }

    pub(crate) fn kill_within(&mut self, grace: Duration) {
        let deadline = Instant::now().after(grace);
        self.kill_at = Some(self.kill_at.map_or(deadline, |before| before.min(deadline)));
    }

    pub(crate) fn abandon_within(&mut self, wait: Duration) {
        let deadline = Instant::now().after(wait);
        self.abandon_at = Some(
            self.abandon_at
                .map_or(deadline, |before| before.min(deadline)),
        );
    }

    pub(crate) fn into_outcome(self) -> Outcome {
        let (child, ended) = self
            .status
            .unwrap_or((ChildEnd::Exited(0), clock::now_micros()));
        Outcome {
            how: match self.cause {
                None => child.into(),
                Some(Cause::TimedOut) => How::TimedOut,
                Some(Cause::Stalled) => How::Stalled,
                Some(Cause::Stopped { by }) => How::Stopped { by },
                Some(Cause::Terminated) => How::Terminated(child),
            },
            child,
            ended,
            left: self.left,
            abandon_at: self.abandon_at,
        }
    }
}
