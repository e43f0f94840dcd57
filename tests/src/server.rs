//! The control plane as a program that can be killed and started again.

use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use rustix::process::Signal;
use tokio::time::{Instant, sleep};

use crate::program::{Binary, Program};
use crate::rest::{Client, http};
use crate::story::{Story, free_address};

/// A readiness that nobody announces is asked for this often.
const LOOK: Duration = Duration::from_millis(20);

/// A server is ready, and ends, within this.
const PATIENCE: Duration = Duration::from_secs(40);

/// The control plane. Its data outlives its process.
#[derive(Debug)]
pub struct Server {
    story: Story,
    name: String,
    address: String,
    /// Which build it is.
    pub binary: Binary,
    /// More variables for its next start.
    pub environment: Vec<(String, String)>,
    /// More lines of `[server]`.
    pub settings: Vec<String>,
    /// Its process, while it has one.
    pub program: Option<Program>,
}

impl Server {
    /// A server that is not started yet.
    pub fn new(story: &Story, name: &str) -> Self {
        Self {
            story: story.clone(),
            name: name.to_owned(),
            address: free_address(),
            binary: Binary::Product,
            environment: Vec::new(),
            settings: Vec::new(),
            program: None,
        }
    }

    /// A server that runs and is ready.
    pub async fn started(story: &Story) -> Self {
        let mut server = Self::new(story, "server");
        server.start().await;
        server
    }

    /// Makes it listen, without TLS, at another address of this machine.
    pub fn listen_at(&mut self, host: &str) {
        let free = TcpListener::bind((host, 0)).and_then(|listener| listener.local_addr());
        self.address = free
            .unwrap_or_else(|error| panic!("failed to listen at `{host}`: {error}"))
            .to_string();
        self.settings.push("insecure = true".to_owned());
    }

    /// `host:port`.
    pub fn address(&self) -> String {
        self.address.clone()
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address())
    }

    /// Where it keeps its data.
    pub fn data_dir(&self) -> PathBuf {
        self.story.path(&format!("{}-server.data", self.name))
    }

    /// Starts it, and waits until it is ready.
    pub async fn start(&mut self) {
        self.spawn();
        self.ready().await;
    }

    /// Starts it.
    pub fn spawn(&mut self) {
        let config = format!(
            "[server]\nlisten = \"{}\"\ndata_dir = \"{}\"\n{}\n",
            self.address(),
            self.data_dir().display(),
            self.settings.join("\n")
        );
        let config = self
            .story
            .write(&format!("{}-server.toml", self.name), config);
        let config = config.display().to_string();
        let mut start = self
            .story
            .start(&self.name, self.binary, &["server", "-c", &config]);
        start.environment.extend(self.environment.iter().cloned());
        self.program = Some(start.spawn());
    }

    /// Waits until it is ready.
    pub async fn ready(&mut self) {
        let url = format!("{}/readyz", self.url());
        let program = self.program.as_mut().expect("it was started");
        ready(&url, program).await;
    }

    /// Its process.
    pub fn program(&mut self) -> &mut Program {
        self.program.as_mut().expect("the server was started")
    }

    /// `kill -9`.
    pub async fn kill(&mut self) {
        if let Some(mut program) = self.program.take() {
            program.kill().await;
        }
    }

    /// SIGTERM, and its end.
    pub async fn terminate(&mut self) -> ExitStatus {
        let mut program = self.program.take().expect("the server was started");
        program.signal(Signal::TERM);
        program.end(PATIENCE).await
    }

    /// The admin's token.
    pub fn admin_token(&self) -> String {
        let path = self.data_dir().join("admin.token");
        let token = fs::read_to_string(&path)
            .unwrap_or_else(|error| panic!("`{}`: {error}", path.display()));
        token.trim().to_owned()
    }

    /// A client of it with the admin's token.
    pub fn client(&self) -> Client {
        Client::new(&self.url(), &self.admin_token())
    }
}

/// Waits until `/readyz` says yes; panics if the program ends before.
pub(crate) async fn ready(url: &str, program: &mut Program) {
    let http = http();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = match http.get(url).send().await {
            Ok(response) if response.status().is_success() => return,
            Ok(response) => format!(
                "{} {}",
                response.status(),
                response.text().await.unwrap_or_default()
            ),
            Err(error) => error.to_string(),
        };
        assert!(
            program.is_running(),
            "the program ended before it was ready"
        );
        assert!(
            Instant::now() < deadline,
            "{url} after {PATIENCE:?}: {answer}"
        );
        sleep(LOOK).await;
    }
}
