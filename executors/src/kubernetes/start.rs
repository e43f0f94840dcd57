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
    let starting = Starting { shared, spec };
    let plan = match Plan::of(shared, spec, secrets) {
        Ok(plan) => plan,
        Err(error) => return starting.begun_before(error, progress).await,
    };
    let mut seen = None;
    for _ in 0..ATTEMPTS {
        let job = match seen.take() {
            Some(job) => job,
            None => match create(shared, &plan.job).await? {
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
            return Ok(starting.begun(progress));
        }
        if let Some(delivery) = &plan.delivery {
            starting.hand_over(delivery, &job).await?;
            fault::step("kubernetes.start.handed");
        }
        if starting.let_go(&job).await? {
            fault::step("kubernetes.start.begun");
            return Ok(starting.handle());
        }
        seen = shared.job(spec.run).await?;
    }
    Err(Error::unavailable(format!(
        "the Job of run `{}` was changed again and again while it was being started",
        spec.run
    )))
}

struct Starting<'a> {
    shared: &'a Arc<Shared>,
    spec: &'a RunSpec,
}

impl Starting<'_> {
    fn handle(&self) -> Handle {
        super::handle(self.spec.run, &self.shared.names.object(self.spec.run))
    }

    /// The handle of a run whose Job goes on without us.
    fn begun(&self, progress: &Progress) -> Handle {
        progress.report("the Job is made");
        self.handle()
    }

    /// A run that cannot be planned, for this reason: one that was started before needs no plan.
    async fn begun_before(&self, error: Error, progress: &Progress) -> Result<Handle> {
        let Some(job) = self.shared.job(self.spec.run).await? else {
            return Err(error);
        };
        self.refuse_stopped(&job)?;
        if job.is_suspended {
            return Err(error);
        }
        Ok(self.begun(progress))
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
