//! One command: its arguments, its surroundings, its time.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hybrid_runner_core::RunId;
use hybrid_runner_core::error::{Error, ErrorKind, Result};
use hybrid_runner_core::kind::Context;
use hybrid_runner_core::plugin::Contract;
use hybrid_runner_core::plugin::host::{Launch, PluginSettings, Starts};
use hybrid_runner_core::program::{self, outlet::Outlet};
use rustix::fs::Access;
use serde_json::Value;
use tokio::process::Command;
use tokio::sync::{Semaphore, SemaphorePermit, watch};

use super::settings::{COMMANDS, Commands};

/// Commands of a sort that run at the same time: a batch system dislikes more, and so does a small machine.
const AT_ONCE: usize = 16;
/// The command that must not be broken off.
const START: &str = "start";

/// The commands of a section, ready to be run.
#[derive(Debug)]
pub(super) struct Scripts {
    commands: Vec<(&'static str, Vec<String>)>,
    folder: Option<PathBuf>,
    env: Vec<(OsString, OsString)>,
    timeout: Duration,
    /// Starts may take long, and must not keep a run from being stopped, nor from being seen.
    starting: Semaphore,
    ending: Semaphore,
    asking: Semaphore,
    /// Runs that were stopped before their start had a turn.
    withdrawn: watch::Sender<BTreeSet<RunId>>,
}

/// What the arguments of one call may name.
#[derive(Debug, Clone)]
pub(super) struct Step {
    run: RunId,
    id: String,
    name: String,
    offset: u64,
    grace: Duration,
}

impl Step {
    pub(super) fn new(run: RunId) -> Self {
        Self {
            run,
            id: String::new(),
            name: String::new(),
            offset: 0,
            grace: Duration::ZERO,
        }
    }

    pub(super) fn id(mut self, id: &str) -> Self {
        id.clone_into(&mut self.id);
        self
    }

    pub(super) fn name(mut self, name: &str) -> Self {
        name.clone_into(&mut self.name);
        self
    }

    pub(super) fn offset(mut self, offset: u64) -> Self {
        self.offset = offset;
        self
    }

    pub(super) fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// Puts what is named in braces in its place; never a value.
    fn fill(&self, argument: &str) -> String {
        argument
            .replace("{run}", &self.run.to_string())
            .replace("{name}", &self.name)
            .replace("{id}", &self.id)
            .replace("{offset}", &self.offset.to_string())
            .replace("{grace}", &self.grace.as_secs_f64().ceil().to_string())
    }
}

impl Scripts {
    pub(super) fn new(settings: &Commands, context: &Context) -> Result<Self> {
        // It names the key.
        let refused = |error: Error| {
            Error::invalid(format!("section [executors.{}]", context.name)).with_source(error)
        };
        settings.validate().map_err(refused)?;
        let mut commands = Vec::new();
        let mut env = Vec::new();
        for name in COMMANDS {
            let Some(command) = settings.command(name) else {
                continue;
            };
            // Its environment and its place are those of a plugin.
            let section = settings_of(command, settings)?;
            let launch = Launch::new(Contract::Executor, context, &section, |name| {
                std::env::var_os(name)
            });
            let launch = launch.map_err(refused)?;
            let program = launch.program.to_string_lossy().into_owned();
            commands.push((name, [vec![program], launch.args].concat()));
            env = launch.env;
        }
        Ok(Self {
            commands,
            folder: context.config_dir.clone(),
            env,
            timeout: settings.timeout.get(),
            starting: Semaphore::new(AT_ONCE),
            ending: Semaphore::new(AT_ONCE),
            asking: Semaphore::new(AT_ONCE),
            withdrawn: watch::Sender::default(),
        })
    }

    /// Whether the commands are there, and can be run.
    pub(super) fn check(&self) -> Result<()> {
        for (name, command) in &self.commands {
            let program = &command[0];
            let is_path = program.contains('/');
            if is_path && !Path::new(program).exists() {
                return Err(Error::unavailable(format!(
                    "the command `{name}` is not there: `{program}`"
                )));
            }
            if is_path && !can_be_run(Path::new(program)) {
                return Err(Error::unavailable(format!(
                    "the command `{name}` cannot be run: `{program}`; is it a file that is executable?"
                )));
            }
            let place = if is_path {
                Some(PathBuf::from(program))
            } else {
                self.in_path(program).map_err(|()| {
                    Error::unavailable(format!(
                        "the command `{name}` is not there: no `{program}` in PATH"
                    ))
                })?
            };
            if let Some(place) = place.filter(|place| is_bare_text(place)) {
                return Err(Error::unavailable(format!(
                    "the command `{name}` cannot be run: `{}` is text, which as a script needs `#!` and an interpreter in its first line",
                    place.display()
                )));
            }
        }
        Ok(())
    }

    /// Where a program of this name is; `None`: in a place that only the system knows, as there is no PATH.
    fn in_path(&self, program: &str) -> Result<Option<PathBuf>, ()> {
        let Some((_, path)) = self.env.iter().find(|(name, _)| name == "PATH") else {
            return Ok(None);
        };
        let base = self.folder.clone().unwrap_or_default();
        let places = std::env::split_paths(path).map(|folder| base.join(folder).join(program));
        let mut places = places.filter(|place| can_be_run(place));
        places.next().map(Some).ok_or(())
    }

    /// Runs a command and returns what it printed.
    ///
    /// # Cancel safety
    ///
    /// Dropped midway, the command is killed.
    pub(super) async fn run(&self, name: &str, step: &Step, request: &Value) -> Result<Vec<u8>> {
        let command = self.command(name, step)?;
        let input = request.to_string();
        // Asking again is fine.
        let otherwise = ErrorKind::Unavailable;
        let asked = program::ask(name, command, input.as_bytes(), otherwise);
        let places = match name {
            "stop" | "remove" => &self.ending,
            _ => &self.asking,
        };
        let _place = places.acquire().await;
        self.in_time(name, otherwise, asked).await
    }

    /// Runs `start`, to its end, although nobody may wait for it any more. By its outlet a later life sees it, too.
    pub(super) async fn start(
        &self,
        step: &Step,
        request: &Value,
        outlet: Option<Outlet>,
        starts: &Starts,
    ) -> Result<Vec<u8>> {
        let command = self.command(START, step)?;
        let input = request.to_string();
        // Nobody knows what it did if it does not say so.
        let unclear = ErrorKind::Internal;
        let asked = async move {
            match outlet {
                Some(outlet) => {
                    program::ask_through(outlet, START, command, input.as_bytes(), unclear).await
                }
                None => program::ask(START, command, input.as_bytes(), unclear).await,
            }
        };
        let _turn = self.turn(step.run).await?;
        self.in_time(START, unclear, async {
            starts.to_its_end(step.run, asked).await
        })
        .await
    }

    /// Whose `start` waits for its turn is not to have one: it was stopped.
    pub(super) fn withdraw(&self, run: RunId) {
        self.withdrawn.send_modify(|runs| {
            runs.insert(run);
        });
    }

    pub(super) fn is_withdrawn(&self, run: RunId) -> bool {
        self.withdrawn.borrow().contains(&run)
    }

    /// Forgets that.
    pub(super) fn forget(&self, run: RunId) {
        self.withdrawn.send_if_modified(|runs| runs.remove(&run));
    }

    /// A turn to start this run.
    async fn turn(&self, run: RunId) -> Result<SemaphorePermit<'_>> {
        let mut withdrawn = self.withdrawn.subscribe();
        let stopped = withdrawn.wait_for(|runs| runs.contains(&run));
        tokio::select! {
            biased;
            _ = stopped => Err(Error::conflict(format!("the run `{run}` was stopped before its start had a turn"))),
            place = self.starting.acquire() => place.map_err(|_| Error::internal("nobody has turns any more")),
        }
    }

    async fn in_time<T>(
        &self,
        name: &str,
        otherwise: ErrorKind,
        asked: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let timed = tokio::time::timeout(self.timeout, asked).await;
        timed.unwrap_or_else(|_| {
            let what = format!("the command `{name}` did not end within {:?}", self.timeout);
            Err(Error::new(otherwise, what))
        })
    }

    fn command(&self, name: &str, step: &Step) -> Result<Command> {
        let command = self.commands.iter().find(|(known, _)| *known == name);
        let (_, argv) = command
            .ok_or_else(|| Error::unsupported(format!("no command `{name}` is configured")))?;
        let mut command = Command::new(&argv[0]);
        command
            .args(argv[1..].iter().map(|argument| step.fill(argument)))
            .env_clear()
            .envs(self.env.iter().map(|(name, value)| (name, value)));
        if let Some(folder) = &self.folder {
            command.current_dir(folder);
        }
        Ok(command)
    }
}

fn can_be_run(program: &Path) -> bool {
    program.is_file() && rustix::fs::access(program, Access::EXEC_OK).is_ok()
}

/// Whether a file is text of which the system cannot tell who runs it. One that may not be read is believed.
fn is_bare_text(program: &Path) -> bool {
    let Ok(file) = std::fs::File::open(program) else {
        return false;
    };
    let mut first = Vec::new();
    if file.take(64).read_to_end(&mut first).is_err() {
        return false;
    }
    let is_text = |byte: &u8| byte.is_ascii_graphic() || byte.is_ascii_whitespace();
    !first.starts_with(b"#!") && first.iter().all(is_text)
}

fn settings_of(command: &[String], settings: &Commands) -> Result<PluginSettings> {
    let section = serde_json::json!({ "command": command, "env": settings.env });
    serde_json::from_value(section)
        .map_err(|error| Error::internal("failed to read a command").with_source(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_which_nobody_knows_who_runs_it_is_told_from_programs() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        for (content, is_bare) in [
            (&b"echo '{}'\n"[..], true),
            (b"", true),
            (b"#!/bin/sh\necho\n", false),
            (b"\x7fELF\x02\x01\x01", false),
            (b"\0asm\x01", false),
        ] {
            std::fs::write(&file, content).unwrap();
            assert_eq!(is_bare_text(&file), is_bare, "{content:?}");
        }
        assert!(!is_bare_text(&folder.path().join("none")));
    }
}
