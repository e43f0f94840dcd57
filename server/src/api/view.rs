//! Runs and runners as the API shows them.

use hybrid_runner_core::run::{Failure, State, Times};
use hybrid_runner_core::unit::Period;
use hybrid_runner_core::{Capabilities, Outcome, RunSpec};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::link::Seat;
use crate::store::runners::Runner;
use crate::store::runs::Run;
use crate::store::{runners::About, time};

/// A run.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Run)]
pub(crate) struct RunView {
    /// A UUID.
    #[schema(value_type = String)]
    id: hybrid_runner_core::RunId,
    /// The workflow's name.
    name: String,
    /// The runner it is for.
    runner: String,
    /// The executor it names, if it names one.
    #[serde(skip_serializing_if = "Option::is_none")]
    executor: Option<String>,
    /// `queued`, `starting`, `running`, `succeeded`, `failed`, `stopped` or `lost`.
    state: &'static str,
    /// Counted from 1; 0 before the first.
    attempt: u32,
    /// What it waits for or does, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    /// When it was submitted.
    #[schema(value_type = String)]
    created: Timestamp,
    /// When it came to each state.
    #[schema(value_type = Object)]
    times: Times,
    /// How it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    failure: Option<Failure>,
    /// Who stopped it.
    #[serde(skip_serializing_if = "Option::is_none")]
    stopped_by: Option<String>,
    /// What is known of a run that is lost.
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
    /// Somebody has asked it to stop.
    #[serde(skip_serializing_if = "Option::is_none")]
    stop_requested: Option<StopView>,
    /// The idempotency key it was submitted with.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    /// The deployment it belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    deployment: Option<String>,
    /// Its labels.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    labels: Option<Box<RawValue>>,
    /// Its log, as far as it is stored.
    log: LogView,
    /// What it runs: references, never values.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    spec: Option<RunSpec>,
}

/// That somebody has asked a run to stop.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = StopRequested)]
pub(crate) struct StopView {
    /// Who.
    #[serde(skip_serializing_if = "Option::is_none")]
    by: Option<String>,
    /// Between asking to end and ending by force.
    #[schema(value_type = String)]
    grace: Period,
}

/// A run's log.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Log)]
pub(crate) struct LogView {
    /// The position behind what is stored: bytes, and one for each gap.
    bytes: u64,
}

impl RunView {
    /// A run without its spec.
    pub(crate) fn new(run: Run) -> Self {
        let state = run.status.state.name();
        let (mut failure, mut stopped_by, mut why) = (None, None, None);
        match run.status.state {
            State::Finished(Outcome::Failed(failed)) => failure = Some(failed),
            State::Finished(Outcome::Stopped { by }) => stopped_by = by,
            State::Finished(Outcome::Lost { why: known }) => why = Some(known),
            _ => {}
        }
        let ended = run.finished.is_some();
        Self {
            id: run.id,
            name: run.name,
            runner: run.runner.to_string(),
            executor: run.executor,
            state,
            attempt: run.status.attempt,
            message: run.status.message,
            created: time(run.created),
            times: run.status.times,
            failure,
            stopped_by,
            why,
            stop_requested: run.stop.filter(|_| !ended).map(|stop| StopView {
                by: stop.by,
                grace: stop.grace,
            }),
            key: run.key,
            deployment: run.deployment,
            labels: run
                .labels
                .and_then(|labels| RawValue::from_string(labels).ok()),
            log: LogView {
                bytes: run.log_size,
            },
            spec: None,
        }
    }

    /// A run with its spec.
    pub(crate) fn with_spec(run: Run, spec: RunSpec) -> Self {
        Self {
            spec: Some(spec),
            ..Self::new(run)
        }
    }
}

/// A runner.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Runner)]
pub(crate) struct RunnerView {
    /// Its id.
    id: String,
    /// `connected` or `away`; `away` without `last_seen` has a token but never came.
    state: &'static str,
    /// Where it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<String>,
    /// What it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    software: Option<String>,
    /// Connected since.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    since: Option<Timestamp>,
    /// When it was last connected.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    last_seen: Option<Timestamp>,
    /// What it can do.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    capabilities: Option<Capabilities>,
    /// Its runs under way.
    active: u64,
    /// Its runs that wait.
    queued: u64,
}

impl RunnerView {
    /// A runner, as stored and as connected, and its runs under way and queued.
    pub(crate) fn new(
        id: String,
        stored: Option<Runner>,
        seat: Option<&Seat>,
        (active, queued): (u64, u64),
    ) -> Self {
        let last_seen = stored.as_ref().map(|stored| stored.last_seen);
        let about = seat
            .map(|seat| seat.about.clone())
            .or(stored.map(|stored| stored.about));
        let About {
            host,
            software,
            capabilities,
        } = about.unwrap_or(About {
            host: String::new(),
            software: String::new(),
            capabilities: None,
        });
        let told = |text: String| (!text.is_empty()).then_some(text);
        Self {
            id,
            state: if seat.is_some() { "connected" } else { "away" },
            host: told(host),
            software: told(software),
            since: seat.map(|seat| time(seat.since)),
            last_seen: match seat {
                Some(_) => Some(Timestamp::now()),
                None => last_seen.map(time),
            },
            capabilities,
            active,
            queued,
        }
    }
}
