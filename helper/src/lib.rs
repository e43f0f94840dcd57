//! The small static program beside every local run and inside every container, and the formats it shares with the
//! runner.
//!
//! One helper process per run outlives the runner. It owns the tree of the workload's processes, masks their output,
//! enforces time limits and stops, and records the end. It has no threads and no async runtime, so that a held run
//! costs little memory. It has two roles, by its first argument:
//!
//! * `run FOLDER`: beside a run on this machine. It spools the output into the run's folder ([`files`]), and is told
//!   to stop through a FIFO there.
//! * `init MARK`: the first process of a container ([`container`]). It passes the output on to the engine, and is told to
//!   stop by signals.
//!
//! | module | what |
//! |---|---|
//! | [`payload`] | what the runner writes to the helper's standard input: command, values, limits |
//! | [`report`] | the one line that the helper answers, and its exit codes |
//! | [`started`] | the record of a start: who the child is, how its leftovers are found |
//! | [`stop`] | the request to stop |
//! | [`spool`] | the output, record by record |
//! | [`end`] | the record of the end |
//! | [`container`] | what differs in a container: paths, the lines of start and end, signals |
//! | [`mask`] | the streaming masker, and the encoded forms of a value |
//! | [`session`] | programs in sessions of their own |
//!
//! # Building
//!
//! The program is built static and not position-independent, so that it starts without relocations and its pages are
//! shared by all helpers:
//!
//! ```text
//! RUSTFLAGS="-C target-feature=+crt-static -C relocation-model=static" \
//!     cargo build -p hybrid-runner-helper --profile helper --target x86_64-unknown-linux-gnu
//! ```
//!
//! The crate `executors` does that in its build and carries the result inside.

mod child;
mod clock;
mod engine;
mod folder;
mod init;
mod input;
mod memory;
mod outlet;
mod output;
mod private;
mod program;
mod relay;
mod run;
mod state;
mod supervise;
mod sys;
mod text;
mod tree;
mod workload;
mod writer;

pub mod container;
pub mod end;
pub mod mask;
pub mod payload;
pub mod report;
pub mod session;
pub mod spool;
pub mod started;
pub mod stop;

pub use text::TextError;

/// Names of the files in the folder of a run.
pub mod files {
    /// The spooled output. The helper holds an exclusive `flock` on it as long as it lives.
    pub const LOG: &str = "log";
    /// The claim and record of the start, created with `O_EXCL` before the child.
    pub const STARTED: &str = "started";
    /// The record of the end, renamed into place.
    pub const END: &str = "end";
    /// The record of the end before its rename; written at the start so that a full disk cannot prevent an end.
    pub const END_TMP: &str = "end.tmp";
    /// The request to stop; its existence is the request.
    pub const STOP: &str = "stop";
    /// A FIFO; one byte in it makes the helper look at [`STOP`] again.
    pub const CONTROL: &str = "control";
}

/// The variable in the environment of the workload whose value ([`started::Started::cookie`]) finds leftovers.
pub const COOKIE_VARIABLE: &str = "HYBRID_RUNNER_COOKIE";

/// Runs the program; the body of its `main`.
pub fn main() -> std::process::ExitCode {
    program::main(std::env::args_os())
}
