//! The masker against the slow reference: `cargo +nightly fuzz run mask`.
#![no_main]

#[path = "../../helper/tests/reference/mod.rs"]
mod reference;

libfuzzer_sys::fuzz_target!(|data: &[u8]| reference::run(data));
