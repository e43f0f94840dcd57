//! Reading and following output.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use futures::{StreamExt as _, stream};
use hybrid_runner_core::{Error, LogItem, Stream};
use jiff::Timestamp;
use serde::Deserialize;
use utoipa::IntoParams;

use super::error::{Answer, Result};
use super::extract::Params;
use super::runs::find;
use super::view::RunView;
use crate::access::Caller;
use crate::app::App;
use crate::logs::{Chunk, Reader, View, place_of, tail_start};
use crate::store::runs::{self, Run};
use crate::watchers::News;

/// Which part of a log.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct LogParams {
    /// From this position on: the `next` of a chunk, or the id of an event.
    from: Option<String>,
    /// Only the last so many lines.
    tail: Option<u64>,
    /// Not what was written before this time.
    #[param(value_type = Option<String>)]
    since: Option<Timestamp>,
    /// Only of this attempt.
    attempt: Option<u32>,
    /// `out` or `err`.
    #[param(value_type = Option<String>)]
    stream: Option<Stream>,
    /// As server-sent events, until the run has ended.
    #[serde(default)]
    follow: bool,
}

/// Reads a run's log: as it was written, as JSON lines (`Accept: application/x-ndjson`), or as it comes.
#[utoipa::path(get, path = "/api/v1/runs/{id}/logs", params(("id" = String, Path, description = "An id, or its unique beginning"), LogParams), responses(
    (status = 200, description = "The log; `x-log-cursor` says where it ends. With `follow`: events `status` (a run), `log` (a chunk; its id is the position behind it), `end` (a run)", body = String, content_type = "text/plain"),
    (status = 404, description = "There is no such run", body = Answer),
))]
pub(super) async fn read(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    Params(params): Params<LogParams>,
    headers: HeaderMap,
) -> Result<Response> {
    let seq = find(&app, &id).await?.seq;
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let accept = text(header::ACCEPT.as_str()).unwrap_or_default();
    let follows = params.follow || accept.contains("text/event-stream");
    let resumed = text("last-event-id")
        .filter(|_| follows)
        .map(position)
        .transpose()?;
    let mut view = View {
        attempt: params.attempt,
        stream: params.stream,
        since: params.since,
    };
    let start = match (resumed, params.from, params.tail) {
        (Some(position), ..) => {
            // The times before it were judged already.
            view.since = None;
            position
        }
        (None, Some(from), _) => position(&from)?,
        (None, None, Some(lines)) => {
            let (segments, view) = (Arc::clone(&app.segments), view.clone());
            app.db
                .read(move |tx| tail_start(tx, &segments, seq, &view, lines))
                .await?
        }
        (None, None, None) => 0,
    };
    let reader = Reader::new(seq, start);
    if follows {
        return Ok(follow(app, caller, seq, reader, view));
    }
    let (end, _) = app.db.read(move |tx| place_of(tx, seq)).await?;
    let lines = accept.contains("ndjson") || accept.contains("application/json");
    Ok(whole(app, reader.until(end), view, end, lines))
}

fn position(text: &str) -> Result<u64> {
    text.parse().map_err(|_| {
        Error::invalid("a position in a log is a number, as in `next` or the id of an event").into()
    })
}

/// What is stored now, as a body that is made while it is sent.
fn whole(app: Arc<App>, reader: Reader, view: View, end: u64, lines: bool) -> Response {
    let parts = stream::unfold(
        (reader, view, true),
        move |(mut reader, mut view, mut fresh_line)| {
            let app = Arc::clone(&app);
            async move {
                if reader.position() >= end {
                    return None;
                }
                let segments = Arc::clone(&app.segments);
                let read = app.db.read(move |tx| {
                    let chunks = reader.read(tx, &segments)?;
                    Ok((reader, chunks))
                });
                let (reader, chunks) = match read.await {
                    Ok(read) => read,
                    // The answer has begun; breaking it off is the only way to say so.
                    Err(error) => return Some((Err(error), (Reader::new(0, end), view, true))),
                };
                if chunks.is_empty() {
                    return None;
                }
                let mut out = Vec::new();
                for chunk in chunks.into_iter().filter(|chunk| view.admits(chunk)) {
                    if lines {
                        json_line(chunk, &mut out);
                    } else {
                        plain(&chunk, &mut fresh_line, &mut out);
                    }
                }
                Some((Ok(Bytes::from(out)), (reader, view, fresh_line)))
            }
        },
    );
    let kind = if lines {
        "application/x-ndjson"
    } else {
        "text/plain; charset=utf-8"
    };
    let headers = [
        (header::CONTENT_TYPE.as_str(), kind.to_owned()),
        ("x-log-cursor", end.to_string()),
    ];
    (headers, Body::from_stream(parts)).into_response()
}

fn json_line(chunk: Chunk, out: &mut Vec<u8>) {
    serde_json::to_writer(&mut *out, &chunk.into_wire()).expect("a chunk has a JSON form");
    out.push(b'\n');
}

/// The bytes as they were written; a gap as a line of its own.
fn plain(chunk: &Chunk, fresh_line: &mut bool, out: &mut Vec<u8>) {
    match &chunk.item {
        LogItem::Data { bytes, .. } => {
            out.extend_from_slice(bytes);
            *fresh_line = bytes.last().map_or(*fresh_line, |last| *last == b'\n');
        }
        LogItem::Gap { bytes, why } => {
            let lead = if *fresh_line { "" } else { "\n" };
            let much = bytes.map_or_else(
                || "something is".to_owned(),
                |bytes| format!("{bytes} bytes are"),
            );
            out.extend_from_slice(
                format!(
                    "{lead}[hybrid-runner] {much} missing here: {}\n",
                    why.in_words()
                )
                .as_bytes(),
            );
            *fresh_line = true;
        }
        _ => {}
    }
}

/// Follows a run until it has ended and all is sent.
struct Following {
    app: Arc<App>,
    caller: Caller,
    run: i64,
    reader: Option<Reader>,
    view: View,
    news: News,
    /// What the client knows of the status.
    told: Option<String>,
    events: VecDeque<Event>,
    ended: bool,
}

fn follow(app: Arc<App>, caller: Caller, run: i64, reader: Reader, view: View) -> Response {
    let following = Following {
        news: app.watchers.of(run),
        app,
        caller,
        run,
        reader: Some(reader),
        view,
        told: None,
        events: VecDeque::new(),
        ended: false,
    };
    let events = stream::unfold(following, |mut following| async move {
        let event = following.next().await?;
        Some((Ok::<_, Infallible>(event), following))
    });
    let keep_alive = KeepAlive::new().interval(Duration::from_secs(15));
    Sse::new(events.boxed())
        .keep_alive(keep_alive)
        .into_response()
}

impl Following {
    async fn next(&mut self) -> Option<Event> {
        let mut revoked = self.app.access.revocations();
        loop {
            if let Some(event) = self.events.pop_front() {
                return Some(event);
            }
            if self.ended || !self.app.access.is_valid(&self.caller.token) {
                return None;
            }
            if !self.look().await? {
                tokio::select! {
                    () = self.news.next() => {}
                    _ = revoked.changed() => {}
                    // Without `end`: the client asks again where it was.
                    () = self.app.shutdown.cancelled() => return None,
                }
            }
        }
    }

    /// Looks for what is new. `None`: the log cannot be read now.
    async fn look(&mut self) -> Option<bool> {
        let (run, segments) = (self.run, Arc::clone(&self.app.segments));
        let mut reader = self.reader.take()?;
        let read = self.app.db.read(move |tx| {
            let chunks = reader.read(tx, &segments)?;
            Ok((reader, chunks, runs::by_seq(tx, run)?))
        });
        let (reader, chunks, run) = read.await.ok()?;
        self.reader = Some(reader);
        let done = chunks.is_empty() && run.finished.is_some();
        self.tell(run, done);
        for chunk in chunks {
            if self.view.admits(&chunk) {
                self.events.push_back(log(chunk));
            }
        }
        Some(!self.events.is_empty() || done)
    }

    fn tell(&mut self, run: Run, done: bool) {
        let status = crate::store::to_json(&(&run.status, &run.stop));
        let is_new = self.told.as_ref() != Some(&status);
        self.told = Some(status);
        let data = |run| crate::store::to_json(&RunView::new(run));
        if done {
            self.events
                .push_back(Event::default().event("end").data(data(run)));
            self.ended = true;
        } else if is_new {
            self.events
                .push_back(Event::default().event("status").data(data(run)));
        }
    }
}

fn log(chunk: Chunk) -> Event {
    let id = chunk.next.to_string();
    Event::default()
        .event("log")
        .id(id)
        .data(crate::store::to_json(&chunk.into_wire()))
}
