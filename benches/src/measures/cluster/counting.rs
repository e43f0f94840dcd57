//! A way to the API server that counts what is asked: over plain HTTP on the loopback to here, as an administrator from here on.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Result, anyhow};
use http::header::{AUTHORIZATION, CONNECTION, HOST};
use http::{Method, Request, Response, Uri};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use kube::Client;
use kube::client::Body;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// How often each was asked: `POST jobs`, `LIST pods`, `GET pods/log`, …
type Counts = Arc<Mutex<BTreeMap<String, u32>>>;

pub(super) struct Counting {
    address: SocketAddr,
    counts: Counts,
    /// Ends with it.
    _serving: JoinSet<()>,
}

impl Counting {
    pub(super) async fn to(client: Client) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let counts = Counts::default();
        let mut serving = JoinSet::new();
        serving.spawn(serve(listener, client, Arc::clone(&counts)));
        Ok(Self {
            address,
            counts,
            _serving: serving,
        })
    }

    /// A kubeconfig that leads here.
    pub(super) fn kubeconfig(&self) -> String {
        format!(
            r#"{{"apiVersion": "v1", "kind": "Config", "current-context": "it",
            "clusters": [{{"name": "it", "cluster": {{"server": "http://{}"}}}}], "users": [{{"name": "us", "user": {{}}}}],
            "contexts": [{{"name": "it", "context": {{"cluster": "it", "user": "us"}}}}]}}"#,
            self.address
        )
    }

    /// What was asked since this was asked last.
    pub(super) fn taken(&self) -> BTreeMap<String, u32> {
        std::mem::take(&mut self.counts.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

async fn serve(listener: TcpListener, client: Client, counts: Counts) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let (client, counts) = (client.clone(), Arc::clone(&counts));
        connections.spawn(async move {
            let answer = |request| pass(client.clone(), Arc::clone(&counts), request);
            let connection = http1::Builder::new();
            let connection = connection.serve_connection(TokioIo::new(stream), service_fn(answer));
            // Whoever asked says what is wrong.
            drop(connection.await);
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn pass(
    client: Client,
    counts: Counts,
    request: Request<Incoming>,
) -> Result<Response<Body>> {
    let (mut parts, body) = request.into_parts();
    let what = what(&parts.method, &parts.uri);
    *counts
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .entry(what)
        .or_default() += 1;
    for header in [AUTHORIZATION, CONNECTION, HOST] {
        parts.headers.remove(header);
    }
    let body = body.collect().await?.to_bytes();
    let answer = client.send(Request::from_parts(parts, Body::from(body)));
    answer.await.map_err(|error| anyhow!(error))
}

/// In the words of the Roles.
fn what(method: &Method, uri: &Uri) -> String {
    let mut parts = uri
        .path()
        .split('/')
        .skip_while(|part| *part != "namespaces");
    let (resource, name, more) = (parts.nth(2), parts.next(), parts.next());
    let watches = uri
        .query()
        .is_some_and(|query| query.contains("watch=true"));
    let verb = match (method.as_str(), name) {
        ("GET", None) if watches => "watch",
        ("GET", None) => "list",
        ("GET", Some(_)) => "get",
        ("POST", _) => "create",
        ("PATCH", _) => "patch",
        ("DELETE", _) => "delete",
        (other, _) => other,
    };
    let more = more.map_or_else(String::new, |more| format!("/{more}"));
    format!("{verb} {}{more}", resource.unwrap_or(uri.path()))
}
