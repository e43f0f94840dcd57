//! A crash at a chosen durable step, for tests of recovery.
//!
//! Without the feature `_faults` this is nothing. With it, each [`step`] is counted across the
//! process; at the one in `HYBRID_RUNNER_FAULT_STEP` the process aborts, as `kill -9` would end it: `17` is the 17th of
//! all, `docker.start.made:2` the second of that name. `HYBRID_RUNNER_FAULT_LOG` names a file that gets a line `N name` for each step passed, so that a
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
    static AT: LazyLock<Option<At>> =
        LazyLock::new(|| At::parse(&std::env::var("HYBRID_RUNNER_FAULT_STEP").ok()?));
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
    if AT.as_ref().is_some_and(|at| at.is_now(count, name)) {
        std::process::abort();
    }
}

/// Where to abort.
#[cfg(feature = "_faults")]
enum At {
    /// At this one of all.
    Any(u64),
    /// At that of this name which brings the number down to 0.
    Named(String, std::sync::atomic::AtomicI64),
}

#[cfg(feature = "_faults")]
impl At {
    fn parse(text: &str) -> Option<Self> {
        if let Ok(number) = text.parse() {
            return Some(Self::Any(number));
        }
        let (name, number) = text.split_once(':').unwrap_or((text, "1"));
        Some(Self::Named(
            name.to_owned(),
            number.parse::<i64>().ok()?.into(),
        ))
    }

    fn is_now(&self, count: u64, name: &str) -> bool {
        match self {
            Self::Any(at) => *at == count,
            Self::Named(at, left) => {
                at == name && left.fetch_sub(1, std::sync::atomic::Ordering::SeqCst) == 1
            }
        }
    }
}

#[cfg(all(test, feature = "_faults"))]
mod tests {
    use super::At;

    #[test]
    fn a_step_is_chosen_by_its_number_or_by_its_name() {
        let at = At::parse("3").unwrap();
        assert!(!at.is_now(2, "a") && at.is_now(3, "b"));
        let at = At::parse("a.b:2").unwrap();
        assert!(!at.is_now(1, "a.b") && !at.is_now(2, "a") && at.is_now(3, "a.b"));
        assert!(!at.is_now(4, "a.b"));
        assert!(At::parse("a.b").unwrap().is_now(9, "a.b"));
        assert!(At::parse("a.b:x").is_none());
    }
}
