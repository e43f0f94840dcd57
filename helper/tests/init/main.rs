//! The real helper as the first process of a container, in namespaces of its own.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../common/mod.rs"]
mod common;

mod attempt;
mod container;

mod confined;
mod lines;
mod output;
mod payload;
mod stop;
mod workload;
