//! One message a line.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{BufMut as _, BytesMut};
use futures::{Sink, SinkExt as _, Stream, StreamExt as _};
use tokio::io::{AsyncRead, AsyncWrite, Join, join};
use tokio_util::codec::{Decoder, Encoder, Framed};

use crate::error::{Error, Result};
use crate::session::MAX_MESSAGE;

/// What is read and written at once.
const BUFFER: usize = 128 << 10;

/// A transport of messages over two streams of bytes, one message a line.
#[derive(Debug)]
pub struct Lines<R, W> {
    framed: Framed<Join<R, W>, Codec>,
}

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> Lines<R, W> {
    /// Reads messages from one stream and writes them to another.
    pub fn new(reader: R, writer: W) -> Self {
        let codec = Codec { looked_at: 0 };
        let mut framed = Framed::with_capacity(join(reader, writer), codec, BUFFER);
        framed.set_backpressure_boundary(BUFFER);
        Self { framed }
    }
}

impl<R, W> Stream for Lines<R, W>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    type Item = Result<String>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let line = std::task::ready!(self.framed.poll_next_unpin(cx));
        Poll::Ready(line.map(|line| line.map_err(|broken| broken.0)))
    }
}

impl<R, W> Sink<String> for Lines<R, W>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    type Error = Error;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.framed.poll_ready_unpin(cx).map_err(|broken| broken.0)
    }

    fn start_send(mut self: Pin<&mut Self>, message: String) -> Result<()> {
        let sent = self.framed.start_send_unpin(message);
        sent.map_err(|broken| broken.0)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.framed.poll_flush_unpin(cx).map_err(|broken| broken.0)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.framed.poll_close_unpin(cx).map_err(|broken| broken.0)
    }
}

/// Why the pipe is of no use any more.
#[derive(Debug)]
struct Broken(Error);

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        Self(Error::unavailable("the pipe is broken").with_source(error))
    }
}

#[derive(Debug)]
struct Codec {
    /// How far the buffer holds no newline.
    looked_at: usize,
}

impl Decoder for Codec {
    type Item = String;
    type Error = Broken;

    fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<String>, Broken> {
        let fresh = &buffer[self.looked_at..];
        let Some(end) = fresh.iter().position(|byte| *byte == b'\n') else {
            self.looked_at = buffer.len();
            return if buffer.len() > MAX_MESSAGE {
                Err(too_long())
            } else {
                Ok(None)
            };
        };
        let end = self.looked_at + end;
        self.looked_at = 0;
        if end > MAX_MESSAGE {
            return Err(too_long());
        }
        let line = buffer.split_to(end + 1);
        // Not a message, and it is told so by whoever reads it.
        let not_text = |_| Ok(Some("\u{fffd} (a line that is not UTF-8)".to_owned()));
        std::str::from_utf8(&line[..end]).map_or_else(not_text, |text| Ok(Some(text.to_owned())))
    }

    /// A last line without an end is half of a message, and is dropped.
    fn decode_eof(&mut self, buffer: &mut BytesMut) -> Result<Option<String>, Broken> {
        let line = self.decode(buffer)?;
        if line.is_none() {
            buffer.clear();
        }
        Ok(line)
    }
}

fn too_long() -> Broken {
    Broken(Error::invalid("a line is longer than 1 MiB"))
}

impl Encoder<String> for Codec {
    type Error = Broken;

    fn encode(&mut self, message: String, buffer: &mut BytesMut) -> Result<(), Broken> {
        buffer.reserve(message.len() + 1);
        buffer.put_slice(message.as_bytes());
        buffer.put_u8(b'\n');
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(bytes: &[u8]) -> Vec<Result<String>> {
        let lines = Lines::new(bytes, tokio::io::sink());
        lines.collect().await
    }

    #[tokio::test]
    async fn a_message_is_a_line_and_half_of_one_is_none() {
        let lines = read(b"{}\n\n\xff\n{\"a\":1}\nhalf").await;
        let lines: Vec<String> = lines.into_iter().map(Result::unwrap).collect();
        assert_eq!(lines.len(), 4);
        assert_eq!(
            (&*lines[0], &*lines[1], &*lines[3]),
            ("{}", "", "{\"a\":1}")
        );
        assert!(lines[2].contains("not UTF-8"));
    }

    #[tokio::test]
    async fn a_line_that_is_too_long_is_refused_before_it_is_read_whole() {
        let endless = tokio::io::repeat(b'x');
        let mut lines = Lines::new(endless, tokio::io::sink());
        let error = lines.next().await.unwrap().unwrap_err();
        assert!(error.message().contains("longer than 1 MiB"), "{error}");
        assert!(lines.framed.read_buffer().capacity() < 4 * MAX_MESSAGE);
    }
}
