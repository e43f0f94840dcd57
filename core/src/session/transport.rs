//! Transports: anything that carries text messages both ways.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures::channel::mpsc;
use futures::{Sink, SinkExt as _, Stream, StreamExt as _};

use crate::error::{Error, Result};

/// Carries text messages both ways, whole and in order.
///
/// A transport refuses messages longer than [`super::MAX_MESSAGE`] before it has read them whole.
pub trait Transport:
    Stream<Item = Result<String>> + Sink<String, Error = Error> + Send + Unpin + 'static
{
}

impl<T> Transport for T where
    T: Stream<Item = Result<String>> + Sink<String, Error = Error> + Send + Unpin + 'static
{
}

/// One end of a pair in memory.
#[derive(Debug)]
pub struct MemoryTransport {
    out: mpsc::Sender<String>,
    input: mpsc::Receiver<String>,
}

/// Two ends that are connected; a few messages are under way at most, as on a real wire.
pub fn memory_pair() -> (MemoryTransport, MemoryTransport) {
    let (left_out, right_in) = mpsc::channel(4);
    let (right_out, left_in) = mpsc::channel(4);
    (
        MemoryTransport {
            out: left_out,
            input: left_in,
        },
        MemoryTransport {
            out: right_out,
            input: right_in,
        },
    )
}

fn gone(error: mpsc::SendError) -> Error {
    Error::unavailable("the other side is gone").with_source(error)
}

impl Stream for MemoryTransport {
    type Item = Result<String>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.input
            .poll_next_unpin(cx)
            .map(|message| message.map(Ok))
    }
}

impl Sink<String> for MemoryTransport {
    type Error = Error;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.out.poll_ready_unpin(cx).map_err(gone)
    }

    fn start_send(mut self: Pin<&mut Self>, message: String) -> Result<()> {
        self.out.start_send_unpin(message).map_err(gone)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.out.poll_flush_unpin(cx).map_err(gone)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.out.poll_close_unpin(cx).map_err(gone)
    }
}
