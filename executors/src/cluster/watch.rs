//! The levels of a run: looked at anew whenever the bell rings, and told where they are higher than before.

use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, BoxStream};
use futures::{FutureExt as _, StreamExt as _};
use hybrid_runner_core::error::Result;
use hybrid_runner_core::run::{Failure, FailureClass, Outcome, State};
use hybrid_runner_core::{RunId, Status};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use tokio::time::timeout;

use super::blame;
use super::board::{Ear, Seen};
use super::error::{failed, found};
use super::events::{self, Wanted};
use super::object::{BEGUN, FAILED, ObjectSeen, TAKEN};
use super::pod::seconds;
use super::runs::Shared;
use super::seen::PodSeen;
use super::status::{self, Level};
use super::stop::delete;
use super::template::merge;

/// An object gets its pod at once; one that is older and has none, for a reason.
const YOUNG: SignedDuration = SignedDuration::from_secs(2);
/// One that is still as it was made so long after that is not looked after.
pub(super) const NEGLECTED: SignedDuration = SignedDuration::from_secs(20);
/// A container is made ready, and a pod is well, in less: after that events are asked why not.
const SLOW: SignedDuration = SignedDuration::from_secs(10);
/// Between two looks at events, at first and at most.
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
        rest: PATIENCE / 2,
        explained: None,
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
    /// Whether only events can explain how it stands.
    is_unexplained: bool,
    /// Before they are looked at again.
    patience: Duration,
    /// Between the last two looks at them.
    rest: Duration,
    /// What they said last, and about whom.
    explained: Option<(String, String)>,
}

impl Watcher {
    /// A watcher lives as long as its run, and does nothing but wait: what else it may do is in boxes.
    async fn next(&mut self) -> Result<Option<Status>> {
        loop {
            if self.told.as_ref().is_some_and(Status::is_finished) {
                return Ok(None);
            }
            let mut seen = self.see().await?;
            let mut level = self.shared.level(&seen);
            if is_by_somebody(&level) {
                // Of the two watches that of pods may be ahead: it may be a stop of ours.
                seen = self.shared.look(self.run).await?;
                level = self.shared.level(&seen);
            }
            if let Some(failure) = self.shared.unmarked(&level, &seen) {
                let given_up = self.shared.give_up(self.run, &seen, failure);
                given_up.boxed().await?;
                // All who look find the same mark, if it was not too late for it.
                self.is_to_ask = true;
                continue;
            }
            if let Level::Over(_) = &level {
                self.clear(&seen).boxed().await;
            }
            let mut trouble = None;
            if let (Level::Running, Some(pod)) = (&level, seen.pod()) {
                trouble = self.look_after(&seen, pod).boxed().await;
            }
            let mut status = status::of(self.run, &level, &seen);
            status.message = status.message.or(trouble);
            self.explain(&mut status, &seen).boxed().await;
            if self.is_news(&status) {
                self.told = Some(status.clone());
                return Ok(Some(status));
            }
        }
    }

    /// What a pod needs while its work runs. If it cannot be done now, how the run stands is known all the same; gives what people
    /// should know then.
    async fn look_after(&self, seen: &Seen, pod: &PodSeen) -> Option<String> {
        let run = self.run;
        let mut trouble = None;
        if let Err(error) = self.shared.keep_time(seen, pod).await {
            // The pod's first deadline holds until then.
            let error = error.report();
            tracing::warn!(%run, error, "the time limit of the run could not be shortened");
            trouble = Some(format!(
                "it may run for as much longer than its `timeout` as its `start_timeout` allows: {error}"
            ));
        }
        if let Err(error) = self.shared.keep_single(run, seen, pod).await {
            tracing::warn!(%run, %error, "somebody deletes the pod of the run, and the cluster may make another");
        }
        trouble
    }

    /// Puts away what the cluster made in the place of a pod that is gone. If that fails it goes with the object.
    async fn clear(&self, seen: &Seen) {
        if !seen.object.as_ref().is_some_and(|object| object.had_begun) {
            return;
        }
        for pod in seen.living() {
            if let Err(error) = delete(&self.shared, pod, Duration::ZERO).await {
                tracing::warn!(run = %self.run, %error, "a pod that was made for no reason could not be deleted");
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
                } else {
                    ear.changed().await;
                }
                self.shared.glance(self.run).await
            }
        }
    }

    /// What neither object nor pod say of themselves events do, after a while.
    async fn explain(&mut self, status: &mut Status, seen: &Seen) {
        let riddle = Riddle::of(status, seen);
        self.is_unexplained = riddle.is_some();
        let Some(riddle) = riddle else { return };
        if let Some(wait) = riddle.due_in() {
            self.patience = wait;
            return;
        }
        if let Some(_turn) = self.shared.pace.turn() {
            self.patience = (self.rest * 2).min(LONGEST_PATIENCE);
            self.rest = self.patience;
            let told = match self.shared.cluster.connected().await {
                Ok(connected) => events::last(connected, riddle.uid, riddle.wanted).await,
                Err(_) => None,
            };
            self.explained = told.map(|told| (riddle.uid.to_owned(), told));
        } else {
            // Soon.
            self.patience = PATIENCE;
        }
        let told = self.explained.as_ref();
        let told = told.filter(|(uid, _)| uid == riddle.uid);
        let told = told.map(|(_, told)| told.clone());
        let told = told.or_else(|| riddle.neglected.map(str::to_owned));
        if let Some(told) = told {
            status.message = Some(match &status.message {
                Some(known) => format!("{known}: {told}"),
                None => told,
            });
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

/// What only events can explain.
struct Riddle<'a> {
    uid: &'a str,
    wanted: Wanted,
    since: Option<Timestamp>,
    /// For so long it may be.
    patience: SignedDuration,
    /// What is wrong if there are no events.
    neglected: Option<&'static str>,
}

impl<'a> Riddle<'a> {
    fn of(status: &Status, seen: &'a Seen) -> Option<Self> {
        let object = seen.object.as_ref()?;
        match (&status.state, seen.pod()) {
            (State::Starting, None) if !object.standing.is_suspended => {
                status.message.is_none().then(|| Self::of_object(object))
            }
            (State::Starting, Some(pod)) if status.message.is_some() && blame::is_silent(pod) => {
                Some(Self::of_pod(pod, Wanted::All, pod.accepted))
            }
            (State::Running, Some(pod)) if pod.unwell.is_some() => {
                Some(Self::of_pod(pod, Wanted::Warnings, pod.unwell))
            }
            _ => None,
        }
    }

    /// Of an object that has no pod.
    fn of_object(object: &'a ObjectSeen) -> Self {
        let age = object.created.map(age);
        let is_old = age.is_some_and(|age| age >= NEGLECTED);
        Self {
            uid: &object.uid,
            wanted: Wanted::Warnings,
            since: object.created,
            patience: YOUNG,
            neglected: object.standing.untaken.filter(|_| is_old),
        }
    }

    fn of_pod(pod: &'a PodSeen, wanted: Wanted, since: Option<Timestamp>) -> Self {
        Self {
            uid: &pod.uid,
            wanted,
            since,
            patience: SLOW,
            neglected: None,
        }
    }

    /// How long it is not asked about yet.
    fn due_in(&self) -> Option<Duration> {
        let Some(since) = self.since else {
            return Some(PATIENCE);
        };
        let left = self.patience - age(since);
        left.is_positive().then(|| left.unsigned_abs())
    }
}

fn age(since: Timestamp) -> SignedDuration {
    Timestamp::now().duration_since(since)
}

/// Whether somebody ended the run who was not told to by us, as far as is known.
fn is_by_somebody(level: &Level) -> bool {
    matches!(level, Level::Over(Outcome::Failed(failure)) if failure.class == FailureClass::Killed)
}

impl Shared {
    /// Why a run failed whose object has to be told so.
    fn unmarked<'a>(&self, level: &'a Level, seen: &Seen) -> Option<&'a Failure> {
        let is_open = |object: &&ObjectSeen| {
            object.failed.is_none() && (self.kind.makes_others() || object.standing.end.is_none())
        };
        let object = seen.object.as_ref().filter(is_open);
        let is_taken_back = object.is_some_and(ObjectSeen::is_taken_back);
        let may_come_back = is_taken_back || (object.is_some() && seen.gone.is_some());
        match level {
            Level::Hopeless(failure) => Some(failure),
            Level::Over(Outcome::Failed(failure)) if may_come_back => Some(failure),
            _ => None,
        }
    }

    /// Marks a run that cannot begin, or whose pod is gone, as failed, and has its pod put away, unless it stands otherwise by now.
    async fn give_up(&self, run: RunId, seen: &Seen, failure: &Failure) -> Result<()> {
        let Some(object) = &seen.object else {
            return Ok(());
        };
        let was_vain = seen.had_vain && seen.pods.is_empty();
        let had_begun = seen.gone.is_some() || (object.is_taken_back() && !was_vain);
        let failure = if had_begun {
            // Whoever ended it says why in no event.
            failure.clone()
        } else {
            self.with_events(failure, seen).await
        };
        let words = serde_json::to_string(&failure).unwrap_or_default();
        let mut patch = json!({ "metadata": { "annotations": { FAILED: words } } });
        if had_begun {
            patch["metadata"]["annotations"][BEGUN] = "true".into();
        }
        merge(&mut patch, &self.kind.hold());
        let is_marked = self.change(run, object, "give up", patch).await?;
        if is_marked && !self.kind.puts_away() {
            for pod in seen.living().filter(|pod| !pod.has_begun()) {
                delete(self, pod, Duration::ZERO).await?;
            }
        }
        Ok(())
    }

    /// With the last warning about the pod, where nothing else says why.
    async fn with_events(&self, failure: &Failure, seen: &Seen) -> Failure {
        let failure = failure.clone();
        let Some(pod) = seen.telling().filter(|_| failure.source.is_none()) else {
            return failure;
        };
        let Ok(connected) = self.cluster.connected().await else {
            return failure;
        };
        match events::last(connected, &pod.uid, Wanted::Warnings).await {
            Some(told) => failure.with_source(told),
            None => failure,
        }
    }

    /// Sees to it that no other pod is made for one that somebody deletes: Argo makes one for a pod that is gone before it was seen to
    /// run, and the cluster one for a Job that was suspended and is let go again.
    async fn keep_single(&self, run: RunId, seen: &Seen, pod: &PodSeen) -> Result<()> {
        let Some(object) = &seen.object else {
            return Ok(());
        };
        let mut patch = self.kind.hold();
        if object.is_taken_back() && !object.standing.is_closed {
            patch["metadata"]["annotations"][TAKEN] = "true".into();
        } else if !self.kind.makes_others() || pod.going.is_none() || object.standing.is_held {
            return Ok(());
        }
        // One that has changed meanwhile rings, and is looked at again.
        let held = self.change(run, object, "hold", patch);
        held.await.map(drop)
    }

    /// Shortens the pod's deadline to the time limit of the work, once it is known when that began.
    async fn keep_time(&self, seen: &Seen, pod: &PodSeen) -> Result<()> {
        let timeout = seen.object.as_ref().and_then(|object| object.timeout);
        let (Some(timeout), Some(deadline)) = (timeout, pod.deadline) else {
            return Ok(());
        };
        // What runs beside the work and outlives it has no more time than it.
        let (Some(since), Some(accepted)) = (pod.began(), pod.accepted) else {
            return Ok(());
        };
        let before = Duration::try_from(since.duration_since(accepted)).unwrap_or_default();
        // Times are in whole seconds: with one more, what ended in time is told from what was ended.
        let wanted = i64::try_from(seconds(before + timeout) + 1).unwrap_or(i64::MAX);
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
