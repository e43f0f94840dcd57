//! Submitting a run.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderName, StatusCode, header};
use hybrid_runner_core::run::State as RunState;
use hybrid_runner_core::workflow::Workflow;
use hybrid_runner_core::{AgentId, Error, RunId, Status, fault};
use serde::Deserialize;
use tracing::info;
use utoipa::ToSchema;

use super::error::{Answer, Result};
use super::extract::Body;
use super::view::RunView;
use crate::app::App;
use crate::link::Order;
use crate::store::queries;
use crate::store::runs::{self, Made, NewRun, Run};
use crate::store::time;

/// A workflow that is to run.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Submit {
    /// The workflow, as in a workflow file.
    #[schema(value_type = Object)]
    workflow: Workflow,
    /// The runner; may be left out when there is exactly one.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    runner: Option<AgentId>,
    /// Submitting twice with the same key runs once. The run's id is derived from it.
    #[serde(default)]
    key: Option<String>,
    /// The run's id, chosen by the client.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    id: Option<RunId>,
}

/// Queues a workflow to run once.
#[utoipa::path(post, path = "/api/v1/runs", request_body = Submit, responses(
    (status = 201, description = "Queued", body = RunView),
    (status = 200, description = "Submitted before, with the same content", body = RunView),
    (status = 400, description = "The workflow is wrong", body = Answer),
    (status = 409, description = "The key or id is taken by something else", body = Answer),
    (status = 507, description = "The disk is full", body = Answer),
))]
pub(super) async fn submit(
    State(app): State<Arc<App>>,
    Body(submit): Body<Submit>,
) -> Result<(StatusCode, [(HeaderName, String); 1], Json<RunView>)> {
    let new = new_run(&app, submit).await?;
    let id = new.spec.run;
    let storing = Arc::clone(&app);
    let (status, run) = app
        .to_the_end(async move { store(&storing, new).await })
        .await?;
    let location = [(header::LOCATION, format!("/api/v1/runs/{id}"))];
    Ok((status, location, Json(RunView::new(run))))
}

async fn new_run(app: &App, submit: Submit) -> Result<NewRun> {
    submit.workflow.validate()?;
    let id = run_id(submit.id, submit.key.as_deref())?;
    let runner = match submit.runner {
        Some(runner) => runner,
        None => only_runner(app).await?,
    };
    let mut status = Status::new(0, RunState::Queued);
    status.times.queued = Some(time(crate::store::now()));
    Ok(NewRun {
        spec: submit.workflow.to_spec_on(id, &runner, None),
        runner,
        key: submit.key,
        deployment: None,
        first_sent: None,
        status,
    })
}

fn run_id(id: Option<RunId>, key: Option<&str>) -> Result<RunId> {
    if key.is_some_and(|key| key.is_empty() || key.len() > 512) {
        return Err(Error::invalid("`key` must have 1 to 512 bytes").into());
    }
    match (id, key.map(RunId::of_key)) {
        (Some(id), _) if id.attempt_number() != 0 => {
            Err(Error::invalid("`id` must be a UUID: attempts are made by the runner").into())
        }
        (Some(id), Some(of_key)) if id != of_key => {
            Err(Error::invalid("`id` is not the id of `key`; give one of them").into())
        }
        (id, of_key) => Ok(id.or(of_key).unwrap_or_else(RunId::generate)),
    }
}

/// The runner that is meant when none is named.
async fn only_runner(app: &App) -> Result<AgentId> {
    let mut known = app.access.agents();
    let stored = app.db.read(crate::store::runners::all).await?;
    known.extend(stored.into_iter().map(|runner| runner.agent));
    known.sort_unstable();
    known.dedup();
    match known.as_slice() {
        [one] => Ok(one.clone()),
        [] => Err(Error::invalid(
            "there is no runner yet: make a token for one, or name it in `runner`",
        )
        .into()),
        several => Err(Error::invalid(format!(
            "there are {} runners; name one in `runner` (`--runner` on the command line): {}",
            several.len(),
            several
                .iter()
                .take(20)
                .map(AgentId::as_str)
                .collect::<Vec<_>>()
                .join(", ")
        ))
        .into()),
    }
}

/// Stores a run, sends it to its runner if there is a place, and waits until it is safe on disk.
async fn store(app: &App, mut new: NewRun) -> Result<(StatusCode, Run)> {
    let runner = new.runner.clone();
    let id = new.spec.run;
    let place = app
        .roster
        .seat(&runner)
        .and_then(|seat| Some((seat.slot()?, seat)));
    new.first_sent = place.as_ref().map(|(_, seat)| seat.incarnation.clone());
    let committed = app
        .db
        .write(move |tx| {
            let made = runs::insert(tx, &new)?;
            let run = match made {
                Made::New(seq) => Some(runs::by_seq(tx, seq)?),
                Made::Same => queries::by_id(tx, id)?,
                Made::Different => None,
            };
            Ok((matches!(made, Made::New(_)), run, new.spec))
        })
        .await?;
    fault::step("server.submitted");
    let ((is_new, run, spec), commit) = committed.into_parts();
    let Some(run) = run else {
        return Err(Error::conflict(format!(
            "run `{id}` was submitted before with other content; use another key or id"
        ))
        .into());
    };
    if is_new {
        match place {
            Some((place, seat)) => seat.order(Order::Run(Box::new((run.clone(), spec)), place)),
            // It may have connected, or have got room, meanwhile.
            None => app
                .roster
                .seat(&runner)
                .into_iter()
                .for_each(|seat| seat.nudge()),
        }
        info!(%id, name = run.name, %runner, "submitted");
    }
    app.db.synced(&commit).await?;
    fault::step("server.submitted.synced");
    Ok((
        if is_new {
            StatusCode::CREATED
        } else {
            StatusCode::OK
        },
        run,
    ))
}
