//! Runs: submit, list, look, wait, stop.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::{HeaderName, StatusCode, header};
use axum::{Extension, Json};
use hybrid_runner_core::id::shorten;
use hybrid_runner_core::run::State as RunState;
use hybrid_runner_core::unit::Period;
use hybrid_runner_core::workflow::Workflow;
use hybrid_runner_core::{AgentId, Error, RunId, Status, fault};
use serde::{Deserialize, Serialize};
use tracing::info;
use utoipa::{IntoParams, ToSchema};

use super::error::{Answer, ApiError, Result};
use super::extract::{Body, Params};
use super::view::RunView;
use crate::access::Caller;
use crate::app::App;
use crate::link::Order;
use crate::store::queries::{self, Filter};
use crate::store::runs::{self, Made, NewRun, Run, Stop};
use crate::store::time;

/// A long poll is answered after this time at the latest.
const LONGEST_WAIT: Duration = Duration::from_mins(1);

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
    let (status, run) = store(&app, new).await?;
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
            "there are {} runners; name one in `runner`: {}",
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
    let status = if run.finished.is_some() {
        StatusCode::OK
    } else {
        StatusCode::ACCEPTED
    };
    Ok((status, Json(RunView::new(run))))
}
