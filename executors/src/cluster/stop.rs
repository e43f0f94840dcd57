//! Stopping and removing.
//!
//! A stop is marked on the object first, which forbids a start for ever; of a run that has none, an object that never runs is the mark.
//! Then the pod is ended. Not by deleting it, if that can be avoided: with a deleted pod go its log and the way it ended. A pod
//! whose deadline is set to a moment in the past is asked to end by its node, with its own grace (that of the workflow), and stays.
//!
//! | the grace that is asked for | what is done |
//! |---|---|
//! | the pod's own, or longer | the deadline: the pod's own grace is the longest there is |
//! | shorter | a deletion with exactly that grace: a node does not shorten what a deadline has begun |
//!
//! A pod that no node has is deleted at once: by the cluster, where it does so for what is held back. One that has not begun is if its
//! node does not end it within seconds.

use std::sync::Arc;
use std::time::Duration;

use hybrid_runner_core::RunId;
use hybrid_runner_core::error::{Error, ErrorKind, Result};
use hybrid_runner_core::fault;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, Preconditions};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

use super::delivery;
use super::error::{failed, found};
use super::object::{GOES, ObjectSeen, STOPPED};
use super::plan::tombstone;
use super::pod::seconds;
use super::runs::Shared;
use super::seen::PodSeen;
use super::start::create;
use super::status::Level;
use super::template::merge;

/// How long the object may go on changing under a stop.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(50);
/// A node hears of a deadline within a second or two, and then works on it.
const HEARD: Duration = Duration::from_secs(5);
/// The deadline of a pod that is to end: the shortest there is.
const NOW: i64 = 1;

/// Asks a run to end. Of one that never started it prevents the start.
pub(super) async fn stop(shared: &Arc<Shared>, run: RunId, grace: Duration) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !once(shared, run, grace).await? {
        if Instant::now() >= deadline {
            return Err(Error::unavailable(format!(
                "the {} of run `{run}` was changed again and again while it was being stopped",
                shared.kind.names().kind
            )));
        }
        sleep(PAUSE).await;
    }
    Ok(())
}

/// One try; whether the stop will be carried out without us.
async fn once(shared: &Arc<Shared>, run: RunId, grace: Duration) -> Result<bool> {
    let seen = shared.look(run).await?;
    let Some(object) = &seen.object else {
        let made = create(shared, &shared.on_object("make"), &tombstone(shared, run)).await?;
        fault::step("cluster.stop.forbidden");
        return Ok(made.is_some());
    };
    if matches!(shared.level(&seen), Level::Over(_)) {
        return Ok(true);
    }
    // Where that deletes the pod, it would take log and end with it.
    let holds = !shared.kind.puts_away() || seen.living().all(|pod| pod.accepted.is_none());
    if !object.is_stopped || (holds && !object.standing.is_held) {
        let marked = mark(shared, run, object, holds).await;
        if let Err(error) = marked {
            if object.may_go() && seen.pods.is_empty() && error.kind() == ErrorKind::Denied {
                return give_way(shared, run, object).await;
            }
            return Err(error);
        }
        fault::step("cluster.stop.marked");
        return Ok(false);
    }
    for pod in seen.living() {
        end(shared, run, pod, grace).await?;
    }
    Ok(true)
}

/// Where what is still held back cannot be marked, it is deleted as it was seen, so that a mark can be made in its place.
async fn give_way(shared: &Shared, run: RunId, object: &ObjectSeen) -> Result<bool> {
    remove_secret(shared, run, object).await?;
    let as_seen = Preconditions {
        uid: Some(object.uid.clone()),
        resource_version: Some(object.version.clone()),
    };
    match delete_object(shared, run, as_seen).await {
        Err(error) if error.kind() == ErrorKind::Conflict => Ok(false),
        deleted => deleted.map(|()| false),
    }
}

/// Forbids a start for ever, and that another pod is made.
async fn mark(shared: &Shared, run: RunId, object: &ObjectSeen, holds: bool) -> Result<()> {
    let mut patch = json!({
        "metadata": { "annotations": { STOPPED: Timestamp::now().to_string() } }
    });
    if !object.was_let_go {
        patch["metadata"]["annotations"][GOES] = Value::Null;
    }
    if holds {
        merge(&mut patch, &shared.kind.hold());
    }
    let marked = shared.change(run, object, "mark as stopped", patch);
    marked.await.map(drop)
}

async fn end(shared: &Arc<Shared>, run: RunId, pod: &PodSeen, grace: Duration) -> Result<()> {
    let is_put_away = shared.kind.puts_away() && pod.accepted.is_none() && pod.going.is_none();
    if is_put_away && has_ended(shared, run, HEARD).await? {
        // By the cluster, at once; one that is deleted by others it keeps until it collects them.
        return Ok(());
    }
    if pod.accepted.is_none() || pod.going.is_some() {
        // No node has it, or it is on its way out: then only a shorter grace changes anything.
        return delete(shared, pod, grace).await;
    }
    let own = Duration::from_secs(u64::try_from(pod.grace).unwrap_or_default());
    if !pod.has_begun() || grace >= own {
        if pod.deadline != Some(NOW) {
            shared.set_deadline(pod, NOW).await?;
            fault::step("cluster.stop.asked");
        }
        // A node that is pulling an image does not hear of deadlines; and a pod may have begun without its status saying so yet.
        if pod.has_begun() || has_ended(shared, run, HEARD).await? {
            return Ok(());
        }
    }
    delete(shared, pod, grace).await?;
    fault::step("cluster.stop.deleted");
    Ok(())
}

/// Waits for the end of all pods of a run, but not for long.
async fn has_ended(shared: &Arc<Shared>, run: RunId, limit: Duration) -> Result<bool> {
    let mut ear = shared.listen(run);
    let ended = async {
        loop {
            let seen = shared.glance(run).await?;
            if seen.living().next().is_none() {
                return Ok(());
            }
            ear.changed().await;
        }
    };
    match timeout(limit, ended).await {
        Ok(ended) => ended.map(|()| true),
        Err(_) => Ok(false),
    }
}

/// Deletes a pod with this grace. Without any the API server would forget a pod whose processes may still run.
pub(super) async fn delete(shared: &Shared, pod: &PodSeen, grace: Duration) -> Result<()> {
    let connected = shared.cluster.connected().await?;
    let grace = u32::try_from(seconds(grace).max(1)).unwrap_or(u32::MAX);
    let options = DeleteParams {
        grace_period_seconds: Some(grace),
        ..DeleteParams::default()
    };
    let deleted = connected.api::<Pod>().delete(&pod.name, &options).await;
    found(deleted)
        .map(drop)
        .map_err(|error| failed(connected, "delete the pod of the run", &error))
}

/// Forgets a run that has ended.
pub(super) async fn remove(shared: &Arc<Shared>, run: RunId) -> Result<()> {
    let _alone = shared.turns.take(run).await;
    let mut seen = shared.glance(run).await?;
    if !matches!(shared.level(&seen), Level::Over(_)) {
        // An end is for ever; anything else may be old.
        seen = shared.look(run).await?;
    }
    let Some(object) = &seen.object else {
        remove_orphans(shared, run).await?;
        shared.board.forget(run);
        return Ok(());
    };
    if !matches!(shared.level(&seen), Level::Over(_)) {
        return Err(Error::conflict(format!(
            "run `{run}` has not ended; stop it first"
        )));
    }
    remove_secret(shared, run, object).await?;
    let is_it = Preconditions {
        uid: Some(object.uid.clone()),
        ..Preconditions::default()
    };
    delete_object(shared, run, is_it).await?;
    fault::step("cluster.remove.removed");
    shared.board.forget(run);
    Ok(())
}

/// What stays of a run whose object was deleted without what belongs to it: nobody else would remove it.
async fn remove_orphans(shared: &Shared, run: RunId) -> Result<()> {
    let connected = shared.cluster.connected().await?;
    let removed = delivery::remove(connected, &shared.names.object(run)).await;
    unless_denied(
        run,
        removed,
        "if there is still a Secret of the run, it stays",
    )?;
    for (_, pod) in shared.orphans(&shared.names.selector_of(run)).await? {
        let deleted = connected
            .api::<Pod>()
            .delete(&pod, &DeleteParams::default())
            .await;
        found(deleted).map_err(|error| failed(connected, "delete the pod of the run", &error))?;
    }
    Ok(())
}

/// It would go with the object, but in the cluster's own time; who may not remove it leaves it to that.
async fn remove_secret(shared: &Shared, run: RunId, object: &ObjectSeen) -> Result<()> {
    if !object.has_secret {
        return Ok(());
    }
    let connected = shared.cluster.connected().await?;
    let removed = delivery::remove(connected, &shared.names.object(run)).await;
    let instead = "the Secret of the run is left to the cluster, which removes it with its owner";
    unless_denied(run, removed, instead)?;
    fault::step("cluster.remove.cleared");
    Ok(())
}

/// Who may not remove a Secret says what becomes of it instead.
fn unless_denied(run: RunId, removed: Result<()>, instead: &str) -> Result<()> {
    match removed {
        Err(error) if error.kind() == ErrorKind::Denied => {
            tracing::warn!(%run, error = error.report(), "{instead}");
            Ok(())
        }
        removed => removed,
    }
}

/// Of one that is gone it is no matter.
async fn delete_object(shared: &Shared, run: RunId, is_it: Preconditions) -> Result<()> {
    let connected = shared.cluster.connected().await?;
    let mut options = DeleteParams::background();
    options.preconditions = Some(is_it);
    let objects = connected.objects(shared.kind);
    let removed = objects.delete(&shared.names.object(run), &options).await;
    found(removed)
        .map(drop)
        .map_err(|error| failed(connected, &shared.on_object("remove"), &error))
}
