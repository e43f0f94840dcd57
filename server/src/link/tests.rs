//! The contract of executors, through a real WebSocket: the server's end of it as it is, a fake behind it.

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::extract::WebSocketUpgrade;
use axum::routing::get;
use futures::{Sink, SinkExt as _, Stream, StreamExt as _};
use hybrid_runner_core::session::{
    Closed, ExecutorService, NoService, Options, RemoteExecutor, Session,
};
use hybrid_runner_core::testing::{FakeBackend, Harness, Script};
use hybrid_runner_core::{Error, Executor, Result, RunId, RunSpec, Secrets};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::{Error as WsError, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use super::transport::Socket;

/// The runner's end.
struct Frames(WebSocketStream<MaybeTlsStream<TcpStream>>);

fn failed(error: WsError) -> Error {
    Error::unavailable("the WebSocket failed").with_source(error)
}

impl Stream for Frames {
    type Item = Result<String>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Poll::Ready(match ready!(self.0.poll_next_unpin(cx)) {
            Some(Ok(Message::Text(text))) => Some(Ok(text.to_string())),
            Some(Err(error)) => Some(Err(failed(error))),
            _ => None,
        })
    }
}

impl Sink<String> for Frames {
    type Error = Error;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.0.poll_ready_unpin(cx).map_err(failed)
    }
    fn start_send(mut self: Pin<&mut Self>, message: String) -> Result<()> {
        self.0
            .start_send_unpin(Message::text(message))
            .map_err(failed)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.0.poll_flush_unpin(cx).map_err(failed)
    }
    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.0.poll_close_unpin(cx).map_err(failed)
    }
}

/// Puts a WebSocket on loopback before each executor of a fake backend.
struct OverSocket {
    inner: FakeBackend,
    tasks: Mutex<JoinSet<()>>,
}

impl OverSocket {
    fn new() -> Self {
        Self {
            inner: FakeBackend::new(),
            tasks: Mutex::default(),
        }
    }

    async fn reach(&self, executor: Arc<dyn Executor>) -> Arc<dyn Executor> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (arrived, mut arrivals) = mpsc::channel(1);
        let upgrade = move |upgrade: WebSocketUpgrade| async move {
            upgrade.on_upgrade(async move |socket| {
                let options = Options::default();
                let (session, driver) =
                    Session::start(Socket::new(socket), Arc::new(NoService), options);
                arrived.send(session).await.unwrap();
                drop::<Closed>(driver.await);
            })
        };
        let served = axum::serve(listener, Router::new().route("/", get(upgrade)));
        let url = format!("ws://{address}/");
        self.tasks
            .lock()
            .unwrap()
            .spawn(async move { served.await.unwrap() });
        let (ws, _) = Box::pin(tokio_tungstenite::connect_async(url))
            .await
            .unwrap();
        let service = Arc::new(ExecutorService::new(executor));
        let (_, driver) = Session::start(Frames(ws), service, Options::default());
        self.tasks
            .lock()
            .unwrap()
            .spawn(async move { drop::<Closed>(driver.await) });
        // The suite hands values to what it starts; a link proper carries none.
        Arc::new(RemoteExecutor::with_secrets(arrivals.recv().await.unwrap()))
    }
}

#[async_trait]
impl Harness for OverSocket {
    async fn executor(&self) -> Arc<dyn Executor> {
        self.reach(self.inner.executor()).await
    }
    fn run_id(&self) -> RunId {
        RunId::generate()
    }
    fn spec(&self, run: RunId, script: &Script) -> RunSpec {
        self.inner.spec(run, script)
    }
    async fn hand_over(&self, values: &Secrets) -> Secrets {
        self.inner.hand_over(values).await
    }
    fn tick(&self) -> Duration {
        self.inner.tick()
    }
    fn patience(&self) -> Duration {
        self.inner.patience()
    }
    async fn other_owner(&self) -> Option<Arc<dyn Executor>> {
        Some(self.reach(self.inner.other_owner().await?).await)
    }
    async fn unreachable(&self) -> Option<Arc<dyn Executor>> {
        Some(self.reach(self.inner.unreachable().await?).await)
    }
    async fn half_start(&self, spec: &RunSpec, secrets: &Secrets) -> bool {
        self.inner.half_start(spec, secrets).await
    }
    fn unsupported(&self, spec: &RunSpec) -> Option<RunSpec> {
        self.inner.unsupported(spec)
    }
    async fn alive(&self, run: RunId) -> Option<bool> {
        self.inner.alive(run).await
    }
    fn evidence(&self, run: RunId) -> Option<PathBuf> {
        self.inner.evidence(run)
    }
    async fn starts(&self, run: RunId) -> Option<u32> {
        Harness::starts(&self.inner, run).await
    }
    async fn drop_log(&self, run: RunId) -> bool {
        self.inner.drop_log(run).await
    }
    fn declines(&self) -> &[(&'static str, &'static str)] {
        self.inner.declines()
    }
}

mod contract {
    hybrid_runner_core::executor_contract_tests!(super::OverSocket::new());
}
