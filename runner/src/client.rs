//! Client of the control plane's REST API.

use std::path::Path;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use hybrid_runner_core::{Error, ErrorKind, Result};
use hybrid_runner_helper::mask::Patterns;
use hyper_util::client::proxy::matcher::Matcher;
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::timeout;

use crate::config::is_loopback;

/// A connection is made within this.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// An answer comes within this; long polls and streams have their own times.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(90);

/// An event stream that says nothing for this long is dead: there is a comment every 15 s.
const SILENCE: Duration = Duration::from_secs(45);

/// A line of an event stream is at most this long: a chunk of a log in base64, and a little.
const MAX_LINE: usize = 1 << 20;

/// Asks a control plane.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    base: Url,
    token: SecretString,
}

/// One event of a stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Event {
    /// What it is about; `message` if the stream does not say.
    pub name: String,
    /// Where to go on after it.
    pub id: Option<String>,
    /// What it says.
    pub data: String,
}

impl Client {
    /// A client of the control plane at `url`. `ca` is trusted besides the system's roots.
    pub fn new(url: &str, token: SecretString, ca: Option<&Path>) -> Result<Self> {
        let wrong = || {
            Error::invalid(format!(
                "`{}` is no address of a control plane: write `https://host[:port]`",
                hybrid_runner_core::id::shorten(url)
            ))
        };
        let text = url.trim().trim_end_matches('/');
        let text = text
            .replacen("wss://", "https://", 1)
            .replacen("ws://", "http://", 1);
        let base = Url::parse(&text).map_err(|error| wrong().with_source(error))?;
        if !matches!(base.scheme(), "http" | "https") || !base.has_host() {
            return Err(wrong());
        }
        if reqwest::header::HeaderValue::from_str(token.expose_secret()).is_err() {
            return Err(Error::invalid(
                "the token has characters in it that no token has; was it copied whole, and once?",
            ));
        }
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("hybrid-runner/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT);
        if base
            .host_str()
            .is_some_and(|host| is_loopback(host.trim_matches(['[', ']'])))
        {
            builder = builder.no_proxy();
        }
        if base.scheme() == "http" {
            // So that an image without certificates will do.
            builder = builder.tls_certs_only([]);
        }
        if let Some(path) = ca {
            let unreadable = || {
                Error::invalid(format!(
                    "failed to read the certificates in `{}`",
                    path.display()
                ))
            };
            let pem = std::fs::read(path).map_err(|error| unreadable().with_source(error))?;
            let certificates = reqwest::Certificate::from_pem_bundle(&pem)
                .map_err(|error| unreadable().with_source(error))?;
            builder = certificates
                .into_iter()
                .fold(builder, reqwest::ClientBuilder::add_root_certificate);
        }
        let http = builder.build().map_err(|error| {
            let advice =
                "are there certificates of authorities on this machine (`ca-certificates`)?";
            Error::internal(format!("failed to set up HTTPS; {advice}")).with_source(error)
        })?;
        Ok(Self { http, base, token })
    }

    /// Whether the token would travel in the clear.
    pub fn is_in_the_clear(&self) -> bool {
        let host = self.base.host_str().unwrap_or_default();
        self.base.scheme() == "http" && !is_loopback(host.trim_matches(['[', ']']))
    }

    /// `GET path?query`.
    pub async fn get<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, String)],
    ) -> Result<T> {
        let request = self
            .request(Method::GET, path, query)
            .timeout(ANSWER_TIMEOUT);
        self.json(request).await
    }

    /// `POST path` with a JSON body.
    pub async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &(impl Serialize + Sync),
    ) -> Result<T> {
        let request = self
            .request(Method::POST, path, &[])
            .json(body)
            .timeout(ANSWER_TIMEOUT);
        self.json(request).await
    }

    /// `DELETE path`.
    pub async fn delete(&self, path: &str) -> Result<()> {
        let request = self
            .request(Method::DELETE, path, &[])
            .timeout(ANSWER_TIMEOUT);
        self.send(request).await.map(drop)
    }

    /// `GET path?query` as a stream of bytes of that kind.
    pub async fn bytes(
        &self,
        path: &str,
        query: &[(&str, String)],
        accept: &str,
    ) -> Result<BoxStream<'static, Result<bytes::Bytes>>> {
        let request = self
            .request(Method::GET, path, query)
            .header("Accept", accept);
        let response = self.send(request).await?;
        Ok(response
            .bytes_stream()
            .map(|bytes| bytes.map_err(|error| broken(&error)))
            .boxed())
    }

    /// `GET path?query` as a stream of events, going on after `last`.
    pub async fn events(
        &self,
        path: &str,
        query: &[(&str, String)],
        last: Option<&str>,
    ) -> Result<BoxStream<'static, Result<Event>>> {
        let mut request = self
            .request(Method::GET, path, query)
            .header("Accept", "text/event-stream");
        if let Some(last) = last {
            request = request.header("Last-Event-ID", last);
        }
        let response = self.send(request).await?;
        let bytes = response
            .bytes_stream()
            .map(|bytes| bytes.map_err(|error| broken(&error)));
        Ok(events(bytes.boxed()))
    }

    fn request(&self, method: Method, path: &str, query: &[(&str, String)]) -> RequestBuilder {
        let mut url = self.base.clone();
        url.set_path(&format!("{}{path}", self.base.path().trim_end_matches('/')));
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        // reqwest marks the header as sensitive.
        self.http
            .request(method, url)
            .bearer_auth(self.token.expose_secret())
    }

    /// What the proxy of the environment, if there is one on the way, is shown.
    fn for_proxy(&self) -> Option<SecretString> {
        let proxy = Matcher::from_env().intercept(&self.base.as_str().parse().ok()?)?;
        let shown = proxy.basic_auth()?.to_str().ok()?;
        Some(SecretString::from(shown.trim_start_matches("Basic ")))
    }

    async fn json<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T> {
        let response = self.send(request).await?;
        let bytes = response.bytes().await.map_err(|error| broken(&error))?;
        serde_json::from_slice(&bytes).map_err(|error| {
            Error::unavailable(format!(
                "`{}` answered what is not understood; is it a control plane?",
                self.base
            ))
            .with_source(error)
        })
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response> {
        let response = request.send().await.map_err(|error| {
            // The cause names what matters; reqwest's own words repeat the URL with its query.
            Error::unavailable(format!(
                "failed to reach the control plane at `{}`",
                self.base
            ))
            .with_source(innermost(&error))
        })?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let body = response.bytes().await.unwrap_or_default();
        // What stands in between may repeat what it was asked with. To be looked for, so that it is not shown.
        let for_proxy = self.for_proxy();
        let given = std::iter::once(&self.token).chain(&for_proxy);
        let values = given.map(|value| value.expose_secret().as_bytes());
        let patterns = Patterns::of_values(values);
        Err(refusal(status, &patterns.mask(&body)))
    }
}

fn broken(error: &reqwest::Error) -> Error {
    Error::unavailable("the control plane's answer broke off").with_source(innermost(error))
}

fn innermost(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

/// The API's own error, or what a proxy in between said.
fn refusal(status: StatusCode, body: &[u8]) -> Error {
    let told: Value = serde_json::from_slice(body).unwrap_or_default();
    let told = &told["error"];
    let message = told["message"].as_str().map_or_else(
        || format!("the control plane answered {status}"),
        str::to_owned,
    );
    let candidates: Vec<_> = told["candidates"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    if !candidates.is_empty() {
        return Error::invalid(format!("{message}: {}", candidates.join(", ")));
    }
    let kind = match status.as_u16() {
        401 | 403 => ErrorKind::Denied,
        404 => ErrorKind::NotFound,
        409 | 507 => ErrorKind::Conflict,
        400..=499 => ErrorKind::Invalid,
        _ => ErrorKind::Unavailable,
    };
    Error::new(kind, message)
}

/// Reads an event stream (`text/event-stream`).
fn events(bytes: BoxStream<'static, Result<bytes::Bytes>>) -> BoxStream<'static, Result<Event>> {
    struct Reading {
        bytes: BoxStream<'static, Result<bytes::Bytes>>,
        buffer: Vec<u8>,
        /// How far the buffer holds no line end.
        searched: usize,
        event: Event,
    }
    let reading = Reading {
        bytes,
        buffer: Vec::new(),
        searched: 0,
        event: Event::default(),
    };
    futures::stream::try_unfold(reading, |mut reading| async move {
        loop {
            while let Some(at) = reading.buffer[reading.searched..]
                .iter()
                .position(|byte| *byte == b'\n')
            {
                let line: Vec<u8> = reading.buffer.drain(..=reading.searched + at).collect();
                reading.searched = 0;
                let line = String::from_utf8_lossy(&line);
                if let Some(event) =
                    take_line(&mut reading.event, line.trim_end_matches(['\r', '\n']))
                {
                    return Ok(Some((event, reading)));
                }
            }
            reading.searched = reading.buffer.len();
            if reading.buffer.len() > MAX_LINE {
                return Err(Error::unavailable(
                    "the control plane sent an event that is too long",
                ));
            }
            let silent = |_| Error::unavailable("the control plane has been silent for too long");
            match timeout(SILENCE, reading.bytes.next())
                .await
                .map_err(silent)?
            {
                None => return Ok(None),
                Some(bytes) => reading.buffer.extend_from_slice(&bytes?),
            }
        }
    })
    .boxed()
}

/// Adds a line to an event; an empty one completes it.
fn take_line(event: &mut Event, line: &str) -> Option<Event> {
    if line.is_empty() {
        let done = std::mem::take(event);
        let empty = done.data.is_empty() && done.name.is_empty();
        return (!empty).then_some(done);
    }
    let (field, value) = line.split_once(':').unwrap_or((line, ""));
    let value = value.strip_prefix(' ').unwrap_or(value);
    match field {
        "event" => value.clone_into(&mut event.name),
        "id" => event.id = Some(value.to_owned()),
        "data" => {
            if !event.data.is_empty() {
                event.data.push('\n');
            }
            event.data.push_str(value);
        }
        _ => {}
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(text: &'static str, size: usize) -> Vec<Event> {
        let pieces: Vec<Result<bytes::Bytes>> = text
            .as_bytes()
            .chunks(size)
            .map(|piece| Ok(bytes::Bytes::from_static(piece)))
            .collect();
        events(futures::stream::iter(pieces).boxed())
            .map(|event| event.unwrap())
            .collect()
            .await
    }

    #[tokio::test]
    async fn events_are_read_however_they_are_cut() {
        let text = ": hello\r\nevent: log\nid: 7\ndata: {\"a\":\ndata: 1}\n\n:\n\ndata: x\r\n\r\ndata: torn";
        for size in 1..text.len() {
            let events = read(text, size).await;
            assert_eq!(events.len(), 2, "{events:?}");
            assert_eq!(
                (events[0].name.as_str(), events[0].id.as_deref()),
                ("log", Some("7"))
            );
            assert_eq!(events[0].data, "{\"a\":\n1}");
            assert_eq!(events[1].data, "x");
        }
    }

    #[test]
    fn a_refusal_keeps_the_words_of_the_control_plane() {
        let body = br#"{"error":{"kind":"conflict","message":"ambiguous","candidates":["a","b"]}}"#;
        let error = refusal(StatusCode::CONFLICT, body);
        assert_eq!(
            (error.kind(), error.message()),
            (ErrorKind::Invalid, "ambiguous: a, b")
        );
        let error = refusal(StatusCode::BAD_GATEWAY, b"<html>");
        assert_eq!(error.kind(), ErrorKind::Unavailable);
    }

    #[test]
    fn an_address_is_completed_and_checked() {
        let new = |url: &str| Client::new(url, SecretString::from("t"), None);
        for good in ["http://127.0.0.1:1/", "https://h", "wss://h"] {
            new(good).unwrap();
        }
        for wrong in ["", "h:1", "ftp://h"] {
            new(wrong).unwrap_err();
        }
        assert!(new("http://example.com").unwrap().is_in_the_clear());
        assert!(!new("http://[::1]:80").unwrap().is_in_the_clear());
    }
}
