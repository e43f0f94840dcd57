//! The connection to the engine, and its errors in the words of the contract.

use std::io;
use std::pin::Pin;
use std::sync::OnceLock;
use std::time::Duration;

use bollard::{API_DEFAULT_VERSION, Docker};
use bytes::BytesMut;
use futures::future::BoxFuture;
use hybrid_runner_core::error::{Error, ErrorKind, Result};
use hybrid_runner_core::run::FailureClass;
use serde::Deserialize;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{sleep, timeout};

use super::config::Host;
use crate::answer::{Answer, Connection};

/// How long the engine may take until it begins to answer, in seconds: it makes a container under load, or pulls.
const PATIENCE: u64 = 300;
/// How long a question may take.
const SHORT_PATIENCE: u64 = 20;
/// Between the tries of a question that the engine did not answer sensibly.
const PAUSES: [Duration; 4] = [
    Duration::from_millis(100),
    Duration::from_millis(300),
    Duration::from_millis(900),
    Duration::from_millis(1800),
];
/// So much of what the engine says when it refuses something.
const MOST_WORDS: usize = 64 << 10;

/// One engine, connected to at its first use.
#[derive(Debug)]
pub(super) struct Engine {
    host: Host,
    clients: OnceLock<Clients>,
}

#[derive(Debug)]
struct Clients {
    /// For questions.
    quick: Docker,
    /// For what takes its time.
    slow: Docker,
}

impl Engine {
    pub(super) fn new(host: Host) -> Self {
        Self {
            host,
            clients: OnceLock::new(),
        }
    }

    /// For questions that are answered at once.
    pub(super) fn ask(&self) -> Result<&Docker> {
        Ok(&self.clients()?.quick)
    }

    /// Asks what changes nothing. An engine that answers nonsense, or with an error of its own, is asked again a few times.
    pub(super) async fn question<'a, T>(
        &self,
        what: &str,
        ask: impl Fn(Docker) -> BoxFuture<'a, Result<T, bollard::errors::Error>> + Send + Sync,
    ) -> Result<T> {
        let docker = self.ask()?;
        let asked = || {
            let answer = ask(docker.clone());
            async { answer.await.map_err(|error| self.failed(what, error)) }
        };
        Self::again(asked).await
    }

    /// Does what may be done twice, a few times if the engine answers nonsense, or with an error of its own.
    pub(super) async fn again<T, F>(work: impl Fn() -> F + Send) -> Result<T>
    where
        F: Future<Output = Result<T>> + Send,
    {
        let mut pauses = PAUSES.into_iter();
        loop {
            let error = match work().await {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            // What the engine knows the reason of will not pass by asking.
            let may_pass = error.kind() == ErrorKind::Internal && error.class().is_none();
            match pauses.next().filter(|_| may_pass) {
                Some(pause) => sleep(pause).await,
                None => return Err(error),
            }
        }
    }

    /// For orders that take their time.
    pub(super) fn order(&self) -> Result<&Docker> {
        Ok(&self.clients()?.slow)
    }

    /// Where it is, for people.
    pub(super) fn address(&self) -> String {
        match &self.host {
            Host::Unix(path) => format!("unix://{path}"),
            Host::Tcp(address) | Host::Tls(address, _) => format!("tcp://{address}"),
        }
    }

    /// Asks for `target` (path and query) over a connection of its own; not for an engine over TLS, of which `None` tells.
    pub(super) async fn get(&self, target: &str, what: &str) -> Result<Option<Answer>> {
        let asked = async {
            let (connection, host): (Pin<Box<dyn Connection>>, _) = match &self.host {
                Host::Unix(path) => (Box::pin(UnixStream::connect(path).await?), "docker"),
                Host::Tcp(address) => {
                    let address = address.trim_end_matches('/');
                    (Box::pin(TcpStream::connect(address).await?), address)
                }
                Host::Tls(..) => return Ok(None),
            };
            let request =
                format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
            let answer = Answer::to(request.as_bytes(), connection).await;
            answer.map(Some)
        };
        let asked = timeout(Duration::from_secs(PATIENCE), asked).await;
        let answer = asked
            .map_err(|_| self.failed(what, bollard::errors::Error::RequestTimeoutError))?
            .map_err(|error| self.broke(what, error))?;
        match answer {
            Some(answer) if answer.status != 200 => Err(self.refused(what, answer).await),
            answer => Ok(answer),
        }
    }

    /// A connection that failed.
    pub(super) fn broke(&self, what: &str, error: io::Error) -> Error {
        match &self.host {
            Host::Unix(path) if error.kind() == io::ErrorKind::NotFound => self.failed(
                what,
                bollard::errors::Error::SocketNotFoundError(path.clone()),
            ),
            _ => self.failed(what, error.into()),
        }
    }

    async fn refused(&self, what: &str, mut answer: Answer) -> Error {
        #[derive(Deserialize)]
        struct Refusal {
            message: String,
        }
        let body = match timeout(Duration::from_secs(SHORT_PATIENCE), answer.all(MOST_WORDS)).await
        {
            Ok(Ok(body)) => body,
            Ok(Err(error)) => return self.broke(what, error),
            Err(_) => BytesMut::new(),
        };
        let message = match serde_json::from_slice::<Refusal>(&body) {
            Ok(refusal) => refusal.message,
            Err(_) => String::from_utf8_lossy(&body).into_owned(),
        };
        self.failed(
            what,
            bollard::errors::Error::DockerResponseServerError {
                status_code: answer.status,
                message,
            },
        )
    }

    fn clients(&self) -> Result<&Clients> {
        if let Some(clients) = self.clients.get() {
            return Ok(clients);
        }
        let connect = |patience| {
            let connected = match &self.host {
                Host::Unix(path) => Docker::connect_with_unix(path, patience, API_DEFAULT_VERSION),
                Host::Tcp(address) => {
                    Docker::connect_with_http(address, patience, API_DEFAULT_VERSION)
                }
                Host::Tls(address, tls) => Docker::connect_with_ssl(
                    address,
                    &tls.key,
                    &tls.cert,
                    &tls.ca,
                    patience,
                    API_DEFAULT_VERSION,
                ),
            };
            connected.map_err(|error| self.failed("reach the engine", error))
        };
        let clients = Clients {
            quick: connect(SHORT_PATIENCE)?,
            slow: connect(PATIENCE)?,
        };
        Ok(self.clients.get_or_init(|| clients))
    }

    /// An error of the engine: what was tried, and its own words.
    pub(super) fn failed(&self, what: &str, error: bollard::errors::Error) -> Error {
        use bollard::errors::Error as Its;
        let what = format!("failed to {what}");
        match error {
            Its::DockerResponseServerError {
                status_code,
                message,
            } => answered(what, status_code, &message),
            Its::DockerStreamError { error } => answered(what, 500, &error),
            Its::JsonDataError { .. } | Its::JsonSerdeError { .. } => {
                Error::internal(format!("{what}: it gave an answer that is not understood"))
                    .with_source(error)
            }
            Its::RequestTimeoutError => Error::unavailable(format!(
                "{what}: the engine at `{}` did not answer in time; look whether it is well",
                self.address()
            )),
            Its::CertPathError { .. } | Its::CertParseError { .. } | Its::CertMultipleKeys { .. } => {
                Error::invalid(format!("{what} at `{}`: correct `tls`", self.address()))
                    .with_source(error)
            }
            Its::SocketNotFoundError(path) => Error::unavailable(format!(
                "{what}: there is no socket `{path}`; start the engine, or correct `host`"
            )),
            other if denied(&other) => Error::denied(format!(
                "{what}: the socket of `{}` may not be used; run as a member of its group (`docker`)",
                self.address()
            ))
            .with_source(other),
            other => {
                let what = format!("{what} at `{}`", self.address());
                let error = Error::unavailable(what.as_str()).with_source(other);
                let words = error.causes().unwrap_or_default();
                if let Some(advice) = distrust(&words) {
                    return Error::denied(format!("{what}: {advice}")).with_source(words);
                }
                if words.contains("onnection refused") {
                    let what = format!("{what}: nobody listens there; start the engine, or correct `host`");
                    return Error::unavailable(what).with_source("connection refused".to_owned());
                }
                error
            }
        }
    }
}

/// What the engine answered, by its status and, where that says little, by its words.
fn answered(what: String, status: u16, words: &str) -> Error {
    let words = words.trim().to_owned();
    if words.starts_with('<') && matches!(status, 408 | 429 | 500..=599) {
        return Error::unavailable(format!(
            "{what}: what stands before the engine answered with status {status}"
        ));
    }
    if words.starts_with('<') {
        return Error::invalid(format!(
            "{what}: a web page came instead of an answer (status {status}): correct `host`, that is no Docker Engine"
        ));
    }
    if words.contains("no space left on device") || words.contains("disk quota exceeded") {
        return Error::internal(format!("{what}: the engine's disk is full"))
            .with_class(FailureClass::Storage)
            .with_source(words);
    }
    let kind = match status {
        400 => ErrorKind::Invalid,
        401 | 403 => ErrorKind::Denied,
        404 => ErrorKind::NotFound,
        409 | 304 => ErrorKind::Conflict,
        408 | 429 | 502..=504 => ErrorKind::Unavailable,
        // The engine is being shut down, or its own containerd is away.
        _ if is_passing(&words) => ErrorKind::Unavailable,
        _ => ErrorKind::Internal,
    };
    Error::new(kind, what).with_source(words)
}

fn is_passing(words: &str) -> bool {
    [
        "connection refused",
        "is shutting down",
        "transport is closing",
        "connection error",
        "EOF",
    ]
    .iter()
    .any(|sign| words.contains(sign))
}

fn denied(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(cause) = next {
        if let Some(io) = cause.downcast_ref::<std::io::Error>()
            && io.kind() == std::io::ErrorKind::PermissionDenied
        {
            return true;
        }
        next = cause.source();
    }
    false
}

/// Who does not know whom, where a connection fails for that: the TLS library tells it in words only.
fn distrust(words: &str) -> Option<&'static str> {
    [
        (
            "invalid peer certificate",
            "`tls.ca` does not vouch for the engine's certificate",
        ),
        (
            "received fatal alert",
            "the engine does not take our certificate: correct `tls.cert` and `tls.key`",
        ),
    ]
    .into_iter()
    .find_map(|(sign, advice)| words.contains(sign).then_some(advice))
}

/// An answer that may be "there is none".
pub(super) fn found<T>(
    answer: Result<T, bollard::errors::Error>,
) -> Result<Option<T>, bollard::errors::Error> {
    match answer {
        Ok(found) => Ok(Some(found)),
        Err(bollard::errors::Error::DockerResponseServerError {
            status_code: 404, ..
        }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// An answer that has the form of one, and says nothing.
pub(super) fn not_understood(what: &str) -> bollard::errors::Error {
    let error = serde::de::Error::custom(format!("it describes {what}"));
    bollard::errors::Error::JsonSerdeError { err: error }
}

/// Whether the engine answered with this status.
pub(super) fn is_status(error: &bollard::errors::Error, status: u16) -> bool {
    matches!(error, bollard::errors::Error::DockerResponseServerError { status_code, .. } if *status_code == status)
}
