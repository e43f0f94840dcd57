//! Stopping a run.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use hybrid_runner_core::fault;
use hybrid_runner_core::unit::Period;
use serde::Deserialize;
use utoipa::ToSchema;

use super::error::{Answer, Result};
use super::extract::Body;
use super::runs::find;
use super::view::RunView;
use crate::access::Caller;
use crate::app::App;
use crate::link::Order;
use crate::store::runs::{self, Run, Stop};

/// How to stop.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct StopRequest {
    /// Between asking to end and ending by force; the workflow's own if not given.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    grace: Option<Period>,
    /// By force, at once.
    #[serde(default)]
    now: bool,
}

/// Asks a run to stop. A run that has ended keeps its end.
#[utoipa::path(post, path = "/api/v1/runs/{id}/stop", params(("id" = String, Path, description = "An id, or its unique beginning")), request_body = StopRequest, responses(
    (status = 202, description = "Asked; it will be carried out whoever dies", body = RunView),
    (status = 200, description = "It has ended", body = RunView),
    (status = 404, description = "There is none", body = Answer),
))]
pub(super) async fn stop(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    Body(request): Body<StopRequest>,
) -> Result<(StatusCode, Json<RunView>)> {
    let seq = find(&app, &id).await?.seq;
    let by = Some(caller.name());
    let grace = if request.now {
        Some(Period::ZERO)
    } else {
        request.grace
    };
    let asking = Arc::clone(&app);
    let run = app
        .to_the_end(async move { ask(&asking, seq, grace, by).await })
        .await?;
    let status = if run.finished.is_some() {
        StatusCode::OK
    } else {
        StatusCode::ACCEPTED
    };
    Ok((status, Json(RunView::new(run))))
}

/// Writes the wish down, tells the runner, and waits until it is safe on disk.
async fn ask(app: &App, seq: i64, grace: Option<Period>, by: Option<String>) -> Result<Run> {
    let committed = app
        .db
        .write(move |tx| {
            let grace = match grace {
                Some(grace) => grace,
                None => runs::spec(tx, seq)?.limits.grace,
            };
            runs::request_stop(tx, seq, &Stop { by, grace })
        })
        .await?;
    fault::step("server.stop");
    let (run, commit) = committed.into_parts();
    app.watchers.tell(seq);
    if run.finished.is_none() {
        let grace = run.stop.as_ref().map_or(Period::ZERO, |stop| stop.grace);
        app.roster
            .seat(&run.runner)
            .into_iter()
            .for_each(|seat| seat.order(Order::Stop(seq, grace)));
    }
    app.db.synced(&commit).await?;
    Ok(run)
}
