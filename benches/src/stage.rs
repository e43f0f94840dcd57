//! A server and its runners as child processes, with their configuration.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::json;

use crate::client::{Client, until};
use crate::process::Process;

const START_LIMIT: Duration = Duration::from_secs(20);

/// What is measured, and with what.
#[derive(Debug)]
pub(crate) struct Tools {
    pub(crate) own: PathBuf,
    pub(crate) product: PathBuf,
    pub(crate) minimal: PathBuf,
    pub(crate) floor: PathBuf,
    pub(crate) stamp: PathBuf,
    pub(crate) folder: PathBuf,
    /// Of a cluster: a tenth of the runs.
    #[cfg_attr(
        not(feature = "cluster"),
        expect(dead_code, reason = "what the measures of a cluster alone use")
    )]
    pub(crate) few: bool,
}

impl Tools {
    pub(crate) fn own(&self) -> &str {
        self.own.to_str().expect("the path of this program is text")
    }

    /// A new folder for one measurement.
    pub(crate) fn room(&self, name: &str) -> Result<PathBuf> {
        let folder = self.folder.join(name);
        fs::create_dir_all(&folder)?;
        Ok(folder.canonicalize()?)
    }
}

/// A running server.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) process: Process,
    pub(crate) address: SocketAddr,
    pub(crate) token: String,
    program: PathBuf,
    config: PathBuf,
    room: PathBuf,
}

impl Server {
    pub(crate) async fn start(tools: &Tools, room: &Path) -> Result<Self> {
        let address = free_address()?;
        let config = room.join("server.toml");
        let data = room.join("server");
        fs::write(
            &config,
            format!(
                "[server]\nlisten = \"{address}\"\ndata_dir = \"{}\"\n[runner]\nlog = {{ level = \"warn\" }}\n",
                data.display()
            ),
        )?;
        let process = serve(&tools.product, &config, room)?;
        let token_file = data.join("admin.token");
        until(START_LIMIT, async || {
            Ok(token_file.exists() && is_up(address).await)
        })
        .await
        .with_context(said(room, "server"))?;
        let token = fs::read_to_string(token_file)?.trim().to_owned();
        Ok(Self {
            process,
            address,
            token,
            program: tools.product.clone(),
            config,
            room: room.to_owned(),
        })
    }

    pub(crate) async fn client(&self) -> Result<Client> {
        Client::connect(self.address, &self.token).await
    }

    /// Kills it, stays away for a while, starts it again and waits until it answers.
    pub(crate) async fn restart(self, away: Duration) -> Result<Self> {
        self.process.kill().await?;
        tokio::time::sleep(away).await;
        let process = serve(&self.program, &self.config, &self.room)?;
        until(START_LIMIT, async || Ok(is_up(self.address).await))
            .await
            .with_context(said(&self.room, "server"))?;
        Ok(Self { process, ..self })
    }

    /// Makes the token of a runner.
    pub(crate) async fn runner_token(&self, client: &mut Client, agent: &str) -> Result<String> {
        let made = client
            .post("/tokens", &json!({ "role": "runner", "agent": agent }))
            .await?;
        Ok(made["token"].as_str().context("a token")?.to_owned())
    }
}

fn serve(program: &Path, config: &Path, room: &Path) -> Result<Process> {
    let config = config.to_str().context("the path is text")?;
    Process::start(
        program,
        &["server", "-c", config],
        &[],
        &room.join("server.out"),
    )
}

async fn is_up(address: SocketAddr) -> bool {
    match Client::connect(address, "").await {
        Ok(mut client) => client.send("GET", "/healthz", None).await.is_ok(),
        Err(_) => false,
    }
}

/// What a process said, for the error that it did not start.
fn said(room: &Path, name: &str) -> impl Fn() -> String {
    let path = room.join(format!("{name}.out"));
    move || {
        format!(
            "`{name}` said: {}",
            fs::read_to_string(&path).unwrap_or_default()
        )
    }
}

/// A running runner.
#[derive(Debug)]
pub(crate) struct Runner {
    pub(crate) process: Process,
    pub(crate) id: String,
    setup: Setup,
}

/// How a runner is started.
#[derive(Debug)]
pub(crate) struct Setup {
    program: PathBuf,
    id: String,
    config: PathBuf,
    room: PathBuf,
    env: Vec<(String, String)>,
}

impl Runner {
    /// Starts a runner and waits until the server sees it. Its environment holds secrets: `SECRET_K0`, `SECRET_K1`, ….
    pub(crate) async fn start(
        server: &Server,
        program: &Path,
        id: &str,
        max_runs: u32,
        secrets: usize,
    ) -> Result<Self> {
        let room = server.room.clone();
        let mut client = server.client().await?;
        let token = room.join(format!("{id}.token"));
        fs::write(&token, server.runner_token(&mut client, id).await?)?;
        let config = room.join(format!("{id}.toml"));
        let (token, data, address) = (token.display(), room.join(id), server.address);
        let data = data.display();
        fs::write(
            &config,
            format!(
                "[link]\nurl = \"ws://{address}\"\ntoken = {{ file = \"{token}\" }}\n\
                 [runner]\nid = \"{id}\"\ndata_dir = \"{data}\"\nmax_runs = {max_runs}\nlisten = \"none\"\n\
                 spool = {{ per_run = \"4GiB\", total = \"16GiB\" }}\nlog = {{ level = \"warn\" }}\n\
                 [executors.here]\nkind = \"local\"\n[secrets.env]\nkind = \"env\"\n"
            ),
        )?;
        let env = (0..secrets)
            .map(|n| (format!("SECRET_K{n}"), secret(n)))
            .collect();
        let setup = Setup {
            program: program.to_owned(),
            id: id.to_owned(),
            config,
            room,
            env,
        };
        let runner = setup.start()?;
        runner.connected(&mut client).await?;
        Ok(runner)
    }

    /// Waits until the server sees it.
    pub(crate) async fn connected(&self, client: &mut Client) -> Result<()> {
        until(START_LIMIT, async || client.is_connected(&self.id).await)
            .await
            .with_context(said(&self.setup.room, &self.id))
    }

    /// `kill -9`; what comes back can start it again.
    pub(crate) async fn kill(self) -> Result<Setup> {
        self.process.kill().await?;
        Ok(self.setup)
    }
}

impl Setup {
    /// Starts the runner, without waiting for anything.
    pub(crate) fn start(self) -> Result<Runner> {
        let config = self.config.to_str().context("the path is text")?;
        let said = self.room.join(format!("{}.out", self.id));
        let process = Process::start(&self.program, &["run", "-c", config], &self.env, &said)?;
        Ok(Runner {
            process,
            id: self.id.clone(),
            setup: self,
        })
    }
}

/// A value as a password generator makes them.
fn secret(n: usize) -> String {
    let n = u64::try_from(n).unwrap_or_default() + 1;
    format!(
        "{:016x}+{:08x}/",
        n.wrapping_mul(0x9E37_79B9_7F4A_7C15),
        n.wrapping_mul(0xD1B5_4A32) & 0xffff_ffff
    )
}

/// A workflow's environment that needs this many of the runner's secrets.
pub(crate) fn needing(secrets: usize) -> serde_json::Value {
    (0..secrets)
        .map(|n| (format!("NEEDED_{n}"), json!(format!("secret:env:/K{n}"))))
        .collect()
}

fn free_address() -> Result<SocketAddr> {
    // Free until somebody else asks: nobody else does.
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}
