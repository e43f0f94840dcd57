//! What the kernel does when memory runs out.

use std::fs;
use std::path::{Path, PathBuf};

/// By how much the workload is rather killed for want of memory than its helper.
const BIAS: i32 = 100;
/// Where the control group of a container says it, inside the container: version 2, version 1.
const OF_CONTAINER: [&str; 2] = [
    "/sys/fs/cgroup/memory.events",
    "/sys/fs/cgroup/memory/memory.oom_control",
];

/// Makes the kernel kill the workload before the helper when memory runs out. Raising is always permitted.
pub(crate) fn prefer(child: u32) {
    let own = fs::read_to_string("/proc/self/oom_score_adj")
        .ok()
        .and_then(|text| text.trim().parse::<i32>().ok());
    let score = (own.unwrap_or(0) + BIAS).min(1000);
    // A kernel without it has no such preference.
    drop(fs::write(
        format!("/proc/{child}/oom_score_adj"),
        score.to_string(),
    ));
}

/// Counts the processes of a control group that the kernel has killed for want of memory.
pub(crate) struct Kills {
    file: PathBuf,
    before: u64,
}

impl Kills {
    /// Those in a control group that was made for the run.
    pub(crate) fn of_group(folder: &Path) -> Self {
        Self {
            file: folder.join("memory.events"),
            before: 0,
        }
    }

    /// Those in this container from now on; `None` if it does not say.
    pub(crate) fn of_container() -> Option<Self> {
        OF_CONTAINER.into_iter().find_map(|file| {
            let file = PathBuf::from(file);
            let before = read(&file)?;
            Some(Self { file, before })
        })
    }

    /// How many there are now.
    pub(crate) fn count(&self) -> u64 {
        read(&self.file).unwrap_or(0).saturating_sub(self.before)
    }
}

fn read(file: &Path) -> Option<u64> {
    let events = fs::read_to_string(file).ok()?;
    events
        .lines()
        .find_map(|line| line.strip_prefix("oom_kill ")?.parse().ok())
}
