//! A binary of one's own: all that `hybrid-runner` is, and kinds of executors and secret stores that others wrote.

use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use hybrid_runner_core::executor::Executor;
use hybrid_runner_core::kind::Kind;
use hybrid_runner_core::secret::SecretProvider;
use rustix::process::{DumpableBehavior, Resource, getrlimit, set_dumpable_behavior, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinSet;

use crate::cli::{self, Interrupt};
use crate::kinds::Kinds;

/// A runtime could not be made.
const NO_RUNTIME: u8 = 1;

/// The terminal is gone; to the runner: read the configuration again.
const HANGUP: u8 = 1;

/// What a shell expects of a program that a signal ended.
const SIGNAL_BASE: u8 = 128;

/// Makes a `hybrid-runner` that knows more kinds.
///
/// Every command knows them: `run`, `exec`, `config schema`, `version`, `plugin list`.
///
/// ```no_run
/// # use hybrid_runner_core::{Executor, kind::Kind};
/// # mod slurm {
/// #     use super::*;
/// #     pub const KIND: Kind<dyn Executor> = Kind {
/// #         name: "slurm",
/// #         summary: "jobs of a Slurm cluster",
/// #         build: |_| Err(hybrid_runner_core::Error::internal("an example")),
/// #         schema: || hybrid_runner_core::schemars::json_schema!({}),
/// #     };
/// # }
/// fn main() -> std::process::ExitCode {
///     hybrid_runner::Builder::new().executor(slurm::KIND).run()
/// }
/// ```
#[derive(Debug, Default)]
#[must_use]
pub struct Builder {
    kinds: Kinds,
}

impl Builder {
    /// The kinds of the project.
    pub fn new() -> Self {
        Self::default()
    }

    /// And this executor. One of the same name gives way to it.
    pub fn executor(mut self, kind: Kind<dyn Executor>) -> Self {
        self.kinds.add_executor(kind);
        self
    }

    /// And this secret store. One of the same name gives way to it.
    pub fn secrets(mut self, kind: Kind<dyn SecretProvider>) -> Self {
        self.kinds.add_secrets(kind);
        self
    }

    /// Runs the command that was typed: the body of `main`.
    pub fn run(self) -> ExitCode {
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
            cli::main(std::env::args_os(), &self.kinds, &interrupt).await
        });
        // Tasks end, and the programs that they started with them. A read of standard input or a name look-up that still
        // hangs holds nobody back.
        runtime.shutdown_timeout(LAST);
        ExitCode::from(code)
    }
}

/// How long the tasks that are left may take to end.
const LAST: Duration = Duration::from_millis(200);

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
    if let Some(left) = interrupt.leaves() {
        // Nobody reads it: nothing is left to say it to.
        drop(writeln!(std::io::stderr().lock(), "{left}"));
    }
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
