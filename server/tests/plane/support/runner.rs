//! A runner that is a fake behind a real WebSocket.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures::{Sink, SinkExt as _, Stream, StreamExt as _};
use hybrid_runner_core::incarnation::Incarnation;
use hybrid_runner_core::session::{
    Closed, ExecutorService, Hello, Options, SUBPROTOCOL, Session, Welcome,
};
use hybrid_runner_core::{Capabilities, Error, Executor, Result};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error as WsError, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};
use uuid::Uuid;

use super::Plane;

type Ws = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// The text frames of a WebSocket.
pub(crate) struct Frames(pub(crate) Ws);

fn failed(error: WsError) -> Error {
    Error::unavailable("the WebSocket failed").with_source(error)
}

impl Stream for Frames {
    type Item = Result<String>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            return Poll::Ready(match ready!(self.0.poll_next_unpin(cx)) {
                Some(Ok(Message::Text(text))) => Some(Ok(text.to_string())),
                None | Some(Ok(Message::Close(_))) => None,
                Some(Ok(_)) => continue,
                Some(Err(error)) => Some(Err(failed(error))),
            });
        }
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

/// What a runner says it is.
#[derive(Debug, Clone)]
pub(crate) struct Life {
    pub(crate) agent: String,
    pub(crate) host: String,
    pub(crate) incarnation: Incarnation,
    pub(crate) max_runs: Option<u32>,
}

/// The first life of a runner of that name.
pub(crate) fn boot(agent: &str) -> Life {
    Life {
        agent: agent.to_owned(),
        host: "here".to_owned(),
        incarnation: Incarnation::new("boot", Uuid::new_v4(), 1),
        max_runs: None,
    }
}

impl Life {
    /// The same life, connecting again.
    pub(crate) fn again(&self) -> Self {
        let mut next = self.clone();
        next.incarnation.seq += 1;
        next
    }

    /// Another machine with the same name.
    pub(crate) fn stranger(&self, host: &str) -> Self {
        let incarnation = Incarnation::new("boot", Uuid::new_v4(), 1);
        Self {
            host: host.to_owned(),
            incarnation,
            ..self.clone()
        }
    }
}

/// A connected runner. Dropping it cuts the connection without a word.
#[derive(Debug)]
pub(crate) struct Runner {
    pub(crate) welcome: Welcome,
    pub(crate) session: Session,
    driver: JoinSet<Closed>,
}

impl Runner {
    pub(crate) async fn connect(
        plane: &Plane,
        token: &str,
        life: &Life,
        executor: Arc<dyn Executor>,
    ) -> Self {
        try_connect(&plane.link, token, life, executor)
            .await
            .unwrap()
    }

    /// Waits until the link is closed.
    pub(crate) async fn closed(&mut self) {
        drop(self.driver.join_next().await);
    }

    /// Closes the link in good order.
    pub(crate) async fn leave(mut self) {
        self.session.close();
        self.closed().await;
    }
}

/// Opens the WebSocket; the HTTP status if that is refused.
pub(crate) async fn open(link: &str, token: &str) -> Result<Ws, u16> {
    let mut request = link.into_client_request().unwrap();
    let headers = request.headers_mut();
    headers.insert("authorization", format!("Bearer {token}").parse().unwrap());
    headers.insert("sec-websocket-protocol", SUBPROTOCOL.parse().unwrap());
    let config = WebSocketConfig::default()
        .read_buffer_size(4 << 10)
        .write_buffer_size(4 << 10);
    let connecting = tokio_tungstenite::connect_async_with_config(request, Some(config), true);
    match Box::pin(connecting).await {
        Ok((ws, _)) => Ok(ws),
        Err(WsError::Http(answer)) => Err(answer.status().as_u16()),
        Err(error) => panic!("failed to connect: {error}"),
    }
}

/// Connects and says hello.
pub(crate) async fn try_connect(
    link: &str,
    token: &str,
    life: &Life,
    executor: Arc<dyn Executor>,
) -> Result<Runner> {
    let ws = open(link, token)
        .await
        .map_err(|status| Error::denied(format!("HTTP {status}")))?;
    let service = Arc::new(ExecutorService::new(executor));
    let (session, driver) = Session::start(Frames(ws), service, Options::default());
    let mut tasks = JoinSet::new();
    tasks.spawn(driver);
    let mut capabilities = Capabilities::least();
    capabilities.max_runs = life.max_runs;
    let mut hello = Hello::new(
        life.agent.parse().unwrap(),
        life.incarnation.clone(),
        capabilities,
    );
    hello.host.clone_from(&life.host);
    "fake".clone_into(&mut hello.software);
    let welcome = session.call("hello", &hello).await?;
    Ok(Runner {
        welcome,
        session,
        driver: tasks,
    })
}
