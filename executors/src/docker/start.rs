//! Starting a run: an image, a container, and the payload handed to its init.
//!
//! | step | if we die behind it |
//! |---|---|
//! | container `….new` is made | it has run nothing: a later start goes on with it |
//! | it is started, init waits | so it does: init waits for a payload, and ends without one |
//! | all of the payload but its last byte is handed over | init finds half a payload, and waits for a whole one |
//! | it gets its final name | **the claim**: from here on this container may have run the work, and is never started again |
//! | the last byte is handed over | init runs the work without us |
//!
//! Two who start one run at once race for the name: who loses removes its own container.

use std::sync::Arc;
use std::time::Duration;

use bollard::query_parameters::{
    CreateContainerOptionsBuilder, RemoveContainerOptionsBuilder, RenameContainerOptionsBuilder,
};
use hybrid_runner_core::error::{Error, Result};
use hybrid_runner_core::executor::{Handle, Progress};
use hybrid_runner_core::fault;
use hybrid_runner_core::run::RunSpec;
use hybrid_runner_core::secret::Secrets;
use hybrid_runner_helper::payload::Private;
use tokio::time::{Instant, sleep};

use super::Shared;
use super::engine::{Engine, found, is_status};
use super::feed::Feed;
use super::look::{Container, Phase};
use super::names;
use super::plan::Plan;

/// So long a start is begun anew because something that it needs was taken away meanwhile: its container by another start of
/// the same run, or by a removal; its image; the volume of init.
const PATIENCE: Duration = Duration::from_mins(1);
/// Between two tries, at first and at most.
const PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Starts a run, or completes a start that was left half done.
pub(super) async fn start(
    shared: &Arc<Shared>,
    spec: &RunSpec,
    secrets: &Secrets,
    progress: &Progress,
) -> Result<Handle> {
    let _alone = shared.turns.take(spec.run).await;
    let handle = super::handle(spec.run, spec.name.as_str());
    // Wrong or not: a run that was started before needs none.
    let plan = Plan::of(spec, secrets, &shared.settings);
    let starting = Starting {
        shared,
        spec,
        progress,
    };
    let mut plan = plan;
    let deadline = Instant::now() + PATIENCE;
    let mut pause = PAUSE;
    loop {
        if let Some(claimed) = shared.claimed(spec.run).await? {
            starting.refuse_stopped().await?;
            starting.finish(claimed, plan).await?;
            return Ok(handle);
        }
        let mut possible = plan?;
        if starting.begin(&mut possible).await? {
            return Ok(handle);
        }
        if Instant::now() >= deadline {
            return Err(Error::unavailable(format!(
                "what run `{}` needs was taken away again and again while it was being started",
                spec.run
            )));
        }
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
        plan = Ok(possible);
    }
}

/// Whether a container is removed although it has processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Force {
    Yes,
    No,
}

/// What became of the claim on a run.
enum Claim {
    /// Ours: all but the last byte is handed over.
    Won(Feed),
    /// Another container has it.
    Lost,
    /// The container, or the volume of init, was taken away.
    Gone,
}

/// All but the last byte, and the last byte.
fn split(payload: &Private) -> [&[u8]; 2] {
    // On its way into the container.
    let (most, last) = payload.expose().split_at(payload.expose().len() - 1);
    [most, last]
}

struct Starting<'a> {
    shared: &'a Arc<Shared>,
    spec: &'a RunSpec,
    progress: &'a Progress,
}

impl Starting<'_> {
    /// One try from the image to the end; `false`: something that it needs is gone, and it must be begun anew.
    async fn begin(&self, plan: &mut Plan) -> Result<bool> {
        self.shared.refuse_architecture().await?;
        self.shared.refuse_limits(plan.limits()).await?;
        let image = self.shared.image(&plan.image, self.progress).await?;
        plan.complete(&image.config)?;
        if let Some(note) = image.note {
            plan.note(note);
        }
        let carrier = self.shared.carrier(&plan.image, self.progress).await?;
        let Some(container) = self.make(plan, &carrier).await? else {
            return Ok(false);
        };
        fault::step("docker.start.made");
        if let Err(stopped) = self.refuse_stopped().await {
            self.discard(&container.id, Force::No).await;
            return Err(stopped);
        }
        self.progress.report("starting the container");
        let payload = plan.encode()?;
        let feed = match self.claim_fed(&container, &payload).await {
            Ok(Claim::Won(feed)) => feed,
            Ok(Claim::Lost) => return Ok(true),
            Ok(Claim::Gone) => return Ok(false),
            // An error with somebody to blame is no removal: the container was put away because of it.
            Err(error) if error.class().is_none() && self.is_gone(&container).await => {
                return Ok(false);
            }
            Err(error) => return Err(error),
        };
        self.complete(feed, &payload).await?;
        Ok(true)
    }

    /// Whether a container that was to be started was removed meanwhile: by another start of the run, by a stop, by
    /// somebody else.
    async fn is_gone(&self, container: &Container) -> bool {
        let found = self.shared.inspect(&container.id).await;
        found.is_ok_and(|found| found.is_none_or(|found| found.is_going))
    }

    /// Makes the container, or finds the one that was made before.
    async fn make(&self, plan: &Plan, carrier: &str) -> Result<Option<Container>> {
        let shared = self.shared;
        let name = shared.names.preparing(self.spec.run);
        // What tells the lines of init from those of the work; not a secret.
        let mark = names::random()?;
        let body = plan.body(shared, &mark, carrier);
        let options = CreateContainerOptionsBuilder::default().name(&name).build();
        let made = shared
            .engine
            .order()?
            .create_container(Some(options), body)
            .await;
        match made {
            Ok(made) => Ok(Some(Container::made(made.id, mark))),
            // Made before, by us or by somebody who is at it now.
            Err(error) if is_status(&error, 409) => shared.inspect(&name).await,
            // It was removed.
            Err(error)
                if is_status(&error, 404) && shared.image_config(&plan.image).await?.is_none() =>
            {
                Ok(None)
            }
            Err(error) => {
                let error = shared.engine.failed("make the container of the run", error);
                Err(shared.blamed(error))
            }
        }
    }

    /// Starts the container, hands all but the last byte over, and claims it.
    async fn claim_fed(&self, container: &Container, payload: &Private) -> Result<Claim> {
        let shared = self.shared;
        let mut feed = Feed::attach(shared, container).await?;
        if container.phase != Phase::Running
            && let Err(error) = shared
                .engine
                .order()?
                .start_container(&container.id, None)
                .await
            && !is_status(&error, 304)
        {
            return self.not_started(container, error).await;
        }
        fault::step("docker.start.running");
        feed.write(split(payload)[0]).await?;
        fault::step("docker.start.fed");
        self.refuse_stopped().await?;
        // Whoever does it twice finds it done.
        if !Engine::again(|| self.claim(container)).await? {
            return Ok(Claim::Lost);
        }
        fault::step("docker.start.claimed");
        Ok(Claim::Won(feed))
    }

    /// Hands the last byte over: from here on init runs the work without us.
    async fn complete(&self, mut feed: Feed, payload: &Private) -> Result<()> {
        let shared = self.shared;
        feed.write(split(payload)[1]).await?;
        let has_begun = feed.await_start(shared, payload.expose()).await?;
        fault::step("docker.start.begun");
        if has_begun {
            shared.is_begun_now(self.spec.run);
        }
        Ok(())
    }

    /// Gives the container its final name; `false` if another container has it: the run is started.
    async fn claim(&self, container: &Container) -> Result<bool> {
        let shared = self.shared;
        let name = shared.names.claimed(self.spec.run);
        let options = RenameContainerOptionsBuilder::default().name(&name).build();
        let renamed = shared
            .engine
            .order()?
            .rename_container(&container.id, options)
            .await;
        let Err(error) = renamed else {
            return Ok(true);
        };
        match shared.inspect(&name).await? {
            // By somebody who starts the same container.
            Some(claimed) if claimed.id == container.id => Ok(true),
            Some(_) => {
                // Nobody else can have claimed this one.
                self.discard(&container.id, Force::Yes).await;
                Ok(false)
            }
            None => Err(shared
                .engine
                .failed("claim the container of the run", error)),
        }
    }

    /// Completes a start that was left behind the claim: where init still waits, it gets its payload.
    async fn finish(&self, claimed: Container, plan: Result<Plan>) -> Result<()> {
        let shared = self.shared;
        if !claimed.phase.is_alive() || shared.is_begun(self.spec.run, &claimed).await? {
            return Ok(());
        }
        let mut plan = plan?;
        let image = self.shared.image(&plan.image, self.progress).await?;
        plan.complete(&image.config)?;
        let payload = plan.encode()?;
        let mut feed = Feed::attach(shared, &claimed).await?;
        feed.write(payload.expose()).await?;
        if feed.await_start(shared, payload.expose()).await? {
            shared.is_begun_now(self.spec.run);
        }
        Ok(())
    }

    async fn refuse_stopped(&self) -> Result<()> {
        let run = self.spec.run;
        if self.shared.is_stopped(run).await? {
            return Err(Error::conflict(format!(
                "run `{run}` was stopped and will not be started again"
            )));
        }
        Ok(())
    }

    /// The engine could not start the container: it is removed, and the engine's words say whose fault it is.
    async fn not_started(
        &self,
        container: &Container,
        error: bollard::errors::Error,
    ) -> Result<Claim> {
        if self.is_gone(container).await {
            return Ok(Claim::Gone);
        }
        self.discard(&container.id, Force::No).await;
        if is_left_half_started(&error) {
            return Ok(Claim::Gone);
        }
        let error = self
            .shared
            .engine
            .failed("start the container of the run", error);
        let words = error.causes().unwrap_or_default();
        if words.contains(hybrid_runner_helper::container::INIT) && words.contains("no such file") {
            self.shared.distrust_carrier().await;
            return Ok(Claim::Gone);
        }
        Err(self.shared.blamed(error))
    }

    /// Removes a container that has run nothing. What is left is found by the next start, or by a stop. Without force
    /// one is kept that somebody else has started meanwhile.
    async fn discard(&self, id: &str, force: Force) {
        let options = RemoveContainerOptionsBuilder::default()
            .v(true)
            .force(force == Force::Yes)
            .build();
        let Ok(docker) = self.shared.engine.order() else {
            return;
        };
        if let Err(error) = found(docker.remove_container(id, Some(options)).await) {
            tracing::debug!(run = %self.spec.run, %error, "a container that has run nothing is left");
        }
    }
}

/// Whether the engine died while it started this container. It knows nothing of that, and can neither go on nor begin
/// anew: only another container can be started.
fn is_left_half_started(error: &bollard::errors::Error) -> bool {
    const SIGNS: [[&str; 2]; 3] = [
        ["failed to start shim", "file exists"],
        ["task ", "already exists"],
        ["id ", "already in use"],
    ];
    let words = error.to_string();
    let says = |sign: &[&str; 2]| sign.iter().all(|part| words.contains(part));
    SIGNS.iter().any(says)
}
