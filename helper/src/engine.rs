//! The way out of a container: the standard output and error output of its first process, read by the engine.

use std::io;
use std::os::fd::AsFd as _;
use std::time::Duration;

use crate::clock::Instant;
use crate::container;
use crate::outlet::Outlet;
use crate::relay::Relay;
use crate::spool::{HEADER_LEN, Kind};
use crate::sys::{self, SignalFd, Wait};

/// How long, once the grace of a stop is over, a reader of the output is waited for.
pub(crate) const FLUSH: Duration = Duration::from_secs(5);

/// The engine, which reads both streams as fast as it can.
pub(crate) struct Engine {
    out: Relay,
    err: Relay,
}

impl Engine {
    /// The reader of our own output and error output.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            out: Relay::new(io::stdout().as_fd())?,
            err: Relay::new(io::stderr().as_fd())?,
        })
    }

    /// How many bytes of output and of error output it was given.
    pub(crate) fn totals(&self) -> (u64, u64) {
        (self.out.total(), self.err.total())
    }

    /// Passes on a text for people, each of its lines marked as not being the workload's.
    pub(crate) fn note(&mut self, text: &str) {
        for line in text.lines() {
            self.err.pass(format!("hybrid-runner: {line}\n").as_bytes());
        }
    }

    /// Waits until it has taken all. Who wants a stop meanwhile does not want to wait for ever: then, and where `until`
    /// says so, it is given up.
    pub(crate) fn deliver(
        &mut self,
        signals: &mut SignalFd,
        mut until: Option<Instant>,
        grace: Duration,
    ) -> io::Result<()> {
        while self.is_blocked() {
            let now = Instant::now();
            if until.is_some_and(|until| until <= now) {
                self.abandon();
                break;
            }
            let waits = [
                Wait::Read(signals.as_fd()),
                self.wait(Kind::Out),
                self.wait(Kind::Err),
            ];
            let [_, out, err] = sys::poll(waits, until.map(|until| until.from(now)))?;
            for (kind, ready) in [(Kind::Out, out), (Kind::Err, err)] {
                if ready {
                    self.flush(kind);
                }
            }
            let terminated = |signal| (signal == libc::SIGTERM).then_some(grace);
            let stops = std::iter::from_fn(|| signals.next())
                .filter_map(|signal| container::grace_of(signal).or_else(|| terminated(signal)));
            let stops = stops.map(|grace| now.after(grace.saturating_add(FLUSH)));
            until = stops.chain(until).min();
        }
        Ok(())
    }

    fn relay(&self, kind: Kind) -> Option<&Relay> {
        match kind {
            Kind::Out => Some(&self.out),
            Kind::Err => Some(&self.err),
            Kind::Gap => None,
        }
    }

    fn relay_mut(&mut self, kind: Kind) -> Option<&mut Relay> {
        match kind {
            Kind::Out => Some(&mut self.out),
            Kind::Err => Some(&mut self.err),
            Kind::Gap => None,
        }
    }
}

impl Outlet for Engine {
    fn output(&mut self, kind: Kind, framed: &mut [u8]) {
        if let Some(relay) = self.relay_mut(kind) {
            relay.pass(&framed[HEADER_LEN..]);
        }
    }

    /// Where a line begins; where none does, behind the unfinished one of the error output.
    fn say(&mut self, line: &[u8]) {
        let (best, other) = if self.err.is_in_line() && !self.out.is_in_line() {
            (&mut self.out, &mut self.err)
        } else {
            (&mut self.err, &mut self.out)
        };
        // It is better heard in the wrong place than nowhere.
        if !best.say(line) {
            other.say(line);
        }
    }

    fn blocks(&self, kind: Kind) -> bool {
        self.relay(kind).is_some_and(Relay::is_blocked)
    }

    fn wait(&self, kind: Kind) -> Wait<'_> {
        match self.relay(kind) {
            Some(relay) if relay.is_blocked() => Wait::Write(relay.as_fd()),
            _ => Wait::Never,
        }
    }

    fn flush(&mut self, kind: Kind) {
        if let Some(relay) = self.relay_mut(kind) {
            relay.flush();
        }
    }

    fn abandon(&mut self) {
        for relay in [&mut self.out, &mut self.err] {
            if relay.is_blocked() {
                relay.abandon();
            }
        }
    }
}
