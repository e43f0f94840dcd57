//! Watches over one workload from its start to the end of its last process.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use libc::c_int;

use crate::clock::{self, Instant};
use crate::container;
use crate::engine::FLUSH;
use crate::folder::{self, Control};
use crate::input::Input;
use crate::outlet::Outlet;
use crate::output::Stream;
use crate::spool::Kind;
use crate::state::{Cause, Killing, Outcome, State};
use crate::sys::{self, SignalFd, Wait, Waited};
use crate::tree;

/// How long processes that the child has left behind may take to end; less if the grace is.
const LEFTOVER_GRACE: Duration = Duration::from_secs(2);
/// How long leftovers are killed before they are given up as unkillable.
const GIVE_UP: Duration = Duration::from_secs(5);
/// The pause between two rounds of killing, at first and at most.
const ROUND: Duration = Duration::from_millis(10);
const MAX_ROUND: Duration = Duration::from_secs(1);
/// How long output may stay open that somebody outside the tree holds.
const DRAIN: Duration = Duration::from_secs(1);
/// After so much silence a few bytes are written that may begin a value: it is a prompt, and waits for an answer.
const QUIET: Duration = Duration::from_millis(500);

/// The limits of a workload.
pub(crate) struct Limits {
    pub(crate) timeout: Option<Duration>,
    pub(crate) stall_timeout: Option<Duration>,
    pub(crate) grace: Duration,
}

/// What kills processes faster than they can fork, besides the walk over the tree.
pub(crate) enum Kill {
    /// Nothing.
    Tree,
    /// `cgroup.kill` of their control group.
    Group(PathBuf),
    /// The signal to all of the namespace of which this process is the first.
    Namespace,
}

/// How orders come.
pub(crate) enum Orders {
    /// By a request to stop and a byte in the FIFO. `SIGTERM` is a stop by somebody unknown.
    Fifo(Control),
    /// By signals, as [`container`] says. A further payload is answered by saying again that the workload runs.
    Signals {
        /// Where payloads come from.
        input: Input,
        /// What says so.
        header: Vec<u8>,
    },
}

/// A workload that runs.
pub(crate) struct Supervisor<'a> {
    pub(crate) child: u32,
    pub(crate) limits: Limits,
    pub(crate) kill: Kill,
    pub(crate) orders: Orders,
    pub(crate) signals: &'a mut SignalFd,
    pub(crate) streams: &'a mut [Stream; 2],
    pub(crate) outlet: &'a mut dyn Outlet,
}

impl Supervisor<'_> {
    /// Watches until the last process is gone and its output is written.
    pub(crate) fn run(mut self) -> io::Result<Outcome> {
        let mut state = State::new();
        if matches!(self.orders, Orders::Fifo(_)) {
            // Once without waiting for it: the request may have come before there was one.
            self.look_for_stop(&mut state);
        }
        while !state.alone {
            self.enforce(&mut state);
            if state.alone {
                break;
            }
            let deadline = self.next_deadline(&state);
            self.wait(&mut state, deadline)?;
        }
        self.drain(&mut state)?;
        Ok(state.into_outcome())
    }

    /// Waits for the next event and handles it.
    fn wait(&mut self, state: &mut State, deadline: Option<Instant>) -> io::Result<()> {
        let [out, err] = &*self.streams;
        let waits = [
            Wait::Read(self.signals.as_fd()),
            match &self.orders {
                Orders::Fifo(control) => Wait::Read(control.as_fd()),
                // While an answer would have to wait, none is asked for.
                Orders::Signals { .. } if self.outlet.is_blocked() => Wait::Never,
                Orders::Signals { input, .. } => input.wait(),
            },
            out.wait(self.outlet),
            err.wait(self.outlet),
            self.outlet.wait(Kind::Out),
            self.outlet.wait(Kind::Err),
        ];
        let now = Instant::now();
        let timeout = deadline.map(|deadline| deadline.from(now));
        let [signal, order, out, err, out_free, err_free] = sys::poll(waits, timeout)?;
        self.flush(state, [out_free, err_free]);
        for (stream, ready) in self.streams.iter_mut().zip([out, err]) {
            if ready && stream.pump(&mut state.buffers, self.outlet) {
                state.last_output = Instant::now();
            }
        }
        if signal {
            self.take_signals(state);
        }
        if order {
            self.take_order(state);
        }
        Ok(())
    }

    fn take_order(&mut self, state: &mut State) {
        match &mut self.orders {
            Orders::Fifo(control) => {
                control.drain();
                self.look_for_stop(state);
            }
            Orders::Signals { input, header } => {
                let mut again = false;
                // One that cannot be read has ended.
                drop(input.read(|_| again = true));
                if again {
                    self.outlet.say(header);
                    sys::trim_heap();
                }
            }
        }
    }

    /// Passes on the output that waits, where its reader is ready.
    fn flush(&mut self, state: &mut State, ready: [bool; 2]) {
        let was_blocked = self.outlet.is_blocked();
        for (kind, ready) in [Kind::Out, Kind::Err].into_iter().zip(ready) {
            if ready {
                self.outlet.flush(kind);
            }
        }
        if was_blocked && !self.outlet.is_blocked() {
            // Until now it could not be heard.
            state.last_output = Instant::now();
        }
    }

    fn next_deadline(&self, state: &State) -> Option<Instant> {
        let quiet = self.quiet(state);
        let round = match &state.killing {
            Some(killing) => Some(killing.next_round),
            None => state.kill_at,
        };
        let limits = if state.is_running() {
            [
                self.timeout(state),
                self.stall(state),
                self.next_look(state),
            ]
        } else {
            [None; 3]
        };
        [state.idle(), quiet, round]
            .into_iter()
            .chain(limits)
            .flatten()
            .min()
    }

    fn timeout(&self, state: &State) -> Option<Instant> {
        self.limits.timeout.map(|limit| state.started.after(limit))
    }

    /// Only a folder on this machine can be deleted under a run.
    fn next_look(&self, state: &State) -> Option<Instant> {
        matches!(self.orders, Orders::Fifo(_)).then_some(state.next_look)
    }

    /// None while output waits for its reader: then it is not the workload that is silent.
    fn stall(&self, state: &State) -> Option<Instant> {
        let limit = self.limits.stall_timeout?;
        (!self.outlet.is_blocked()).then(|| state.last_output.after(limit))
    }

    /// When what is held is written, if it is so little.
    fn quiet(&self, state: &State) -> Option<Instant> {
        let holds = self.streams.iter().any(Stream::can_release);
        holds.then(|| state.last_output.after(QUIET))
    }

    fn take_signals(&mut self, state: &mut State) {
        while let Some(signal) = self.signals.next() {
            match signal {
                libc::SIGCHLD => {}
                libc::SIGTERM => {
                    let cause = match self.orders {
                        Orders::Fifo(_) => Cause::Stopped { by: None },
                        Orders::Signals { .. } => Cause::Terminated,
                    };
                    self.stop(state, cause, self.limits.grace);
                }
                other => self.take_other(state, other),
            }
        }
        self.reap(state);
    }

    /// A signal that is a stop or for the workload.
    fn take_other(&mut self, state: &mut State, signal: c_int) {
        if let Some(grace) = container::grace_of(signal) {
            self.stop(state, Cause::Stopped { by: None }, grace);
        } else if state.status.is_none() {
            // So its number is not free yet.
            drop(sys::signal(self.child, signal, || true));
        }
    }

    /// Stops the workload. It does not undo an end that has happened, and a later call can only shorten the grace.
    fn stop(&mut self, state: &mut State, cause: Cause, grace: Duration) {
        self.reap(state);
        if matches!(cause, Cause::Stopped { .. } | Cause::Terminated) {
            state.abandon_within(grace.saturating_add(FLUSH));
        }
        if state.is_running() {
            state.cause = Some(cause);
            state.terminate(Some(self.child), grace);
        } else {
            state.kill_within(grace);
        }
    }

    fn reap(&mut self, state: &mut State) {
        loop {
            match sys::wait_any() {
                Waited::Ended(pid, status) if pid == self.child => {
                    state.status = Some((status.into(), clock::now_micros()));
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
            state.terminate(None, LEFTOVER_GRACE.min(self.limits.grace));
        }
    }

    fn look_for_stop(&mut self, state: &mut State) {
        if let Some(stop) = folder::stop_request(self.limits.grace) {
            self.stop(state, Cause::Stopped { by: stop.by }, stop.grace);
        }
    }

    /// Does what is due by the clock.
    fn enforce(&mut self, state: &mut State) {
        let now = Instant::now();
        let due = |deadline: Option<Instant>| deadline.is_some_and(|deadline| deadline <= now);
        if due(self.quiet(state)) {
            for stream in &mut *self.streams {
                stream.release(&mut state.buffers, self.outlet);
            }
        }
        if due(state.idle()) {
            state.buffers.release();
        }
        if state.is_running() && due(self.timeout(state)) {
            self.stop(state, Cause::TimedOut, self.limits.grace);
        } else if state.is_running() && due(self.stall(state)) {
            self.stop(state, Cause::Stalled, self.limits.grace);
        }
        if state.is_running() && due(self.next_look(state)) {
            state.look_later();
            if folder::is_gone() {
                self.stop(state, Cause::Stopped { by: None }, self.limits.grace);
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
        match &self.kill {
            Kill::Tree => {}
            // Where the kernel is too old for it, the walk over the tree does it.
            Kill::Group(file) => drop(std::fs::write(file, "1")),
            Kill::Namespace => sys::kill_namespace(),
        }
        tree::signal_all(libc::SIGKILL);
        self.reap(state);
        if !state.alone && state.status.is_some() && in_vain {
            state.left = tree::count();
            state.alone = true;
        }
    }

    /// Passes on what is still in the pipes. They have ended, unless somebody outside the tree holds them. Readers are
    /// waited for as long as they take, unless somebody wants a stop.
    fn drain(&mut self, state: &mut State) -> io::Result<()> {
        let mut deadline = Instant::now().after(DRAIN);
        loop {
            let now = Instant::now();
            if self.outlet.is_blocked() {
                deadline = now.after(DRAIN);
                if state.abandon_at.is_some_and(|at| at <= now) {
                    self.outlet.abandon();
                    continue;
                }
                if state.idle().is_some_and(|idle| idle <= now) {
                    state.buffers.release();
                }
                let next = [state.abandon_at, state.idle()].into_iter().flatten().min();
                self.wait(state, next)?;
            } else if self.streams.iter().all(Stream::has_ended) {
                return Ok(());
            } else if deadline <= now {
                for stream in self.streams.iter_mut().filter(|stream| !stream.has_ended()) {
                    stream.end(&mut state.buffers, self.outlet);
                }
            } else {
                self.wait(state, Some(deadline))?;
            }
        }
    }
}
