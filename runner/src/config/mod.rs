//! Configuration: layers → raw → checked.
//!
//! | file | holds |
//! |---|---|
//! | `layer` | where settings come from, lowest first |
//! | `variables` | the seed's and the chart's variables, and what each becomes |
//! | `workload` | what the chart's variables say about workloads, as settings of an executor |
//! | `raw` | what a file may hold, and every default |
//! | `check` | raw → [`Config`] |
//! | `build` | [`Config`] → executors and stores |
//! | `show` | `config show`, `config env`, `config schema` |
//! | `problem` | errors with section, key and source |

mod build;
mod check;
mod layer;
mod problem;
mod raw;
mod show;
#[cfg(test)]
mod tests;
mod variables;
mod workload;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::kinds::Kinds;

pub use build::Built;
pub(crate) use check::is_loopback;
pub use check::{
    Config, Link, LinkUrl, Log, Proxy, Runner, Section, Server, Spool, Tls, TokenSource, Workload,
};
pub use problem::{Error, Problem};
pub use raw::{LogFormat, Resolve};
pub use show::{Shown, env, schema};
pub use variables::{Becomes, VARIABLES, Variable};

/// Variables by name.
pub type Environment = BTreeMap<String, String>;

/// All that a configuration is made of.
#[derive(Debug, Default, Clone)]
#[non_exhaustive]
pub struct Inputs {
    /// The file named on the command line.
    pub file: Option<PathBuf>,
    /// The environment.
    pub environment: Environment,
    /// Flags: as typed, the key they set, the value.
    pub flags: Vec<(&'static str, &'static str, String)>,
    /// The folder of the machine's own configuration.
    pub system: Option<PathBuf>,
    /// Whether we are root: state goes to `/var/lib`.
    pub root: bool,
    /// A folder in memory, for the state of a runner that can keep it nowhere else.
    pub memory: Option<PathBuf>,
    /// The kinds of executors and secret stores that there are.
    pub kinds: Kinds,
}

impl Inputs {
    /// The environment of this process, `/etc`, and a file if one was named.
    ///
    /// Variables that are not UTF-8 are left out.
    pub fn of_process(file: Option<PathBuf>) -> Self {
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        Self {
            file,
            environment: std::env::vars_os().filter_map(text).collect(),
            flags: Vec::new(),
            system: Some(PathBuf::from("/etc/hybrid-runner")),
            root: rustix::process::geteuid().is_root(),
            memory: Some(PathBuf::from("/dev/shm")),
            kinds: Kinds::default(),
        }
    }

    /// With these kinds instead of those of the project.
    #[must_use]
    pub fn with_kinds(mut self, kinds: &Kinds) -> Self {
        self.kinds = kinds.clone();
        self
    }

    fn home(&self, variable: &str, below: &str) -> Option<PathBuf> {
        let set = |name: &str| self.environment.get(name).filter(|text| !text.is_empty());
        set(variable)
            .map(PathBuf::from)
            .or_else(|| Some(PathBuf::from(set("HOME")?).join(below)))
    }

    fn config_home(&self) -> Option<PathBuf> {
        self.home("XDG_CONFIG_HOME", ".config")
    }

    fn state_dir(&self) -> PathBuf {
        let system = || PathBuf::from("/var/lib");
        if self.root {
            return system();
        }
        self.home("XDG_STATE_HOME", ".local/state")
            .unwrap_or_else(system)
    }

    /// The folder in memory, if a runner can keep its state nowhere else: in a container with a read-only root and no volume.
    fn memory_instead(&self) -> Option<&Path> {
        let memory = self.memory.as_deref()?;
        (!can_be_written(&self.state_dir()) && can_be_written(memory)).then_some(memory)
    }
}

/// Whether something can be made in a folder, or the folder itself.
fn can_be_written(folder: &Path) -> bool {
    use rustix::fs::{Access, access};
    let there = folder.ancestors().find(|folder| folder.exists());
    there.is_some_and(|there| access(there, Access::WRITE_OK | Access::EXEC_OK).is_ok())
}

/// A configuration and where each of its values came from.
#[derive(Debug)]
#[non_exhaustive]
pub struct Loaded {
    /// The checked configuration.
    pub config: Config,
    /// The file that was read.
    pub file: Option<PathBuf>,
    /// What is odd but allowed: one line each.
    pub warnings: Vec<String>,
    pub(crate) figment: figment::Figment,
}

/// Reads all layers and checks the whole.
pub fn load(inputs: &Inputs) -> Result<Loaded, Error> {
    let fail = |problems| Error { problems };
    let layers = layer::collect(inputs).map_err(fail)?;
    let raw: raw::Raw = layers.figment.extract_lossy().map_err(|errors| {
        fail(
            errors
                .into_iter()
                .map(|error| Problem::of(&error))
                .collect(),
        )
    })?;
    let checked = check::check(raw, &layers, &inputs.environment);
    let (mut config, mut warnings) = checked.map_err(fail)?;
    let memory = inputs.memory_instead();
    config.is_in_memory = memory.is_some_and(|memory| config.runner.data_dir.starts_with(memory));
    if config.is_in_memory {
        warnings.push(format!(
            "[runner] data_dir: `{}` cannot be written, so that state and spool lie in memory, in `{}`, and go with the pod or the machine; better name a folder that stays",
            inputs.state_dir().display(),
            config.runner.data_dir.display()
        ));
    }
    config.kinds = inputs.kinds.clone();
    config.folder = folder_of(layers.file.as_deref());
    Ok(Loaded {
        config,
        file: layers.file,
        warnings,
        figment: layers.figment,
    })
}

/// The folder of a file, from the root.
fn folder_of(file: Option<&Path>) -> Option<PathBuf> {
    let file = std::path::absolute(file?).ok()?;
    file.parent().map(Path::to_owned)
}

/// Where the value of a key was written.
pub(crate) fn origin(figment: &figment::Figment, key: &str) -> Option<String> {
    figment
        .find_metadata(key)
        .map(|metadata| metadata.name.to_string())
}
