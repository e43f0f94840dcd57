//! The Docker executor on a real engine: the one that `scripts/services/docker` has started, named by
//! `HYBRID_RUNNER_TEST_DOCKER`. Without it these tests are skipped.
//!
//! | file | shows |
//! |---|---|
//! | `contract` | the executor contract, here and over a session |
//! | `blame_start`, `blame_end` | each failure of a start, and of a run, has its class, and says what to do |
//! | `logs` | the output from every place in it, with what was dropped as gaps |
//! | `stream` | the log through a connection that stalls, breaks, lies |
//! | `names` | names and owners; what somebody else does to our objects |
//! | `deaths` | the engine is killed or restarted under its runs |
//! | `faults` | we are killed at each step |
//! | `tls` | an engine over TCP with certificates |
//! | `secrets` | no value stands anywhere but in the work; images of every kind |
//! | `place`, `bench` | a place in the engine; what most tests ask |
//! | `own` | an engine of one's own, to fill and to kill |
#![cfg(feature = "docker")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod bench;
mod blame_end;
mod blame_start;
mod contract;
mod deaths;
#[cfg(feature = "_faults")]
mod faults;
mod logs;
mod names;
mod own;
mod place;
mod secrets;
mod stream;
mod tls;
