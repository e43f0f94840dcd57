//! A client for what goes on, logs that are followed and watches: a connection for each, with next to no room of its own.
//!
//! Each follower holds its connection as long as its run lives. The HTTP client that asks all other questions keeps tens of KiB of
//! buffers for each, and hundreds for a watch over which much came at once; here the body is read as [`Answer`] reads it. TLS,
//! identity, proxy and headers are those of the configuration.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;
use futures::{FutureExt as _, Stream, stream};
use http::header::{CONNECTION, HOST};
use http::{Method, Request, Response, Uri};
use http_body::Frame;
use http_body_util::StreamBody;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::rt::TokioIo;
use kube::client::{Body, ClientBuilder, ConfigExt as _};
use kube::{Client, Config};
use tokio::time::timeout;
use tower::{BoxError, Service, ServiceExt as _};

use crate::answer::{Answer, Connection};

type Dialled = BoxFuture<'static, Result<Pin<Box<dyn Connection>>, BoxError>>;
type Dial = Arc<dyn Fn(Uri) -> Dialled + Send + Sync>;

/// How long is waited.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// For a connection.
    pub(super) connect: Duration,
    /// For what comes next.
    pub(super) read: Duration,
}

/// A client that can do nothing but `GET`, each over a new connection.
pub(super) fn client(config: &Config, patience: Patience) -> Result<Client, kube::Error> {
    let dial = dial(config)?;
    let ask = tower::service_fn(move |request| {
        let dial = Arc::clone(&dial);
        ask(dial, request, patience)
    });
    let builder = ClientBuilder::new(ask, config.default_namespace.clone())
        .with_layer(&config.extra_headers_layer()?)
        .with_layer(&tower::util::option_layer(config.auth_layer()?))
        .with_layer(&config.base_uri_layer());
    Ok(builder.build())
}

/// How a connection is made: through the proxy, if there is one.
fn dial(config: &Config) -> Result<Dial, kube::Error> {
    let mut direct = HttpConnector::new();
    direct.enforce_http(false);
    let Some(proxy) = &config.proxy_url else {
        return Ok(by(config.rustls_https_connector_with_connector(direct)?));
    };
    let mut tunnel = Tunnel::new(proxy.clone(), direct);
    if let Some(identity) = super::proxy::identity(proxy) {
        tunnel = tunnel.with_auth(identity);
    }
    Ok(by(config.rustls_https_connector_with_connector(tunnel)?))
}

fn by<C>(connector: C) -> Dial
where
    C: Service<Uri> + Clone + Send + Sync + 'static,
    C::Response: hyper::rt::Read + hyper::rt::Write + Send + 'static,
    C::Future: Send,
    C::Error: Into<BoxError>,
{
    Arc::new(move |uri| {
        let dialled = connector.clone().oneshot(uri);
        async move {
            let connection = dialled.await.map_err(Into::into)?;
            Ok(Box::pin(TokioIo::new(connection)) as Pin<Box<dyn Connection>>)
        }
        .boxed()
    })
}

async fn ask(
    dial: Dial,
    request: Request<Body>,
    patience: Patience,
) -> Result<Response<StreamBody<impl Stream<Item = Result<Frame<Bytes>, BoxError>>>>, BoxError> {
    if request.method() != Method::GET {
        return Err("this client only asks".into());
    }
    let head = head(&request)?;
    let connection = dial(request.uri().clone());
    let connection = timeout(patience.connect, connection).await??;
    let answer = timeout(patience.read, Answer::to(&head, connection)).await??;
    let status = answer.status;
    let body = stream::unfold(Some(Box::new(answer)), move |answer| async move {
        let mut answer = answer?;
        let mut part = BytesMut::new();
        match timeout(patience.read, answer.next(&mut part)).await {
            Ok(Ok(true)) => Some((Ok(Frame::data(part.freeze())), Some(answer))),
            Ok(Ok(false)) => None,
            Ok(Err(error)) => Some((Err(error.into()), None)),
            Err(late) => Some((Err(late.into()), None)),
        }
    });
    Ok(Response::builder()
        .status(status)
        .body(StreamBody::new(body))?)
}

/// The request as it goes over the wire.
fn head(request: &Request<Body>) -> Result<Vec<u8>, BoxError> {
    let uri = request.uri();
    let host = uri.authority().ok_or("a request to nobody")?;
    let target = uri.path_and_query().map_or("/", |target| target.as_str());
    let mut head =
        format!("GET {target} HTTP/1.1\r\n{HOST}: {host}\r\n{CONNECTION}: close\r\n").into_bytes();
    for (name, value) in request.headers() {
        if name == HOST || name == CONNECTION {
            continue;
        }
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            head.extend_from_slice(part);
        }
    }
    head.extend_from_slice(b"\r\n");
    Ok(head)
}
