//! What can be typed.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

/// Runs workflows inside your cloud for a control plane outside of it.
#[derive(Debug, Parser)]
#[command(name = "hybrid-runner", version, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) look: Look,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// How things are shown, the same for every command.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Look {
    /// Print data as JSON: an object, an array, or one object a line
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// When to use colours (never, if `NO_COLOR` is set)
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub(crate) color: When,
    /// No progress and no hints, only data and errors
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(crate) quiet: bool,
    /// More of our own log; twice: all of it
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum When {
    Auto,
    Always,
    Never,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Control plane and runner in one process, with the given workflows or the built-in example
    #[cfg(feature = "server")]
    Dev(Dev),
    /// The runner: dials the control plane and runs what it sends
    Run(Run),
    /// The control plane
    #[cfg(feature = "server")]
    Server(Server),
    /// One workflow here and now, without a control plane
    Exec(Exec),
    /// Sends workflows to the control plane
    Submit(Submit),
    /// Lists runs
    Runs(Runs),
    /// Shows one run
    Show(Show),
    /// Prints the log of a run
    Logs(Logs),
    /// Stops runs
    Stop(Stop),
    /// Lists runners
    Runners(Runners),
    /// Makes, lists and revokes tokens
    #[command(subcommand)]
    Token(Token),
    /// Checks workflow files
    Validate(Validate),
    /// The doctor: configuration, executors and secret stores, each with what to do
    Check(ConfigFile),
    /// Tries secret stores
    #[command(subcommand)]
    Secrets(Secrets),
    /// Checks and shows the configuration
    #[command(subcommand)]
    Config(Config),
    /// Programs of yours as executors and secret stores
    #[cfg(feature = "plugin")]
    #[command(subcommand)]
    Plugin(PluginCommand),
    /// Prints the version and the compiled features
    Version,
    /// Prints a completion script
    Completions {
        /// For which shell
        shell: Shell,
    },
}

/// The configuration file.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct ConfigFile {
    /// Configuration file (TOML or YAML); else `$HYBRID_RUNNER_CONFIG`, ~/.config, /etc
    #[arg(short, long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

/// The control plane, for its clients.
#[derive(Debug, Clone, Args)]
pub(crate) struct Client {
    /// URL of the control plane
    #[arg(long, env = "HYBRID_RUNNER_SERVER", value_name = "URL")]
    pub(crate) server: Option<String>,
    /// Token for it; better in the variable than here
    #[arg(long, env = "HYBRID_RUNNER_TOKEN", hide_env_values = true)]
    pub(crate) token: Option<String>,
    /// PEM file of certificates that are trusted besides the system's
    #[arg(long, env = "HYBRID_RUNNER_CA", value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
}

#[cfg(feature = "server")]
#[derive(Debug, Args)]
pub(crate) struct Dev {
    /// Workflow files; without one, the built-in example
    pub(crate) workflows: Vec<PathBuf>,
    /// Leave after these runs, with the worst of their ends
    #[arg(long)]
    pub(crate) once: bool,
    /// Keep everything here; else in a folder that is removed
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Where the control plane listens; else a free port of this machine
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: Option<std::net::SocketAddr>,
    #[command(flatten)]
    pub(crate) config: ConfigFile,
}

#[derive(Debug, Args)]
pub(crate) struct Run {
    #[command(flatten)]
    pub(crate) config: ConfigFile,
    /// (a slip: `exec FILE` is meant)
    #[arg(hide = true)]
    pub(crate) file: Option<PathBuf>,
}

#[cfg(feature = "server")]
#[derive(Debug, Args)]
pub(crate) struct Server {
    #[command(flatten)]
    pub(crate) config: ConfigFile,
}

#[derive(Debug, Args)]
pub(crate) struct Exec {
    /// The workflow file
    pub(crate) workflow: PathBuf,
    #[command(flatten)]
    pub(crate) config: ConfigFile,
    /// The executor: a section's name, or a kind that needs no settings
    #[arg(long, value_name = "NAME")]
    pub(crate) executor: Option<String>,
    /// Check everything, resolve the secrets, start nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Keep state and logs here; else in a folder that is removed
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Submit {
    /// Workflow files
    #[arg(required = true)]
    pub(crate) workflows: Vec<PathBuf>,
    /// The runner; may be left out when there is one
    #[arg(long, value_name = "ID")]
    pub(crate) runner: Option<String>,
    /// Submitting again with the same key makes no second run
    #[arg(long)]
    pub(crate) key: Option<String>,
    /// Follow the log and exit like the run
    #[arg(short, long)]
    pub(crate) follow: bool,
    #[command(flatten)]
    pub(crate) client: Client,
}

#[derive(Debug, Args)]
pub(crate) struct Runs {
    /// Only in this state
    #[arg(long)]
    pub(crate) state: Option<String>,
    /// Only of this runner
    #[arg(long, value_name = "ID")]
    pub(crate) runner: Option<String>,
    /// Only of this deployment
    #[arg(long, value_name = "NAME")]
    pub(crate) deployment: Option<String>,
    /// At most so many, the newest first
    #[arg(long, default_value_t = 50)]
    pub(crate) limit: u32,
    #[command(flatten)]
    pub(crate) client: Client,
}

#[derive(Debug, Args)]
pub(crate) struct Show {
    /// The run's id, or the beginning of it
    pub(crate) run: String,
    #[command(flatten)]
    pub(crate) client: Client,
}

#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// The run's id, or the beginning of it
    pub(crate) run: String,
    /// Follow until the run ends, and exit like it
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Only the last N lines
    #[arg(long, value_name = "N")]
    pub(crate) tail: Option<u32>,
    /// Only what was written since: a time, or a duration ago (`10m`)
    #[arg(long, value_name = "T")]
    pub(crate) since: Option<String>,
    /// Only this attempt
    #[arg(long, value_name = "N")]
    pub(crate) attempt: Option<u32>,
    #[command(flatten)]
    pub(crate) client: Client,
}

#[derive(Debug, Args)]
pub(crate) struct Stop {
    /// The runs' ids, or the beginnings of them
    #[arg(required = true)]
    pub(crate) runs: Vec<String>,
    /// By force at once, without grace
    #[arg(long)]
    pub(crate) now: bool,
    #[command(flatten)]
    pub(crate) client: Client,
}

#[derive(Debug, Args)]
pub(crate) struct Runners {
    #[command(flatten)]
    pub(crate) client: Client,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Token {
    /// Makes a token and prints it, once
    Create(TokenCreate),
    /// Lists tokens, without the tokens themselves
    List(TokenList),
    /// Makes a token useless
    Revoke(TokenRevoke),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Role {
    /// One runner, for its link only
    Runner,
    /// Submits, reads, stops
    Client,
    /// Everything
    Admin,
}

#[derive(Debug, Args)]
pub(crate) struct TokenCreate {
    /// What it may do
    #[arg(long, default_value = "runner")]
    pub(crate) role: Role,
    /// The one runner that may use it (role `runner`)
    #[arg(long, value_name = "ID")]
    pub(crate) runner: Option<String>,
    /// What it is for, for the list
    #[arg(long)]
    pub(crate) name: Option<String>,
    #[command(flatten)]
    pub(crate) client: Client,
}

#[derive(Debug, Args)]
pub(crate) struct TokenList {
    #[command(flatten)]
    pub(crate) client: Client,
}

#[derive(Debug, Args)]
pub(crate) struct TokenRevoke {
    /// The token's id in the list
    pub(crate) id: String,
    #[command(flatten)]
    pub(crate) client: Client,
}

#[derive(Debug, Args)]
pub(crate) struct Validate {
    /// Workflow files
    #[arg(required_unless_present = "schema")]
    pub(crate) workflows: Vec<PathBuf>,
    /// Print the JSON Schema of workflow files
    #[arg(long)]
    pub(crate) schema: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Secrets {
    /// Reads references: prints store and version, never the value or its length
    Check(SecretsCheck),
}

#[derive(Debug, Args)]
pub(crate) struct SecretsCheck {
    /// References, as `secret:prod:/db#password`; `secret:` may be left out
    #[arg(required = true, value_name = "REF")]
    pub(crate) references: Vec<String>,
    #[command(flatten)]
    pub(crate) config: ConfigFile,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Config {
    /// Checks the configuration
    Lint(ConfigFile),
    /// Prints each value and where it came from
    Show(ConfigFile),
    /// Prints the JSON Schema of configuration files
    Schema,
    /// Prints what each present variable became
    Env,
}

#[cfg(feature = "plugin")]
#[derive(Debug, Subcommand)]
pub(crate) enum PluginCommand {
    /// Tries every promise of the contract at a program
    Test(PluginTest),
    /// Lists the kinds of this build, and the configured ones with their capabilities and health
    List(PluginList),
    /// Serves a kind of this build over stdin and stdout, as a plugin of another runner
    Serve(PluginServe),
}

/// Which contract a plugin is held to.
#[cfg(feature = "plugin")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Contract {
    /// Runs work
    Executor,
    /// Keeps secrets
    Secrets,
}

#[cfg(feature = "plugin")]
#[derive(Debug, Args)]
pub(crate) struct PluginTest {
    #[command(flatten)]
    pub(crate) config: ConfigFile,
    /// The executor or store of this section, of whatever kind, instead of a program
    #[arg(long, value_name = "NAME", conflicts_with = "program")]
    pub(crate) section: Option<String>,
    /// The contract that the program is held to; else what it says that it can be, or what its section is
    #[arg(long, value_enum, value_name = "CONTRACT")]
    pub(crate) contract: Option<Contract>,
    /// Also write the result as `JUnit` XML
    #[arg(long, value_name = "FILE")]
    pub(crate) junit: Option<PathBuf>,
    /// Only promises with this word in their name, as printed or with underscores; may be repeated
    #[arg(long, value_name = "WORD")]
    pub(crate) only: Vec<String>,
    /// The image of the suite's workloads (with /bin/sh), for backends that need one
    #[arg(long)]
    pub(crate) image: Option<String>,
    /// How long one step of the backend may take; else 10s
    #[arg(long, value_name = "TIME")]
    pub(crate) patience: Option<hybrid_runner_core::unit::Period>,
    /// The program and its arguments
    #[arg(last = true)]
    pub(crate) program: Vec<String>,
}

#[cfg(feature = "plugin")]
#[derive(Debug, Args)]
pub(crate) struct PluginList {
    #[command(flatten)]
    pub(crate) config: ConfigFile,
}

#[cfg(feature = "plugin")]
#[derive(Debug, Args)]
pub(crate) struct PluginServe {
    /// The kind, as `local`
    pub(crate) kind: String,
}
