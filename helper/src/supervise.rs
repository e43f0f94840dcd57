//! Watches over one workload from its start to the end of its last process.

use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use crate::clock::{self, Instant};
use crate::end::How;
use crate::folder::{self, Control};
use crate::output::{Buffers, Stream};
use crate::sys::{self, SignalFd, Waited};
use crate::tree;
use crate::writer::{Sink, Writer};

/// How long processes that the child has left behind may take to end; less if the grace is.
const LEFTOVER_GRACE: Duration = Duration::from_secs(2);
/// How long leftovers are killed before they are given up as unkillable.
const GIVE_UP: Duration = Duration::from_secs(5);
/// The pause between two rounds of killing, at first and at most.
const ROUND: Duration = Duration::from_millis(10);
const MAX_ROUND: Duration = Duration::from_secs(1);
/// How long output may stay open that somebody outside the tree holds.
const DRAIN: Duration = Duration::from_secs(1);
/// Between two looks whether the folder of the run is still there: without it nobody can find the run any more.
const LOOK: Duration = Duration::from_secs(5);
/// After so much silence a few bytes are written that may begin a value: it is a prompt, and waits for an answer.
const QUIET: Duration = Duration::from_millis(500);
/// After so much silence memory is given back.
const IDLE: Duration = Duration::from_secs(1);

/// The limits of a workload.
pub(crate) struct Limits {
    pub(crate) timeout: Option<Duration>,
    pub(crate) stall_timeout: Option<Duration>,
    pub(crate) grace: Duration,
    /// `cgroup.kill` of its control group.
    pub(crate) kill_file: Option<PathBuf>,
}

/// What is known once the last process is gone.
pub(crate) struct Outcome {
    pub(crate) how: How,
    /// When the child ended, in microseconds since the epoch.
    pub(crate) ended: i64,
    /// How many processes could not be killed.
    pub(crate) left: u64,
}

/// A workload that runs.
pub(crate) struct Supervisor<'a, S> {
    pub(crate) child: u32,
    pub(crate) limits: Limits,
    pub(crate) signals: SignalFd,
    pub(crate) control: Control,
    pub(crate) streams: &'a mut [Stream; 2],
    pub(crate) writer: &'a mut Writer<S>,
}

/// The changing part.
struct State {
    started: Instant,
    last_output: Instant,
    buffers: Buffers,
    /// The child's end, and when.
    status: Option<(ExitStatus, i64)>,
    /// There is no process left.
    alone: bool,
    /// What the child has left behind was told to end.
    leftovers_told: bool,
    /// Why the workload is being stopped.
    cause: Option<How>,
    /// When what is left is killed.
    kill_at: Option<Instant>,
    killing: Option<Killing>,
    left: u64,
    /// When the folder of the run is looked for again.
    next_look: Instant,
}

/// The killing, once it has begun.
struct Killing {
    since: Instant,
    next_round: Instant,
    pause: Duration,
}

impl<S: Sink> Supervisor<'_, S> {
    /// Watches until the last process is gone and its output is written.
    pub(crate) fn run(mut self) -> io::Result<Outcome> {
        let now = Instant::now();
        let mut state = State {
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
            next_look: now.after(LOOK),
        };
        // Once without waiting for the FIFO: the request may have come before there was one.
        self.look_for_stop(&mut state);
        while !state.alone {
            self.enforce(&mut state);
            if state.alone {
                break;
            }
            self.wait(&mut state)?;
        }
        self.drain(&mut state)?;
        Ok(state.into_outcome())
    }

    /// Waits for the next event and handles it.
    fn wait(&mut self, state: &mut State) -> io::Result<()> {
        let now = Instant::now();
        let [out, err] = &*self.streams;
        let fds = [
            Some(self.signals.as_fd()),
            Some(self.control.as_fd()),
            out.as_fd(),
            err.as_fd(),
        ];
        let wait = self.next_deadline(state).map(|deadline| deadline.from(now));
        let [signal, control, out, err] = sys::poll(fds, wait)?;
        for (stream, ready) in self.streams.iter_mut().zip([out, err]) {
            if ready && stream.pump(&mut state.buffers, self.writer) {
                state.last_output = Instant::now();
            }
        }
        if signal {
            self.take_signals(state);
        }
        if control {
            self.control.drain();
            self.look_for_stop(state);
        }
        Ok(())
    }

    fn next_deadline(&self, state: &State) -> Option<Instant> {
        let idle = state
            .buffers
            .are_in_use()
            .then(|| state.last_output.after(IDLE));
        let quiet = self.quiet(state);
        let round = match &state.killing {
            Some(killing) => Some(killing.next_round),
            None => state.kill_at,
        };
        let limits = if state.is_running() {
            [
                self.timeout(state),
                self.stall(state),
                Some(state.next_look),
            ]
        } else {
            [None; 3]
        };
        [idle, quiet, round]
            .into_iter()
            .chain(limits)
            .flatten()
            .min()
    }

    fn timeout(&self, state: &State) -> Option<Instant> {
        self.limits.timeout.map(|limit| state.started.after(limit))
    }

    fn stall(&self, state: &State) -> Option<Instant> {
        self.limits
            .stall_timeout
            .map(|limit| state.last_output.after(limit))
    }

    /// When what is held is written, if it is so little.
    fn quiet(&self, state: &State) -> Option<Instant> {
        let holds = self.streams.iter().any(Stream::can_release);
        holds.then(|| state.last_output.after(QUIET))
    }

    fn take_signals(&mut self, state: &mut State) {
        let mut told_to_stop = false;
        while let Some(signal) = self.signals.next() {
            told_to_stop |= signal == libc::SIGTERM;
        }
        self.reap(state);
        if told_to_stop {
            self.stop(state, How::Stopped { by: None }, self.limits.grace);
        }
    }

    /// Stops the workload. It does not undo an end that has happened, and a later call can only shorten the grace.
    fn stop(&mut self, state: &mut State, cause: How, grace: Duration) {
        self.reap(state);
        if state.is_running() {
            state.cause = Some(cause);
            state.terminate(grace);
        } else {
            state.kill_within(grace);
        }
    }

    fn reap(&mut self, state: &mut State) {
        loop {
            match sys::wait_any() {
                Waited::Ended(pid, status) if pid == self.child => {
                    state.status = Some((status, clock::now_micros()));
                }
                Waited::Ended(..) => {}
                Waited::NotYet => break,
                Waited::None => {
                    state.alone = true;
                    return;
                }
            }
        }
        if state.status.is_some() && !state.leftovers_told {
            state.leftovers_told = true;
            state.terminate(LEFTOVER_GRACE.min(self.limits.grace));
        }
    }

    fn look_for_stop(&mut self, state: &mut State) {
        if let Some(stop) = folder::stop_request(self.limits.grace) {
            self.stop(state, How::Stopped { by: stop.by }, stop.grace);
        }
    }

    /// Does what is due by the clock.
    fn enforce(&mut self, state: &mut State) {
        let now = Instant::now();
        let due = |deadline: Option<Instant>| deadline.is_some_and(|deadline| deadline <= now);
        if due(self.quiet(state)) {
            for stream in &mut *self.streams {
                stream.release(&mut state.buffers, self.writer);
            }
        }
        if due(state
            .buffers
            .are_in_use()
            .then(|| state.last_output.after(IDLE)))
        {
            state.buffers.release();
        }
        if state.is_running() && due(self.timeout(state)) {
            self.stop(state, How::TimedOut, self.limits.grace);
        } else if state.is_running() && due(self.stall(state)) {
            self.stop(state, How::Stalled, self.limits.grace);
        }
        if state.is_running() && due(Some(state.next_look)) {
            state.next_look = now.after(LOOK);
            if folder::is_gone() {
                self.stop(state, How::Stopped { by: None }, self.limits.grace);
            }
        }
        if due(state.kill_at) {
            self.kill(state, now);
        }
    }

    fn kill(&mut self, state: &mut State, now: Instant) {
        let killing = state.killing.get_or_insert(Killing {
            since: now,
            next_round: now,
            pause: ROUND,
        });
        if killing.next_round > now {
            return;
        }
        killing.next_round = now.after(killing.pause);
        killing.pause = (killing.pause * 2).min(MAX_ROUND);
        let in_vain = killing.since.after(GIVE_UP) <= now;
        if let Some(file) = &self.limits.kill_file {
            // Where the kernel is too old for it, the walk over the tree does it.
            drop(std::fs::write(file, "1"));
        }
        tree::signal_all(libc::SIGKILL);
        self.reap(state);
        if !state.alone && state.status.is_some() && in_vain {
            state.left = tree::count();
            state.alone = true;
        }
    }

    /// Writes what is still in the pipes. They have ended, unless somebody outside the tree holds them.
    fn drain(&mut self, state: &mut State) -> io::Result<()> {
        let deadline = Instant::now().after(DRAIN);
        loop {
            for stream in &mut *self.streams {
                while stream.as_fd().is_some() && stream.pump(&mut state.buffers, self.writer) {
                    if deadline <= Instant::now() {
                        break;
                    }
                }
            }
            let [out, err] = &*self.streams;
            let now = Instant::now();
            let open = [out.as_fd(), err.as_fd()];
            if open.iter().all(Option::is_none) || deadline <= now {
                break;
            }
            sys::poll(open, Some(deadline.from(now)))?;
        }
        for stream in &mut *self.streams {
            if stream.as_fd().is_some() {
                stream.end(&mut state.buffers, self.writer);
            }
        }
        Ok(())
    }
}

impl State {
    /// Running, and nobody wants that to end.
    fn is_running(&self) -> bool {
        self.status.is_none() && self.cause.is_none()
    }

    /// Asks all processes to end.
    fn terminate(&mut self, grace: Duration) {
        tree::signal_all(libc::SIGTERM);
        // One that is halted could not hear it.
        tree::signal_all(libc::SIGCONT);
        self.kill_within(grace);
    }

    fn kill_within(&mut self, grace: Duration) {
        let deadline = Instant::now().after(grace);
        self.kill_at = Some(self.kill_at.map_or(deadline, |before| before.min(deadline)));
    }

    fn into_outcome(self) -> Outcome {
        let (status, ended) = self
            .status
            .unwrap_or((ExitStatus::from_raw(0), clock::now_micros()));
        let number = |number: i32| u8::try_from(number & 0xFF).unwrap_or(u8::MAX);
        let own = match status.signal() {
            Some(signal) => How::Signaled(number(signal)),
            None => How::Exited(number(status.code().unwrap_or(0))),
        };
        Outcome {
            how: self.cause.unwrap_or(own),
            ended,
            left: self.left,
        }
    }
}
