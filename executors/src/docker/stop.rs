//! Stopping and removing.
//!
//! A stop is marked in the engine first, by a volume of a known name: whoever starts the run looks for it behind making
//! the container, and whoever stops it looks for the container behind making the mark, so that one sees the other. Then
//! init is told by a signal that says the grace; it does the rest without us.

use std::sync::Arc;
use std::time::Duration;

use bollard::models::VolumeCreateRequest;
use bollard::query_parameters::{
    KillContainerOptionsBuilder, RemoveContainerOptionsBuilder, RemoveVolumeOptions,
};
use hybrid_runner_core::RunId;
use hybrid_runner_core::error::{Error, Result};
use hybrid_runner_core::fault;
use hybrid_runner_helper::container::stop_signal;
use tokio::time::{Instant, sleep};

use super::Shared;
use super::engine::{Engine, found, is_status};
use super::look::{Container, Phase, Seen};
use super::records::is_unreadable;

/// How long a container may take to hear a signal: its init has perhaps not begun to listen.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two signals, at first and at most.
const PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// Asks a run to end. Of one that never started it prevents the start.
pub(super) async fn stop(shared: &Arc<Shared>, run: RunId, grace: Duration) -> Result<()> {
    if let Seen::Claimed(container) = shared.look(run).await?
        && container.phase == Phase::Over
    {
        return Ok(());
    }
    mark(shared, run).await?;
    fault::step("docker.stop.marked");
    let deadline = Instant::now() + PATIENCE;
    let mut pause = PAUSE;
    while Instant::now() < deadline {
        if carry_out(shared, run, grace).await? {
            shared.bells.ring(run);
            return Ok(());
        }
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
    Err(Error::unavailable(format!(
        "the container of run `{run}` did not hear the request to stop within {} s",
        PATIENCE.as_secs()
    )))
}

/// Forbids a start for ever.
async fn mark(shared: &Shared, run: RunId) -> Result<()> {
    let docker = shared.engine.order()?;
    let make = || async {
        let volume = VolumeCreateRequest {
            name: Some(shared.names.stopped(run)),
            labels: Some(shared.names.labels(run)),
            ..VolumeCreateRequest::default()
        };
        let made = docker.create_volume(volume).await;
        made.map(drop)
            .map_err(|error| shared.engine.failed("mark the run as stopped", error))
    };
    Engine::again(make).await
}

/// One try; whether the stop will be carried out without us.
async fn carry_out(shared: &Shared, run: RunId, grace: Duration) -> Result<bool> {
    match shared.look(run).await? {
        Seen::Preparing(container) if container.phase.is_alive() => {
            signal(shared, &container, grace).await?;
            Ok(false)
        }
        Seen::Preparing(container) => {
            discard(shared, &container.id).await?;
            Ok(false)
        }
        Seen::Claimed(container) if container.phase.is_alive() => {
            // Until it has begun, init may not hear yet.
            let hears = match shared.is_begun(run, &container).await {
                Err(error) if is_unreadable(&error) => true,
                begun => begun?,
            };
            Ok(signal(shared, &container, grace).await? && hears)
        }
        Seen::Nothing | Seen::Stopped | Seen::Claimed(_) => Ok(true),
    }
}

/// Tells init; `false` if the container has no processes any more, or has been halted.
async fn signal(shared: &Shared, container: &Container, grace: Duration) -> Result<bool> {
    let docker = shared.engine.order()?;
    if container.phase == Phase::Paused {
        let resumed = docker.unpause_container(&container.id).await;
        return resumed.map(|()| false).or_else(|error| gone(shared, error));
    }
    let options = KillContainerOptionsBuilder::default()
        .signal(&stop_signal(grace).to_string())
        .build();
    let sent = docker.kill_container(&container.id, Some(options)).await;
    sent.map(|()| true).or_else(|error| gone(shared, error))
}

/// Not an error if the container has just ended, or was just halted.
fn gone(shared: &Shared, error: bollard::errors::Error) -> Result<bool> {
    if is_status(&error, 404) || is_status(&error, 409) || is_status(&error, 500) {
        return Ok(false);
    }
    Err(shared
        .engine
        .failed("signal the container of the run", error))
}

/// Forgets a run that has ended.
pub(super) async fn remove(shared: &Arc<Shared>, run: RunId) -> Result<()> {
    let _alone = shared.turns.take(run).await;
    let deadline = Instant::now() + PATIENCE;
    let mut pause = PAUSE;
    // A removal that was begun before may still be under way.
    while let Some(container) = removable(shared, run).await? {
        discard(shared, &container.id).await?;
        fault::step("docker.remove.discarded");
        if shared.inspect(&container.id).await?.is_none() {
            break;
        }
        if Instant::now() >= deadline {
            return Err(Error::unavailable(format!(
                "the engine has not removed the container of run `{run}` within {} s",
                PATIENCE.as_secs()
            )));
        }
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
    let mark = shared.names.stopped(run);
    let removed = shared
        .engine
        .order()?
        .remove_volume(&mark, None::<RemoveVolumeOptions>);
    found(removed.await)
        .map_err(|error| shared.engine.failed("remove the mark of a stop", error))?;
    fault::step("docker.remove.unmarked");
    shared.begun().remove(&run);
    Ok(())
}

/// The container of a run that has ended, if there is one.
async fn removable(shared: &Shared, run: RunId) -> Result<Option<Container>> {
    let (container, has_ended) = match shared.look(run).await? {
        Seen::Nothing | Seen::Stopped => return Ok(None),
        Seen::Preparing(container) => {
            let has_ended = container.is_prevented(shared, run).await?;
            (container, has_ended)
        }
        Seen::Claimed(container) => {
            let has_ended = !container.phase.is_alive();
            (container, has_ended)
        }
    };
    if has_ended {
        return Ok(Some(container));
    }
    Err(Error::conflict(format!(
        "run `{run}` has not ended; stop it first"
    )))
}

/// Removes a container that has no processes. One that has some again is left.
async fn discard(shared: &Shared, id: &str) -> Result<()> {
    let options = RemoveContainerOptionsBuilder::default()
        .v(true)
        .force(false)
        .build();
    let removed = shared
        .engine
        .order()?
        .remove_container(id, Some(options))
        .await;
    match found(removed) {
        Err(error) if is_status(&error, 409) => Ok(()),
        removed => removed.map(drop).map_err(|error| {
            shared
                .engine
                .failed("remove the container of the run", error)
        }),
    }
}
