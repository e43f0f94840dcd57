//! The commands.
//!
//! | file | holds |
//! |---|---|
//! | `args` | what can be typed |
//! | `exit` | exit codes, and errors that carry one |
//! | `output` | data to stdout; progress, hints and errors to stderr |
//! | `dev`, `serve`, `exec` | `dev`; `run` and `server`; `exec` |
//! | `submit`, `runs`, `token` | clients of the REST API |
//! | `check`, `secrets` | `check`; `secrets check` |
//! | `plugin` | `plugin test`, `plugin list`, `plugin serve` |
//! | `offline` | `validate`, `config`, `version`, `completions` |

mod args;
mod check;
#[cfg(feature = "server")]
mod dev;
mod exec;
mod exit;
mod follow;
mod offline;
mod output;
#[cfg(feature = "plugin")]
mod plugin;
mod runs;
mod scratch;
mod secrets;
mod serve;
mod submit;
mod token;

use std::ffi::OsString;

use clap::Parser as _;

pub use exit::{Exit, Interrupt};

#[cfg(feature = "plugin")]
use args::PluginCommand;
use args::{Cli, Command, Look};
use exit::Failure;
use output::Output;

use crate::config::LogFormat;
use crate::kinds::Kinds;

/// What a command comes to.
type Done = Result<Exit, Failure>;

/// Runs the command that was typed and returns the process's exit code.
pub async fn main(
    args: impl IntoIterator<Item = OsString>,
    kinds: &Kinds,
    interrupt: &Interrupt,
) -> u8 {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // Help goes to stdout, errors to stderr; if neither can be written nothing is left to say.
            drop(error.print());
            return if error.use_stderr() {
                Exit::Usage
            } else {
                Exit::Done
            }
            .code();
        }
    };
    let output = Output::new(cli.look);
    let exit = dispatch(cli.command, cli.look, output, kinds, interrupt).await;
    exit.unwrap_or_else(|failure| {
        if !failure.message.is_empty() {
            output.error(&failure.message);
        }
        failure.exit
    })
    .code()
}

async fn dispatch(
    command: Command,
    look: Look,
    output: Output,
    kinds: &Kinds,
    interrupt: &Interrupt,
) -> Done {
    if !logs_as_configured(&command) {
        log_quietly(look, output);
    }
    if minds_signals(&command) {
        return obey(command, look, output, kinds, interrupt).await;
    }
    tokio::select! {
        done = obey(command, look, output, kinds, interrupt) => done,
        () = interrupt.raised() => Ok(interrupt.exit().unwrap_or(Exit::No)),
    }
}

async fn obey(
    command: Command,
    look: Look,
    output: Output,
    kinds: &Kinds,
    interrupt: &Interrupt,
) -> Done {
    match command {
        #[cfg(feature = "server")]
        Command::Dev(args) => dev::dev(args, output, kinds, interrupt).await,
        #[cfg(feature = "server")]
        Command::Server(args) => serve::server(args, look, output, kinds, interrupt).await,
        Command::Run(args) => serve::run(args, look, output, kinds, interrupt).await,
        Command::Exec(args) => exec::exec(args, output, kinds, interrupt).await,
        Command::Submit(args) => submit::submit(args, output, interrupt).await,
        Command::Runs(args) => runs::runs(args, output).await,
        Command::Show(args) => runs::show(args, output).await,
        Command::Logs(args) => runs::logs(args, output, interrupt).await,
        Command::Stop(args) => runs::stop(args, output).await,
        Command::Runners(args) => runs::runners(args, output).await,
        Command::Token(args) => token::token(args, output).await,
        Command::Validate(args) => offline::validate(&args, output),
        Command::Check(args) => check::check(args, output, kinds).await,
        Command::Secrets(args) => secrets::secrets(args, output, kinds).await,
        Command::Config(args) => offline::config(args, output, kinds),
        #[cfg(feature = "plugin")]
        Command::Plugin(command) => plugin::plugin(command, output, kinds, interrupt).await,
        Command::Version => offline::version(output, kinds),
        Command::Completions { shell } => offline::completions(shell),
    }
}

/// Those that stay log as `[runner] log` says.
fn logs_as_configured(command: &Command) -> bool {
    match command {
        Command::Run(_) => true,
        #[cfg(feature = "server")]
        Command::Server(_) => true,
        _ => false,
    }
}

/// Those that have something to put in order before they leave; the others leave at once.
fn minds_signals(command: &Command) -> bool {
    match command {
        Command::Exec(_) => true,
        #[cfg(feature = "server")]
        Command::Dev(_) => true,
        Command::Submit(args) => args.follow,
        Command::Logs(args) => args.follow,
        #[cfg(feature = "plugin")]
        Command::Plugin(PluginCommand::Test(_)) => true,
        other => logs_as_configured(other),
    }
}

/// Commands that people type at show our own log only when asked.
fn log_quietly(look: Look, output: Output) {
    let level = match look.verbose {
        0 if look.quiet => "error",
        0 => "warn",
        1 => "info",
        _ => "debug",
    };
    crate::logging::start(level, LogFormat::Text, output.color_err());
}
