//! The loop of a session: reads, answers, writes, listens for life.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::SplitStream;
use futures::{FutureExt as _, SinkExt as _, StreamExt as _};
use serde_json::value::RawValue;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;
use tracing::{debug, trace};

use super::calls::{Session, Shared};
use super::credit::Credit;
use super::frame::{
    self, AckParams, CancelParams, DataParams, DropParams, EndParams, Message, OpenParams,
    ProgressParams, WireError, code,
};
use super::{Closed, Driver, Options, Service, Transport};
use crate::executor::Progress;

/// Messages that are put together before the wire is flushed.
const FLUSH_BYTES: usize = 128 << 10;

/// How long a session that closes may take to send what is queued.
const LAST_WORDS: Duration = Duration::from_secs(2);

pub(super) fn start(
    transport: impl Transport,
    service: Arc<dyn Service>,
    options: Options,
) -> (Session, Driver) {
    let shared = Arc::new(Shared::new(options.credit));
    let session = Session {
        shared: Arc::clone(&shared),
    };
    (session, drive(transport, service, options, shared).boxed())
}

/// Ends all waits when the driver ends, and when it is dropped.
struct Abandon(Arc<Shared>);

impl Drop for Abandon {
    fn drop(&mut self) {
        self.0.abandon();
    }
}

async fn drive(
    transport: impl Transport,
    service: Arc<dyn Service>,
    options: Options,
    shared: Arc<Shared>,
) -> Closed {
    let _abandon = Abandon(Arc::clone(&shared));
    let (sink, stream) = transport.split();
    let (heard, last_heard) = watch::channel(Instant::now());
    let reader = Reader {
        shared: Arc::clone(&shared),
        service,
        calls: HashMap::new(),
        streams: HashMap::new(),
        tasks: JoinSet::new(),
        malformed: 0,
        unasked: 0,
        options: options.clone(),
        heard,
    };
    let mut writing = Box::pin(write(sink, Arc::clone(&shared)));
    tokio::select! {
        closed = reader.read(stream) => closed,
        closed = &mut writing => closed,
        closed = listen(options.heartbeat, last_heard, Arc::clone(&shared)) => closed,
        () = shared.closing.cancelled() => {
            // Whatever is queued still goes out, but nobody waits for ever.
            let _sent = tokio::time::timeout(LAST_WORDS, writing).await;
            Closed::Here
        }
    }
}

/// Sends what is queued; after `closing`, sends the rest and ends.
async fn write(
    mut sink: impl futures::Sink<String, Error = crate::Error> + Unpin,
    shared: Arc<Shared>,
) -> Closed {
    loop {
        let mut message = tokio::select! {
            biased;
            message = shared.outbox.next() => Some(message),
            () = shared.closing.cancelled() => None,
        };
        if message.is_none() {
            drop(sink.close().await);
            return Closed::Here;
        }
        let mut bytes = 0;
        while let Some(text) = message {
            bytes += text.len();
            if let Err(error) = sink.feed(text).await {
                return Closed::Transport(error);
            }
            message = if bytes < FLUSH_BYTES {
                shared.outbox.try_next()
            } else {
                None
            };
        }
        if let Err(error) = sink.flush().await {
            return Closed::Transport(error);
        }
    }
}

/// Breaks silence with a ping; ends when there was none of the other side for two intervals.
async fn listen(
    interval: Option<Duration>,
    mut last: watch::Receiver<Instant>,
    shared: Arc<Shared>,
) -> Closed {
    let Some(interval) = interval else {
        return std::future::pending().await;
    };
    let session = Session { shared };
    loop {
        let heard = *last.borrow_and_update();
        tokio::time::sleep_until(heard + interval).await;
        if *last.borrow() > heard {
            continue;
        }
        let ping = async {
            let _pong: Result<serde::de::IgnoredAny, _> =
                session.call("ping", &serde_json::json!({})).await;
        };
        let answered = tokio::time::timeout_at(heard + 2 * interval, async {
            tokio::select! {
                _changed = last.changed() => {}
                // An answer is also heard; wait for that, so that no ping follows at once.
                () = ping => { let _changed = last.changed().await; }
            }
        });
        if answered.await.is_err() && *last.borrow() == heard {
            return Closed::Silent;
        }
    }
}

struct Reader {
    shared: Arc<Shared>,
    service: Arc<dyn Service>,
    /// Requests of the other side that are being answered, by their id as it was written.
    calls: HashMap<String, AbortHandle>,
    /// Streams of ours that the other side reads.
    streams: HashMap<u64, (AbortHandle, Arc<Credit>)>,
    tasks: JoinSet<Done>,
    malformed: usize,
    /// Messages in a row that nobody asked for.
    unasked: usize,
    options: Options,
    heard: watch::Sender<Instant>,
}

enum Done {
    Call(String),
    Stream(u64),
}

impl Reader {
    async fn read<T: Transport>(mut self, mut stream: SplitStream<T>) -> Closed {
        loop {
            self.shared.outbox.room().await;
            let message = tokio::select! {
                message = stream.next() => message,
                Some(done) = self.tasks.join_next_with_id() => {
                    self.forget(done);
                    continue;
                }
            };
            let text = match message {
                None => return Closed::There,
                Some(Err(error)) => return Closed::Transport(error),
                Some(Ok(text)) => text,
            };
            self.heard.send_replace(Instant::now());
            if let Err(closed) = self.understand(&text) {
                return closed;
            }
        }
    }

    fn understand(&mut self, text: &str) -> Result<(), Closed> {
        let message = match frame::read(text) {
            Ok(message) => message,
            Err((id, error)) => return self.refuse(id, error),
        };
        match message {
            Message::Answer { id, result } => {
                let wanted = self.shared.answered(id, result);
                self.wanted(wanted)
            }
            Message::Request { id, method, params } => {
                self.unasked = 0;
                trace!(%method, id = id.get(), "request");
                self.request(id, &method, params)
            }
            Message::Notification { method, params } => self.notification(&method, params),
        }
    }

    /// Counts what nobody asked for; a flood of it ends the session.
    fn wanted(&mut self, wanted: bool) -> Result<(), Closed> {
        self.unasked = if wanted { 0 } else { self.unasked + 1 };
        if self.unasked > self.options.max_unasked {
            return Err(Closed::Protocol(format!(
                "more than {} messages in a row that nobody asked for",
                self.options.max_unasked
            )));
        }
        Ok(())
    }

    /// Answers a malformed message; too many of them end the session.
    fn refuse(&mut self, id: Option<&RawValue>, error: WireError) -> Result<(), Closed> {
        self.malformed += 1;
        debug!(message = %error.message, "malformed message");
        if self.malformed > self.options.max_malformed {
            return Err(Closed::Protocol(format!(
                "more than {} malformed messages",
                self.options.max_malformed
            )));
        }
        self.shared
            .outbox
            .control(frame::answer(id.unwrap_or(frame::null()), &Err(error)));
        Ok(())
    }

    fn request(&mut self, id: &RawValue, method: &str, params: &RawValue) -> Result<(), Closed> {
        if method == "ping" {
            self.shared
                .outbox
                .control(frame::answer(id, &Ok(frame::empty().to_owned())));
            return Ok(());
        }
        if self.calls.contains_key(id.get()) {
            return self.refuse(
                Some(id),
                WireError::plain(code::INVALID_REQUEST, "this id is in use"),
            );
        }
        if self.calls.len() >= self.options.max_in_flight {
            let error = crate::Error::unavailable(format!(
                "{} requests are being answered already",
                self.calls.len()
            ));
            self.shared
                .outbox
                .control(frame::answer(id, &Err(WireError::of(&error))));
            return Ok(());
        }
        match self.service.open(method, params) {
            Some(opened) => self.open(id, params, opened),
            None => self.call(id, method, params),
        }
        Ok(())
    }

    fn call(&mut self, id: &RawValue, method: &str, params: &RawValue) {
        let (service, shared) = (Arc::clone(&self.service), Arc::clone(&self.shared));
        let (id, method, params) = (id.to_owned(), method.to_owned(), params.to_owned());
        let key = id.get().to_owned();
        let progress = report_to(&id, &self.shared);
        let task = self.tasks.spawn({
            let key = key.clone();
            async move {
                let result = service.call(&method, &params, &progress).await;
                let result = result.map_err(|error| WireError::of(&error));
                shared.outbox.control(frame::answer(&id, &result));
                Done::Call(key)
            }
        });
        self.calls.insert(key, task);
    }

    fn open(&mut self, id: &RawValue, params: &RawValue, opened: crate::Result<super::Items>) {
        let open: OpenParams = match serde_json::from_str(params.get()) {
            Ok(open) => open,
            Err(error) => {
                let error = WireError::plain(
                    code::INVALID_PARAMS,
                    format!("a stream needs `stream` and `credit`: {error}"),
                );
                return self.shared.outbox.control(frame::answer(id, &Err(error)));
            }
        };
        let items = match opened {
            Ok(items) => items,
            Err(error) => {
                return self
                    .shared
                    .outbox
                    .control(frame::answer(id, &Err(WireError::of(&error))));
            }
        };
        if self.streams.contains_key(&open.stream)
            || self.streams.len() >= self.options.max_in_flight * 4
        {
            let error = WireError::plain(
                code::INVALID_PARAMS,
                format!("stream {} is in use, or there are too many", open.stream),
            );
            return self.shared.outbox.control(frame::answer(id, &Err(error)));
        }
        let credit = Arc::new(Credit::new(open.credit));
        self.shared
            .outbox
            .control(frame::answer(id, &Ok(frame::empty().to_owned())));
        let task = self.tasks.spawn(pump(
            open.stream,
            items,
            Arc::clone(&credit),
            Arc::clone(&self.shared),
        ));
        self.streams.insert(open.stream, (task, credit));
    }

    fn notification(&mut self, method: &str, params: &RawValue) -> Result<(), Closed> {
        let wrong = |error: serde_json::Error| {
            WireError::plain(
                code::INVALID_PARAMS,
                format!("the parameters of `{method}` do not fit: {error}"),
            )
        };
        let params = params.get();
        let read = match method {
            "stream.data" => match serde_json::from_str::<DataParams<'_>>(params) {
                Ok(data) => {
                    let item = self.shared.item(data.stream, data.item);
                    return item
                        .map_err(Closed::Protocol)
                        .and_then(|wanted| self.wanted(wanted));
                }
                Err(error) => Err(wrong(error)),
            },
            "stream.end" => serde_json::from_str::<EndParams>(params)
                .map(|end| self.shared.ended(end.stream, end.error))
                .map_err(wrong),
            "stream.ack" => serde_json::from_str::<AckParams>(params)
                .map(|ack| {
                    if let Some((_, credit)) = self.streams.get(&ack.stream) {
                        credit.grant(ack.credit);
                    }
                })
                .map_err(wrong),
            "stream.drop" => serde_json::from_str::<DropParams>(params)
                .map(|dropped| {
                    if let Some((task, _)) = self.streams.remove(&dropped.stream) {
                        task.abort();
                    }
                })
                .map_err(wrong),
            "$/cancel" => serde_json::from_str::<CancelParams<'_>>(params)
                .map(|cancel| {
                    if let Some(task) = self.calls.remove(cancel.id.get()) {
                        task.abort();
                        let cancelled = WireError::plain(code::CANCELLED, "cancelled");
                        self.shared
                            .outbox
                            .control(frame::answer(cancel.id, &Err(cancelled)));
                    }
                })
                .map_err(wrong),
            "$/progress" => serde_json::from_str::<ProgressParams<'_>>(params)
                .map(|progress| {
                    if let Ok(id) = progress.id.get().parse() {
                        self.shared.progressed(id, &progress.message);
                    }
                })
                .map_err(wrong),
            // An unknown notification is tolerated: it cannot be answered, and a newer peer may send it.
            _ => return self.wanted(false),
        };
        match read {
            Ok(()) => Ok(()),
            Err(error) => self.refuse(None, error),
        }
    }

    /// Clears up behind a task; one that panicked is answered.
    fn forget(&mut self, done: Result<(tokio::task::Id, Done), tokio::task::JoinError>) {
        match done {
            Ok((id, Done::Call(key))) => {
                if self.calls.get(&key).is_some_and(|task| task.id() == id) {
                    self.calls.remove(&key);
                }
            }
            Ok((id, Done::Stream(stream))) => {
                if self
                    .streams
                    .get(&stream)
                    .is_some_and(|(task, _)| task.id() == id)
                {
                    self.streams.remove(&stream);
                }
            }
            Err(error) if error.is_panic() => self.panicked(error.id()),
            Err(_cancelled) => {}
        }
    }

    fn panicked(&mut self, task: tokio::task::Id) {
        let bug = || WireError::plain(code::INTERNAL, "this side has a bug: the request panicked");
        if let Some(key) = self
            .calls
            .iter()
            .find(|(_, handle)| handle.id() == task)
            .map(|(key, _)| key.clone())
        {
            self.calls.remove(&key);
            if let Ok(id) = RawValue::from_string(key) {
                self.shared.outbox.control(frame::answer(&id, &Err(bug())));
            }
        }
        if let Some(stream) = self
            .streams
            .iter()
            .find(|(_, (handle, _))| handle.id() == task)
            .map(|(id, _)| *id)
        {
            self.streams.remove(&stream);
            let end = EndParams {
                stream,
                error: Some(bug()),
            };
            self.shared
                .outbox
                .control(frame::notification("stream.end", &end));
        }
    }
}

fn report_to(id: &RawValue, shared: &Arc<Shared>) -> Progress {
    let (id, shared) = (id.to_owned(), Arc::downgrade(shared));
    Progress::to(move |message| {
        if let Some(shared) = shared.upgrade() {
            let params = ProgressParams {
                id: &id,
                message: message.into(),
            };
            shared
                .outbox
                .control(frame::notification("$/progress", &params));
        }
    })
}

/// Sends the items of a stream as far as its credit goes, and its end behind them.
async fn pump(
    stream: u64,
    mut items: super::Items,
    credit: Arc<Credit>,
    shared: Arc<Shared>,
) -> Done {
    let error = loop {
        credit.positive().await;
        match items.next().await {
            Some(Ok(item)) => {
                credit.spend(item.get().len());
                shared.outbox.data(frame::data(stream, &item)).await;
            }
            Some(Err(error)) => break Some(WireError::of(&error)),
            None => break None,
        }
    };
    shared
        .outbox
        .data(frame::notification(
            "stream.end",
            &EndParams { stream, error },
        ))
        .await;
    Done::Stream(stream)
}
