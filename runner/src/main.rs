//! The binary: signals and exit codes. Everything else is in the library.

use std::process::ExitCode;
use std::sync::Arc;

use hybrid_runner::cli::{self, Interrupt};
use rustix::process::{DumpableBehavior, Resource, getrlimit, set_dumpable_behavior, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;

/// A runtime could not be made.
const NO_RUNTIME: u8 = 1;

/// The terminal is gone; to the runner: read the configuration again.
const HANGUP: u8 = 1;

/// What a shell expects of a program that a signal ended.
const SIGNAL_BASE: u8 = 128;

fn main() -> ExitCode {
    keep_memory_private();
    // First of all: were two providers linked in, rustls could not choose one by itself.
    if rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .is_err()
    {
        return ExitCode::from(NO_RUNTIME);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let Ok(runtime) = runtime else {
        return ExitCode::from(NO_RUNTIME);
    };
    let code = runtime.block_on(async {
        let interrupt = Arc::new(Interrupt::default());
        let mut tasks = JoinSet::new();
        tasks.spawn(watch_signals(Arc::clone(&interrupt)));
        cli::main(std::env::args_os(), &interrupt).await
    });
    // A read of standard input or a name look-up that still hangs holds nobody back.
    runtime.shutdown_background();
    ExitCode::from(code)
}

/// Values pass through this memory: no core dump shows it, and no process of the same user reads it.
fn keep_memory_private() {
    // Where the kernel refuses, nothing can be done, and nothing is worse than before.
    set_dumpable_behavior(DumpableBehavior::NotDumpable).ok();
    let mut limit = getrlimit(Resource::Core);
    limit.current = Some(0);
    setrlimit(Resource::Core, limit).ok();
}

/// The first SIGTERM or SIGINT asks for an orderly end, the second ends the process. SIGHUP makes the runner read its
/// configuration again, and ends everything else.
async fn watch_signals(interrupt: Arc<Interrupt>) {
    let (Ok(mut term), Ok(mut int), Ok(mut hangup)) = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
        signal(SignalKind::hangup()),
    ) else {
        return;
    };
    let first = loop {
        tokio::select! {
            signal = next(&mut term, &mut int) => break signal,
            _ = hangup.recv() => interrupt.hang_up(SIGNAL_BASE + HANGUP),
        }
    };
    interrupt.raise(SIGNAL_BASE + first);
    let second = next(&mut term, &mut int).await;
    leave(SIGNAL_BASE + second);
}

async fn next(term: &mut Signal, int: &mut Signal) -> u8 {
    tokio::select! {
        _ = term.recv() => 15,
        _ = int.recv() => 2,
    }
}

#[expect(
    clippy::exit,
    reason = "a second signal means now: nothing more is waited for"
)]
fn leave(code: u8) -> ! {
    std::process::exit(i32::from(code))
}
