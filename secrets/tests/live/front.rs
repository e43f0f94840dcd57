//! A proxy before a store: TLS, trouble on demand, and a list of what was asked.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::StreamExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::authority::Authority;

/// What is done to a request instead of passing it on.
#[derive(Debug, Clone)]
pub(crate) enum Answer {
    Says(u16, &'static str, String),
    /// The same with the whole request in the place of [`SAID`].
    Repeats(u16, &'static str, String),
    /// Passed on, and the answer held back for so long.
    Late(Duration),
    /// 307, to a place that has an answer.
    Elsewhere,
    /// The beginning of a value, and more of it without an end.
    Endless,
}

/// What fronts say in the place of a store.
pub(crate) const SAID: &str = "said by the front";

/// The headers that tests look for.
const HEADERS: [&str; 6] = [
    "authorization",
    "metadata-flavor",
    "x-amz-target",
    "x-identity-header",
    "x-vault-namespace",
    "x-vault-token",
];

#[derive(Debug)]
struct Trouble {
    /// A part of the method, the path, a header or the body.
    of: &'static str,
    left: u32,
    answer: Answer,
}

#[derive(Debug, Clone)]
struct Way {
    to: String,
    http: reqwest::Client,
    troubles: Arc<Mutex<Vec<Trouble>>>,
    seen: Arc<Mutex<Vec<String>>>,
    /// The credentials that were shown when a request was repeated.
    shown: Arc<Mutex<Vec<String>>>,
}

/// A proxy; it ends with this value.
#[derive(Debug)]
pub(crate) struct Front {
    pub(crate) address: SocketAddr,
    scheme: &'static str,
    way: Way,
    _serving: JoinSet<()>,
}

impl Front {
    /// Before `to`; with TLS by an authority, if one is given. `http` is what reaches the store.
    pub(crate) async fn before(
        to: &str,
        authority: Option<&Authority>,
        http: reqwest::Client,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let way = Way {
            to: to.trim_end_matches('/').to_owned(),
            http,
            troubles: Arc::default(),
            seen: Arc::default(),
            shown: Arc::default(),
        };
        let app = Router::new().fallback(pass).with_state(way.clone());
        let mut serving = JoinSet::new();
        let scheme = match authority {
            None => {
                serving.spawn(async move { axum::serve(listener, app).await.unwrap() });
                "http"
            }
            Some(authority) => {
                let listener = Tls {
                    listener,
                    acceptor: authority.acceptor(),
                };
                serving.spawn(async move { axum::serve(listener, app).await.unwrap() });
                "https"
            }
        };
        Self {
            address,
            scheme,
            way,
            _serving: serving,
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("{}://localhost:{}", self.scheme, self.address.port())
    }

    /// The next so many requests that hold `of` are answered so.
    pub(crate) fn trouble(&self, of: &'static str, times: u32, answer: Answer) {
        self.way.troubles.lock().unwrap().push(Trouble {
            of,
            left: times,
            answer,
        });
    }

    /// How many requests that hold `of` came.
    pub(crate) fn seen(&self, of: &str) -> usize {
        self.way
            .seen
            .lock()
            .unwrap()
            .iter()
            .filter(|one| one.contains(of))
            .count()
    }

    /// The credentials that were repeated.
    pub(crate) fn shown(&self) -> Vec<String> {
        self.way.shown.lock().unwrap().clone()
    }
}

/// The headers that show a credential, and what of each is one.
fn credentials(headers: &HeaderMap) -> Vec<(&'static str, &str)> {
    let names = ["authorization", "x-vault-token"].into_iter();
    let shown = names.filter_map(|name| {
        let value = headers.get(name)?.to_str().ok()?;
        Some((name, value.rsplit(['=', ' ']).next()?))
    });
    shown.collect()
}

async fn pass(
    State(way): State<Way>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let mut whole = format!("{method} {uri}\n");
    for name in HEADERS {
        if let Some(value) = headers.get(name).and_then(|value| value.to_str().ok()) {
            whole = format!("{whole}{name}: {value}\n");
        }
    }
    whole.push_str(&String::from_utf8_lossy(&body));
    way.seen.lock().unwrap().push(whole.clone());
    let shown = credentials(&headers);
    let answer = {
        let mut troubles = way.troubles.lock().unwrap();
        let next = troubles.iter_mut().find(|one| {
            // Who shows nothing is asked for it first.
            let is_due = !matches!(one.answer, Answer::Repeats(..)) || !shown.is_empty();
            one.left > 0 && is_due && whole.contains(one.of)
        });
        next.map(|one| {
            one.left -= 1;
            one.answer.clone()
        })
    };
    match answer {
        Some(Answer::Says(code, kind, text)) => {
            let code = StatusCode::from_u16(code).unwrap();
            return (code, [("content-type", kind)], text).into_response();
        }
        Some(Answer::Repeats(code, kind, text)) => {
            let code = StatusCode::from_u16(code).unwrap();
            let mut words = Vec::new();
            for (name, value) in shown {
                let forms = [value.to_owned(), STANDARD.encode(value)];
                words.push(format!("{name}: {}", headers[name].to_str().unwrap()));
                words.push(forms[1].clone());
                way.shown.lock().unwrap().extend(forms);
            }
            let words = serde_json::to_string(&words.join(", ")).unwrap();
            let text = text.replace(SAID, words.trim_matches('"'));
            return (code, [("content-type", kind)], text).into_response();
        }
        Some(Answer::Elsewhere) => {
            let place = [("location", way.to.as_str())];
            return (StatusCode::TEMPORARY_REDIRECT, place).into_response();
        }
        Some(Answer::Endless) => {
            let part = Bytes::from(vec![b'x'; 1 << 16]);
            let parts = futures::stream::repeat(part).map(Ok::<_, std::io::Error>);
            let begin = futures::stream::iter([Ok(Bytes::from_static(b"{\"value\":\""))]);
            let body = Body::from_stream(begin.chain(parts));
            return ([("content-type", "application/json")], body).into_response();
        }
        Some(Answer::Late(time)) => tokio::time::sleep(time).await,
        None => {}
    }
    let url = format!(
        "{}{}",
        way.to,
        uri.path_and_query().map_or("/", |path| path.as_str())
    );
    let sent = way
        .http
        .request(method, url)
        .headers(headers)
        .body(body)
        .send()
        .await;
    let Ok(answer) = sent else {
        return StatusCode::BAD_GATEWAY.into_response();
    };
    let (code, mut headers) = (answer.status(), answer.headers().clone());
    headers.remove("transfer-encoding");
    let body = answer.bytes().await.unwrap_or_default();
    (code, headers, Body::from(body)).into_response()
}

struct Tls {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl axum::serve::Listener for Tls {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, SocketAddr) {
        loop {
            let Ok((stream, address)) = self.listener.accept().await else {
                continue;
            };
            // Who does not trust us hangs up: the next one, please.
            if let Ok(stream) = self.acceptor.accept(stream).await {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}
