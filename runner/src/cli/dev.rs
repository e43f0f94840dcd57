//! `dev`: control plane and runner in one process, over a real WebSocket with a real token.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use hybrid_runner_core::id::AgentId;
use hybrid_runner_core::workflow::Workflow;
use hybrid_runner_core::{Error, Result};
use hybrid_runner_server::{NewToken, Role, Server};
use secrecy::SecretString;
use serde_json::json;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::args::Dev;
use super::exec::{add_demo_store, local_unless_configured, read_workflow};
use super::exit::{Exit, Failure, local};
use super::output::Output;
use super::runs::{OnSignal, Run};
use super::scratch::Scratch;
use super::submit::follow_all;
use super::{Done, Interrupt, offline};
use crate::client::Client;
use crate::config::{Config, Inputs, Proxy, TokenSource};
use crate::kinds::Kinds;
use crate::workflow_file;

/// What runs without a file.
const HELLO: &str = include_str!("../../../examples/workflows/hello.yaml");

/// `dev [WORKFLOW…]`
pub(crate) async fn dev(args: Dev, output: Output, kinds: &Kinds, interrupt: &Interrupt) -> Done {
    let workflows = if args.workflows.is_empty() {
        vec![workflow_file::parse(HELLO, "hello.yaml")?]
    } else {
        args.workflows
            .iter()
            .map(|path| read_workflow(path))
            .collect::<Result<Vec<_>, _>>()?
    };
    let loaded = offline::load(
        &Inputs::of_process(args.config.config).with_kinds(kinds),
        output,
    )?;
    let scratch = Scratch::new(args.data_dir, "dev")?;
    let agent: AgentId = "dev".parse().expect("a runner id");

    let listen = args
        .listen
        .unwrap_or_else(|| SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    let mut settings = hybrid_runner_server::Config::new(scratch.path().join("server"));
    settings.listen = listen;
    let server = Server::bind(settings).await.map_err(local)?;
    let config = runner_config(loaded.config, &server, &agent, scratch.path()).await?;
    let client = admin_client(&server)?;
    tell(&server, &scratch, args.once, output);

    let leave = CancellationToken::new();
    let mut tasks = JoinSet::new();
    tasks.spawn(server.serve(leave.clone().cancelled_owned()));
    let runner_leave = CancellationToken::new();
    let mut runner =
        JoinSet::from_iter([crate::run(config, runner_leave.clone().cancelled_owned())]);

    let worst = tokio::select! {
        worst = run_all(&client, &workflows, &agent, output, interrupt) => worst,
        ended = runner.join_next() => Err(ended_early(ended)),
    };
    let exit = match worst {
        Ok(exit) if !args.once && !matches!(exit, Exit::Interrupted(_)) => {
            stay(&mut runner, output, interrupt).await
        }
        other => other,
    };
    // The server first: what it still has to tell the runner it would tell a runner that is leaving.
    leave.cancel();
    while tasks.join_next().await.is_some() {}
    runner_leave.cancel();
    while runner.join_next().await.is_some() {}
    exit
}

/// The runner's side: dials the server just bound, with a token of its own, in a file of its own.
async fn runner_config(
    mut config: Config,
    server: &Server,
    agent: &AgentId,
    dir: &Path,
) -> Result<Config> {
    let new = NewToken {
        role: Role::Runner,
        agent: Some(agent.clone()),
        name: Some("dev".to_owned()),
    };
    let token = server.create_token(&new).await?;
    // From one half of this process to the other.
    let token = SecretString::from(token.secret.expose_text()?);
    config.link.url = Some(server.link_url().parse().map_err(Error::internal)?);
    config.link.token = Some(TokenSource::Value(token));
    config.link.proxy = Proxy::Direct;
    config.runner.id = Some(agent.clone());
    config.runner.data_dir = dir.join("runner");
    local_unless_configured(&mut config);
    add_demo_store(&mut config, dir)?;
    // Any free port: a second `dev`, or a runner, may be there beside it.
    if let Some(address) = &mut config.runner.listen {
        address.set_port(0);
    }
    Ok(config)
}

fn admin_client(server: &Server) -> Result<Client> {
    let path = server.admin_token_path();
    let token = std::fs::read_to_string(&path).map_err(|error| {
        Error::internal(format!("failed to read `{}`", path.display())).with_source(error)
    })?;
    Client::new(&server.url(), SecretString::from(token.trim()), None)
}

fn tell(server: &Server, scratch: &Scratch, once: bool, output: Output) {
    output.note(format!("control plane   {}", server.url()));
    output.note(format!(
        "admin's token   {}",
        server.admin_token_path().display()
    ));
    if scratch.is_kept() {
        output.note(format!("data            {}", scratch.path().display()));
    }
    if !once {
        output.note(format!(
            "in another terminal:\n  export HYBRID_RUNNER_SERVER={} HYBRID_RUNNER_TOKEN=$(cat {})\n  hybrid-runner runs",
            server.url(),
            server.admin_token_path().display()
        ));
    }
}

/// Submits and follows one after the other; the worst end counts.
async fn run_all(
    client: &Client,
    workflows: &[Workflow],
    agent: &AgentId,
    output: Output,
    interrupt: &Interrupt,
) -> Done {
    let mut sent: Vec<Run> = Vec::new();
    for workflow in workflows {
        let body = json!({ "workflow": workflow, "runner": agent });
        let run: Run = client.post("/api/v1/runs", &body).await?;
        output.note(format!("run {} ({})", run.id, run.name));
        sent.push(run);
    }
    follow_all(client, &sent, OnSignal::Stop, output, interrupt).await
}

async fn stay(runner: &mut JoinSet<Result<()>>, output: Output, interrupt: &Interrupt) -> Done {
    output.note("ready for more; Ctrl-C ends it");
    tokio::select! {
        () = interrupt.raised() => Ok(Exit::Done),
        ended = runner.join_next() => Err(ended_early(ended)),
    }
}

fn ended_early(ended: Option<Result<Result<()>, tokio::task::JoinError>>) -> Failure {
    match ended {
        Some(Ok(Err(error))) => error.into(),
        Some(Err(error)) => Failure::new(Exit::No, format!("the runner broke down: {error}")),
        _ => Failure::new(Exit::No, "the runner ended by itself"),
    }
}
