//! Runs: list, look, wait.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use hybrid_runner_core::id::shorten;
use hybrid_runner_core::unit::Period;
use hybrid_runner_core::{AgentId, Error, RunId};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::error::{Answer, ApiError, Result};
use super::extract::Params;
use super::view::RunView;
use crate::app::App;
use crate::store::queries::{self, Filter};
use crate::store::runs::{self, Run};

/// A long poll is answered after this time at the latest.
const LONGEST_WAIT: Duration = Duration::from_mins(1);

/// Which runs to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListParams {
    /// A state, `active` or `finished`.
    state: Option<String>,
    /// Of this runner.
    #[param(value_type = Option<String>)]
    runner: Option<AgentId>,
    /// Of this deployment.
    deployment: Option<String>,
    /// At most so many: 50 if not given, at most 500.
    limit: Option<usize>,
    /// Goes on where a list ended: its `next`.
    after: Option<String>,
}

/// Some runs.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RunList {
    /// The newest first.
    runs: Vec<RunView>,
    /// For `after`, if there are more.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// Lists runs, the newest first.
#[utoipa::path(get, path = "/api/v1/runs", params(ListParams), responses(
    (status = 200, description = "Runs", body = RunList),
    (status = 400, description = "A parameter is wrong", body = Answer),
))]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    Params(params): Params<ListParams>,
) -> Result<Json<RunList>> {
    let wrong = |_| Error::invalid("`after` is not the `next` of a list");
    let filter = Filter {
        states: params
            .state
            .as_deref()
            .map(states)
            .transpose()?
            .unwrap_or_default(),
        runner: params.runner,
        deployment: params.deployment,
        before: params
            .after
            .map(|after| after.parse().map_err(wrong))
            .transpose()?,
        limit: params.limit.unwrap_or(50).clamp(1, 500),
    };
    let limit = filter.limit;
    let runs = app.db.read(move |tx| queries::list(tx, &filter)).await?;
    let next = (runs.len() == limit)
        .then(|| runs.last().map(|run| run.seq.to_string()))
        .flatten();
    Ok(Json(RunList {
        runs: runs.into_iter().map(RunView::new).collect(),
        next,
    }))
}

fn states(name: &str) -> Result<Vec<&'static str>> {
    const ACTIVE: [&str; 3] = ["queued", "starting", "running"];
    const FINISHED: [&str; 4] = ["succeeded", "failed", "stopped", "lost"];
    match name {
        "active" => Ok(ACTIVE.to_vec()),
        "finished" => Ok(FINISHED.to_vec()),
        name => match ACTIVE.iter().chain(&FINISHED).find(|state| **state == name) {
            Some(state) => Ok(vec![state]),
            None => Err(Error::invalid(format!(
                "`{}` is not a state: there are {}, {}, active and finished",
                shorten(name),
                ACTIVE.join(", "),
                FINISHED.join(", ")
            ))
            .into()),
        },
    }
}

/// The run that is meant by an id or the unique beginning of one.
pub(super) async fn find(app: &App, id: &str) -> Result<Run> {
    if let Ok(id) = id.parse::<RunId>() {
        let run = app.db.read(move |tx| queries::by_id(tx, id)).await?;
        return run.ok_or_else(|| Error::not_found(format!("no run `{id}`")).into());
    }
    let prefix = id.to_ascii_lowercase();
    let is_hex = |byte: u8| byte.is_ascii_hexdigit() || byte == b'-';
    if prefix.is_empty() || prefix.len() > 36 || !prefix.bytes().all(is_hex) {
        return Err(Error::invalid(format!(
            "`{}` is not a run id, nor the beginning of one",
            shorten(id)
        ))
        .into());
    }
    let text = prefix.clone();
    let mut found = app.db.read(move |tx| queries::by_prefix(tx, &text)).await?;
    match found.len() {
        0 => Err(Error::not_found(format!("no run `{prefix}`")).into()),
        1 => Ok(found.remove(0)),
        _ => Err(ApiError::ambiguous(
            format!("`{prefix}` is the beginning of more than one run id"),
            found.iter().map(|run| run.id.to_string()).collect(),
        )),
    }
}

/// Whether to wait.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ShowParams {
    /// For at most this long, `60s` at most.
    #[param(value_type = Option<String>)]
    wait: Option<Period>,
    /// Until this state: `finished` if not given, or `running`.
    state: Option<String>,
}

/// Shows a run, now or when it has come to a state.
#[utoipa::path(get, path = "/api/v1/runs/{id}", params(("id" = String, Path, description = "An id, or its unique beginning"), ShowParams), responses(
    (status = 200, description = "The run", body = RunView),
    (status = 404, description = "There is none", body = Answer),
    (status = 409, description = "There are several", body = Answer),
))]
pub(super) async fn show(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    Params(params): Params<ShowParams>,
) -> Result<Json<RunView>> {
    let until = match params.state.as_deref() {
        None | Some("finished") => 3,
        Some("running") => 2,
        Some("starting") => 1,
        Some(other) => {
            let message = format!(
                "`{}` cannot be waited for: wait for starting, running or finished",
                shorten(other)
            );
            return Err(Error::invalid(message).into());
        }
    };
    let mut run = find(&app, &id).await?;
    if let Some(wait) = params.wait {
        run = wait_for(&app, run, until, wait.get()).await?;
    }
    let seq = run.seq;
    let spec = app.db.read(move |tx| runs::spec(tx, seq)).await?;
    Ok(Json(RunView::with_spec(run, spec)))
}

async fn wait_for(app: &App, mut run: Run, until: u8, wait: Duration) -> Result<Run> {
    let mut news = app.watchers.of(run.seq);
    let deadline = tokio::time::Instant::now() + wait.min(LONGEST_WAIT);
    let seq = run.seq;
    loop {
        run = app.db.read(move |tx| runs::by_seq(tx, seq)).await?;
        if run.status.state.rank() >= until {
            return Ok(run);
        }
        tokio::select! {
            () = news.next() => {}
            () = tokio::time::sleep_until(deadline) => return Ok(run),
            () = app.shutdown.cancelled() => return Ok(run),
        }
    }
}
