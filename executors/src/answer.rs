//! One answer over a connection of its own: the log of a container, of an engine or of an API server.
//!
//! Whoever follows a log holds the connection as long as the run lives. An HTTP client keeps some 35 KiB of buffers for
//! each, and hands over each line alone. Here nothing is kept while nothing comes, and what came together stays together.
//! `httparse` reads the head and the sizes of chunks (RFC 9112, sections 4 to 7).

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{Error, ErrorKind, Result};
use std::pin::Pin;
use std::task::ready;

use bytes::{Buf as _, BytesMut};
use httparse::{EMPTY_HEADER, Response, Status, parse_chunk_size};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};

/// How much is read at once.
const READ: usize = 64 << 10;
/// No head of an answer is longer, nor has more fields.
const LONGEST_HEAD: usize = 16 << 10;
const FIELDS: usize = 64;
/// Of a chunk.
const END: &[u8] = b"\r\n";

thread_local! {
    /// Where a read goes first, so that a connection that waits needs no room of its own.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ].into());
}

/// A connection.
pub(crate) trait Connection: AsyncRead + AsyncWrite + Send {}

impl<T: AsyncRead + AsyncWrite + Send> Connection for T {}

/// An answer, of which the head was read.
pub(crate) struct Answer {
    pub(crate) status: u16,
    rest: Rest,
    /// What was read and not given yet.
    read: BytesMut,
    connection: Pin<Box<dyn Connection>>,
}

/// What is still to come of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rest {
    /// The size of a chunk is next.
    Chunks,
    /// So much of a chunk, and then its end.
    Chunk(u64),
    /// So much.
    Bytes(u64),
    /// All, until the connection ends.
    All,
    Nothing,
}

impl Answer {
    /// Asks, by the whole head of a request without a body, and reads the head of the answer. No more is to be asked over the
    /// connection: the request should say `Connection: close`.
    ///
    /// # Errors
    ///
    /// Of the connection; `UnexpectedEof` where it ends too soon; `InvalidData` for what is no HTTP.
    pub(crate) async fn to(
        request: &[u8],
        mut connection: Pin<Box<dyn Connection>>,
    ) -> Result<Self> {
        connection.write_all(request).await?;
        connection.flush().await?;
        let mut answer = Self {
            status: 0,
            rest: Rest::Nothing,
            read: BytesMut::new(),
            connection,
        };
        while !answer.begin()? {
            if answer.fill().await? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(answer)
    }

    /// Adds what comes next of the body, as much as came together, to `body`; whether there was any, or else it has ended.
    pub(crate) async fn next(&mut self, body: &mut BytesMut) -> Result<bool> {
        let before = body.len();
        loop {
            self.decode(body)?;
            if body.len() > before {
                return Ok(true);
            }
            if self.rest == Rest::Nothing {
                return Ok(false);
            }
            if self.fill().await? == 0 {
                if self.rest != Rest::All {
                    return Err(ErrorKind::UnexpectedEof.into());
                }
                self.rest = Rest::Nothing;
            }
        }
    }

    /// All of the body, but no more than `most` bytes.
    #[cfg(any(feature = "docker", test))]
    pub(crate) async fn all(&mut self, most: usize) -> Result<BytesMut> {
        let mut body = BytesMut::new();
        while body.len() < most && self.next(&mut body).await? {}
        body.truncate(most);
        Ok(body)
    }

    /// Takes the head, once it is there.
    fn begin(&mut self) -> Result<bool> {
        let mut fields = [EMPTY_HEADER; FIELDS];
        let mut head = Response::new(&mut fields);
        let length = match head.parse(&self.read).map_err(invalid)? {
            Status::Complete(length) => length,
            Status::Partial if self.read.len() > LONGEST_HEAD => {
                return Err(invalid("the head of the answer does not end"));
            }
            Status::Partial => return Ok(false),
        };
        let value = |name: &str| {
            let field = head
                .headers
                .iter()
                .find(|field| field.name.eq_ignore_ascii_case(name))?;
            std::str::from_utf8(field.value).ok().map(str::trim)
        };
        let rest = match (value("transfer-encoding"), value("content-length")) {
            (Some(coding), _) if coding.eq_ignore_ascii_case("chunked") => Rest::Chunks,
            (Some(coding), _) => return Err(invalid(format!("the answer comes as `{coding}`"))),
            (None, Some(length)) => Rest::Bytes(length.parse().map_err(invalid)?),
            (None, None) => Rest::All,
        };
        self.status = head.code.unwrap_or_default();
        self.rest = rest;
        self.read.advance(length);
        Ok(true)
    }

    /// Moves what is of the body.
    fn decode(&mut self, body: &mut BytesMut) -> Result<()> {
        match self.rest {
            Rest::Nothing => {}
            Rest::All => drop(self.take(u64::MAX, body)),
            Rest::Bytes(left) => {
                self.rest = match self.take(left, body) {
                    0 => Rest::Nothing,
                    left => Rest::Bytes(left),
                };
            }
            Rest::Chunks | Rest::Chunk(_) => while self.decode_chunk(body)? {},
        }
        if self.read.is_empty() {
            // Nothing is kept while nothing comes.
            self.read = BytesMut::new();
        }
        Ok(())
    }

    /// Moves the next part of a chunk, or steps over what stands between chunks; `false`: it is not there yet.
    fn decode_chunk(&mut self, body: &mut BytesMut) -> Result<bool> {
        match self.rest {
            Rest::Chunks => match parse_chunk_size(&self.read).map_err(|_| no_chunk())? {
                Status::Partial if self.read.len() > LONGEST_HEAD => return Err(no_chunk()),
                Status::Partial => return Ok(false),
                Status::Complete((length, size)) => {
                    self.read.advance(length);
                    // Behind the last one, nobody asked for the fields that may follow.
                    self.rest = if size == 0 {
                        Rest::Nothing
                    } else {
                        Rest::Chunk(size)
                    };
                }
            },
            Rest::Chunk(0) if self.read.len() < END.len() => return Ok(false),
            Rest::Chunk(0) if self.read.starts_with(END) => {
                self.read.advance(END.len());
                self.rest = Rest::Chunks;
            }
            Rest::Chunk(0) => return Err(no_chunk()),
            Rest::Chunk(_) if self.read.is_empty() => return Ok(false),
            Rest::Chunk(left) => self.rest = Rest::Chunk(self.take(left, body)),
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Moves so much of what was read, or all of it; how much is missing then.
    fn take(&mut self, wanted: u64, body: &mut BytesMut) -> u64 {
        let there =
            usize::try_from(wanted).map_or(self.read.len(), |most| most.min(self.read.len()));
        body.extend_from_slice(&self.read[..there]);
        self.read.advance(there);
        wanted - there as u64
    }

    /// Reads on; 0: the connection has ended.
    async fn fill(&mut self) -> Result<usize> {
        let Self {
            connection, read, ..
        } = self;
        poll_fn(|context| {
            SCRATCH.with_borrow_mut(|scratch| {
                let mut buffer = ReadBuf::new(scratch);
                ready!(connection.as_mut().poll_read(context, &mut buffer))?;
                read.extend_from_slice(buffer.filled());
                Ok(buffer.filled().len()).into()
            })
        })
        .await
    }
}

fn no_chunk() -> Error {
    invalid("the answer is cut into chunks that are none")
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::new(ErrorKind::InvalidData, error)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt as _, duplex};
    use tokio::time::timeout;

    use super::*;

    /// What is read of an answer that comes in pieces of `size` bytes: its status, its body, and how it ended.
    async fn read(answer: &'static [u8], size: usize) -> Result<(u16, BytesMut)> {
        let (ours, mut theirs) = duplex(1 << 10);
        let engine = async move {
            let mut request = [0; 1 << 10];
            let length = theirs.read(&mut request).await.unwrap();
            assert!(request[..length].starts_with(b"GET /a?b HTTP/1.1\r\nHost: here\r\n"));
            for piece in answer.chunks(size) {
                if theirs.write_all(piece).await.is_err() {
                    return;
                }
                tokio::task::yield_now().await;
            }
        };
        let client = async {
            let request = b"GET /a?b HTTP/1.1\r\nHost: here\r\n\r\n";
            let mut answer = Answer::to(request, Box::pin(ours)).await?;
            Ok((answer.status, answer.all(1 << 20).await?))
        };
        let both = async { tokio::join!(client, engine).0 };
        timeout(Duration::from_secs(10), both).await.unwrap()
    }

    async fn in_all_pieces(answer: &'static [u8]) -> Result<(u16, BytesMut)> {
        let whole = read(answer, answer.len()).await;
        for size in 1..answer.len() {
            let cut = read(answer, size).await;
            match (&cut, &whole) {
                (Ok(cut), Ok(whole)) => assert_eq!(cut, whole, "in pieces of {size} bytes"),
                (Err(cut), Err(whole)) => assert_eq!(cut.kind(), whole.kind()),
                _ => panic!("{cut:?} in pieces of {size} bytes, {whole:?} in one"),
            }
        }
        whole
    }

    #[tokio::test]
    async fn a_body_is_the_same_however_it_is_cut_and_framed() {
        for answer in [
            &b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\nA\r\n, two, thr\r\n2;x=y\r\nee\r\n0\r\n\r\n"[..],
            b"HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\none, two, three",
            b"HTTP/1.0 200 OK\r\n\r\none, two, three",
        ] {
            let (status, body) = in_all_pieces(answer).await.unwrap();
            assert_eq!((status, &body[..]), (200, &b"one, two, three"[..]));
        }
        let nothing = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n";
        assert_eq!(
            in_all_pieces(nothing).await.unwrap(),
            (404, BytesMut::new())
        );
    }

    #[tokio::test]
    async fn a_body_that_broke_off_is_told_from_one_that_ended() {
        for broken in [
            &b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n"[..],
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\non",
            b"HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\none",
            b"HTTP/1.1 200 OK\r\nTransfer",
        ] {
            let error = in_all_pieces(broken).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::UnexpectedEof, "{error}");
        }
    }

    #[tokio::test]
    async fn what_is_no_answer_is_refused_and_never_read_without_end() {
        let endless = format!("HTTP/1.1 200 OK\r\n{}", "a".repeat(1 << 16)).leak();
        for nonsense in [
            &b"SSH-2.0-OpenSSH_9.2p1\r\n\r\n"[..],
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n",
            endless.as_bytes(),
        ] {
            let error = read(nonsense, 1 << 10).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidData, "{error}");
        }
    }
}
