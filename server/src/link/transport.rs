//! A WebSocket as a transport of messages.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::extract::ws::{Message, WebSocket};
use futures::{Sink, SinkExt as _, Stream, StreamExt as _};
use hybrid_runner_core::{Error, Result};

/// One text frame a message. Anything but text is refused.
#[derive(Debug)]
pub(super) struct Socket(WebSocket);

impl Socket {
    pub(super) fn new(socket: WebSocket) -> Self {
        Self(socket)
    }
}

fn failed(error: axum::Error) -> Error {
    Error::unavailable("the WebSocket failed").with_source(error)
}

impl Stream for Socket {
    type Item = Result<String>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            return Poll::Ready(match ready!(self.0.poll_next_unpin(cx)) {
                None | Some(Ok(Message::Close(_))) => None,
                Some(Ok(Message::Text(text))) => Some(Ok(text.as_str().to_owned())),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
                Some(Ok(Message::Binary(_))) => Some(Err(Error::invalid(
                    "a message must be a text frame, not a binary one",
                ))),
                Some(Err(error)) => Some(Err(failed(error))),
            });
        }
    }
}

impl Sink<String> for Socket {
    type Error = Error;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.0.poll_ready_unpin(cx).map_err(failed)
    }

    fn start_send(mut self: Pin<&mut Self>, message: String) -> Result<()> {
        self.0
            .start_send_unpin(Message::Text(message.into()))
            .map_err(failed)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.0.poll_flush_unpin(cx).map_err(failed)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.0.poll_close_unpin(cx).map_err(failed)
    }
}
