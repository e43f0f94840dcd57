//! What the logs of all runs may take together.
//!
//! A run's log is limited to `spool.per_run`, and to what is left of `spool.total` when it starts. So logs that wait
//! through an outage never crowd the disk; runs under way at that moment may still fill their own limits.

use std::fs;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hybrid_runner_helper::files;
use tokio::time::Instant;

/// A run always has room for the line that says what is missing.
const LEAST: u64 = 64 << 10;
/// Between two looks at all folders.
const FRESH: Duration = Duration::from_secs(1);

/// The room for logs, and how much of it was taken when last seen.
#[derive(Debug)]
pub(super) struct Room {
    per_run: u64,
    total: Option<u64>,
    seen: Mutex<Option<(Instant, u64)>>,
}

impl Room {
    pub(super) fn new(per_run: u64, total: Option<u64>) -> Self {
        Self {
            per_run,
            total,
            seen: Mutex::new(None),
        }
    }

    /// The limit of a log that begins now. Now and then it looks into every folder of `root`.
    pub(super) fn limit(&self, root: &Path) -> u64 {
        let Some(total) = self.total else {
            return self.per_run;
        };
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let used = match *seen {
            Some((when, used)) if when.elapsed() < FRESH => used,
            _ => {
                let used = used(root);
                *seen = Some((Instant::now(), used));
                used
            }
        };
        total.saturating_sub(used).min(self.per_run).max(LEAST)
    }
}

fn used(root: &Path) -> u64 {
    let Ok(folders) = fs::read_dir(root) else {
        return 0;
    };
    folders
        .filter_map(|folder| fs::metadata(folder.ok()?.path().join(files::LOG)).ok())
        .map(|log| log.len())
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_that_wait_leave_less_room_for_the_next() {
        let root = tempfile::tempdir().unwrap();
        let run = root.path().join("run");
        fs::create_dir(&run).unwrap();
        fs::write(run.join(files::LOG), vec![0; 300 << 10]).unwrap();
        let of = |total| Room::new(1 << 20, total);
        assert_eq!(of(None).limit(root.path()), 1 << 20);
        assert_eq!(of(Some(10 << 20)).limit(root.path()), 1 << 20);
        assert_eq!(of(Some(500 << 10)).limit(root.path()), 200 << 10);
        assert_eq!(of(Some(300 << 10)).limit(root.path()), LEAST);
    }
}
