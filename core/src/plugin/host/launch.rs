//! What is started, and how.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::{Child, Command};

use super::settings::{PluginSettings, Timeouts};
use super::trace::Trace;
use crate::error::{Error, Result};
use crate::id::shorten;
use crate::kind::Context;
use crate::plugin::hello::{Contract, PluginHello};
use crate::program::outlet::{Outlet, Placed};
use crate::secret::References;

/// What every program gets of our environment: a place in the system and a language.
const PASSED: [&str; 8] = [
    "PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "TZ", "TMPDIR",
];
/// The beginnings of variables that are ours alone: they may hold tokens.
const OURS: [&str; 2] = ["HYBRID_RUNNER", "AUTH_TOKEN"];
/// `ENOEXEC`: a file that is executable, and no program.
const NO_PROGRAM: i32 = 8;
/// Names the file of [`Trace::file`].
const TRACE_VARIABLE: &str = "HYBRID_RUNNER_PLUGIN_TRACE";

/// A program as a plugin: what is started, where, with which environment, and what it is told first.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Launch {
    /// The program, as it is executed.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// The folder that it runs in.
    pub folder: Option<PathBuf>,
    /// Its whole environment.
    pub env: Vec<(OsString, OsString)>,
    /// What it is told first.
    pub hello: PluginHello,
    /// How long it may take.
    pub timeouts: Timeouts,
    /// Who sees its messages.
    pub trace: Option<Trace>,
    /// Whether output passes the masker; a conformance test wants to see what the plugin itself does.
    pub mask: bool,
    /// The folder of the pipes by which a later life of ours sees that one of its processes is still there.
    pub(super) outlets: Option<PathBuf>,
    /// Reads once more what runs were given.
    pub(super) references: References,
    shown: String,
}

impl Launch {
    /// The plugin of a section; `variable` looks up our own environment.
    pub fn new(
        contract: Contract,
        context: &Context,
        settings: &PluginSettings,
        variable: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self> {
        let command = settings.command.split_first();
        let Some((program, args)) = command.filter(|(program, _)| !program.is_empty()) else {
            return Err(Error::invalid(
                "`command` names no program: write `command = [\"./mine\"]`",
            ));
        };
        if settings.command.iter().any(|word| word.contains('\0')) {
            return Err(Error::invalid(
                "`command` has a zero byte in it, which no program can be given",
            ));
        }
        let is_none = |name: &&String| name.is_empty() || name.contains(['=', '\0']);
        if let Some(name) = settings.env.iter().find(is_none) {
            return Err(Error::invalid(format!(
                "`env` names variables of the runner, and `{}` is no name: write `env = [\"KUBECONFIG\"]`",
                shorten(&name.replace(char::is_control, "\u{fffd}"))
            )));
        }
        if let Some(name) = settings.env.iter().find(|name| is_ours(name)) {
            return Err(Error::invalid(format!(
                "`env` cannot pass `{}` on: it is the runner's own",
                shorten(name)
            )));
        }
        settings.timeouts.validate()?;
        let passed = PASSED.iter().copied();
        let passed = passed.chain(settings.env.iter().map(String::as_str));
        let env = passed.filter_map(|name| Some((name.into(), variable(name)?)));
        let mut hello = PluginHello::new(contract, context);
        hello.settings = settings.settings.clone().into();
        let trace = variable(TRACE_VARIABLE).filter(|path| !path.is_empty());
        Ok(Self {
            program: place(program, context.config_dir.as_deref()),
            args: args.to_vec(),
            folder: context.config_dir.clone(),
            env: env.collect(),
            hello,
            timeouts: settings.timeouts.clone(),
            trace: trace
                .map(|path| Trace::file(Path::new(&path)))
                .transpose()?,
            mask: true,
            // Asking a store twice does no harm.
            outlets: (contract == Contract::Executor).then(|| context.data_dir.join("processes")),
            references: context.references.clone(),
            shown: program.clone(),
        })
    }

    /// The program as it was written.
    pub(super) fn shown(&self) -> &str {
        &self.shown
    }

    /// The section's name.
    pub(super) fn name(&self) -> &str {
        self.hello.name.as_str()
    }

    /// A stdout that shows whether anybody has it.
    fn outlet(&self) -> Option<Outlet> {
        let name = uuid::Uuid::now_v7().to_string();
        let made = Outlet::make(&self.outlets.as_ref()?.join(name));
        made.inspect_err(|error| {
            tracing::warn!(plugin = self.name(), %error, "the data directory has no named pipes: a plugin that outlives this process cannot be waited for");
        })
        .ok()
    }

    pub(super) fn spawn(&self) -> Result<(Child, Option<Placed>)> {
        let mut command = Command::new(&self.program);
        command
            .args(&self.args)
            .env_clear()
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        if let Some(folder) = &self.folder {
            command.current_dir(folder);
        }
        let spawned = match self.outlet() {
            Some(outlet) => outlet
                .spawn(command)
                .map(|(child, placed)| (child, Some(placed))),
            None => command
                .stdout(Stdio::piped())
                // What a terminal sends to our group is not meant for it.
                .process_group(0)
                .spawn()
                .map(|child| (child, None)),
        };
        spawned.map_err(|error| {
            let hint = match error.kind() {
                _ if self.program.is_dir() => "; it is a folder: name a program in it",
                _ if error.raw_os_error() == Some(NO_PROGRAM) => {
                    "; does its first line name what runs it, as `#!/bin/sh` does?"
                }
                std::io::ErrorKind::NotFound => "; is it there, and what its first line names?",
                std::io::ErrorKind::PermissionDenied => "; is it executable?",
                _ => "",
            };
            let what = format!("failed to start the plugin `{}`{hint}", self.shown);
            Error::unavailable(what).with_source(error)
        })
    }

    /// The file that is run, if it can be named without looking through `PATH`.
    pub(super) fn file(&self) -> Option<&Path> {
        let is_path = self.program.as_os_str().as_encoded_bytes().contains(&b'/');
        is_path.then_some(&*self.program)
    }

    /// The files among program and arguments: a script is often the argument of its interpreter.
    pub(super) fn files(&self) -> Vec<PathBuf> {
        let from_folder = |argument: &String| match &self.folder {
            Some(folder) => folder.join(argument),
            None => PathBuf::from(argument),
        };
        let scripts = self
            .args
            .iter()
            .map(from_folder)
            .filter(|path| path.is_file());
        self.file()
            .map(Path::to_owned)
            .into_iter()
            .chain(scripts)
            .collect()
    }
}

fn is_ours(name: &str) -> bool {
    OURS.iter().any(|ours| name.starts_with(ours))
}

/// A path is meant from the folder of the configuration; a bare name is left for `PATH`.
fn place(program: &str, folder: Option<&Path>) -> PathBuf {
    let path = Path::new(program);
    match folder {
        Some(folder) if path.is_relative() && program.contains('/') => {
            folder.join(path.strip_prefix("./").unwrap_or(path))
        }
        _ => PathBuf::from(OsStr::new(program)),
    }
}
