//! Whatever somebody writes as a reference: `cargo +nightly fuzz run reference`.
#![no_main]

#[path = "../../core/tests/properties/mod.rs"]
mod properties;

libfuzzer_sys::fuzz_target!(|data: &[u8]| properties::check(&String::from_utf8_lossy(data)));
