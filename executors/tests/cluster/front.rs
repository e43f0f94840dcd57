//! What stands before the API server and spoils some of its answers.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::response::Response;
use futures::StreamExt as _;
use futures::stream;
use http::request::Parts;
use http::{HeaderName, Method, StatusCode, header};
use kube::Client;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::place::{Place, admin};

/// Which requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum On {
    All,
    Watches,
    Logs,
    /// What makes an object of the cluster.
    Makes,
    /// What changes one.
    Changes,
}

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It is answered with this instead, and does nothing.
    Status(u16),
    /// The stream of a watch says that its version is forgotten, and ends.
    Forgotten,
    /// It is passed on, and the answer breaks off before it is complete.
    AnswerLost,
    /// It is passed on, and the connection breaks behind so many bytes of the answer.
    BreaksAfter(usize),
    /// The same, but nobody hears of it: the rest does not come.
    HangsAfter(usize),
    /// It is passed on, and the answer is over behind so many bytes.
    EndsAfter(usize),
    /// It is taken, and nothing ever comes.
    Silence,
    /// It is passed on so much later.
    Late(Duration),
}

/// Passes requests on to the API server, but for some.
pub(crate) struct Front {
    address: SocketAddr,
    rules: Arc<Mutex<Vec<Rule>>>,
    /// Ends with it.
    _task: JoinSet<()>,
}

struct Rule {
    on: On,
    fault: Fault,
    /// How often still.
    times: usize,
    /// How many go well between two.
    every: usize,
    seen: usize,
}

#[derive(Clone)]
struct Shared {
    rules: Arc<Mutex<Vec<Rule>>>,
    /// With the rights of the runner, and no more.
    api: Client,
}

impl Front {
    /// Before the API server of this place, which is made.
    pub(crate) async fn of(place: &Place) -> Self {
        place.ready().await;
        let api = admin(place.own_kubeconfig().to_str().unwrap()).await;
        let rules = Arc::default();
        let shared = Shared {
            rules: Arc::clone(&rules),
            api,
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().fallback(answer).with_state(shared);
        let mut task = JoinSet::new();
        task.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self {
            address,
            rules,
            _task: task,
        }
    }

    pub(crate) fn address(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Spoils the next so many of these requests.
    pub(crate) fn spoil(&self, on: On, fault: Fault, times: usize) -> &Self {
        self.spoil_each(1, on, fault, times)
    }

    /// Spoils each so-manieth of these requests, so many times.
    pub(crate) fn spoil_each(&self, every: usize, on: On, fault: Fault, times: usize) -> &Self {
        let rule = Rule {
            on,
            fault,
            times,
            every,
            seen: 0,
        };
        self.rules.lock().unwrap().push(rule);
        self
    }

    /// How many requests were not spoilt that should have been.
    pub(crate) fn left(&self) -> usize {
        let rules = self.rules.lock().unwrap();
        rules.iter().map(|rule| rule.times).sum()
    }
}

impl On {
    fn fits(self, request: &Parts) -> bool {
        let path = request.uri.path();
        let query = request.uri.query().unwrap_or_default();
        match self {
            Self::All => true,
            Self::Watches => query.contains("watch=true"),
            Self::Logs => path.ends_with("/log"),
            Self::Makes => request.method == Method::POST,
            Self::Changes => request.method == Method::PATCH,
        }
    }
}

impl Shared {
    /// The first that fits and is not used up yet.
    fn fault(&self, request: &Parts) -> Option<Fault> {
        let mut rules = self.rules.lock().unwrap();
        let rule = rules
            .iter_mut()
            .find(|rule| rule.times > 0 && rule.on.fits(request))?;
        rule.seen += 1;
        if !rule.seen.is_multiple_of(rule.every) {
            return None;
        }
        rule.times -= 1;
        Some(rule.fault)
    }
}

async fn answer(State(shared): State<Shared>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 22).await.unwrap();
    match shared.fault(&parts) {
        None => passed_on(&shared, parts, body).await,
        Some(Fault::Status(code)) => status(code),
        Some(Fault::Forgotten) => {
            let event = format!("{{\"type\":\"ERROR\",\"object\":{}}}\n", words(410));
            Response::new(Body::from(event))
        }
        Some(Fault::AnswerLost) => cut(passed_on(&shared, parts, body).await, 1, Cut::Breaks),
        Some(Fault::BreaksAfter(bytes)) => {
            cut(passed_on(&shared, parts, body).await, bytes, Cut::Breaks)
        }
        Some(Fault::HangsAfter(bytes)) => {
            cut(passed_on(&shared, parts, body).await, bytes, Cut::Hangs)
        }
        Some(Fault::EndsAfter(bytes)) => {
            cut(passed_on(&shared, parts, body).await, bytes, Cut::Ends)
        }
        Some(Fault::Silence) => std::future::pending().await,
        Some(Fault::Late(time)) => {
            tokio::time::sleep(time).await;
            passed_on(&shared, parts, body).await
        }
    }
}

async fn passed_on(shared: &Shared, parts: Parts, body: Bytes) -> Response {
    const OF_ONE_CONNECTION: [HeaderName; 4] = [
        header::HOST,
        header::AUTHORIZATION,
        header::CONTENT_LENGTH,
        header::TRANSFER_ENCODING,
    ];
    let mut parts = parts;
    for name in &OF_ONE_CONNECTION {
        parts.headers.remove(name);
    }
    let request = http::Request::from_parts(parts, kube::client::Body::from(body.to_vec()));
    match shared.api.send(request).await {
        Ok(answer) => {
            let (mut parts, body) = answer.into_parts();
            for name in &OF_ONE_CONNECTION {
                parts.headers.remove(name);
            }
            Response::from_parts(parts, Body::new(body))
        }
        Err(_) => status(502),
    }
}

/// In the form of the API server.
fn words(code: u16) -> String {
    format!(
        r#"{{"kind":"Status","apiVersion":"v1","metadata":{{}},"status":"Failure","message":"told to say {code}","reason":"Expired","code":{code}}}"#
    )
}

fn status(code: u16) -> Response {
    let mut answer = Response::new(Body::from(words(code)));
    *answer.status_mut() = StatusCode::from_u16(code).unwrap();
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, "application/json".parse().unwrap());
    if code == 429 {
        headers.insert(header::RETRY_AFTER, "1".parse().unwrap());
    }
    answer
}

/// What comes of an answer that is cut.
#[derive(Clone, Copy)]
enum Cut {
    Breaks,
    Hangs,
    Ends,
}

/// The answer up to so many bytes.
fn cut(answer: Response, bytes: usize, cut: Cut) -> Response {
    let (parts, body) = answer.into_parts();
    let stream = Box::pin(body.into_data_stream());
    let cut = stream::unfold((stream, bytes), move |(mut stream, left)| async move {
        if left == 0 {
            return match cut {
                Cut::Breaks => Some((Err(std::io::Error::other("told to break")), (stream, 0))),
                Cut::Hangs => std::future::pending().await,
                Cut::Ends => None,
            };
        }
        let mut piece = stream.next().await?.ok()?;
        piece.truncate(left);
        let left = left - piece.len();
        Some((Ok(piece), (stream, left)))
    });
    Response::from_parts(parts, Body::from_stream(cut))
}
