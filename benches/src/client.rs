//! One keep-alive connection to the REST API.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

/// One connection, used for one request after the other.
#[derive(Debug)]
pub(crate) struct Client {
    sender: SendRequest<Full<Bytes>>,
    address: SocketAddr,
    authorization: String,
    /// Moves the bytes; ends with the client.
    _connection: JoinSet<()>,
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr, token: &str) -> Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { drop(connection.await) });
        Ok(Self {
            sender,
            address,
            authorization: format!("Bearer {token}"),
            _connection: tasks,
        })
    }

    /// Sends a request; `path` is below `/api/v1`.
    pub(crate) async fn send(
        &mut self,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Response<Incoming>> {
        let bytes = body
            .map(serde_json::to_vec)
            .transpose()?
            .unwrap_or_default();
        let request = Request::builder()
            .method(method)
            .uri(format!("/api/v1{path}"))
            .header(HOST, self.address.to_string())
            .header(AUTHORIZATION, &self.authorization)
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(bytes)))?;
        self.sender.ready().await?;
        let response = self.sender.send_request(request).await?;
        let status = response.status();
        if !status.is_success() {
            let said = response.into_body().collect().await?.to_bytes();
            anyhow::bail!(
                "{method} {path}: {status}: {}",
                String::from_utf8_lossy(&said)
            );
        }
        Ok(response)
    }

    pub(crate) async fn get(&mut self, path: &str) -> Result<Value> {
        read(self.send("GET", path, None).await?).await
    }

    pub(crate) async fn post(&mut self, path: &str, body: &Value) -> Result<Value> {
        read(self.send("POST", path, Some(body)).await?).await
    }

    /// Submits a workflow and returns its run's id.
    pub(crate) async fn submit(&mut self, runner: &str, workflow: &Value) -> Result<String> {
        let body = serde_json::json!({ "workflow": workflow, "runner": runner });
        let run = self.post("/runs", &body).await?;
        Ok(run["id"].as_str().context("a run has an id")?.to_owned())
    }

    /// Waits until a run has succeeded; another end is an error.
    pub(crate) async fn succeeded(&mut self, run: &str) -> Result<Value> {
        loop {
            let run = self
                .get(&format!("/runs/{run}?wait=30s&state=finished"))
                .await?;
            match run["state"].as_str() {
                Some("succeeded") => return Ok(run),
                Some("queued" | "starting" | "running") => {}
                _ => anyhow::bail!("a run did not succeed: {run}"),
            }
        }
    }

    /// The runs that have not ended.
    pub(crate) async fn active(&mut self) -> Result<Vec<Value>> {
        let mut page = self.get("/runs?state=active&limit=500").await?;
        match page["runs"].take() {
            Value::Array(runs) => Ok(runs),
            other => anyhow::bail!("`runs` is {other}"),
        }
    }

    /// Stops all runs that have not ended, and waits for their ends.
    pub(crate) async fn stop_all(&mut self) -> Result<()> {
        for run in self.active().await? {
            let id = run["id"].as_str().context("id")?;
            self.post(
                &format!("/runs/{id}/stop"),
                &serde_json::json!({ "now": true }),
            )
            .await?;
        }
        until(Duration::from_secs(30), async || {
            Ok(self.active().await?.is_empty())
        })
        .await
    }

    pub(crate) async fn is_connected(&mut self, runner: &str) -> Result<bool> {
        let runner = self.get(&format!("/runners/{runner}")).await?;
        Ok(runner["state"] == "connected")
    }
}

async fn read(response: Response<Incoming>) -> Result<Value> {
    let bytes = response.into_body().collect().await?.to_bytes();
    Ok(serde_json::from_slice(&bytes)?)
}

/// Asks each 2 ms until the answer is yes.
pub(crate) async fn until(
    limit: Duration,
    mut question: impl AsyncFnMut() -> Result<bool>,
) -> Result<()> {
    let end = Instant::now() + limit;
    while !question().await? {
        anyhow::ensure!(Instant::now() < end, "waited {} s in vain", limit.as_secs());
        sleep(Duration::from_millis(2)).await;
    }
    Ok(())
}
