//! Control groups (v2), where this runner was given a part of the tree.
//!
//! `<base>/hybrid-runner-<owner>/<attempt>/` holds the processes of one run. The base is the nearest group above us that was
//! delegated (systemd: `Delegate=yes` marks it), or the root that we see, if we are in it and may write to it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use hybrid_runner_core::RunId;
use hybrid_runner_core::id::Owner;
use hybrid_runner_core::run::Amounts;
use rustix::fs::Access;

/// The part of the tree that is ours.
#[derive(Debug)]
pub(super) struct Groups {
    base: PathBuf,
    folder: PathBuf,
    /// Whether all processes of a group can be killed at once (Linux 5.14).
    pub(super) kill: bool,
    controllers: Vec<String>,
}

/// Others may sweep our part away before there is a run in it: so often that they do it each time only many can who begin at once.
const TRIES: usize = 20;
const PREFIX: &str = "hybrid-runner-";
const CONTROLLERS: [&str; 3] = ["memory", "cpu", "pids"];

impl Groups {
    /// Finds or makes our part, or says why there is none.
    pub(super) fn open(owner: &Owner) -> Result<Self, String> {
        let base = base()?;
        sweep(&base);
        let folder = base.join(format!("{PREFIX}{owner}"));
        let mut groups = Self {
            kill: false,
            controllers: Vec::new(),
            base,
            folder,
        };
        for _ in 0..TRIES {
            groups
                .prepare()
                .map_err(|error| format!("`{}`: {error}", groups.folder.display()))?;
            groups.kill = groups.folder.join("cgroup.kill").exists();
            groups.controllers = words(&groups.folder.join("cgroup.subtree_control"));
            if groups.folder.exists() {
                break;
            }
        }
        Ok(groups)
    }

    fn prepare(&self) -> io::Result<()> {
        make(&self.folder)?;
        for group in [&self.base, &self.folder] {
            let offered = words(&group.join("cgroup.controllers"));
            for name in CONTROLLERS {
                if offered.iter().any(|found| found == name) {
                    // Busy if processes are in the group itself; what could be had is read afterwards.
                    fs::write(group.join("cgroup.subtree_control"), format!("+{name}")).ok();
                }
            }
        }
        Ok(())
    }

    /// Whether all limits can be enforced.
    pub(super) fn limits(&self) -> bool {
        CONTROLLERS.iter().all(|name| self.controls(name))
    }

    /// Which of these limits cannot be enforced.
    pub(super) fn missing(&self, limits: &Amounts) -> Option<&'static str> {
        let wanted = [
            limits.memory.is_some(),
            limits.cpu.is_some(),
            limits.pids.is_some(),
        ];
        CONTROLLERS
            .into_iter()
            .zip(wanted)
            .find(|(name, wanted)| *wanted && !self.controls(name))
            .map(|(name, _)| name)
    }

    fn controls(&self, name: &str) -> bool {
        self.controllers.iter().any(|found| found == name)
    }

    /// Makes the group of a run, with those of its limits that can be enforced.
    pub(super) fn create(&self, run: RunId, limits: &Amounts) -> io::Result<PathBuf> {
        let group = self.of(run);
        let mut made = make(&group);
        for _ in 1..TRIES {
            if !made
                .as_ref()
                .is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
            {
                break;
            }
            // Another executor of this owner was the last there, or another runner has begun, and has removed our part.
            self.prepare()?;
            made = make(&group);
        }
        made?;
        if let (Some(memory), true) = (limits.memory, self.controls("memory")) {
            fs::write(group.join("memory.max"), memory.get().to_string())?;
            // Swap would make the limit a delay; a part of the tree that is gone helps nobody. Both are not on all kernels.
            fs::write(group.join("memory.swap.max"), "0").ok();
            fs::write(group.join("memory.oom.group"), "1").ok();
        }
        if let (Some(cpu), true) = (limits.cpu, self.controls("cpu")) {
            let quota = (cpu.millis() * 100).max(1000);
            fs::write(group.join("cpu.max"), format!("{quota} 100000"))?;
        }
        if let (Some(pids), true) = (limits.pids, self.controls("pids")) {
            fs::write(group.join("pids.max"), pids.to_string())?;
        }
        Ok(group)
    }

    /// Where the group of a run is, whether it is there or not.
    pub(super) fn of(&self, run: RunId) -> PathBuf {
        self.folder.join(run.to_string())
    }
}

impl Drop for Groups {
    /// The system keeps it as long as there are groups of runs in it.
    fn drop(&mut self) {
        fs::remove_dir(&self.folder).ok();
    }
}

/// Kills all processes of a group at once; `false` if it has none.
pub(super) fn kill(group: &Path) -> io::Result<bool> {
    let populated = fs::read_to_string(group.join("cgroup.events"))
        .is_ok_and(|events| events.lines().any(|line| line == "populated 1"));
    if populated {
        fs::write(group.join("cgroup.kill"), "1")?;
    }
    Ok(populated)
}

/// Removes the group of a run with those that the workload made in it. Processes in it prevent that.
pub(super) fn remove(group: &Path) -> io::Result<()> {
    let inner = match fs::read_dir(group) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in inner {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove(&entry.path())?;
        }
    }
    fs::remove_dir(group)
}

/// Removes the parts of owners that were killed. Those with runs in them stay; whoever misses an empty one makes it again.
fn sweep(base: &Path) {
    for entry in fs::read_dir(base).into_iter().flatten().flatten() {
        if entry
            .file_name()
            .as_encoded_bytes()
            .starts_with(PREFIX.as_bytes())
        {
            fs::remove_dir(entry.path()).ok();
        }
    }
}

fn make(group: &Path) -> io::Result<()> {
    match fs::create_dir(group) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

fn words(file: &Path) -> Vec<String> {
    fs::read_to_string(file)
        .unwrap_or_default()
        .split_whitespace()
        .map(str::to_owned)
        .collect()
}

fn base() -> Result<PathBuf, String> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").map_err(|error| error.to_string())?;
    let groups = fs::read_to_string("/proc/self/cgroup").map_err(|error| error.to_string())?;
    let (mount, own) =
        own_group(&mounts, &groups).ok_or("no control groups (v2) are mounted here")?;
    let delegated = own
        .ancestors()
        .take_while(|group| group.starts_with(&mount))
        .find(|group| is_delegated(group) || (**group == mount && own == mount));
    let Some(base) = delegated else {
        return Err("no control group was delegated to this runner (systemd: `Delegate=yes`, `DelegateSubgroup=runner`)".to_owned());
    };
    match rustix::fs::access(base, Access::WRITE_OK) {
        Ok(()) => Ok(base.to_owned()),
        Err(error) => Err(format!("`{}`: {error}", base.display())),
    }
}

fn is_delegated(group: &Path) -> bool {
    ["user.delegate", "trusted.delegate"].iter().any(|name| {
        let mut value = [0; 1];
        rustix::fs::getxattr(group, *name, &mut value).is_ok_and(|_| value == *b"1")
    })
}

/// The mount of the second version, and our own group in it.
fn own_group(mounts: &str, groups: &str) -> Option<(PathBuf, PathBuf)> {
    let own = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    mounts.lines().find_map(|line| {
        let (fields, kind) = line.split_once(" - ")?;
        let mut fields = fields.split(' ').skip(3);
        let (root, mount) = (fields.next()?, fields.next()?);
        if !kind.starts_with("cgroup2 ") {
            return None;
        }
        let inside = Path::new(own).strip_prefix(root).ok()?;
        let mount = Path::new(mount);
        // Without the trailing slash that joining nothing would make.
        let own = mount.components().chain(inside.components()).collect();
        Some((mount.to_owned(), own))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_group_is_found_in_each_kind_of_mount() {
        let hybrid = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n38 31 0:35 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";
        let found = own_group(hybrid, "4:memory:/x\n0::/system.slice/a.service\n");
        let unified = Path::new("/sys/fs/cgroup/unified");
        assert_eq!(
            found,
            Some((unified.into(), unified.join("system.slice/a.service")))
        );
        let bound = "38 31 0:35 /docker/1 /sys/fs/cgroup rw - cgroup2 cgroup rw\n";
        let top = PathBuf::from("/sys/fs/cgroup");
        assert_eq!(own_group(bound, "0::/docker/1\n"), Some((top.clone(), top)));
        assert_eq!(own_group("", "0::/\n"), None);
    }
}
