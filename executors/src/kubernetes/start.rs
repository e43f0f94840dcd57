//! Starting a run: a Job, a Secret if there are values to hand over, and the word to go.
//!
//! | step | if we die behind it |
//! |---|---|
//! | the Job is made, suspended | it has run nothing and holds no value: a later start goes on with it |
//! | its Secret is made, owned by it | as before; the Secret goes with the Job, whoever removes that |
//! | the Job is let go | **the claim**: the cluster runs the work without us, and never twice |
//!
//! Without values to hand over the Job is made unsuspended: one request is all three. Two who start one run at once make one Job,
//! since it has one name, and one Secret; both may let it go. A stop is a mark on the Job, and letting go is refused by the API
//! server if the Job has changed since it was seen: a stop that came first wins.

use std::sync::Arc;

use hybrid_runner_core::error::{Error, Result};
use hybrid_runner_core::executor::{Handle, Progress};
use hybrid_runner_core::fault;
use hybrid_runner_core::run::RunSpec;
use hybrid_runner_core::secret::Secrets;
use k8s_openapi::api::batch::v1::Job;
use kube::Resource as _;
use kube::api::PostParams;
use kube::core::Request;
use serde_json::{Value, json};

use super::Shared;
use super::job::JobSeen;
use super::plan::Plan;
use crate::cluster::delivery::Delivery;
use crate::cluster::error::{failed, is_status};

/// So often a start is begun anew because its Job was changed or removed meanwhile.
const ATTEMPTS: u32 = 20;

/// Starts a run, or completes a start that was left half done.
pub(super) async fn start(
    shared: &Arc<Shared>,
    spec: &RunSpec,
    secrets: &Secrets,
    progress: &Progress,
) -> Result<Handle> {
    let _alone = shared.turns.take(spec.run).await;
    for note in crate::private::short_values(secrets) {
        progress.report(&note);
    }
    // Wrong or not: a run that was started before needs none.
    let plan = Plan::of(shared, spec, secrets);
    let starting = Starting { shared, spec };
    let mut seen = None;
    if plan.is_err() {
        seen = shared.job(spec.run).await?;
    }
    for _ in 0..ATTEMPTS {
        let job = match seen.take() {
            Some(job) => job,
            None => match starting.make(spread(&plan)?).await? {
                Some(made) => made,
                // Made before, by us or by somebody who is at it now.
                None => match shared.job(spec.run).await? {
                    Some(job) => job,
                    None => continue,
                },
            },
        };
        fault::step("kubernetes.start.made");
        starting.refuse_stopped(&job)?;
        if !job.is_suspended {
            progress.report("the Job is made");
            return Ok(super::handle(spec.run, &shared.names.object(spec.run)));
        }
        if let Some(delivery) = &spread(&plan)?.delivery {
            starting.hand_over(delivery, &job).await?;
            fault::step("kubernetes.start.handed");
        }
        if starting.let_go(&job).await? {
            fault::step("kubernetes.start.begun");
            return Ok(super::handle(spec.run, &shared.names.object(spec.run)));
        }
        seen = shared.job(spec.run).await?;
    }
    Err(Error::unavailable(format!(
        "the Job of run `{}` was changed again and again while it was being started",
        spec.run
    )))
}

/// The plan, or why there is none.
fn spread(plan: &Result<Plan>) -> Result<&Plan> {
    plan.as_ref().map_err(|error| {
        let mut copy = Error::new(error.kind(), error.message());
        if let Some(class) = error.class() {
            copy = copy.with_class(class);
        }
        match error.causes() {
            Some(causes) => copy.with_source(causes),
            None => copy,
        }
    })
}

struct Starting<'a> {
    shared: &'a Arc<Shared>,
    spec: &'a RunSpec,
}

impl Starting<'_> {
    /// Makes the Job; `None` if there is one.
    async fn make(&self, plan: &Plan) -> Result<Option<JobSeen>> {
        create(self.shared, &plan.job).await
    }

    fn refuse_stopped(&self, job: &JobSeen) -> Result<()> {
        if job.is_stopped {
            return Err(Error::conflict(format!(
                "run `{}` was stopped and will not be started again",
                self.spec.run
            )));
        }
        Ok(())
    }

    async fn hand_over(&self, delivery: &Delivery, job: &JobSeen) -> Result<()> {
        let shared = self.shared;
        let connected = shared.cluster.connected().await?;
        let owner = json!({
            "apiVersion": "batch/v1",
            "kind": "Job",
            "name": shared.names.object(self.spec.run),
            "uid": job.uid,
        });
        let labels = shared.names.labels(self.spec.run);
        delivery.make(connected, &labels, &owner).await
    }

    /// Lets the Job go; `false` if it has changed since it was seen.
    async fn let_go(&self, job: &JobSeen) -> Result<bool> {
        let patch = json!({ "spec": { "suspend": false } });
        let what = "let the Job of the run go";
        self.shared.change(self.spec.run, job, what, patch).await
    }
}

/// Makes a Job; `None` if there is one of its name.
pub(super) async fn create(shared: &Shared, job: &Value) -> Result<Option<JobSeen>> {
    let connected = shared.cluster.connected().await?;
    let place = Request::new(Job::url_path(&(), Some(&connected.namespace)));
    let request = place
        .create(&PostParams::default(), job.to_string().into_bytes())
        .map_err(|_| Error::internal("the Job of the run cannot be asked for"))?;
    match connected.client().request::<Job>(request).await {
        Ok(job) => Ok(Some(JobSeen::read(&job))),
        Err(error) if is_status(&error, 409) => Ok(None),
        Err(error) => Err(failed(connected, "make the Job of the run", &error)),
    }
}
