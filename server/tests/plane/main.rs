//! The control plane over real sockets, with fakes as runners.

#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking, in its helpers too"
)]

mod api;
mod link;
mod runs;
mod support;
