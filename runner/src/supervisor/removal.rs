//! Acknowledged outcomes: the backend is cleaned, and a grave is left.

use std::sync::Arc;
use std::time::Duration;

use hybrid_runner_core::error::{Error, ErrorKind, Result};
use hybrid_runner_core::{Executor, Handle, RunId, fault};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};

use super::backoff::Backoff;
use super::record::{Phase, Record};
use super::registry::{Entry, View};
use super::shared::{Shared, shut_down};

/// How long `remove` waits for the backend. The removal is written down before, and goes on after.
const PATIENCE: Duration = Duration::from_secs(5);

/// Before it is told again that a removal fails.
const TOLD_AGAIN: Duration = Duration::from_secs(30);

/// Removes a run that has ended. Refused as `Conflict` if it has not.
pub(super) async fn remove(shared: &Arc<Shared>, run: RunId, entry: Entry) -> Result<()> {
    let view = entry.view.borrow().clone();
    if !view.is_finished() {
        return Err(Error::conflict(format!(
            "the run `{run}` has not ended; stop it first"
        )));
    }
    if entry.removing {
        // Under way; it is answered once it is written down, as the first one is.
        return write_down(shared, run, &view).await;
    }
    let (answer, answered) = oneshot::channel();
    let task = {
        let shared = Arc::clone(shared);
        async move {
            let written = write_down(&shared, run, &view).await;
            if written.is_ok() {
                clean(shared, run).await;
            } else {
                shared.registry.undo_removal(run);
            }
            // Whoever asked may have left.
            drop(answer.send(written));
        }
    };
    let place = shared.jobs.reserve().await.map_err(|_| shut_down())?;
    // Nothing is awaited between the two: a removal that has begun has its task.
    if !shared.registry.begin_removal(run) {
        let view = entry.view.borrow().clone();
        return write_down(shared, run, &view).await;
    }
    place.send(Box::pin(task));
    match timeout(PATIENCE, answered).await {
        Ok(answer) => answer.unwrap_or_else(|_| Err(shut_down())),
        Err(_) => Ok(()),
    }
}

async fn write_down(shared: &Shared, run: RunId, view: &View) -> Result<()> {
    let Some(status) = view.level.clone() else {
        return Ok(());
    };
    let record = Record {
        status,
        phase: Phase::Removing,
        attempts: view.attempts.clone(),
        reached: view.reached,
        stop: None,
    };
    fault::step("supervisor.remove");
    // After power loss the run may be there again, as ended: whoever acknowledged it removes it again.
    let saved = shared.journal.save(run, &record).await;
    saved.inspect_err(|error| shared.health.not_written(error))?;
    fault::step("supervisor.removing");
    Ok(())
}

/// Cleans the backend of a run's attempts, for as long as it takes, and buries the run.
pub(super) async fn clean(shared: Arc<Shared>, run: RunId) {
    let Some(entry) = shared.registry.find_even_removing(run) else {
        return;
    };
    let view = entry.view.borrow().clone();
    let work = async {
        if let Some(executor) = shared.executor(&view.executor) {
            for attempt in 1..=view.reached {
                clean_attempt(&shared, &view, executor, &view.handle(run, attempt)).await;
                fault::step("supervisor.cleaned");
            }
        }
        let mut backoff = Backoff::new();
        while let Err(error) = shared.journal.bury(run).await {
            shared.health.not_written(&error);
            sleep(backoff.next()).await;
        }
        fault::step("supervisor.removed");
        shared.registry.forget(run);
    };
    tokio::select! {
        () = shared.shutdown.cancelled() => {}
        () = work => {}
    }
}

async fn clean_attempt(
    shared: &Shared,
    view: &View,
    executor: &Arc<dyn Executor>,
    handle: &Handle,
) {
    let mut backoff = Backoff::new();
    let mut seldom = Seldom::default();
    loop {
        let Err(error) = executor.remove(handle).await else {
            return;
        };
        match error.kind() {
            ErrorKind::Unavailable => shared.health.failed(&view.executor, &error),
            // It lives on after its run's end: it is put down first.
            ErrorKind::Conflict => drop(executor.stop(handle, Duration::ZERO).await),
            _ if seldom.is_due() => {
                tracing::warn!(run = %handle.run, error = error.report(), "failed to remove an attempt; trying again");
            }
            _ => {}
        }
        sleep(backoff.next()).await;
    }
}

/// Lets what is tried again and again be told at once, and then now and then.
#[derive(Debug, Default)]
struct Seldom(Option<Instant>);

impl Seldom {
    fn is_due(&mut self) -> bool {
        let due = self.0.is_none_or(|told| told.elapsed() >= TOLD_AGAIN);
        if due {
            self.0 = Some(Instant::now());
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_fails_again_and_again_is_told_at_once_and_then_each_half_minute() {
        let mut seldom = Seldom::default();
        let mut told = Vec::new();
        for second in 0..=65 {
            if seldom.is_due() {
                told.push(second);
            }
            sleep(Duration::from_secs(1)).await;
        }
        assert_eq!(told, [0, 30, 60]);
    }
}
