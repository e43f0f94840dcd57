//! A crash at a chosen durable step, for tests of recovery.
//!
//! Without the feature `_faults` this is nothing. With it, each [`step`] is counted across the
//! process; at the number in `HYBRID_RUNNER_FAULT_STEP` the process aborts, as `kill -9` would end it.
//! `HYBRID_RUNNER_FAULT_LOG` names a file that gets a line `N name` for each step passed, so that a
//! walker knows how many there are.

/// Marks a point between two durable effects.
#[cfg(not(feature = "_faults"))]
#[inline(always)]
pub fn step(_name: &'static str) {}

/// Marks a point between two durable effects; aborts the process at the chosen one.
#[cfg(feature = "_faults")]
pub fn step(name: &'static str) {
    use std::io::Write as _;
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    static COUNT: AtomicU64 = AtomicU64::new(0);
    static AT: LazyLock<Option<u64>> =
        LazyLock::new(|| std::env::var("HYBRID_RUNNER_FAULT_STEP").ok()?.parse().ok());
    static LOG: LazyLock<Option<std::fs::File>> = LazyLock::new(|| {
        let path = std::env::var_os("HYBRID_RUNNER_FAULT_LOG")?;
        std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .ok()
    });
    let count = COUNT.fetch_add(1, Ordering::SeqCst) + 1;
    if let Some(mut log) = LOG.as_ref() {
        // One write a line: steps of several threads must not mix.
        drop(log.write_all(format!("{count} {name}\n").as_bytes()));
    }
    if *AT == Some(count) {
        std::process::abort();
    }
}
