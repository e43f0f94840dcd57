//! Our own requests and subscriptions.

use std::collections::HashMap;
use std::fmt;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use futures::stream::BoxStream;
use futures::{FutureExt as _, Stream, StreamExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::credit;
use super::frame::{self, AckParams, DropParams, OpenParams, WireError};
use super::outbox::Outbox;
use crate::error::{Error, Result};
use crate::executor::Progress;

/// Each subscription may always have this much under way, so that many of them all get on.
const LEAST_WINDOW: usize = 16 << 10;
/// More than this does not make a stream faster.
const MOST_WINDOW: usize = 256 << 10;

/// The asking half of a session. Cheap to clone.
#[derive(Clone)]
pub struct Session {
    pub(super) shared: Arc<Shared>,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("closed", &self.shared.closed.is_cancelled())
            .finish_non_exhaustive()
    }
}

pub(super) struct Shared {
    pub(super) outbox: Outbox,
    /// Cancelled when we want the session to end.
    pub(super) closing: CancellationToken,
    /// Cancelled when it has ended.
    pub(super) closed: CancellationToken,
    pub(super) asked: Mutex<Asked>,
    next: AtomicU64,
    credit: usize,
}

/// What we wait for.
#[derive(Default)]
pub(super) struct Asked {
    pub(super) calls: HashMap<u64, Call>,
    pub(super) streams: HashMap<u64, Subscribed>,
}

pub(super) struct Call {
    pub(super) answer: oneshot::Sender<Result<Box<RawValue>>>,
    pub(super) progress: Progress,
}

pub(super) struct Subscribed {
    /// Bounded by the credit that was granted, which the driver checks.
    pub(super) items: mpsc::UnboundedSender<Result<Box<RawValue>>>,
    /// What the other side may still send.
    pub(super) granted: i64,
}

pub(super) fn session_gone() -> Error {
    Error::unavailable("the session has ended")
}

impl Shared {
    pub(super) fn new(credit: usize) -> Self {
        Self {
            outbox: Outbox::new(),
            closing: CancellationToken::new(),
            closed: CancellationToken::new(),
            asked: Mutex::default(),
            next: AtomicU64::new(1),
            credit,
        }
    }

    pub(super) fn asked(&self) -> std::sync::MutexGuard<'_, Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends every wait: the session is over.
    pub(super) fn abandon(&self) {
        self.closed.cancel();
        let asked = std::mem::take(&mut *self.asked());
        for call in asked.calls.into_values() {
            drop(call.answer.send(Err(session_gone())));
        }
        for stream in asked.streams.into_values() {
            drop(stream.items.send(Err(session_gone())));
        }
    }
}

impl Session {
    /// Asks the other side and waits for its answer.
    ///
    /// # Cancel safety
    ///
    /// Dropping it tells the other side that nobody waits any more.
    pub async fn call<P: Serialize + Sync, R: DeserializeOwned>(
        &self,
        method: &str,
        params: &P,
    ) -> Result<R> {
        self.call_with(method, params, &Progress::none()).await
    }

    /// As [`Self::call`], with a listener for the other side's progress messages.
    pub async fn call_with<P: Serialize + Sync, R: DeserializeOwned>(
        &self,
        method: &str,
        params: &P,
        progress: &Progress,
    ) -> Result<R> {
        let raw = self.request(method, params, progress.clone())?.await?;
        read_result(method, &raw)
    }

    /// Puts a request under way.
    fn request(
        &self,
        method: &str,
        params: &impl Serialize,
        progress: Progress,
    ) -> Result<Waiting> {
        let id = self.shared.next.fetch_add(1, Ordering::Relaxed);
        let message = frame::request(id, method, params)?;
        if message.len() > super::MAX_MESSAGE {
            return Err(Error::invalid(format!(
                "the parameters of `{method}` are longer than a message may be (1 MiB)"
            )));
        }
        let (answer, wait) = oneshot::channel();
        self.shared
            .asked()
            .calls
            .insert(id, Call { answer, progress });
        let waiting = Waiting {
            id,
            wait,
            shared: Arc::clone(&self.shared),
        };
        if self.shared.closed.is_cancelled() {
            return Err(session_gone());
        }
        self.shared.outbox.control(message);
        Ok(waiting)
    }

    /// Opens a stream of the other side. It is opened when first polled, and dropped with the result.
    pub fn subscribe<P, I>(&self, method: &'static str, params: P) -> BoxStream<'static, Result<I>>
    where
        P: Serialize + Send + Sync + 'static,
        I: DeserializeOwned + Send + 'static,
    {
        let session = self.clone();
        async move { session.open(method, &params) }
            .map(|opened| match opened {
                Ok(stream) => stream.boxed(),
                Err(error) => futures::stream::once(async { Err(error) }).boxed(),
            })
            .flatten_stream()
            .boxed()
    }

    fn open<I>(&self, method: &'static str, params: &impl Serialize) -> Result<Subscription<I>> {
        let stream = self.shared.next.fetch_add(1, Ordering::Relaxed);
        let (items, receiver) = mpsc::unbounded_channel();
        let window = {
            let mut asked = self.shared.asked();
            let window =
                (self.shared.credit / (asked.streams.len() + 1)).clamp(LEAST_WINDOW, MOST_WINDOW);
            asked.streams.insert(
                stream,
                Subscribed {
                    items,
                    granted: credit::signed(window as u64),
                },
            );
            window
        };
        let mut subscription = Subscription {
            stream,
            window,
            consumed: 0,
            items: receiver,
            opening: None,
            ended: false,
            shared: Arc::clone(&self.shared),
            item: PhantomData,
        };
        let open = Opening {
            open: OpenParams {
                stream,
                credit: window as u64,
            },
            params,
        };
        let waiting = self.request(method, &open, Progress::none())?;
        subscription.opening = Some(waiting);
        Ok(subscription)
    }

    /// Asks the driver to send what is queued and to end.
    pub fn close(&self) {
        self.shared.closing.cancel();
    }

    /// Waits until the session has ended.
    pub async fn closed(&self) {
        self.shared.closed.cancelled().await;
    }

    /// Whether the session has ended.
    pub fn is_closed(&self) -> bool {
        self.shared.closed.is_cancelled()
    }
}

#[derive(Serialize)]
struct Opening<'a, P> {
    #[serde(flatten)]
    open: OpenParams,
    #[serde(flatten)]
    params: &'a P,
}

fn read_result<R: DeserializeOwned>(method: &str, raw: &RawValue) -> Result<R> {
    serde_json::from_str(raw.get()).map_err(|error| {
        Error::internal(format!("the answer to `{method}` is not of its form")).with_source(error)
    })
}

/// A request under way; dropping it cancels it.
struct Waiting {
    id: u64,
    wait: oneshot::Receiver<Result<Box<RawValue>>>,
    shared: Arc<Shared>,
}

impl Future for Waiting {
    type Output = Result<Box<RawValue>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.wait
            .poll_unpin(cx)
            .map(|answer| answer.unwrap_or_else(|_| Err(session_gone())))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if self.shared.asked().calls.remove(&self.id).is_some()
            && !self.shared.closed.is_cancelled()
        {
            self.shared.outbox.control(cancel(self.id));
        }
    }
}

fn cancel(id: u64) -> String {
    #[derive(Serialize)]
    struct Params {
        id: u64,
    }
    frame::notification("$/cancel", &Params { id })
}

/// A stream of the other side.
struct Subscription<I> {
    stream: u64,
    window: usize,
    consumed: usize,
    items: mpsc::UnboundedReceiver<Result<Box<RawValue>>>,
    /// The request that opens it, until it is answered.
    opening: Option<Waiting>,
    ended: bool,
    shared: Arc<Shared>,
    item: PhantomData<fn() -> I>,
}

impl<I: DeserializeOwned> Stream for Subscription<I> {
    type Item = Result<I>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        if let Some(opening) = &mut self.opening
            && let Poll::Ready(answer) = opening.poll_unpin(cx)
        {
            self.opening = None;
            if let Err(error) = answer {
                self.ended = true;
                return Poll::Ready(Some(Err(error)));
            }
        }
        match std::task::ready!(self.items.poll_recv(cx)) {
            None => {
                self.ended = true;
                Poll::Ready(None)
            }
            Some(Err(error)) => {
                self.ended = true;
                Poll::Ready(Some(Err(error)))
            }
            Some(Ok(raw)) => {
                self.acknowledge(raw.get().len());
                let item = serde_json::from_str(raw.get()).map_err(|error| {
                    Error::internal("an item of the stream is not of its form").with_source(error)
                });
                self.ended = item.is_err();
                Poll::Ready(Some(item))
            }
        }
    }
}

impl<I> Subscription<I> {
    /// Gives the other side more credit once half the window has been consumed.
    fn acknowledge(&mut self, bytes: usize) {
        self.consumed += bytes;
        if self.consumed < self.window / 2 {
            return;
        }
        let consumed = std::mem::take(&mut self.consumed) as u64;
        if let Some(stream) = self.shared.asked().streams.get_mut(&self.stream) {
            stream.granted += credit::signed(consumed);
        } else {
            return;
        }
        let ack = AckParams {
            stream: self.stream,
            credit: consumed,
        };
        self.shared
            .outbox
            .control(frame::notification("stream.ack", &ack));
    }
}

impl<I> Drop for Subscription<I> {
    fn drop(&mut self) {
        let known = self.shared.asked().streams.remove(&self.stream).is_some();
        if known && !self.shared.closed.is_cancelled() {
            let params = DropParams {
                stream: self.stream,
            };
            self.shared
                .outbox
                .control(frame::notification("stream.drop", &params));
        }
    }
}

impl Shared {
    /// Hands an answer to who waits for it. An answer that nobody waits for is dropped: then `false`.
    pub(super) fn answered(&self, id: u64, result: Result<&RawValue, WireError>) -> bool {
        let Some(call) = self.asked().calls.remove(&id) else {
            return false;
        };
        let answer = result.map(ToOwned::to_owned);
        drop(call.answer.send(answer.map_err(WireError::into_error)));
        true
    }

    /// Hands an item to its stream; `false` if there is none, an error if the other side sent more than it was granted.
    pub(super) fn item(&self, stream: u64, item: &RawValue) -> Result<bool, String> {
        let mut asked = self.asked();
        let Some(subscribed) = asked.streams.get_mut(&stream) else {
            return Ok(false);
        };
        if subscribed.granted <= 0 {
            return Err(format!("stream {stream} was sent more than its credit"));
        }
        subscribed.granted -= credit::signed(item.get().len() as u64);
        drop(subscribed.items.send(Ok(item.to_owned())));
        Ok(true)
    }

    pub(super) fn ended(&self, stream: u64, error: Option<WireError>) {
        if let (Some(subscribed), Some(error)) = (self.asked().streams.remove(&stream), error) {
            drop(subscribed.items.send(Err(error.into_error())));
        }
    }

    pub(super) fn progressed(&self, id: u64, message: &str) {
        let progress = self
            .asked()
            .calls
            .get(&id)
            .map(|call| call.progress.clone());
        if let Some(progress) = progress {
            progress.report(message);
        }
    }
}
