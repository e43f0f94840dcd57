//! The log of a run whose pod is gone, from where the cluster archived it.
//!
//! What reads it is an object of the same kind, owned by that of the run: it goes with that if we die before we remove it. Its pod
//! prints the log from a position on, in base64, so that each byte of it arrives as it is, and before that the size of the whole,
//! so that its end is known from a connection's.
//!
//! | in the log of that pod | means |
//! |---|---|
//! | a number, a newline | the size of the whole log |
//! | base64 | what is behind the position |

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use futures::io::{AsyncBufRead, AsyncBufReadExt as _};
use futures::stream::{self, BoxStream};
use hybrid_runner_core::RunId;
use hybrid_runner_core::error::{Error, Result};
use hybrid_runner_core::log::MAX_CHUNK;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, GetParams, LogParams};
use kube::core::Request;
use kube::{Resource as _, ResourceExt as _};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::board::list;
use super::error::{failed, found};
use super::names::READS;
use super::object::{Archive, Object};
use super::pod::MAIN;
use super::records::Lines;
use super::runs::Shared;
use super::start::create;
use crate::cursors::{SEED, hash, hash_on};

/// What is being archived is there within this, or never.
const PATIENCE: Duration = Duration::from_mins(1);
/// What reads it has begun within this.
const START: Duration = Duration::from_mins(3);
/// Between two looks.
const PAUSE: Duration = Duration::from_secs(1);
/// What is done, for messages.
const READ: &str = "read the archived log of the run";
const BROKEN: &str = "the archived log of the run broke off";
/// A size has no more digits.
const DIGITS: usize = 20;

/// What comes of an archived log.
pub(crate) type Archived = BoxStream<'static, Result<Part>>;

/// A part of an archived log.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// More may come.
    Waits,
    Bytes(Bytes),
    /// It cannot be had, or there is none: the last part.
    Lost,
}

/// The archived log of a run behind its first `from` bytes.
pub(super) fn read(shared: &Arc<Shared>, run: RunId, from: u64) -> Archived {
    let reading = Reading {
        shared: Arc::clone(shared),
        run,
        from,
        name: String::new(),
        stage: Stage::Looking(Instant::now() + PATIENCE),
        lines: Lines::new(shared.kind.has_first_process()),
        decoder: Decoder::default(),
    };
    stream::try_unfold(reading, |mut reading| async move {
        Ok(reading.next().await?.map(|part| (part, reading)))
    })
    .boxed()
}

/// An object with all that it has.
async fn whole(shared: &Shared, name: &str) -> Result<Option<Value>> {
    let connected = shared.cluster.connected().await?;
    let path = Object::url_path(&shared.kind, Some(&connected.namespace));
    let request = Request::new(path)
        .get(name, &GetParams::default())
        .map_err(|_| Error::internal("an object cannot be asked for"))?;
    let object = found(connected.client().request(request).await);
    object.map_err(|error| failed(connected, &shared.on_object("look at"), &error))
}

struct Reading {
    shared: Arc<Shared>,
    run: RunId,
    from: u64,
    /// Of what reads.
    name: String,
    stage: Stage,
    lines: Lines,
    decoder: Decoder,
}

enum Stage {
    /// Whether there is one, until then.
    Looking(Instant),
    /// For what reads it, until then.
    Waiting(Instant),
    Following(Pin<Box<dyn AsyncBufRead + Send>>),
    Over,
}

impl Reading {
    async fn next(&mut self) -> Result<Option<Part>> {
        let part = match &mut self.stage {
            Stage::Looking(deadline) => {
                let deadline = *deadline;
                self.look(deadline).await
            }
            Stage::Waiting(deadline) => {
                let deadline = *deadline;
                self.wait(deadline).await
            }
            Stage::Following(_) => self.follow().await,
            Stage::Over => return Ok(None),
        };
        if !matches!(part, Ok(Some(Part::Bytes(_) | Part::Waits))) {
            self.stage = Stage::Over;
            self.remove().await;
        }
        part
    }

    /// Makes what reads the log, if that is archived.
    async fn look(&mut self, deadline: Instant) -> Result<Option<Part>> {
        let own = self.shared.names.object(self.run);
        let Some(object) = whole(&self.shared, &own).await? else {
            return Ok(Some(Part::Lost));
        };
        let uid = object["metadata"]["uid"].as_str().unwrap_or_default();
        // The same for whoever reads from there.
        let name = format!(
            "hr-log-{:016x}",
            hash(format!("{uid} {}", self.from).as_bytes())
        );
        let mut reader = match self.shared.kind.archive(&object, &name, self.from) {
            Archive::At(reader) => reader,
            Archive::Later if Instant::now() < deadline => {
                sleep(PAUSE).await;
                return Ok(Some(Part::Waits));
            }
            Archive::Later | Archive::Nowhere => return Ok(Some(Part::Lost)),
        };
        let names = self.shared.kind.names();
        reader["apiVersion"] = names.api_version().into();
        reader["kind"] = names.kind.into();
        reader["metadata"]["labels"]["app.kubernetes.io/managed-by"] = "hybrid-runner".into();
        reader["metadata"]["ownerReferences"] = json!([self.shared.reference(self.run, uid)]);
        // It may be there, of whoever read before us, and died.
        create(&self.shared, READ, &reader).await?;
        tracing::info!(run = %self.run, "the pod of the run is gone: `{name}` reads its log from the archive");
        self.name = name;
        self.stage = Stage::Waiting(Instant::now() + START);
        Ok(Some(Part::Waits))
    }

    /// Opens the log of what reads, once it has begun.
    async fn wait(&mut self, deadline: Instant) -> Result<Option<Part>> {
        let connected = self.shared.cluster.connected().await?;
        let selector = format!("{READS}={}", self.name);
        let listed = list::<Pod>(&connected.api(), &selector).await;
        let (pods, _) = listed.map_err(|error| failed(connected, READ, &error))?;
        if let Some(pod) = pods.iter().find(|pod| has_begun(pod)) {
            let wanted = LogParams {
                container: Some(MAIN.to_owned()),
                follow: true,
                timestamps: true,
                ..LogParams::default()
            };
            let pods = connected.following::<Pod>();
            let opened = pods.log_stream(&pod.name_any(), &wanted).await;
            let reader = opened.map_err(|error| failed(connected, READ, &error))?;
            self.stage = Stage::Following(Box::pin(reader));
            return Ok(Some(Part::Waits));
        }
        let object = whole(&self.shared, &self.name).await?;
        let Some(object) = object else {
            return Err(Error::unavailable("what reads the archived log is gone"));
        };
        let status = &object["status"];
        let is_over = matches!(status["phase"].as_str(), Some("Failed" | "Error"));
        if is_over || Instant::now() >= deadline {
            let message = status["message"].as_str();
            let message = message.unwrap_or("what reads it did not begin in time");
            tracing::warn!(run = %self.run, "the archived log of the run cannot be read: {message}");
            return Ok(Some(Part::Lost));
        }
        sleep(PAUSE).await;
        Ok(Some(Part::Waits))
    }

    async fn follow(&mut self) -> Result<Option<Part>> {
        let Stage::Following(reader) = &mut self.stage else {
            return Ok(None);
        };
        let broken = |_| Error::unavailable(BROKEN);
        let bytes = reader.fill_buf().await.map_err(broken)?;
        let bytes = Bytes::copy_from_slice(&bytes[..bytes.len().min(MAX_CHUNK)]);
        reader.consume_unpin(bytes.len());
        let is_end = bytes.is_empty();
        let mut pieces = Vec::new();
        if is_end {
            self.lines.finish(&mut pieces);
        } else {
            self.lines.push(bytes, &mut pieces);
        }
        let mut decoded = BytesMut::new();
        for piece in pieces.iter().filter(|piece| !piece.is_remark) {
            if !self.decoder.push(&piece.bytes, &mut decoded) {
                tracing::warn!(run = %self.run, "what reads the archived log of the run does not print what it should");
                return Ok(Some(Part::Lost));
            }
        }
        match (decoded.is_empty(), is_end) {
            (false, _) => Ok(Some(Part::Bytes(decoded.freeze()))),
            (true, false) => Ok(Some(Part::Waits)),
            (true, true) => self.end(),
        }
    }

    /// Whether all has come.
    fn end(&self) -> Result<Option<Part>> {
        let Some(size) = self.decoder.size else {
            tracing::warn!(run = %self.run, "the archived log of the run cannot be read: the image needs `sh`, `wc`, `tail` and `base64`");
            return Ok(Some(Part::Lost));
        };
        match size.checked_sub(self.from) {
            Some(wanted) if wanted == self.decoder.count => Ok(None),
            Some(_) => Err(Error::unavailable(BROKEN)),
            None => {
                tracing::warn!(run = %self.run, size, from = self.from, "the archived log of the run is shorter than it was");
                Ok(Some(Part::Lost))
            }
        }
    }

    /// If that fails it goes with the object of the run.
    async fn remove(&mut self) {
        if self.name.is_empty() {
            return;
        }
        let Ok(connected) = self.shared.cluster.connected().await else {
            return;
        };
        let objects = connected.objects(self.shared.kind);
        let removed = objects
            .delete(&self.name, &DeleteParams::background())
            .await;
        if let Err(error) = found(removed) {
            tracing::debug!(run = %self.run, %error, "what read the archived log could not be removed");
        }
    }
}

fn has_begun(pod: &Pod) -> bool {
    let status = pod.status.as_ref();
    let mut containers = status
        .into_iter()
        .flat_map(|status| status.container_statuses.iter().flatten());
    let state = containers.find(|it| it.name == MAIN);
    let state = state.and_then(|it| it.state.as_ref());
    state.is_some_and(|state| state.running.is_some() || state.terminated.is_some())
}

/// Takes what the pod prints apart.
#[derive(Debug, Default)]
struct Decoder {
    /// What is not taken apart yet.
    rest: Vec<u8>,
    /// Of the whole log.
    size: Option<u64>,
    /// How many bytes came out.
    count: u64,
}

impl Decoder {
    /// `false` if it is nothing that it should be.
    fn push(&mut self, bytes: &[u8], out: &mut BytesMut) -> bool {
        self.rest.extend_from_slice(bytes);
        if self.size.is_none() {
            let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') else {
                return self.rest.len() <= DIGITS;
            };
            let line = self.rest.drain(..=end).collect::<Vec<_>>();
            let text = String::from_utf8(line).unwrap_or_default();
            self.size = text.trim().parse().ok();
            if self.size.is_none() {
                return false;
            }
        }
        self.rest.retain(|byte| *byte != b'\n');
        let whole = self.rest.len() / 4 * 4;
        let taken = self.rest.drain(..whole).collect::<Vec<_>>();
        let Ok(decoded) = STANDARD.decode(taken) else {
            return false;
        };
        self.count += decoded.len() as u64;
        out.extend_from_slice(&decoded);
        true
    }
}

/// Finds a place in a log by the beginning of the line before it, if it is there once.
///
/// The container runtime drops a carriage return before a newline; an archived log has it.
pub(crate) struct Finder {
    length: u64,
    hash: u64,
    /// Of the line that is being read.
    line: (u64, u64),
    has_return: bool,
    offset: u64,
    found: Option<u64>,
    is_there_twice: bool,
}

impl Finder {
    /// Of a line that begins with so many bytes of this hash.
    pub(crate) fn of(length: u64, hash: u64) -> Self {
        Self {
            length,
            hash,
            line: BEGINNING,
            has_return: false,
            offset: 0,
            found: None,
            is_there_twice: false,
        }
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        for byte in bytes {
            let has_return = std::mem::replace(&mut self.has_return, *byte == b'\r');
            if has_return && *byte != b'\n' {
                self.take(b'\r');
            }
            self.offset += 1;
            if !self.has_return {
                self.take(*byte);
            }
        }
    }

    fn take(&mut self, byte: u8) {
        let (length, before) = self.line;
        self.line = (length + 1, hash_on(before, &[byte]));
        if self.line == (self.length, self.hash) {
            self.is_there_twice = self.found.replace(self.offset).is_some();
        }
        if byte == b'\n' {
            self.line = BEGINNING;
        }
    }

    /// How many bytes are before the place.
    pub(crate) fn found(&self) -> Option<u64> {
        self.found.filter(|_| !self.is_there_twice)
    }
}

const BEGINNING: (u64, u64) = (0, SEED);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_printed_comes_out_however_it_is_cut() {
        let log = b"a line\r\nand one without an end";
        let printed = format!("{}\n{}", log.len() + 3, STANDARD.encode(log));
        for size in 1..printed.len() {
            let (mut decoder, mut out) = (Decoder::default(), BytesMut::new());
            for part in printed.as_bytes().chunks(size) {
                assert!(decoder.push(part, &mut out));
            }
            assert_eq!(out, &log[..]);
            assert_eq!(decoder.size, Some(log.len() as u64 + 3));
            assert_eq!(decoder.count, log.len() as u64);
        }
        for other in ["sh: not found\n", "123456789012345678901", "5\n????"] {
            let mut decoder = Decoder::default();
            assert!(
                !decoder.push(other.as_bytes(), &mut BytesMut::new()),
                "{other}"
            );
        }
    }

    #[test]
    fn a_place_is_found_by_its_line_if_there_is_no_other() {
        let log = b"one\nand\r\nand\ntwo \rand\r\n\nlast";
        let found = |line: &[u8]| {
            let whole = {
                let mut finder = Finder::of(line.len() as u64, hash(line));
                finder.push(log);
                finder.found()
            };
            let mut finder = Finder::of(line.len() as u64, hash(line));
            for byte in log {
                finder.push(&[*byte]);
            }
            assert_eq!(finder.found(), whole);
            whole
        };
        assert_eq!(found(b"one\n"), Some(4));
        assert_eq!(found(b"on"), Some(2));
        assert_eq!(found(b"and\n"), None, "it is there twice");
        assert_eq!(found(b"two \rand\n"), Some(23));
        assert_eq!(found(b"two "), Some(17));
        assert_eq!(found(b"la"), Some(26));
        assert_eq!(found(b"other"), None);
    }
}
