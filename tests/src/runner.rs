//! The runner as a program that can be killed and started again.

use std::fs;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use rustix::process::Signal;

use crate::docker::Docker;
use crate::processes::{self, Process};
use crate::program::{Binary, Program};
use crate::rest::http;
use crate::server::{Server, ready};
use crate::story::{Story, free_address};

/// A runner ends within this.
const PATIENCE: Duration = Duration::from_mins(1);

/// A runner. Its data outlives its process.
#[derive(Debug)]
pub struct Runner {
    story: Story,
    /// Its id at the control plane.
    pub id: String,
    /// `host:port` that it dials: the server's, or a proxy's.
    pub dials: String,
    /// `ws` or `wss`.
    pub scheme: String,
    /// Which build it is.
    pub binary: Binary,
    /// More variables for its next start.
    pub environment: Vec<(String, String)>,
    /// More lines of `[runner]`.
    pub settings: Vec<String>,
    /// Where it finds its token, as its configuration has it; a file of the story unless set.
    pub token: String,
    /// More lines of `[link]`.
    pub link: Vec<String>,
    /// The lines of `[executors.here]`, where its runs go: `kind = "local"`, or [`Docker::section`](crate::Docker::section).
    pub executor: String,
    /// More sections.
    pub sections: String,
    /// Where it keeps its data.
    pub data_dir: PathBuf,
    listen: String,
    /// Its process, while it has one.
    pub program: Option<Program>,
}

impl Runner {
    /// A runner that is not started yet, with a token of the server.
    pub async fn new(story: &Story, server: &Server, id: &str) -> Self {
        let (_, token) = server.client().token("runner", Some(id)).await;
        Self::with_token(story, &server.address(), id, &token)
    }

    /// A runner that is not started yet, with this token.
    pub fn with_token(story: &Story, dials: &str, id: &str, token: &str) -> Self {
        let file = story.write(&format!("{id}.token"), format!("{token}\n"));
        fs::create_dir_all(story.path("secrets"))
            .expect("the folder of the story can be written to");
        Self {
            story: story.clone(),
            id: id.to_owned(),
            dials: dials.to_owned(),
            scheme: "ws".to_owned(),
            binary: Binary::Product,
            environment: Vec::new(),
            settings: vec!["max_runs = 64".to_owned()],
            token: format!("{{ file = \"{}\" }}", file.display()),
            link: Vec::new(),
            executor: "kind = \"local\"\n".to_owned(),
            sections: String::new(),
            data_dir: story.path(&format!("{id}.data")),
            listen: free_address(),
            program: None,
        }
    }

    /// A runner that runs and is ready.
    pub async fn started(story: &Story, server: &Server) -> Self {
        let mut runner = Self::new(story, server, "runner-1").await;
        runner.start().await;
        runner
    }

    /// The same; its runs are containers, if an engine is given.
    pub async fn started_in(story: &Story, server: &Server, docker: Option<&Docker>) -> Self {
        let mut runner = Self::new(story, server, "runner-1").await;
        runner.run_in(docker);
        runner.start().await;
        runner
    }

    /// Makes its runs containers, if an engine is given.
    pub fn run_in(&mut self, docker: Option<&Docker>) {
        if let Some(docker) = docker {
            self.executor = docker.section();
        }
    }

    /// Starts it, and waits until it is ready: work can flow.
    pub async fn start(&mut self) {
        self.spawn();
        self.ready().await;
    }

    /// The file with its configuration, written anew.
    pub fn config(&self) -> PathBuf {
        let link = format!(
            "[link]\nurl = \"{}://{}\"\ntoken = {}\n{}\n",
            self.scheme,
            self.dials,
            self.token,
            self.link.join("\n")
        );
        let runner = format!(
            "[runner]\nid = \"{}\"\nexecutor = \"here\"\nsecrets = \"files\"\ndata_dir = \"{}\"\n\
             listen = \"{}\"\nlog = {{ level = \"debug\", format = \"text\" }}\n{}\n",
            self.id,
            self.data_dir.display(),
            self.listen,
            self.settings.join("\n")
        );
        let backends = format!(
            "[executors.here]\n{}[secrets.files]\nkind = \"file\"\npath = \"{}\"\n",
            self.executor,
            self.story.path("secrets").display()
        );
        let text = [&link, &runner, &backends, &self.sections]
            .map(String::as_str)
            .concat();
        self.story.write(&format!("{}.toml", self.id), text)
    }

    /// Starts it.
    pub fn spawn(&mut self) {
        let config = self.config().display().to_string();
        let mut start = self
            .story
            .start(&self.id, self.binary, &["run", "-c", &config]);
        start.environment.extend(self.environment.iter().cloned());
        self.program = Some(start.spawn());
    }

    /// Waits until it is ready.
    pub async fn ready(&mut self) {
        let url = self.health("readyz");
        ready(&url, self.program()).await;
    }

    /// The URL of one of its own endpoints.
    pub fn health(&self, name: &str) -> String {
        format!("http://{}/{name}", self.listen)
    }

    /// Asks one of its own endpoints: the code and the text.
    pub async fn ask(&self, name: &str) -> (u16, String) {
        let http = http();
        let response = http
            .get(self.health(name))
            .send()
            .await
            .expect("the runner answers on its own port");
        (
            response.status().as_u16(),
            response.text().await.unwrap_or_default(),
        )
    }

    /// Its process.
    pub fn program(&mut self) -> &mut Program {
        self.program.as_mut().expect("the runner was started")
    }

    /// Whether its process lives.
    pub fn is_running(&mut self) -> bool {
        self.program.as_mut().is_some_and(Program::is_running)
    }

    /// `kill -9`.
    pub async fn kill(&mut self) {
        if let Some(mut program) = self.program.take() {
            program.kill().await;
        }
    }

    /// SIGTERM, and its end.
    pub async fn terminate(&mut self) -> ExitStatus {
        let mut program = self.program.take().expect("the runner was started");
        program.signal(Signal::TERM);
        program.end(PATIENCE).await
    }

    /// The helpers of its runs: processes that stand in a folder of its data and are not the runner.
    pub fn helpers(&self) -> Vec<Process> {
        let own = self.program.as_ref().map(Program::pid);
        let inside = |process: &Process| {
            process
                .folder
                .as_ref()
                .is_some_and(|folder| folder.starts_with(&self.data_dir))
        };
        processes::all()
            .into_iter()
            .filter(inside)
            .filter(|process| Some(process.pid) != own)
            .collect()
    }
}
