//! The binary. Everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    hybrid_runner::Builder::new().run()
}
