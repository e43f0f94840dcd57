//! What the end-to-end stories are told with: the real binaries over real sockets.
//!
//! | module | holds |
//! |---|---|
//! | [`story`] | one story: its time limit, its folder, and the end of every process it left behind |
//! | [`program`] | a program that was started, its output, its end |
//! | [`server`], [`runner`] | the two halves of the product as programs that can be killed and started again |
//! | [`docker`], [`engine`] | a Docker Engine seen from outside, and one of a story's own that it may kill |
//! | [`cluster`] | a namespace of a Kubernetes cluster, seen from outside |
//! | [`rest`], [`follow`] | a client of the control plane, and a log that is followed over SSE |
//! | [`proxy`], [`capture`] | a TCP proxy that cuts, refuses and swallows, and what passed through it |
//! | [`link`] | both ends of the link by hand: a client that sends garbage, a server that sends garbage |
//! | [`processes`] | what runs on this machine, as `/proc` shows it |
//! | [`workflow`] | workflows, mostly of `/bin/sh` |
//!
//! The stories are in `tests/stories`, a file for each promise.

pub mod capture;
pub mod cluster;
pub mod docker;
pub mod engine;
pub mod follow;
pub mod link;
pub mod processes;
pub mod program;
pub mod proxy;
pub mod rest;
pub mod runner;
pub mod server;
pub mod story;
pub mod workflow;

pub use capture::Capture;
pub use cluster::Cluster;
pub use docker::Docker;
pub use engine::Engine;
pub use follow::Follow;
pub use hybrid_runner_core::testing::skipped;
pub use program::{Binary, Program};
pub use proxy::Proxy;
pub use rest::{Client, Run};
pub use runner::Runner;
pub use server::Server;
pub use story::{Story, files};
pub use workflow::Workflow;
