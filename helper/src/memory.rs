//! What the kernel does when memory runs out.

use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

/// By how much the workload is rather killed for want of memory than its helper.
const BIAS: i32 = 100;
/// Where the control group of a container says it, inside the container: version 2, version 1.
const OF_CONTAINER: [&str; 2] = [
    "/sys/fs/cgroup/memory.events",
    "/sys/fs/cgroup/memory/memory.oom_control",
];

/// Whom the kernel rather kills when memory runs out: this process or its children.
pub(crate) struct Standing {
    score: File,
    own: i32,
}

impl Standing {
    /// To be opened before this process keeps its memory to itself: after that only root may. `None` where the kernel
    /// has no such preference, or there is no `/proc`.
    pub(crate) fn open() -> Option<Self> {
        let mut score = File::options()
            .read(true)
            .write(true)
            .open("/proc/self/oom_score_adj")
            .ok()?;
        let mut text = String::new();
        score.read_to_string(&mut text).ok()?;
        let own = text.trim().parse().ok()?;
        Some(Self { score, own })
    }

    /// What `make` starts, and whatever that starts in turn, is killed before this process. It inherits that: told
    /// later, it would not hold for what the child had made by then. Both raising and going back are permitted to
    /// everybody.
    pub(crate) fn prefer_children<T>(&self, make: impl FnOnce() -> T) -> T {
        self.set((self.own + BIAS).min(1000));
        let result = make();
        self.set(self.own);
        result
    }

    fn set(&self, score: i32) {
        drop(self.score.write_all_at(score.to_string().as_bytes(), 0));
    }
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
