//! `/healthz`, `/readyz` and `/metrics`.

mod metrics;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hybrid_runner_core::{Error, ErrorKind, Result};
use hybrid_runner_secrets::Stores;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::link::LinkState;
use crate::measure::Counts;
use crate::supervisor::{Runner, Snapshot};

/// What can be seen of a running runner.
#[derive(Debug, Clone)]
pub(crate) struct Observed {
    /// How the runner stands; a function, so that tests need no runner.
    snapshot: Arc<dyn Look>,
    link: watch::Receiver<LinkState>,
    counts: Arc<Counts>,
    stores: Arc<Stores>,
    load: Arc<metrics::Load>,
}

/// Takes a snapshot.
pub(crate) trait Look: std::fmt::Debug + Send + Sync {
    fn snapshot(&self) -> Snapshot;
}

impl Look for Runner {
    fn snapshot(&self) -> Snapshot {
        Self::snapshot(self)
    }
}

impl Observed {
    pub(crate) fn new(
        look: Arc<dyn Look>,
        link: watch::Receiver<LinkState>,
        counts: Arc<Counts>,
        stores: Arc<Stores>,
    ) -> Self {
        Self {
            snapshot: look,
            link,
            counts,
            stores,
            load: Arc::default(),
        }
    }

    /// Why no work can flow now: nothing if it can.
    fn obstacles(&self) -> Vec<String> {
        let link = self.link.borrow();
        let link = (!link.is_connected()).then(|| link.to_string());
        link.into_iter()
            .chain(self.snapshot.snapshot().obstacles())
            .collect()
    }
}

/// Binds the address of `[runner] listen`.
pub(crate) async fn bind(address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| {
        let kind = match error.kind() {
            std::io::ErrorKind::AddrInUse => ErrorKind::Conflict,
            std::io::ErrorKind::PermissionDenied => ErrorKind::Denied,
            _ => ErrorKind::Invalid,
        };
        let message = format!(
            "failed to listen on `{address}`, which `[runner] listen` names (`none`: no listener)"
        );
        Error::new(kind, message).with_source(error)
    })
}

/// Answers until `leave`.
pub(crate) async fn serve(listener: TcpListener, observed: Observed, leave: CancellationToken) {
    let served =
        axum::serve(listener, router(observed)).with_graceful_shutdown(leave.cancelled_owned());
    if let Err(error) = served.await {
        warn!(%error, "the listener of /metrics ended");
    }
}

fn router(observed: Observed) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(observed)
}

async fn readyz(State(observed): State<Observed>) -> (StatusCode, String) {
    let obstacles = observed.obstacles();
    if obstacles.is_empty() {
        return (StatusCode::OK, "ready\n".to_owned());
    }
    (StatusCode::SERVICE_UNAVAILABLE, obstacles.join("\n") + "\n")
}

async fn metrics(State(observed): State<Observed>) -> Response {
    match metrics::render(&observed) {
        Ok(text) => ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
