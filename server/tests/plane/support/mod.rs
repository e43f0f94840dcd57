//! A control plane on loopback, and runners that are fakes behind a real WebSocket.

mod runner;

use std::future::Future;
use std::time::Duration;

use hybrid_runner_core::AgentId;
use hybrid_runner_core::unit::Period;
use hybrid_runner_server::{Config, NewToken, Role, Server};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub(crate) use runner::{Life, Runner, boot, open, try_connect};

/// No test takes longer.
pub(crate) async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), work)
        .await
        .expect("the test takes too long")
}

/// A control plane, and the client of an admin.
pub(crate) struct Plane {
    pub(crate) dir: TempDir,
    pub(crate) url: String,
    pub(crate) link: String,
    pub(crate) admin: String,
    http: reqwest::Client,
    stop: CancellationToken,
    serving: JoinSet<()>,
}

impl Plane {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    pub(crate) async fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), change).await
    }

    pub(crate) async fn start_in(dir: TempDir, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::new(dir.path().join("data"));
        config.listen = "127.0.0.1:0".parse().unwrap();
        config.heartbeat = Period::seconds(5);
        change(&mut config);
        let server = Server::bind(config).await.unwrap();
        let admin = std::fs::read_to_string(server.admin_token_path()).unwrap();
        let (url, link) = (server.url(), server.link_url());
        let stop = CancellationToken::new();
        let mut serving = JoinSet::new();
        serving.spawn(server.serve(stop.clone().cancelled_owned()));
        Self {
            dir,
            url,
            link,
            admin: admin.trim().to_owned(),
            http: reqwest::Client::new(),
            stop,
            serving,
        }
    }

    /// Ends the server and keeps its folder.
    pub(crate) async fn end(mut self) -> TempDir {
        self.stop.cancel();
        self.serving.join_next().await.unwrap().unwrap();
        self.dir
    }

    /// Ends the server and starts another over the same folder, at another address.
    pub(crate) async fn restart(self) -> Self {
        Self::start_in(self.end().await, |_| {}).await
    }

    pub(crate) async fn ask(
        &self,
        token: &str,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> (StatusCode, Value) {
        let mut request = self
            .http
            .request(method, format!("{}{path}", self.url))
            .bearer_auth(token);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await.unwrap();
        let status = answer.status();
        let text = answer.text().await.unwrap();
        let json = serde_json::from_str(&text).unwrap_or(Value::String(text));
        (status, json)
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        let (status, answer) = self.ask(&self.admin, Method::GET, path, None).await;
        assert_eq!(status, StatusCode::OK, "{path}: {answer}");
        answer
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> (StatusCode, Value) {
        self.ask(&self.admin, Method::POST, path, Some(body)).await
    }

    pub(crate) async fn raw(
        &self,
        path: &str,
        accept: &str,
        last_event: Option<&str>,
    ) -> reqwest::Response {
        let mut request = self
            .http
            .get(format!("{}{path}", self.url))
            .bearer_auth(&self.admin)
            .header("accept", accept);
        if let Some(id) = last_event {
            request = request.header("last-event-id", id);
        }
        request.send().await.unwrap().error_for_status().unwrap()
    }

    pub(crate) async fn text(&self, path: &str) -> String {
        self.raw(path, "text/plain", None)
            .await
            .text()
            .await
            .unwrap()
    }

    /// Makes a token: its id and itself.
    pub(crate) async fn token(&self, role: Role, agent: Option<&str>) -> (String, String) {
        let (status, made) = self
            .post("/api/v1/tokens", json!({ "role": role, "agent": agent }))
            .await;
        assert_eq!(status, StatusCode::CREATED, "{made}");
        let text = |name: &str| made[name].as_str().unwrap().to_owned();
        (text("id"), text("token"))
    }

    pub(crate) async fn runner_token(&self, agent: &str) -> String {
        self.token(Role::Runner, Some(agent)).await.1
    }

    /// Submits a command and gives the run's id.
    pub(crate) async fn submit(&self, runner: &str, command: &[&str]) -> String {
        let body = json!({ "runner": runner, "workflow": { "name": "test", "command": command } });
        let (status, run) = self.post("/api/v1/runs", body).await;
        assert_eq!(status, StatusCode::CREATED, "{run}");
        run["id"].as_str().unwrap().to_owned()
    }

    /// Waits until the run has come to a state.
    pub(crate) async fn wait(&self, id: &str, state: &str) -> Value {
        loop {
            let run = self
                .get(&format!("/api/v1/runs/{id}?wait=30s&state={state}"))
                .await;
            let now = run["state"].as_str().unwrap();
            if now == state || (state == "finished" && !run["times"]["finished"].is_null()) {
                return run;
            }
        }
    }

    pub(crate) async fn finished(&self, id: &str) -> Value {
        self.wait(id, "finished").await
    }

    pub(crate) async fn logs(&self, id: &str) -> String {
        self.text(&format!("/api/v1/runs/{id}/logs")).await
    }
}

/// The events of a stream, one at a time: name, id, data.
pub(crate) struct Events {
    answer: reqwest::Response,
    rest: String,
}

impl Events {
    pub(crate) fn new(answer: reqwest::Response) -> Self {
        Self {
            answer,
            rest: String::new(),
        }
    }

    pub(crate) async fn next(&mut self) -> Option<(String, String, Value)> {
        loop {
            if let Some((event, rest)) = self.rest.split_once("\n\n") {
                let (event, rest) = (event.to_owned(), rest.to_owned());
                self.rest = rest;
                let field = |name: &str| {
                    event
                        .lines()
                        .find_map(|line| line.strip_prefix(name))
                        .unwrap_or_default()
                        .trim()
                        .to_owned()
                };
                if event.starts_with(':') {
                    continue;
                }
                let data = serde_json::from_str(&field("data:")).unwrap();
                return Some((field("event:"), field("id:"), data));
            }
            let chunk = self.answer.chunk().await.ok()??;
            self.rest.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }

    /// The next output.
    pub(crate) async fn next_log(&mut self) -> Option<(String, String)> {
        while let Some((name, id, data)) = self.next().await {
            if name == "log" {
                return Some((id, data["text"].as_str().unwrap().to_owned()));
            }
        }
        None
    }
}

/// A new token as the library makes it.
pub(crate) fn new_token(role: Role, agent: Option<&str>) -> NewToken {
    let agent = agent.map(|agent| agent.parse::<AgentId>().unwrap());
    NewToken {
        role,
        agent,
        name: None,
    }
}
