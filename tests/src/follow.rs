//! A log that is followed over SSE, through deaths of the server.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout};

use crate::rest::{Client, Run};

/// A server that is away is asked again this often.
const AGAIN: Duration = Duration::from_millis(50);

/// The next event comes within this, or the story fails.
const PATIENCE: Duration = Duration::from_mins(1);

/// What a follower is told.
#[derive(Debug, Clone)]
pub enum Event {
    /// The run as it stands now.
    Status(Run),
    /// A piece of the log: stream and bytes.
    Log(String, Vec<u8>),
    /// A part of the log is missing, and why.
    Gap(String),
    /// The run has ended and all of its log has been told.
    End(Run),
}

/// Follows a run: its status and its log, from the beginning, once.
pub struct Follow {
    client: Client,
    run: String,
    body: Option<BoxStream<'static, reqwest::Result<Bytes>>>,
    buffer: Vec<u8>,
    last: Option<String>,
    /// What has arrived of the log.
    pub log: Vec<u8>,
    /// The states that were seen, one after the other.
    pub states: Vec<String>,
    /// The gaps that were seen.
    pub gaps: Vec<String>,
}

impl std::fmt::Debug for Follow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Follow")
            .field("run", &self.run)
            .field("states", &self.states)
            .finish_non_exhaustive()
    }
}

impl Follow {
    pub(crate) fn new(client: Client, run: &str) -> Self {
        Self {
            client,
            run: run.to_owned(),
            body: None,
            buffer: Vec::new(),
            last: None,
            log: Vec::new(),
            states: Vec::new(),
            gaps: Vec::new(),
        }
    }

    /// The next event. A connection that breaks is made again, from where it was.
    pub async fn next(&mut self) -> Event {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(event) = self.take() {
                return self.note(event);
            }
            assert!(
                Instant::now() < deadline,
                "no event of run {} in {PATIENCE:?}",
                self.run
            );
            if self.body.is_none() && !self.connect().await {
                sleep(AGAIN).await;
                continue;
            }
            let Some(body) = &mut self.body else { continue };
            match timeout(deadline - Instant::now(), body.next()).await {
                Ok(Some(Ok(bytes))) => self.buffer.extend_from_slice(&bytes),
                _ => self.body = None,
            }
        }
    }

    /// Reads on until so many lines have arrived.
    pub async fn lines(&mut self, count: usize) {
        while self.log.split(|byte| *byte == b'\n').count() <= count {
            if let Event::End(run) = self.next().await {
                panic!("the run ended before line {count}: {}", run.0);
            }
        }
    }

    /// Reads on to the end.
    pub async fn end(&mut self) -> Run {
        loop {
            if let Event::End(run) = self.next().await {
                return run;
            }
        }
    }

    /// What has arrived of the log, as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.log).into_owned()
    }

    async fn connect(&mut self) -> bool {
        self.buffer.clear();
        let url = format!(
            "{}/api/v1/runs/{}/logs?follow=true",
            self.client.base, self.run
        );
        let mut request = self.client.http.get(url).bearer_auth(&self.client.token);
        request = request.header("accept", "text/event-stream");
        if let Some(last) = &self.last {
            request = request.header("last-event-id", last);
        }
        let Ok(response) = request.send().await else {
            return false;
        };
        if response.status().is_server_error() {
            return false;
        }
        let response = response
            .error_for_status()
            .expect("a run that is there can be followed");
        self.body = Some(response.bytes_stream().boxed());
        true
    }

    /// Takes a whole event out of the buffer.
    fn take(&mut self) -> Option<Event> {
        loop {
            let end = self.buffer.windows(2).position(|pair| pair == b"\n\n")?;
            let text: Vec<u8> = self.buffer.drain(..end + 2).collect();
            let text = String::from_utf8(text).expect("SSE is UTF-8");
            let field = |name: &str| -> Vec<&str> {
                let values = text
                    .lines()
                    .filter_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
                values
                    .map(|value| value.strip_prefix(' ').unwrap_or(value))
                    .collect()
            };
            let data = field("data").join("\n");
            if data.is_empty() {
                continue;
            }
            let data: Value = serde_json::from_str(&data).expect("the data of an event is JSON");
            if let Some(id) = field("id").first() {
                self.last = Some((*id).to_owned());
            }
            match field("event").first() {
                Some(&"status") => return Some(Event::Status(Run(data))),
                Some(&"log") => return Some(log(&data)),
                Some(&"end") => return Some(Event::End(Run(data))),
                _ => {}
            }
        }
    }

    fn note(&mut self, event: Event) -> Event {
        match &event {
            Event::Log(_, bytes) => self.log.extend_from_slice(bytes),
            Event::Gap(why) => self.gaps.push(why.clone()),
            Event::Status(run) | Event::End(run) => {
                if self.states.last().is_none_or(|last| last != run.state()) {
                    self.states.push(run.state().to_owned());
                }
            }
        }
        event
    }
}

fn log(chunk: &Value) -> Event {
    let stream = chunk["stream"].as_str().unwrap_or("both").to_owned();
    if let Some(text) = chunk["text"].as_str() {
        return Event::Log(stream, text.as_bytes().to_vec());
    }
    if let Some(encoded) = chunk["base64"].as_str() {
        return Event::Log(
            stream,
            STANDARD
                .decode(encoded)
                .expect("a chunk's base64 is base64"),
        );
    }
    Event::Gap(chunk["gap"]["why"].as_str().unwrap_or_default().to_owned())
}
