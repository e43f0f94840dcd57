//! Whatever a plugin writes to its stdout, with requests and streams under way: `cargo +nightly fuzz run plugin_output`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    hybrid_runner_core::plugin::hear(bytes);
});
