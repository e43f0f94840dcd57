//! The second role: the first process of a container. It gets its payload through a standard input that the engine keeps
//! open, passes the masked output on to the engine with its own lines between ([`container`]), and is told to stop by
//! signals.
//!
//! Nothing is taken for granted but `/proc`, `/dev` and the folders of [`container`]: there may be no shell, no C library,
//! no `/etc`, no right to write anywhere else.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::time::Duration;

use libc::c_int;

use crate::child::Place;
use crate::clock::{self, Instant};
use crate::container::{self, End, Line};
use crate::end::{How, SpawnFailure, Step};
use crate::engine::{Engine, FLUSH};
use crate::input::Input;
use crate::memory::{Kills, Standing};
use crate::outlet::Outlet as _;
use crate::payload::Payload;
use crate::report::exit;
use crate::started::Child;
use crate::supervise::{Kill, Orders};
use crate::sys::{self, SignalFd, Wait};
use crate::tree;
use crate::workload::{self, Running, Watch};

/// How long a payload is waited for.
const PATIENCE: Duration = Duration::from_mins(10);

/// Signals that cannot be caught, that this process brings upon itself by writing, and that C libraries keep to themselves.
const OWN: [c_int; 6] = [
    libc::SIGKILL,
    libc::SIGSTOP,
    libc::SIGPIPE,
    libc::SIGXFSZ,
    32,
    33,
];

/// What prevents a start.
struct Failure {
    what: &'static str,
    error: io::Error,
}

fn failed(what: &'static str) -> impl FnOnce(io::Error) -> Failure {
    move |error| Failure { what, error }
}

/// The exit code.
pub(crate) fn main(mark: &str) -> u8 {
    Init::new(mark)
        .and_then(Init::run)
        .unwrap_or_else(|Failure { what, error }| {
            say(&format!("failed to {what}: {error}"));
            exit::FAILED
        })
}

/// Writes a line for people, if somebody reads it.
fn say(line: &str) {
    if let Ok(mut engine) = Engine::new() {
        engine.note(line);
    }
}

/// The first process, before it has started anything.
struct Init<'a> {
    mark: &'a str,
    signals: SignalFd,
    /// The folder in which the engine has started this process.
    home: OwnedFd,
    standing: Option<Standing>,
    engine: Engine,
}

/// What comes first.
enum Call {
    /// A payload.
    Start(Box<Payload>),
    /// A stop of ours.
    Stop,
    /// The end of the input, a wish from outside to end, or nothing for too long.
    Leave,
}

impl<'a> Init<'a> {
    fn new(mark: &'a str) -> Result<Self, Failure> {
        // At once: the system drops a signal that a first process does not await.
        let caught: Vec<c_int> = (1..=64).filter(|signal| !OWN.contains(signal)).collect();
        let signals = sys::signal_fd(&caught).map_err(failed("receive signals"))?;
        for signal in [libc::SIGPIPE, libc::SIGXFSZ] {
            sys::ignore(signal);
        }
        // Fails only for one that leads a session already.
        drop(sys::lead_session());
        let standing = Standing::open();
        sys::harden(c"hr-init").map_err(failed("protect the helper"))?;
        let home = File::options()
            .read(true)
            .custom_flags(libc::O_PATH | libc::O_DIRECTORY)
            .open(".");
        Ok(Self {
            mark,
            signals,
            home: home.map_err(failed("find the working directory"))?.into(),
            standing,
            engine: Engine::new().map_err(failed("prepare the output"))?,
        })
    }

    /// Does it all; an error is why nothing was started.
    fn run(mut self) -> Result<u8, Failure> {
        let mut input = Input::standard().map_err(failed("read the payload"))?;
        let call = await_call(&mut input, &mut self.signals, PATIENCE);
        match call.map_err(failed("read the payload"))? {
            Call::Start(payload) => Ok(self.start(*payload, input)),
            Call::Stop => {
                let until = Instant::now().after(FLUSH);
                self.conclude(
                    not_started(How::Stopped { by: None }),
                    Some(until),
                    Duration::ZERO,
                );
                Ok(exit::DONE)
            }
            Call::Leave => Ok(exit::NO_PAYLOAD),
        }
    }

    fn start(mut self, payload: Payload, input: Input) -> u8 {
        for note in &payload.notes {
            self.engine.note(note);
        }
        let memory = Kills::of_container();
        let home = self.home.as_fd();
        match workload::launch(&payload, Place::Container { home }, self.standing.as_ref()) {
            Ok(running) => self.watch(payload, running, input, memory),
            Err(failure) => {
                let code = code_of(&failure);
                let end = not_started(How::SpawnFailed(failure));
                self.conclude(end, None, payload.grace);
                code
            }
        }
    }

    fn watch(
        mut self,
        payload: Payload,
        running: Running,
        input: Input,
        memory: Option<Kills>,
    ) -> u8 {
        let grace = payload.grace;
        let Child { pid, time, .. } = running.child;
        let header = Line::Started { pid, time }.encode(self.mark);
        self.engine.open(&header);
        let watch = Watch {
            signals: &mut self.signals,
            orders: Orders::Signals { input, header },
            kill: if std::process::id() == 1 {
                Kill::Namespace
            } else {
                Kill::Tree
            },
            outlet: &mut self.engine,
            memory,
        };
        let Ok(ended) = workload::watch(payload, running, watch) else {
            // It cannot be watched, so it must not go on; without a line of the end it counts as lost.
            tree::signal_all(libc::SIGKILL);
            say("failed to watch over the command: it was killed");
            return exit::FAILED;
        };
        let outcome = ended.outcome;
        let end = End {
            started: Some(time),
            ended: outcome.ended,
            masked: ended.masked,
            oom_kills: ended.oom_kills,
            left: outcome.left,
            ..not_started(outcome.how)
        };
        self.conclude(end, outcome.abandon_at, grace);
        outcome.child.exit_code()
    }

    /// Says how it ended, behind all output; it alone knows how much that is.
    fn conclude(&mut self, mut end: End, until: Option<Instant>, grace: Duration) {
        (end.out, end.err) = self.engine.totals();
        self.engine.say(&Line::End(end).encode(self.mark));
        // Where this fails the exit code still tells how it ended.
        drop(self.engine.deliver(&mut self.signals, until, grace));
    }
}

/// Waits for what comes first. A stop wins over a payload that comes with it.
fn await_call(input: &mut Input, signals: &mut SignalFd, patience: Duration) -> io::Result<Call> {
    let deadline = Instant::now().after(patience);
    let mut first = None;
    loop {
        let mut leave = false;
        while let Some(signal) = signals.next() {
            if container::grace_of(signal).is_some() {
                return Ok(Call::Stop);
            }
            leave |= signal == libc::SIGTERM;
        }
        let now = Instant::now();
        if leave || deadline <= now && first.is_none() {
            return Ok(Call::Leave);
        }
        if let Some(payload) = first {
            return Ok(Call::Start(Box::new(payload)));
        }
        if input.has_ended() {
            return Ok(Call::Leave);
        }
        let waits = [Wait::Read(signals.as_fd()), input.wait()];
        let [_, ready] = sys::poll(waits, Some(deadline.from(now)))?;
        if ready {
            // Of several the first one; what is said of it answers the others.
            input.read(|payload| {
                first.get_or_insert(payload);
            })?;
        }
    }
}

/// The end of what was never started.
fn not_started(how: How) -> End {
    End {
        how,
        started: None,
        ended: clock::now_micros(),
        out: 0,
        err: 0,
        masked: 0,
        oom_kills: 0,
        left: 0,
    }
}

/// What a shell exits with where a command cannot be run.
fn code_of(failure: &SpawnFailure) -> u8 {
    let missing = matches!(failure.step, Step::Program | Step::Interpreter)
        && matches!(failure.errno, libc::ENOENT | libc::ENOTDIR);
    if missing { 127 } else { 126 }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_payload_that_does_not_come_is_not_waited_for_for_ever() {
        let (read, write) = sys::pipe().unwrap();
        // The end to write stays open.
        let mut write = File::from(write);
        write.write_all(b"half of something").unwrap();
        let mut signals = sys::signal_fd(&[libc::SIGWINCH]).unwrap();
        let mut input = Input::new(read.into());
        let patience = Duration::from_millis(50);
        let call = await_call(&mut input, &mut signals, patience).unwrap();
        assert!(matches!(call, Call::Leave));
        assert!(!input.has_ended());
    }
}
