//! What a new life of the runner finds: its journal, and what the backends still have.
//!
//! The journal is read once and each backend is asked once, and once more before a run that nothing here knows is given up; every
//! run goes on in a task of its own. A run that a backend shows and the journal does not know is adopted; one that is buried is swept away.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use futures::{FutureExt as _, StreamExt as _};
use hybrid_runner_core::error::Result;
use hybrid_runner_core::id::SectionName;
use hybrid_runner_core::{Executor, Handle, RunId};
use jiff::Timestamp;
use tokio::time::{sleep, timeout};

use super::backoff::Backoff;
use super::journal::{Grave, Verdict};
use super::record::{Phase, Record, Row};
use super::registry::entry_of;
use super::removal;
use super::run::Run;
use super::shared::{Job, Shared};

/// How long opening waits for a backend that does not answer; then it is asked again beside the work.
const PATIENCE: Duration = Duration::from_secs(1);

/// What one backend has of ours: run → its attempts, in order.
#[derive(Debug, Default)]
pub(super) struct Survey(BTreeMap<RunId, Vec<Handle>>);

impl Survey {
    fn of(handles: Vec<Handle>) -> Self {
        let mut runs: BTreeMap<RunId, Vec<Handle>> = BTreeMap::new();
        for handle in handles {
            if handle.run.attempt_number() == 0 {
                tracing::warn!(run = %handle.run, "a backend shows a run that is no attempt; left alone");
                continue;
            }
            runs.entry(handle.run.run()).or_default().push(handle);
        }
        for attempts in runs.values_mut() {
            attempts.sort_by_key(|handle| handle.run.attempt_number());
        }
        Self(runs)
    }

    /// The latest attempt of a run.
    pub(super) fn latest(&self, run: RunId) -> Option<&Handle> {
        self.0.get(&run)?.last()
    }
}

/// Puts the runs of the journal into the registry; gives the tasks that go on with them.
pub(super) fn reopen(shared: &Arc<Shared>, rows: Vec<Row>) -> Vec<Job> {
    rows.into_iter()
        .filter_map(|row| enter(shared, row))
        .collect()
}

/// Enters one run; its task, if there is something to do.
fn enter(shared: &Arc<Shared>, row: Row) -> Option<Job> {
    let (run, phase) = (row.run, row.record.phase.clone());
    let (entry, view, commands) = entry_of(&row.executor, row.has_spec, &row.record);
    if !shared.registry.add(run, entry, row.record.is_live()) {
        return None;
    }
    match phase {
        Phase::Finished => None,
        Phase::Removing => Some(removal::clean(Arc::clone(shared), run).boxed()),
        _ => Some(Run::of(shared, row, view, commands).live().boxed()),
    }
}

/// Asks all backends once. Gives the tasks for what they show, and for those that did not answer.
pub(super) async fn survey_all(shared: &Arc<Shared>) -> Vec<Job> {
    let surveys = shared.executors.iter().map(|(name, executor)| async move {
        match timeout(PATIENCE, survey(shared, name, executor)).await {
            Ok(Ok(jobs)) => jobs,
            Ok(Err(())) | Err(_) => {
                vec![survey_later(Arc::clone(shared), name.clone(), Arc::clone(executor)).boxed()]
            }
        }
    });
    join_all(surveys).await.into_iter().flatten().collect()
}

/// Asks all backends once more after each connect, where something hangs on it: until then another runner of this id may have
/// been connected, and have begun runs. Whether it did: then what was not known may be.
///
/// An error while one of them does not answer.
pub(super) async fn survey_anew(shared: &Arc<Shared>) -> Result<bool> {
    shared.all_surveyed()?;
    let connect = shared.incarnation().seq;
    let mut last = shared.surveyed_anew.lock().await;
    if *last == Some(connect) {
        return Ok(false);
    }
    for (name, executor) in &shared.executors {
        let answered = timeout(PATIENCE * 10, survey(shared, name, executor)).await;
        let Ok(Ok(jobs)) = answered else {
            return Err(shared.unknown(name));
        };
        for job in jobs {
            shared.spawn(job).await?;
        }
    }
    *last = Some(connect);
    Ok(true)
}

/// Asks a backend until it answers.
async fn survey_later(shared: Arc<Shared>, name: SectionName, executor: Arc<dyn Executor>) {
    let work = async {
        let mut backoff = Backoff::new();
        loop {
            if let Ok(jobs) = survey(&shared, &name, &executor).await {
                for job in jobs {
                    if shared.spawn(job).await.is_err() {
                        return;
                    }
                }
                return;
            }
            sleep(backoff.next()).await;
        }
    };
    tokio::select! {
        () = shared.shutdown.cancelled() => {}
        () = work => {}
    }
}

async fn survey(
    shared: &Arc<Shared>,
    name: &SectionName,
    executor: &Arc<dyn Executor>,
) -> Result<Vec<Job>, ()> {
    let handles = executor
        .list()
        .await
        .map_err(|error| shared.health.failed(name, &error))?;
    shared.health.answered(name);
    let survey = Survey::of(handles);
    let found = survey
        .0
        .iter()
        .map(|(run, attempts)| settle(shared, name, executor, *run, attempts));
    let jobs = join_all(found).await;
    // Only now: whoever sees it, sees the adopted runs too.
    if let Some(surveyed) = shared.surveys.get(name) {
        surveyed.send_replace(Some(Arc::new(survey)));
    }
    Ok(jobs.into_iter().flatten().collect())
}

/// Decides about what a backend shows of one run.
async fn settle(
    shared: &Arc<Shared>,
    name: &SectionName,
    executor: &Arc<dyn Executor>,
    run: RunId,
    attempts: &[Handle],
) -> Option<Job> {
    let Some(known) = shared.registry.find_even_removing(run) else {
        return adopt(shared, name, executor, run, attempts).await;
    };
    let view = known.view.borrow().clone();
    // Of a run that has ended nothing may live on.
    let stray = |handle: &&Handle| view.is_finished() && handle.run.attempt_number() > view.reached;
    let strays: Vec<Handle> = attempts.iter().filter(stray).cloned().collect();
    (!strays.is_empty()).then(|| sweep(Arc::clone(shared), Arc::clone(executor), strays).boxed())
}

/// Takes up a run that the journal does not know; one that is buried is swept away.
async fn adopt(
    shared: &Arc<Shared>,
    name: &SectionName,
    executor: &Arc<dyn Executor>,
    run: RunId,
    attempts: &[Handle],
) -> Option<Job> {
    let now = Timestamp::now();
    let row = Row {
        run,
        executor: name.clone(),
        spec: None,
        has_spec: false,
        accepted_at: now,
        record: Record::adopted(now, attempts.to_vec()),
    };
    match shared.journal.accept(&row).await {
        Ok((Verdict::Accepted, _)) => tracing::info!(%run, executor = %name, "adopted"),
        Ok((Verdict::Buried(grave), _)) => {
            let why = if grave == Grave::Removed {
                "removed"
            } else {
                "stopped"
            };
            tracing::info!(%run, executor = %name, why, "swept away");
            return Some(
                sweep(Arc::clone(shared), Arc::clone(executor), attempts.to_vec()).boxed(),
            );
        }
        Err(error) => {
            // It is followed all the same; the next life adopts it again.
            shared.health.not_written(&error);
        }
    }
    enter(shared, row)
}

/// Stops and removes attempts whose run has ended.
async fn sweep(shared: Arc<Shared>, executor: Arc<dyn Executor>, attempts: Vec<Handle>) {
    let work = async {
        for handle in &attempts {
            let mut backoff = Backoff::new();
            while let Err(error) = sweep_one(&executor, handle).await {
                tracing::debug!(run = %handle.run, error = error.report(), "failed to sweep an attempt; trying again");
                sleep(backoff.next()).await;
            }
        }
    };
    tokio::select! {
        () = shared.shutdown.cancelled() => {}
        () = work => {}
    }
}

async fn sweep_one(executor: &Arc<dyn Executor>, handle: &Handle) -> Result<()> {
    executor.stop(handle, Duration::ZERO).await?;
    let mut levels = executor.watch(handle);
    while let Some(level) = levels.next().await {
        if level?.is_finished() {
            break;
        }
    }
    executor.remove(handle).await
}
