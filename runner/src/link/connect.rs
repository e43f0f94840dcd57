//! One connect: TCP or proxy, TLS, WebSocket.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::http::{HeaderValue, Uri, header};
use hybrid_runner_core::session::{SUBPROTOCOL, Transport};
use hybrid_runner_core::{Error, Result};
use hybrid_runner_helper::mask::Patterns;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::handshake::client::Request;
use tokio_tungstenite::tungstenite::{Error as WsError, http};
use tokio_tungstenite::{Connector, client_async_tls_with_config};
use tower::Service as _;

use super::socket::{Socket, websocket_config};
use super::tls::TlsFiles;
use crate::config::{self, LinkUrl, Proxy};

/// From the first packet to the upgraded WebSocket.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);

/// Makes connections. A seam for tests; [`Dialer`] is the real one.
#[async_trait]
pub(crate) trait Connect: Send + Sync + 'static {
    /// One connection, upgraded. `Denied` is a refused token.
    async fn connect(&self, token: &SecretString) -> Result<Box<dyn Transport>>;

    /// The other end, for messages.
    fn name(&self) -> String;
}

/// Dials the configured control plane.
#[derive(Debug)]
pub(crate) struct Dialer {
    url: LinkUrl,
    proxy: Proxy,
    tls: TlsFiles,
}

impl Dialer {
    /// A dialer of what `[link]` says.
    pub(crate) fn new(url: LinkUrl, link: &config::Link) -> Self {
        Self {
            url,
            proxy: link.proxy.clone(),
            tls: TlsFiles::new(link.tls.clone()),
        }
    }

    /// Refuses files of `[link]` that cannot be read now: the configuration is wrong. Later they are read again at each
    /// connect, and one that is gone for a while is waited for.
    pub(super) fn check_files(&self) -> Result<()> {
        let named = self.tls.are_named() && self.url.is_secure();
        let checked = if named {
            self.tls.config().map(drop)
        } else {
            Ok(())
        };
        checked.map_err(|error| {
            Error::invalid("[link] names a file that cannot be used").with_source(error)
        })
    }

    async fn dial(&self, token: &SecretString) -> Result<Box<dyn Transport>> {
        let connector = if self.url.is_secure() {
            Connector::Rustls(self.tls_config()?)
        } else {
            Connector::Plain
        };
        let request = self.request(token)?;
        let stream = self.stream().await?;
        stream.set_nodelay(true).map_err(|error| {
            Error::unavailable("failed to set up the connection").with_source(error)
        })?;
        let upgraded = client_async_tls_with_config(
            request,
            stream,
            Some(websocket_config()),
            Some(connector),
        )
        .await;
        match upgraded {
            Ok((socket, _)) => Ok(Box::new(Socket(socket))),
            Err(error) => Err(refused(error, &self.url, token)),
        }
    }

    pub(super) fn tls_config(&self) -> Result<Arc<rustls::ClientConfig>> {
        self.tls.config()
    }

    pub(super) fn request(&self, token: &SecretString) -> Result<Request> {
        let wrong = |error: http::Error| {
            Error::internal("failed to write the upgrade request").with_source(error)
        };
        let mut request = self
            .url
            .to_string()
            .into_client_request()
            .map_err(|error| {
                Error::invalid(format!("`{}` cannot be dialed", self.url)).with_source(error)
            })?;
        // The one place where the token is used: marked, so that no log prints the header.
        let mut bearer = HeaderValue::try_from(format!("Bearer {}", token.expose_secret()))
            .map_err(|error| wrong(error.into()))?;
        bearer.set_sensitive(true);
        let headers = request.headers_mut();
        headers.insert(header::AUTHORIZATION, bearer);
        headers.insert(
            header::SEC_WEBSOCKET_PROTOCOL,
            HeaderValue::from_static(SUBPROTOCOL),
        );
        headers.insert(
            header::USER_AGENT,
            HeaderValue::from_static(concat!("hybrid-runner/", env!("CARGO_PKG_VERSION"))),
        );
        Ok(request)
    }

    async fn stream(&self) -> Result<TcpStream> {
        match self.proxy()? {
            None => TcpStream::connect((self.url.host(), self.url.port()))
                .await
                .map_err(|error| {
                    Error::unavailable(format!("failed to connect to `{}`", self.url.authority()))
                        .with_source(error)
                }),
            Some(proxy) => through(&proxy, &self.url).await,
        }
    }

    fn proxy(&self) -> Result<Option<Intercept>> {
        let scheme = if self.url.is_secure() {
            "https"
        } else {
            "http"
        };
        let wrong = |error: http::Error| {
            Error::invalid(format!("`{}` cannot be dialed", self.url)).with_source(error)
        };
        // A wss:// URI would match no rule.
        let target = Uri::try_from(format!("{scheme}://{}/", self.url.authority()))
            .map_err(|error| wrong(error.into()))?;
        Ok(match &self.proxy {
            Proxy::Direct => None,
            Proxy::Environment(_) if self.url.is_loopback() => None,
            Proxy::Environment(rules) => rules.intercept(&target),
            // Used here, to ask the proxy.
            Proxy::Via(url) => Matcher::builder()
                .all(url.expose_secret().to_owned())
                .build()
                .intercept(&target),
        })
    }
}

#[async_trait]
impl Connect for Dialer {
    async fn connect(&self, token: &SecretString) -> Result<Box<dyn Transport>> {
        timeout(CONNECT_TIMEOUT, self.dial(token))
            .await
            .unwrap_or_else(|_| {
                Err(Error::unavailable(format!(
                    "no answer from `{}` within {} s",
                    self.url.authority(),
                    CONNECT_TIMEOUT.as_secs()
                )))
            })
    }

    fn name(&self) -> String {
        self.url.to_string()
    }
}

/// A connection through an HTTP proxy by CONNECT.
async fn through(proxy: &Intercept, url: &LinkUrl) -> Result<TcpStream> {
    // Its host alone: the URL may hold a password.
    let name = proxy.uri().authority().map_or("", |authority| {
        authority.as_str().rsplit('@').next().unwrap_or_default()
    });
    if proxy.uri().scheme_str() != Some("http") {
        return Err(Error::invalid(format!(
            "the proxy `{name}` must be an `http://` one: it is asked by CONNECT"
        )));
    }
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    let mut tunnel = Tunnel::new(proxy.uri().clone(), connector);
    if let Some(auth) = proxy.basic_auth() {
        tunnel = tunnel.with_auth(auth.clone());
    }
    let target = Uri::try_from(format!("https://{}/", url.authority()))
        .map_err(|error| Error::invalid(format!("`{url}` cannot be dialed")).with_source(error))?;
    match tunnel.call(target).await {
        Ok(stream) => Ok(stream.into_inner()),
        Err(error) => {
            let message = format!(
                "the proxy `{name}` did not connect to `{}`",
                url.authority()
            );
            Err(Error::unavailable(message).with_source(error.to_string()))
        }
    }
}

/// What an upgrade that did not happen means.
fn refused(error: WsError, url: &LinkUrl, token: &SecretString) -> Error {
    let WsError::Http(response) = error else {
        return Error::unavailable(format!("failed to open a WebSocket to `{url}`"))
            .with_source(error);
    };
    let status = response.status();
    let said = response
        .body()
        .as_deref()
        .map(|body| said(body, token))
        .filter(|said| !said.is_empty())
        .map_or_else(String::new, |said| format!(": {said}"));
    match status.as_u16() {
        401 => Error::denied(format!(
            "the control plane does not accept the token (401){said}"
        )),
        403 => Error::denied(format!(
            "the token may not be used for this runner (403){said}"
        )),
        409 => Error::new(
            hybrid_runner_core::ErrorKind::Conflict,
            format!("another runner holds this id (409){said}"),
        ),
        400 | 404 | 405 | 426 => Error::unsupported(format!(
            "`{url}` speaks no `{SUBPROTOCOL}` ({status}){said}; a control plane that does is `hybrid-runner server`"
        )),
        _ => Error::unavailable(format!("`{url}` answered {status}{said}")),
    }
}

/// The message in an error's body: ours is JSON with a `message`; of others the first line. What stands in between may repeat
/// what it was asked with: the token is left out, in every form.
fn said(body: &[u8], token: &SecretString) -> String {
    // To be looked for, so that it is not shown.
    let body = Patterns::of_values([token.expose_secret().as_bytes()]).mask(body);
    let body = body.as_slice();
    let json: Option<serde_json::Value> = serde_json::from_slice(body).ok();
    let message = json.as_ref().and_then(|json| {
        let error = json.get("error").unwrap_or(json);
        error.get("message")?.as_str().map(str::to_owned)
    });
    let text = message.unwrap_or_else(|| {
        let text = String::from_utf8_lossy(body);
        text.lines().next().unwrap_or_default().to_owned()
    });
    let clean: String = text.chars().filter(|c| !c.is_control()).collect();
    hybrid_runner_core::id::shorten(clean.trim())
}
