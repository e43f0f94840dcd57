//! The section of a local executor: `[executors.NAME] kind = "local"`.

use std::path::{Path, PathBuf};

use hybrid_runner_core::error::Result;
use hybrid_runner_core::kind::Context;
use rustix::fs::Access;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::settings;

/// The settings of a local executor, as they are written. All have defaults.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct LocalConfig {
    /// Where the private files of runs are made (`config`, `files`): a folder on a memory file system, as in
    /// `private_dir = "/dev/shm"`. Absent: `/dev/shm`, else `$XDG_RUNTIME_DIR`, whichever is in memory; else the run's
    /// own folder on disk, which is removed with the run.
    pub private_dir: Option<PathBuf>,
    /// Control groups: `cgroup = "auto"` uses them where permitted, `"off"` never.
    pub cgroup: CgroupUse,
    /// What a workflow may ask for in vain: `ignore = ["resources"]`.
    pub ignore: Vec<Ignorable>,
    /// The variables of the runner that a workload also gets: `env = ["PATH", "HOME", "http_proxy"]`. Absent: `PATH`,
    /// `HOME`, `LANG`, `TZ` and `TMPDIR`.
    pub env: Option<Vec<String>>,
    /// Where a workload starts that does not say: `workdir = "/srv/ingestion"`. Absent: an empty folder of its own,
    /// which is removed with the run.
    pub workdir: Option<PathBuf>,
}

/// Whether control groups are used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum CgroupUse {
    /// Where permitted.
    #[default]
    Auto,
    /// Never.
    Off,
}

/// What a workflow may ask for although this machine cannot give it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Ignorable {
    /// `resources.limits`.
    Resources,
}

const PASSED: [&str; 5] = ["PATH", "HOME", "LANG", "TZ", "TMPDIR"];
/// What a shell takes if there is none.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The settings after the checks.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) private: PrivatePlace,
    pub(super) cgroup: CgroupUse,
    pub(super) ignore_resources: bool,
    /// The environment of each workload, before its own.
    pub(super) env: Vec<(String, Vec<u8>)>,
    pub(super) workdir: Option<PathBuf>,
}

/// Where private files are made.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum PrivatePlace {
    /// In folders of this one.
    In(PathBuf),
    /// In the run's own folder, on disk.
    RunFolder,
}

impl Settings {
    /// Reads and checks the section. `variable` looks up the runner's environment.
    pub(super) fn read(
        context: &Context,
        variable: impl Fn(&str) -> Option<std::ffi::OsString>,
    ) -> Result<Self> {
        let config: LocalConfig = settings::read(context)?;
        let private = match config.private_dir {
            Some(path) => {
                absolute(context, "private_dir", &path)?;
                PrivatePlace::In(path)
            }
            None => memory_folder(variable("XDG_RUNTIME_DIR").map(PathBuf::from)),
        };
        if let Some(path) = &config.workdir {
            absolute(context, "workdir", path)?;
        }
        Ok(Self {
            private,
            cgroup: config.cgroup,
            ignore_resources: config.ignore.contains(&Ignorable::Resources),
            env: environment(context, config.env, variable)?,
            workdir: config.workdir,
        })
    }
}

fn absolute(context: &Context, key: &str, path: &Path) -> Result<()> {
    if path.is_absolute() {
        return Ok(());
    }
    Err(settings::wrong(context, key).with_source(format!(
        "`{}` is not an absolute path; write one that starts with `/`",
        path.display()
    )))
}

fn environment(
    context: &Context,
    names: Option<Vec<String>>,
    variable: impl Fn(&str) -> Option<std::ffi::OsString>,
) -> Result<Vec<(String, Vec<u8>)>> {
    use std::os::unix::ffi::OsStringExt as _;
    let names = names.unwrap_or_else(|| PASSED.map(str::to_owned).to_vec());
    let mut env = Vec::new();
    for name in names {
        if name.is_empty() || name.contains(['=', '\0']) || name.starts_with("WORKFLOW_") {
            return Err(settings::wrong(context, "env").with_source(format!(
                "`{name}` cannot be the name of a variable that is passed on"
            )));
        }
        match variable(&name) {
            Some(value) => env.push((name, value.into_vec())),
            None if name == "PATH" => env.push((name, PATH.into())),
            None => {}
        }
    }
    Ok(env)
}

/// A folder in memory that is there and ours to write in.
fn memory_folder(runtime_dir: Option<PathBuf>) -> PrivatePlace {
    [Some(PathBuf::from("/dev/shm")), runtime_dir]
        .into_iter()
        .flatten()
        .find(|path| {
            is_in_memory(path)
                && rustix::fs::access(path, Access::WRITE_OK | Access::EXEC_OK).is_ok()
        })
        .map_or(PrivatePlace::RunFolder, PrivatePlace::In)
}

/// Whether a path lies on a memory file system.
pub(super) fn is_in_memory(path: &Path) -> bool {
    const TMPFS: u64 = 0x0102_1994;
    const RAMFS: u64 = 0x8584_58f6;
    rustix::fs::statfs(path).is_ok_and(|found| {
        u64::try_from(found.f_type).is_ok_and(|kind| kind == TMPFS || kind == RAMFS)
    })
}

#[cfg(test)]
mod tests {
    use hybrid_runner_core::id::Owner;
    use serde_json::{Value, json};

    use super::*;

    fn read(settings: Value) -> Result<Settings> {
        let context = Context::new(
            "here".parse().unwrap(),
            settings,
            "/var/lib/x",
            Owner::of("s", &"a".parse().unwrap()),
            1 << 30,
        );
        Settings::read(&context, |name| {
            (name != "PATH").then(|| format!("<{name}>").into())
        })
    }

    #[test]
    fn a_wrong_setting_is_named_with_its_section() {
        for (key, wrong) in [
            ("cgroup", json!({"cgroup": "on", "env": []})),
            ("private_dir", json!({"private_dir": "shm"})),
            ("workdir", json!({"workdir": 7})),
            ("ignore[0]", json!({"ignore": ["image"]})),
            ("env", json!({"env": ["A=B"]})),
            ("privat_dir", json!({"privat_dir": "/dev/shm"})),
        ] {
            let report = read(wrong).unwrap_err().report();
            assert!(report.contains("[executors.here]"), "{report}");
            assert!(report.contains(&format!("`{key}`")), "{report}");
        }
    }

    #[test]
    fn a_workload_gets_only_the_variables_that_are_passed() {
        let names = |settings| -> Vec<String> {
            let env = read(settings).unwrap().env;
            env.into_iter().map(|(name, _)| name).collect()
        };
        assert_eq!(names(json!({})), PASSED);
        assert_eq!(names(json!({"env": ["http_proxy"]})), ["http_proxy"]);
        assert_eq!(read(json!({})).unwrap().env[0].1, PATH.as_bytes());
    }
}
