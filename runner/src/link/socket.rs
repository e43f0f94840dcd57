//! A WebSocket as a transport of text messages.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::{Sink, SinkExt as _, Stream, StreamExt as _};
use hybrid_runner_core::session::MAX_MESSAGE;
use hybrid_runner_core::{Error, Result};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error as WsError, Message};

/// Small buffers: an idle link should cost next to nothing. What is written waits in the session's
/// outbox, not here; one longest message must fit.
pub(crate) fn websocket_config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(8 << 10)
        .write_buffer_size(16 << 10)
        .max_write_buffer_size(2 * MAX_MESSAGE + (64 << 10))
        .max_message_size(Some(MAX_MESSAGE))
        .max_frame_size(Some(MAX_MESSAGE))
}

/// One text frame is one message.
#[derive(Debug)]
pub(crate) struct Socket<S>(pub(crate) WebSocketStream<S>);

fn broken(error: WsError) -> Error {
    Error::unavailable("the WebSocket failed").with_source(error)
}

impl<S: AsyncRead + AsyncWrite + Unpin> Stream for Socket<S> {
    type Item = Result<String>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let item = match ready!(self.0.poll_next_unpin(cx)) {
                None | Some(Ok(Message::Close(_)) | Err(WsError::ConnectionClosed)) => None,
                Some(Ok(Message::Text(text))) => Some(Ok(text.as_str().to_owned())),
                Some(Ok(Message::Binary(_))) => Some(Err(Error::invalid(
                    "a binary frame came where only text is spoken",
                ))),
                Some(Ok(_)) => continue,
                Some(Err(error)) => Some(Err(broken(error))),
            };
            return Poll::Ready(item);
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Sink<String> for Socket<S> {
    type Error = Error;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.0.poll_ready_unpin(cx).map_err(broken)
    }

    fn start_send(mut self: Pin<&mut Self>, message: String) -> Result<()> {
        self.0
            .start_send_unpin(Message::text(message))
            .map_err(broken)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.0.poll_flush_unpin(cx).map_err(broken)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.0.poll_close_unpin(cx).map_err(broken)
    }
}
