//! Whatever a plugin writes to its stdout: `cargo +nightly fuzz run plugin_output` in `core`.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| hybrid_runner_core::plugin::hear(bytes));
