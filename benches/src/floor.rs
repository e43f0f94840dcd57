//! The driver's side of the floor: it listens, starts the bare agent and tells it what to execute.

use std::time::Duration;

use anyhow::{Context as _, Result};
use futures::{SinkExt as _, StreamExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use crate::process::Process;
use crate::stage::Tools;

/// A bare agent and the connection to it.
#[derive(Debug)]
pub(crate) struct Floor {
    socket: WebSocketStream<TcpStream>,
    pub(crate) agent: Process,
}

impl Floor {
    pub(crate) async fn start(tools: &Tools) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("ws://{}", listener.local_addr()?);
        let agent = Process::start(&tools.floor, &[&url], &[], &tools.folder.join("floor.out"))?;
        let (stream, _) = timeout(Duration::from_secs(10), listener.accept()).await??;
        stream.set_nodelay(true)?;
        Ok(Self {
            socket: tokio_tungstenite::accept_async(stream).await?,
            agent,
        })
    }

    /// Orders a process without waiting for it.
    pub(crate) async fn order(&mut self, words: &[&str]) -> Result<()> {
        let order = format!("0\t{}", words.join("\t"));
        Ok(self.socket.feed(Message::text(order)).await?)
    }

    pub(crate) async fn flush(&mut self) -> Result<()> {
        Ok(self.socket.flush().await?)
    }

    /// Waits for the end of one process.
    pub(crate) async fn ended(&mut self) -> Result<()> {
        let answer = timeout(Duration::from_secs(10), self.socket.next()).await?;
        let answer = answer.context("the floor has gone")??;
        anyhow::ensure!(
            answer.to_text()?.ends_with("\t0"),
            "the floor's process failed"
        );
        Ok(())
    }
}
