//! One command: its stdin, its stdout, its time, its exit code.

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use hybrid_runner_core::RunId;
use hybrid_runner_core::error::{Error, ErrorKind, Result};
use hybrid_runner_core::kind::Context;
use hybrid_runner_core::plugin::Contract;
use hybrid_runner_core::plugin::host::{Launch, PluginSettings};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;
use tokio::sync::Semaphore;

use super::settings::{COMMANDS, Commands};

/// Commands that run at the same time: a batch system dislikes more, and so does a small machine.
const AT_ONCE: usize = 16;
/// What a command may print.
const MOST: u64 = 2 << 20;
/// What is kept of its stderr.
const MOST_WORDS: u64 = 8 << 10;

/// The commands of a section, ready to be run.
#[derive(Debug)]
pub(super) struct Scripts {
    commands: Vec<(&'static str, Vec<String>)>,
    folder: Option<PathBuf>,
    env: Vec<(OsString, OsString)>,
    timeout: Duration,
    places: Semaphore,
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
            let launch = launch.map_err(|error| {
                let what = format!("section [executors.{}], key `{name}`", context.name);
                Error::invalid(what).with_source(error)
            })?;
            let program = launch.program.to_string_lossy().into_owned();
            commands.push((name, [vec![program], launch.args].concat()));
            env = launch.env;
        }
        Ok(Self {
            commands,
            folder: context.config_dir.clone(),
            env,
            timeout: settings.timeout.get(),
            places: Semaphore::new(AT_ONCE),
        })
    }

    /// Whether the commands that are paths are there.
    pub(super) async fn check(&self) -> Result<()> {
        for (name, command) in &self.commands {
            let program = Path::new(&command[0]);
            if command[0].contains('/') && tokio::fs::metadata(program).await.is_err() {
                return Err(Error::unavailable(format!(
                    "the command `{name}` is not there: `{}`",
                    program.display()
                )));
            }
        }
        Ok(())
    }

    /// Runs a command and returns what it printed.
    ///
    /// # Cancel safety
    ///
    /// Dropped midway, the command is killed.
    pub(super) async fn run(&self, name: &str, step: &Step, request: &Value) -> Result<Vec<u8>> {
        let _place = self.places.acquire().await;
        let timed = tokio::time::timeout(self.timeout, self.run_now(name, step, request)).await;
        // Nobody knows what it did.
        timed.unwrap_or_else(|_| {
            let kind = match name {
                "start" => ErrorKind::Internal,
                _ => ErrorKind::Unavailable,
            };
            let what = format!("the command `{name}` did not end within {:?}", self.timeout);
            Err(Error::new(kind, what))
        })
    }

    async fn run_now(&self, name: &str, step: &Step, request: &Value) -> Result<Vec<u8>> {
        let command = self.commands.iter().find(|(known, _)| *known == name);
        let (_, argv) = command
            .ok_or_else(|| Error::unsupported(format!("no command `{name}` is configured")))?;
        let mut command = Command::new(&argv[0]);
        command
            .args(argv[1..].iter().map(|argument| step.fill(argument)))
            .env_clear()
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true);
        if let Some(folder) = &self.folder {
            command.current_dir(folder);
        }
        let failed = |error| {
            let what = format!("failed to run the command `{name}` (`{}`)", argv[0]);
            Error::unavailable(what).with_source(error)
        };
        let mut child = command.spawn().map_err(failed)?;
        let (mut stdin, stdout, stderr) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let input = request.to_string();
        let write = async {
            if let Some(mut stdin) = stdin.take() {
                // Whoever does not read it has no need of it.
                drop(stdin.write_all(input.as_bytes()).await);
            }
        };
        let ((), printed, words) =
            tokio::join!(write, read(stdout, MOST), read(stderr, MOST_WORDS),);
        let status = child.wait().await.map_err(failed)?;
        let printed = printed.map_err(|error| in_output(name, error))?;
        judge(name, status, printed, &words.unwrap_or_default())
    }
}

fn in_output(name: &str, error: std::io::Error) -> Error {
    Error::internal(format!("failed to read what the command `{name}` printed")).with_source(error)
}

/// Reads to the end; more than `most` is an error, unless there is no more to be had from it.
async fn read(pipe: Option<impl AsyncRead + Unpin>, most: u64) -> std::io::Result<Vec<u8>> {
    let Some(pipe) = pipe else {
        return Ok(Vec::new());
    };
    let mut bytes = Vec::new();
    let mut pipe = pipe.take(most);
    pipe.read_to_end(&mut bytes).await?;
    // The rest is let go of, so that the writer is not stopped in its tracks.
    let mut rest = pipe.into_inner();
    tokio::io::copy(&mut rest, &mut tokio::io::sink()).await?;
    Ok(bytes)
}

/// What an exit code says; the codes of our own commands are understood.
fn judge(name: &str, status: ExitStatus, printed: Vec<u8>, words: &[u8]) -> Result<Vec<u8>> {
    if let Some(error) = super::answers::error(&printed) {
        return Err(error);
    }
    if status.success() {
        return Ok(printed);
    }
    let kind = match status.code() {
        Some(2) => ErrorKind::Invalid,
        Some(3) => ErrorKind::Unavailable,
        Some(4) => ErrorKind::Denied,
        Some(5) => ErrorKind::NotFound,
        _ if name == "start" => ErrorKind::Internal,
        _ => ErrorKind::Unavailable,
    };
    let how = match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "an unknown end".to_owned(),
    };
    let error = Error::new(kind, format!("the command `{name}` ended with {how}"));
    let words = String::from_utf8_lossy(words);
    Err(match words.trim().lines().last() {
        Some(last) => error.with_source(last.to_owned()),
        None => error,
    })
}

fn settings_of(command: &[String], settings: &Commands) -> Result<PluginSettings> {
    let section = serde_json::json!({ "command": command, "env": settings.env });
    serde_json::from_value(section)
        .map_err(|error| Error::internal("failed to read a command").with_source(error))
}
