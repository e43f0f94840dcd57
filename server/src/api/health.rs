//! Liveness, readiness, metrics.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::error::Result;
use crate::app::App;
use crate::store::queries;

/// The process answers.
pub(super) async fn healthz() -> &'static str {
    "ok\n"
}

/// Whether work can flow, and why not.
pub(super) async fn readyz(State(app): State<Arc<App>>) -> Response {
    let mut reasons = Vec::new();
    if app.shutdown.is_cancelled() {
        reasons.push("shutting down".to_owned());
    }
    reasons.extend(
        app.db
            .trouble()
            .await
            .map(|why| format!("runs cannot be stored: {why}")),
    );
    reasons.extend(
        app.access
            .trouble()
            .await
            .map(|why| format!("tokens cannot be stored: {why}")),
    );
    let segments = Arc::clone(&app.segments);
    let logs = tokio::task::spawn_blocking(move || segments.trouble())
        .await
        .ok()
        .flatten();
    reasons.extend(logs.map(|why| format!("logs cannot be stored: {why}")));
    if reasons.is_empty() {
        return "ready\n".into_response();
    }
    (
        StatusCode::SERVICE_UNAVAILABLE,
        format!("not ready: {}\n", reasons.join("; ")),
    )
        .into_response()
}

/// Counts, in the text format of Prometheus.
pub(super) async fn metrics(State(app): State<Arc<App>>) -> Result<Response> {
    let states = app.db.read(queries::counts_by_state).await?;
    let store = app.db.store().stats();
    let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let mut out = String::new();
    head(&mut out, "runs", "gauge", "Runs that are stored, by state.");
    for (state, count) in states {
        // Writing to a string cannot fail.
        let _written = writeln!(
            out,
            "hybrid_runner_server_runs{{state=\"{state}\"}} {count}"
        );
    }
    let connected = app.roster.seats().len() as u64;
    for (name, kind, help, value) in [
        (
            "runners_connected",
            "gauge",
            "Runners that are connected.",
            connected,
        ),
        (
            "links_open",
            "gauge",
            "Links that are open.",
            app.links.len() as u64,
        ),
        (
            "hellos_total",
            "counter",
            "Runners that were let in.",
            read(&app.counters.hellos),
        ),
        (
            "refused_total",
            "counter",
            "Runners that were refused.",
            read(&app.counters.refused),
        ),
        (
            "outcomes_total",
            "counter",
            "Outcomes that were stored.",
            read(&app.counters.outcomes),
        ),
        (
            "log_bytes_total",
            "counter",
            "Bytes of logs that were stored.",
            read(&app.counters.log_bytes),
        ),
        (
            "store_writes_total",
            "counter",
            "Writes to the state file.",
            store.writes,
        ),
        (
            "store_commits_total",
            "counter",
            "Groups of writes that were committed.",
            store.commits,
        ),
        (
            "store_syncs_total",
            "counter",
            "Syncs of the state file.",
            store.syncs,
        ),
    ] {
        head(&mut out, name, kind, help);
        let _written = writeln!(out, "hybrid_runner_server_{name} {value}");
    }
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], out).into_response())
}

fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    let _written = writeln!(
        out,
        "# HELP hybrid_runner_server_{name} {help}\n# TYPE hybrid_runner_server_{name} {kind}"
    );
}
