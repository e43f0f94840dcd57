//! The levels of a run: looked at anew whenever the bell rings, and told where they are higher than before.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use hybrid_runner_core::error::Result;
use hybrid_runner_core::run::{Failure, State};
use hybrid_runner_core::{RunId, Status};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use tokio::time::timeout;

use super::board::{Ear, Seen};
use super::error::{failed, found};
use super::events::last_warning;
use super::object::FAILED;
use super::pod::seconds;
use super::runs::Shared;
use super::seen::{Container, PodSeen};
use super::status::{self, Level};
use super::stop::delete;
use super::template::merge;

/// An object gets its pod at once; one that is older and has none, for a reason.
const YOUNG: SignedDuration = SignedDuration::from_secs(2);
/// One that is still as it was made so long after that is not looked after.
pub(super) const NEGLECTED: SignedDuration = SignedDuration::from_secs(20);
/// Between two looks at the events of an object without a pod, at first and at most.
const PATIENCE: Duration = Duration::from_secs(3);
const LONGEST_PATIENCE: Duration = Duration::from_mins(1);

pub(super) fn watch(shared: Arc<Shared>, run: RunId) -> BoxStream<'static, Result<Status>> {
    let watcher = Watcher {
        shared,
        run,
        ear: None,
        told: None,
        is_to_ask: false,
        is_unexplained: false,
        patience: PATIENCE,
    };
    stream::try_unfold(watcher, |mut watcher| async move {
        Ok(watcher.next().await?.map(|status| (status, watcher)))
    })
    .boxed()
}

struct Watcher {
    shared: Arc<Shared>,
    run: RunId,
    ear: Option<Ear>,
    /// The last level that was told.
    told: Option<Status>,
    /// Whether what the board has may be older than what was just done.
    is_to_ask: bool,
    /// Whether the object has no pod, which only events can explain.
    is_unexplained: bool,
    /// Before they are looked at again.
    patience: Duration,
}

impl Watcher {
    async fn next(&mut self) -> Result<Option<Status>> {
        loop {
            if self.told.as_ref().is_some_and(Status::is_finished) {
                return Ok(None);
            }
            let seen = self.see().await?;
            let level = self.shared.level(&seen);
            if let Level::Hopeless(failure) = &level {
                self.shared.give_up(self.run, &seen, failure).await?;
                // All who look find the same mark, if it was not too late for it.
                self.is_to_ask = true;
                continue;
            }
            if let (Level::Running, Some(pod)) = (&level, seen.pod())
                && let Err(error) = self.shared.keep_time(&seen, pod).await
            {
                // The pod's first deadline holds until then; how the run stands is known all the same.
                tracing::warn!(run = %self.run, %error, "the time limit of the run could not be shortened");
            }
            let mut status = status::of(self.run, &level, &seen);
            self.explain(&mut status, &seen).await;
            if self.is_news(&status) {
                self.told = Some(status.clone());
                return Ok(Some(status));
            }
        }
    }

    /// The first time takes what there is; then waits for a ring, and takes what the board has.
    async fn see(&mut self) -> Result<Seen> {
        if std::mem::take(&mut self.is_to_ask) {
            return self.shared.look(self.run).await;
        }
        match &mut self.ear {
            // Made before the look, so that nothing is missed.
            None => {
                let ear = self.ear.insert(self.shared.listen(self.run));
                self.shared.first(self.run, ear).await
            }
            Some(ear) => {
                if self.is_unexplained {
                    // Nothing rings for an event.
                    drop(timeout(self.patience, ear.changed()).await);
                    self.patience = (self.patience * 2).min(LONGEST_PATIENCE);
                } else {
                    ear.changed().await;
                }
                self.shared.glance(self.run).await
            }
        }
    }

    /// An object without a pod need not say why; events do, after a while.
    async fn explain(&mut self, status: &mut Status, seen: &Seen) {
        let object = seen.object.as_ref();
        self.is_unexplained = status.state == State::Starting
            && seen.pods.is_empty()
            && object.is_some_and(|object| !object.standing.is_suspended);
        let Some(object) = object.filter(|_| self.is_unexplained && status.message.is_none())
        else {
            return;
        };
        let age = object
            .created
            .map(|created| Timestamp::now().duration_since(created));
        let is_older = |limit| age.is_some_and(|age| age >= limit);
        if !is_older(YOUNG) {
            return;
        }
        if let Ok(connected) = self.shared.cluster.connected().await {
            status.message = last_warning(connected, &object.uid).await;
        }
        let neglected = object.standing.untaken.filter(|_| is_older(NEGLECTED));
        if status.message.is_none() {
            status.message = neglected.map(str::to_owned);
        }
    }

    /// Whether it is higher than what was told, or tells more of the same.
    fn is_news(&self, status: &Status) -> bool {
        let Some(told) = &self.told else { return true };
        let (before, now) = (told.state.rank(), status.state.rank());
        now > before
            || (now == before && status.message.is_some() && status.message != told.message)
    }
}

impl Shared {
    /// Marks a run that cannot begin as failed, and has its pod put away, unless it stands otherwise by now.
    async fn give_up(&self, run: RunId, seen: &Seen, failure: &Failure) -> Result<()> {
        let Some(object) = &seen.object else {
            return Ok(());
        };
        let words = serde_json::to_string(failure).unwrap_or_default();
        let mut patch = json!({ "metadata": { "annotations": { FAILED: words } } });
        merge(&mut patch, &self.kind.hold());
        let is_marked = self.change(run, object, "give up", patch).await?;
        if is_marked && !self.kind.puts_away() {
            for pod in seen.living().filter(|pod| !pod.has_begun()) {
                delete(self, pod, Duration::ZERO).await?;
            }
        }
        Ok(())
    }

    /// Shortens the pod's deadline to the time limit of the work, once it is known when that began.
    async fn keep_time(&self, seen: &Seen, pod: &PodSeen) -> Result<()> {
        let timeout = seen.object.as_ref().and_then(|object| object.timeout);
        let (Some(timeout), Some(deadline)) = (timeout, pod.deadline) else {
            return Ok(());
        };
        let (Container::Running { since: Some(since) }, Some(accepted)) = (&pod.main, pod.accepted)
        else {
            return Ok(());
        };
        let before = Duration::try_from(since.duration_since(accepted)).unwrap_or_default();
        let wanted = i64::try_from(seconds(before + timeout).max(1)).unwrap_or(i64::MAX);
        if wanted >= deadline {
            return Ok(());
        }
        self.set_deadline(pod, wanted).await
    }

    /// Gives the pod so many seconds from its acceptance on. Of one that is gone it is no matter.
    pub(super) async fn set_deadline(&self, pod: &PodSeen, seconds: i64) -> Result<()> {
        let connected = self.cluster.connected().await?;
        let patch = json!({ "spec": { "activeDeadlineSeconds": seconds } });
        let patched = connected
            .api::<Pod>()
            .patch(&pod.name, &PatchParams::default(), &Patch::Merge(&patch))
            .await;
        found(patched)
            .map(drop)
            .map_err(|error| failed(connected, "set the deadline of the pod", &error))
    }
}
