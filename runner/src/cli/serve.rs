//! `run` and `server`: the two that stay.

use super::args::{Look, Run};
use super::exit::{Exit, Failure, local};
use super::output::Output;
use super::{Done, Interrupt, offline};
use crate::config::{Config, Inputs};
use crate::kinds::Kinds;
use crate::reload::Reload;

/// `run`
pub(crate) async fn run(
    args: Run,
    look: Look,
    output: Output,
    kinds: &Kinds,
    interrupt: &Interrupt,
) -> Done {
    if let Some(file) = args.file {
        let file = file.display();
        return Err(Failure::usage(format!(
            "`run` takes no file, it runs what the control plane sends; did you mean `exec {file}`?"
        )));
    }
    let inputs = Inputs::of_process(args.config.config).with_kinds(kinds);
    let loaded = offline::load(&inputs, output)?;
    log(&loaded.config, look, output);
    let reload = Reload {
        inputs,
        known: loaded.show(),
        file: loaded.file,
        hangup: interrupt.mind_hangups(),
    };
    let config = loaded.config;
    let lines = what_is_missing(&config);
    if !lines.is_empty() {
        return Err(Failure::usage(lines));
    }
    crate::app::run_reloading(config, interrupt.raised(), Some(reload))
        .await
        .map_err(local)?;
    Ok(Exit::Done)
}

/// Everything that `run` needs and does not have, with the lines to add; empty if nothing.
fn what_is_missing(config: &Config) -> String {
    let mut missing = Vec::new();
    if config.link.url.is_none() {
        missing.push(
            "the control plane: add `url = \"wss://…\"` under `[link]`, or set SERVER_URL"
                .to_owned(),
        );
    }
    if config.link.token.is_none() {
        missing.push(
            "its token: add `token = { file = \"…\" }` under `[link]`, or set AUTH_TOKEN"
                .to_owned(),
        );
    }
    if config.runner.id.is_none() {
        missing.push(
            "the runner's name there: add `id = \"…\"` under `[runner]`, or set AGENT_ID"
                .to_owned(),
        );
    }
    if config.executors.is_empty() {
        missing.push(crate::app::no_executor());
    }
    if missing.is_empty() {
        return String::new();
    }
    format!("`run` cannot begin yet:\n  - {}", missing.join("\n  - "))
}

/// `server`
#[cfg(feature = "server")]
pub(crate) async fn server(
    args: super::args::Server,
    look: Look,
    output: Output,
    kinds: &Kinds,
    interrupt: &Interrupt,
) -> Done {
    let loaded = offline::load(
        &Inputs::of_process(args.config.config).with_kinds(kinds),
        output,
    )?;
    log(&loaded.config, look, output);
    let server = hybrid_runner_server::Server::bind(server_config(&loaded.config))
        .await
        .map_err(local)?;
    output.note(format!("control plane   {}", server.url()));
    output.note(format!(
        "admin's token   {}",
        server.admin_token_path().display()
    ));
    server.serve(interrupt.raised()).await;
    Ok(Exit::Done)
}

/// `[server]` as the control plane's own library wants it.
#[cfg(feature = "server")]
pub(crate) fn server_config(config: &Config) -> hybrid_runner_server::Config {
    use hybrid_runner_server::{Retention, Tls};
    let server = &config.server;
    let mut made = hybrid_runner_server::Config::new(server.data_dir.clone());
    made.listen = server.listen;
    made.tls = server.tls.clone().map(|(cert, key)| Tls { cert, key });
    made.retention = Retention {
        runs: server.keep_runs.into(),
        logs: server.keep_logs.into(),
    };
    made.insecure = server.insecure;
    made.runner_lost_after = server.runner_lost_after.into();
    made.heartbeat = server.heartbeat.into();
    made
}

/// `-v` and `-q` shift what the configuration says.
fn log(config: &Config, look: Look, output: Output) {
    let log = &config.runner.log;
    let level = match look.verbose {
        0 if look.quiet => "warn",
        0 => log.level.as_str(),
        1 => "debug",
        _ => "trace",
    };
    crate::logging::start(level, log.format, output.color_err());
}
