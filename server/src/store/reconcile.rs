//! What is to be done when a runner has come back: its runs as they are here, beside what it lists.

use std::collections::HashMap;

use hybrid_runner_core::incarnation::Incarnation;
use hybrid_runner_core::run::State;
use hybrid_runner_core::{AgentId, Handle, RunId, RunSpec, Status};
use hybrid_runner_store::rusqlite::{self, Connection, params};
use serde_json::Value;

use super::runs::{self, Made, NewRun, Run};
use super::{queries, time, to_json};

/// What is to be done with each run of a runner.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// The runner knows them: their status and logs go on.
    pub(crate) follow: Vec<Run>,
    /// The runner knows them by what its backend shows alone: it is told what they are.
    pub(crate) tell: Vec<(Run, RunSpec)>,
    /// Sent to the runner once, but it does not list them: to be delivered again.
    pub(crate) deliver: Vec<(Run, RunSpec)>,
    /// They have their outcome here, and the runner does not know that yet.
    pub(crate) settle: Vec<Run>,
    /// Runs of another runner: nothing is done with them.
    pub(crate) foreign: Vec<RunId>,
    /// How many of `follow` were not known here.
    pub(crate) adopted: usize,
}

/// Makes the plan, and adopts what is not known here.
pub(crate) fn plan(
    tx: &Connection,
    agent: &AgentId,
    now: &Incarnation,
    listed: &[Handle],
) -> rusqlite::Result<Plan> {
    let mut plan = Plan::default();
    let mut listed: HashMap<RunId, &Handle> =
        listed.iter().map(|handle| (handle.run, handle)).collect();
    for run in queries::open_of(tx, agent)? {
        let handle = listed.remove(&run.id);
        match (run.finished.is_some(), handle) {
            (true, Some(_)) => plan.settle.push(run),
            // Removed there, or never taken: the outcome needs no more acknowledging.
            (true, None) => runs::set_removed(tx, run.seq)?,
            (false, Some(handle)) if handle.state["adopted"] == true => {
                let spec = runs::spec(tx, run.seq)?;
                plan.tell.push((run, spec));
            }
            (false, Some(_)) => plan.follow.push(run),
            (false, None) => {
                let spec = runs::spec(tx, run.seq)?;
                plan.deliver.push((run, spec));
            }
        }
    }
    let mut unknown: Vec<&Handle> = listed.into_values().collect();
    unknown.sort_by_key(|handle| handle.run);
    for handle in unknown {
        consider(tx, agent, now, handle, &mut plan)?;
    }
    Ok(plan)
}

/// A run that the runner lists and that was not sent to it, as far as is known here.
fn consider(
    tx: &Connection,
    agent: &AgentId,
    now: &Incarnation,
    handle: &Handle,
    plan: &mut Plan,
) -> rusqlite::Result<()> {
    match queries::by_id(tx, handle.run)? {
        Some(run) if run.runner != *agent || handle.run.attempt_number() != 0 => {
            plan.foreign.push(handle.run);
        }
        Some(run) if run.finished.is_some() => plan.settle.push(run),
        Some(run) => {
            tx.prepare_cached("UPDATE runs SET first_sent = ?2 WHERE seq = ?1")?
                .execute(params![run.seq, to_json(now)])?;
            plan.follow.push(runs::by_seq(tx, run.seq)?);
        }
        None if handle.run.attempt_number() != 0 => plan.foreign.push(handle.run),
        None => {
            if let Made::New(seq) = runs::insert(tx, &adopted(agent, now, handle))? {
                plan.follow.push(runs::by_seq(tx, seq)?);
                plan.adopted += 1;
            }
        }
    }
    Ok(())
}

/// What is known of a run that only its runner knows.
fn adopted(agent: &AgentId, now: &Incarnation, handle: &Handle) -> NewRun {
    let told = handle.state.get("spec").cloned().unwrap_or(Value::Null);
    let spec = serde_json::from_value::<RunSpec>(told).unwrap_or_else(|_| {
        let name = "adopted".parse().expect("a workflow name");
        RunSpec::new(handle.run, name, [] as [&str; 0])
    });
    let mut status = Status::new(0, State::Queued);
    status.times.queued = Some(time(super::now()));
    NewRun {
        first_sent: Some(spec.first_sent.clone().unwrap_or_else(|| now.clone())),
        spec: {
            let mut spec = spec;
            spec.run = handle.run;
            spec.runner = Some(agent.clone());
            spec.first_sent = None;
            spec
        },
        runner: agent.clone(),
        key: None,
        deployment: None,
        status,
    }
}
