//! One workload, in whichever role: made, watched over, and how it ended.

use std::io;

use crate::child::{self, Place, Spawned};
use crate::clock;
use crate::end::{How, SpawnFailure, Step};
use crate::mask::Patterns;
use crate::memory::{Kills, Standing};
use crate::outlet::Outlet;
use crate::output::Stream;
use crate::payload::{Payload, Private};
use crate::private::PrivateFolder;
use crate::spool::Kind;
use crate::started::Child;
use crate::state::Outcome;
use crate::supervise::{Kill, Limits, Orders, Supervisor};
use crate::sys::{self, SignalFd};
use crate::tree;

/// What there is once the workload runs.
pub(crate) struct Running {
    pub(crate) child: Child,
    spawned: Spawned,
    private: Option<PrivateFolder>,
}

/// Makes the private files, and the process.
pub(crate) fn launch(
    payload: &Payload,
    place: Place<'_>,
    standing: Option<&Standing>,
) -> Result<Running, SpawnFailure> {
    let private = match &payload.private_dir {
        Some(path) => Some(
            PrivateFolder::create(path, &payload.files).map_err(|error| SpawnFailure {
                step: Step::PrivateFiles,
                errno: error.raw_os_error().unwrap_or(0),
                program: payload.argv[0].clone(),
            })?,
        ),
        None => None,
    };
    let spawn = || child::spawn(payload, place);
    let spawned = standing.map_or_else(spawn, |standing| standing.prefer_children(spawn))?;
    let child = Child {
        pid: spawned.pid,
        ticks: tree::start_ticks(spawned.pid).unwrap_or(0),
        time: clock::now_micros(),
    };
    Ok(Running {
        child,
        spawned,
        private,
    })
}

/// How a workload is watched over; this is what the roles differ in.
pub(crate) struct Watch<'a> {
    pub(crate) signals: &'a mut SignalFd,
    pub(crate) orders: Orders,
    pub(crate) kill: Kill,
    pub(crate) outlet: &'a mut dyn Outlet,
    pub(crate) memory: Option<Kills>,
}

/// What is known once all is over.
pub(crate) struct Ended {
    pub(crate) outcome: Outcome,
    /// How many places were masked.
    pub(crate) masked: u64,
    /// How many processes the kernel has killed for want of memory.
    pub(crate) oom_kills: u64,
}

/// Watches until the last process is gone, and its output and the private files with it.
pub(crate) fn watch(payload: Payload, running: Running, watch: Watch<'_>) -> io::Result<Ended> {
    let Running {
        child,
        spawned,
        private,
    } = running;
    let patterns = Patterns::of_output(payload.needles.iter().map(Private::expose));
    let mut streams = [(Kind::Out, spawned.out), (Kind::Err, spawned.err)]
        .map(|(kind, pipe)| Stream::new(kind, pipe, patterns.clone()));
    let limits = Limits {
        timeout: payload.timeout,
        stall_timeout: payload.stall_timeout,
        grace: payload.grace,
    };
    // From here on the values are in the needles alone.
    drop((payload, patterns));
    sys::trim_heap();
    let supervisor = Supervisor {
        child: child.pid,
        limits,
        kill: watch.kill,
        orders: watch.orders,
        signals: watch.signals,
        streams: &mut streams,
        outlet: watch.outlet,
    };
    let mut outcome = supervisor.run()?;
    drop(private);
    let oom_kills = watch.memory.map_or(0, |kills| kills.count());
    if oom_kills > 0 && matches!(outcome.how, How::Signaled(9) | How::Exited(137)) {
        outcome.how = How::OutOfMemory;
    }
    Ok(Ended {
        outcome,
        masked: streams.iter().map(Stream::masked).sum(),
        oom_kills,
    })
}
