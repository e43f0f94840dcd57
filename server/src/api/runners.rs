//! Who is connected, and who could be.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use hybrid_runner_core::id::shorten;
use hybrid_runner_core::{AgentId, Error};
use serde::Serialize;
use utoipa::ToSchema;

use super::error::{Answer, Result};
use super::view::RunnerView;
use crate::app::App;
use crate::store::{queries, runners};

/// All runners.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RunnerList {
    runners: Vec<RunnerView>,
}

/// Lists the runners: connected, away, and those that have a token but never came.
#[utoipa::path(get, path = "/api/v1/runners", responses((status = 200, description = "Runners", body = RunnerList)))]
pub(super) async fn list(State(app): State<Arc<App>>) -> Result<Json<RunnerList>> {
    let with_token = app.access.agents();
    let known = app
        .db
        .read(move |tx| {
            let mut known: BTreeMap<String, _> = BTreeMap::new();
            for runner in runners::all(tx)? {
                known.insert(runner.agent.to_string(), Some(runner));
            }
            for agent in with_token {
                known.entry(agent.to_string()).or_insert(None);
            }
            known
                .into_iter()
                .map(|(id, stored)| queries::counts_of(tx, &id).map(|counts| (id, stored, counts)))
                .collect::<Result<Vec<_>, _>>()
        })
        .await?;
    let seats: BTreeMap<String, _> = app
        .roster
        .seats()
        .into_iter()
        .map(|seat| (seat.agent.to_string(), seat))
        .collect();
    let runners = known
        .into_iter()
        .map(|(id, stored, counts)| {
            let seat = seats.get(&id).map(AsRef::as_ref);
            RunnerView::new(id, stored, seat, counts)
        })
        .collect();
    Ok(Json(RunnerList { runners }))
}

/// Shows a runner.
#[utoipa::path(get, path = "/api/v1/runners/{id}", params(("id" = String, Path, description = "Its id")), responses(
    (status = 200, description = "The runner", body = RunnerView),
    (status = 404, description = "There is none", body = Answer),
))]
pub(super) async fn show(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
) -> Result<Json<RunnerView>> {
    let agent: AgentId = id.parse()?;
    let name = agent.to_string();
    let (stored, counts) = app
        .db
        .read(move |tx| Ok((runners::one(tx, &name)?, queries::counts_of(tx, &name)?)))
        .await?;
    if stored.is_none() && !app.access.agents().contains(&agent) {
        return Err(Error::not_found(format!("no runner `{}`", shorten(&id))).into());
    }
    let seat = app.roster.seat(&agent);
    Ok(Json(RunnerView::new(id, stored, seat.as_deref(), counts)))
}
