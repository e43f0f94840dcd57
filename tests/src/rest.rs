//! A client of the control plane.

use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::follow::Follow;
use crate::workflow::Workflow;

/// A server that is being killed and started answers nothing for a while: it is asked again this often.
const AGAIN: Duration = Duration::from_millis(50);

/// What is waited for comes within this, or the story fails.
const PATIENCE: Duration = Duration::from_mins(1);

/// A client of the control plane.
#[derive(Debug, Clone)]
pub struct Client {
    pub(crate) http: reqwest::Client,
    pub(crate) base: String,
    pub(crate) token: String,
}

/// An answer: its code and its JSON.
pub type Answer = (StatusCode, Value);

impl Client {
    /// A client of the control plane at `base`.
    pub fn new(base: &str, token: &str) -> Self {
        Self {
            http: http(),
            base: base.to_owned(),
            token: token.to_owned(),
        }
    }

    /// The same with another token.
    #[must_use]
    pub fn with_token(&self, token: &str) -> Self {
        Self {
            token: token.to_owned(),
            ..self.clone()
        }
    }

    /// The URL of the control plane.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// Its token.
    pub fn token_text(&self) -> &str {
        &self.token
    }

    /// Asks once. The error is one of the connection.
    pub async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> reqwest::Result<Answer> {
        let mut request = self
            .http
            .request(method, format!("{}/api/v1{path}", self.base))
            .bearer_auth(&self.token);
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await?;
        let status = response.status();
        let body = response.bytes().await?;
        let text = || json!(String::from_utf8_lossy(&body));
        Ok((
            status,
            serde_json::from_slice(&body).unwrap_or_else(|_| text()),
        ))
    }

    /// Asks until there is an answer that is not "not now".
    pub async fn insist(&self, method: Method, path: &str, body: Option<&Value>) -> Answer {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = self.ask(method.clone(), path, body).await;
            match answer {
                Ok((status, answer)) if status != StatusCode::SERVICE_UNAVAILABLE => {
                    return (status, answer);
                }
                other => assert!(
                    Instant::now() < deadline,
                    "{method} {path}: no answer in {PATIENCE:?}: {other:?}"
                ),
            }
            sleep(AGAIN).await;
        }
    }

    async fn good(&self, method: Method, path: &str, body: Option<&Value>) -> Value {
        let (status, answer) = self.insist(method.clone(), path, body).await;
        assert!(status.is_success(), "{method} {path}: {status} {answer}");
        answer
    }

    /// GETs what must be there.
    pub async fn get(&self, path: &str) -> Value {
        self.good(Method::GET, path, None).await
    }

    /// Submits a workflow to a runner; insists, with an id of its own, so that there is one run.
    pub async fn submit(&self, workflow: &Workflow, runner: &str) -> String {
        let id = uuid::Uuid::new_v4().to_string();
        let body = json!({"workflow": workflow.to_value(), "runner": runner, "id": id});
        let run = self.good(Method::POST, "/runs", Some(&body)).await;
        assert_eq!(run["id"], json!(id));
        id
    }

    /// The run as it stands.
    pub async fn show(&self, run: &str) -> Run {
        Run(self.get(&format!("/runs/{run}")).await)
    }

    /// Waits until the run has come to a state: `running` or `finished`.
    pub async fn wait(&self, run: &str, state: &str) -> Run {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let found = Run(self
                .get(&format!("/runs/{run}?wait=5s&state={state}"))
                .await);
            if found.is_finished() || (state == "running" && found.state() == "running") {
                return found;
            }
            assert!(
                Instant::now() < deadline,
                "not {state} after {PATIENCE:?}: {}",
                found.0
            );
            sleep(AGAIN).await;
        }
    }

    /// Waits until the run stands so.
    pub async fn until(&self, run: &str, stands: impl Fn(&Run) -> bool) -> Run {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let found = self.show(run).await;
            if stands(&found) {
                return found;
            }
            assert!(
                Instant::now() < deadline,
                "not so after {PATIENCE:?}: {}",
                found.0
            );
            sleep(AGAIN).await;
        }
    }

    /// Waits for the end of the run.
    pub async fn finished(&self, run: &str) -> Run {
        self.wait(run, "finished").await
    }

    /// Waits until the run runs; panics if it has ended instead.
    pub async fn running(&self, run: &str) -> Run {
        let found = self.wait(run, "running").await;
        assert_eq!(found.state(), "running", "{}", found.0);
        found
    }

    /// Waits until the run is at this attempt, be it that it waits for it.
    pub async fn reached(&self, run: &str, attempt: u64) {
        let deadline = Instant::now() + PATIENCE;
        while self.get(&format!("/runs/{run}")).await["attempt"] != attempt {
            assert!(
                Instant::now() < deadline,
                "run {run} did not come to attempt {attempt} in {PATIENCE:?}"
            );
            sleep(AGAIN).await;
        }
    }

    /// Waits until a server that did not know the run knows it.
    pub async fn adopted(&self, run: &str) {
        let deadline = Instant::now() + PATIENCE;
        while self
            .insist(Method::GET, &format!("/runs/{run}"), None)
            .await
            .0
            == StatusCode::NOT_FOUND
        {
            assert!(
                Instant::now() < deadline,
                "run {run} was not adopted in {PATIENCE:?}"
            );
            sleep(AGAIN).await;
        }
    }

    /// The stored log as bytes. Insists.
    pub async fn log(&self, run: &str) -> Vec<u8> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.try_log(run).await {
                Ok(log) => return log,
                Err(error) => assert!(
                    Instant::now() < deadline,
                    "no log of {run} in {PATIENCE:?}: {error}"
                ),
            }
            sleep(AGAIN).await;
        }
    }

    async fn try_log(&self, run: &str) -> reqwest::Result<Vec<u8>> {
        let url = format!("{}/api/v1/runs/{run}/logs", self.base);
        let response = self.http.get(url).bearer_auth(&self.token).send().await?;
        Ok(response.error_for_status()?.bytes().await?.to_vec())
    }

    /// The stored log as text.
    pub async fn text(&self, run: &str) -> String {
        String::from_utf8_lossy(&self.log(run).await).into_owned()
    }

    /// Follows the run.
    pub fn follow(&self, run: &str) -> Follow {
        Follow::new(self.clone(), run)
    }

    /// Asks the run to stop.
    pub async fn stop(&self, run: &str) -> Run {
        Run(self
            .good(Method::POST, &format!("/runs/{run}/stop"), Some(&json!({})))
            .await)
    }

    /// The runner as the server sees it.
    pub async fn runner(&self, id: &str) -> Value {
        self.get(&format!("/runners/{id}")).await
    }

    /// Waits until the runner is `connected` or `away`.
    pub async fn runner_is(&self, id: &str, state: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let runner = self.runner(id).await;
            if runner["state"] == json!(state) {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "runner not {state} after {PATIENCE:?}: {runner}"
            );
            sleep(AGAIN).await;
        }
    }

    /// Makes a token: its id and the token.
    pub async fn token(&self, role: &str, agent: Option<&str>) -> (String, String) {
        let mut body = json!({"role": role, "name": "story"});
        if let Some(agent) = agent {
            body["agent"] = json!(agent);
        }
        let made = self.good(Method::POST, "/tokens", Some(&body)).await;
        let text = |name: &str| {
            made[name]
                .as_str()
                .expect("a token has an id and itself")
                .to_owned()
        };
        (text("id"), text("token"))
    }
}

/// A client of HTTP that goes straight to where it is sent.
pub fn http() -> reqwest::Client {
    let client = reqwest::Client::builder().no_proxy().build();
    client.expect("a client without settings can be built")
}

/// A run, as the REST API shows it.
#[derive(Debug, Clone)]
pub struct Run(pub Value);

impl Run {
    fn text(&self, pointer: &str) -> &str {
        self.0
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
    }

    /// Its state.
    pub fn state(&self) -> &str {
        self.text("/state")
    }

    /// Whether it has ended.
    pub fn is_finished(&self) -> bool {
        matches!(self.state(), "succeeded" | "failed" | "stopped" | "lost")
    }

    /// The class of its failure; empty without one.
    pub fn class(&self) -> &str {
        self.text("/failure/class")
    }

    /// The message and the source of its failure.
    pub fn failure(&self) -> String {
        format!(
            "{} {}",
            self.text("/failure/message"),
            self.text("/failure/source")
        )
    }

    /// Why it is lost.
    pub fn why(&self) -> &str {
        self.text("/why")
    }

    /// The attempt it is in.
    pub fn attempt(&self) -> u64 {
        self.0["attempt"].as_u64().unwrap_or(0)
    }

    /// Panics unless it stands so.
    #[track_caller]
    pub fn expect(&self, state: &str) -> &Self {
        assert_eq!(self.state(), state, "{}", self.0);
        self
    }

    /// Panics unless it failed in this class, with each of these words in its message.
    #[track_caller]
    pub fn expect_failed(&self, class: &str, words: &[&str]) -> &Self {
        assert_eq!(
            (self.state(), self.class()),
            ("failed", class),
            "{}",
            self.0
        );
        for word in words {
            assert!(self.failure().contains(word), "no `{word}` in: {}", self.0);
        }
        self
    }
}
