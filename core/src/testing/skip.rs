//! Tests that cannot be made where they are run.

use std::fs::OpenOptions;
use std::io::Write as _;

/// Says that a test cannot be made here, and adds a line to the file that `HYBRID_RUNNER_SKIPS` names. With `CI=true` that is a
/// failure: the caller returns otherwise.
#[expect(clippy::print_stdout, reason = "for whoever reads what a test says")]
pub fn skipped(why: &str) {
    println!("skipped: {why}");
    if let Some(path) = std::env::var_os("HYBRID_RUNNER_SKIPS") {
        let thread = std::thread::current();
        let line = format!("{}: {why}\n", thread.name().unwrap_or("a test"));
        let written = OpenOptions::new()
            .append(true)
            .create(true)
            .open(path)
            .and_then(|mut file| file.write_all(line.as_bytes()));
        written.expect("the file that HYBRID_RUNNER_SKIPS names can be written to");
    }
    let ci = std::env::var("CI").is_ok_and(|ci| ci == "true");
    assert!(!ci, "skipped, which CI does not allow: {why}");
}
