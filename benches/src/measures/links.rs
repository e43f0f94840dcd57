//! What an idle link costs the server.

use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use async_trait::async_trait;
use futures::{SinkExt as _, StreamExt as _};
use hybrid_runner_core::executor::Capabilities;
use hybrid_runner_core::incarnation::Incarnation;
use hybrid_runner_core::session::{
    Closed, Hello, Items, LINK_PATH, Options, SUBPROTOCOL, Service, Session, Transport, Welcome,
    unknown_method,
};
use hybrid_runner_core::{Error, Progress};
use serde_json::value::RawValue;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{Error as WsError, Message};
use uuid::Uuid;

use crate::stage::{Server, Tools};
use crate::table::Row;

const LINKS: usize = 1000;
/// Longer than two heartbeats: only links that are alive are left.
const SETTLE: Duration = Duration::from_secs(40);
/// What a server asks for unless it is told otherwise.
const HEARTBEAT: Duration = Duration::from_secs(15);

pub(crate) async fn measure(tools: &Tools) -> Result<Vec<Row>> {
    let room = tools.room("links")?;
    let server = Server::start(tools, &room).await?;
    let mut client = server.client().await?;
    let mut tokens = Vec::new();
    for n in 0..LINKS {
        let agent = format!("idle-{n}");
        tokens.push((
            agent.clone(),
            server.runner_token(&mut client, &agent).await?,
        ));
    }
    sleep(Duration::from_secs(3)).await;
    let before = server.process.memory()?;
    let mut links = JoinSet::new();
    for (agent, token) in tokens {
        connect(&server, &agent, &token, &mut links)
            .await
            .with_context(|| agent)?;
    }
    sleep(SETTLE).await;
    if let Some(ended) = links.try_join_next() {
        anyhow::bail!("a link has ended: {}", ended?);
    }
    let mut client = server.client().await?;
    let seen = client.get("/runners").await?;
    let connected = seen["runners"]
        .as_array()
        .context("`runners`")?
        .iter()
        .filter(|runner| runner["state"] == "connected");
    anyhow::ensure!(
        connected.count() == LINKS,
        "the server does not see all links"
    );
    let after = server.process.memory()?;
    #[expect(clippy::cast_precision_loss, reason = "it is 1000")]
    let each = |before: f64, after: f64| (after - before) / LINKS as f64;
    let ours = format!(
        "{:.1} KiB RSS per link, {:.1} KiB of them anonymous (server: {:.1} → {:.1} MiB)",
        each(before.rss, after.rss),
        each(before.anonymous, after.anonymous),
        before.rss / 1024.0,
        after.rss / 1024.0
    );
    Ok(vec![Row::new(
        format!("idle link on the server, {LINKS} links, one minute old"),
        ours,
    )])
}

/// What a runner without runs answers.
struct Idle;

#[async_trait]
impl Service for Idle {
    async fn call(
        &self,
        method: &str,
        _: &RawValue,
        _: &Progress,
    ) -> hybrid_runner_core::Result<Box<RawValue>> {
        match method {
            "list" => Ok(RawValue::from_string(r#"{"runs":[]}"#.to_owned()).expect("it is JSON")),
            _ => Err(unknown_method(method)),
        }
    }

    fn open(&self, _: &str, _: &RawValue) -> Option<hybrid_runner_core::Result<Items>> {
        None
    }
}

/// Connects as a runner does, and says hello.
async fn connect(
    server: &Server,
    agent: &str,
    token: &str,
    links: &mut JoinSet<Closed>,
) -> Result<()> {
    let mut request = format!("ws://{}{LINK_PATH}", server.address).into_client_request()?;
    let headers = request.headers_mut();
    headers.insert("authorization", format!("Bearer {token}").parse()?);
    headers.insert("sec-websocket-protocol", SUBPROTOCOL.parse()?);
    let (socket, _) = tokio_tungstenite::connect_async(request).await?;
    let mut options = Options::default();
    options.heartbeat = Some(HEARTBEAT);
    let (session, driver) = Session::start(transport(socket), Arc::new(Idle), options);
    links.spawn(driver);
    let hello = Hello::new(
        agent.parse()?,
        Incarnation::new("boot", Uuid::new_v4(), 1),
        Capabilities::least(),
    );
    let _welcome: Welcome =
        timeout(Duration::from_secs(10), session.call("hello", &hello)).await??;
    Ok(())
}

/// One text frame a message.
fn transport(
    socket: tokio_tungstenite::WebSocketStream<
        tokio_tungstenite::MaybeTlsStream<tokio::net::TcpStream>,
    >,
) -> impl Transport {
    let broken = |error: WsError| Error::unavailable("the WebSocket failed").with_source(error);
    socket
        .sink_map_err(broken)
        .with(|text: String| ready(Ok(Message::text(text))))
        .filter_map(move |message| {
            ready(match message {
                Ok(Message::Text(text)) => Some(Ok(text.as_str().to_owned())),
                Ok(_) => None,
                Err(error) => Some(Err(broken(error))),
            })
        })
}
