//! Starting a run: an object, a Secret if there are values to hand over, and the word to go.
//!
//! | step | if we die behind it |
//! |---|---|
//! | the object is made, held back | it has run nothing and holds no value: a later start goes on with it |
//! | its Secret is made, owned by it | as before; the Secret goes with the object, whoever removes that |
//! | the object is let go | **the claim**: the cluster runs the work without us, and never twice |
//!
//! Without values to hand over the object is let go when it is made: one request is all three. Two who start one run at once make
//! one object, since it has one name, and one Secret; both may let it go. What is held back has a mark that a stop takes away, and
//! letting go is refused by the API server without it: a stop that came first wins. Whatever controllers write meanwhile is no matter.

use std::sync::Arc;

use hybrid_runner_core::error::{Error, Result};
use hybrid_runner_core::executor::{Handle, Progress};
use hybrid_runner_core::fault;
use hybrid_runner_core::run::RunSpec;
use hybrid_runner_core::secret::Secrets;
use kube::Resource as _;
use kube::api::PostParams;
use kube::core::Request;
use serde_json::{Value, json};

use super::delivery::Delivery;
use super::error::{failed, is_status};
use super::object::{GOES, GONE, HELD, Object, ObjectSeen};
use super::plan::Plan;
use super::runs::Shared;

/// So often a start is begun anew because its object was changed or removed meanwhile.
const ATTEMPTS: u32 = 20;

/// Starts a run, or completes a start that was left half done.
pub(super) async fn start(
    shared: &Arc<Shared>,
    spec: &RunSpec,
    secrets: &Secrets,
    progress: &Progress,
) -> Result<Handle> {
    let _alone = shared.turns.take(spec.run).await;
    let given = crate::private::short_variables(&shared.settings.pod.secret_env);
    for note in crate::private::short_values(secrets).chain(given) {
        progress.report(&note);
    }
    let starting = Starting { shared, spec };
    let plan = match Plan::of(shared, spec, secrets) {
        Ok(plan) => plan,
        Err(error) => return starting.begun_before(error, progress).await,
    };
    let mut seen = None;
    let mut handed = None;
    for attempt in 0..ATTEMPTS {
        let object = match seen.take() {
            Some(object) => object,
            None => match create(shared, &shared.on_object("make"), &plan.object).await? {
                Some(made) => made,
                // Made before, by us or by somebody who is at it now.
                None => match shared.object(spec.run).await? {
                    Some(object) => object,
                    None => continue,
                },
            },
        };
        fault::step("cluster.start.made");
        starting.refuse_stopped(&object)?;
        if object.was_let_go {
            return Ok(starting.begun(progress));
        }
        if let Some(delivery) = &plan.delivery
            && handed.as_ref() != Some(&object.uid)
        {
            starting.hand_over(delivery, &object).await?;
            handed = Some(object.uid.clone());
            fault::step("cluster.start.handed");
        }
        let goes = if attempt == 0 {
            starting.let_go(&object).await?
        } else {
            // Somebody meddles with the marks.
            starting.let_go_as_seen(&object).await?
        };
        if goes {
            fault::step("cluster.start.begun");
            return Ok(starting.handle());
        }
        seen = shared.object(spec.run).await?;
    }
    Err(Error::unavailable(format!(
        "the {} of run `{}` was changed again and again while it was being started",
        shared.kind.names().kind,
        spec.run
    )))
}

struct Starting<'a> {
    shared: &'a Arc<Shared>,
    spec: &'a RunSpec,
}

impl Starting<'_> {
    fn handle(&self) -> Handle {
        self.shared.handle(self.spec.run)
    }

    /// The handle of a run whose object goes on without us.
    fn begun(&self, progress: &Progress) -> Handle {
        progress.report(&format!("the {} is made", self.shared.kind.names().kind));
        self.handle()
    }

    /// A run that cannot be planned, for this reason: one that was started before needs no plan.
    async fn begun_before(&self, error: Error, progress: &Progress) -> Result<Handle> {
        let Some(object) = self.shared.object(self.spec.run).await? else {
            return Err(error);
        };
        self.refuse_stopped(&object)?;
        if !object.was_let_go {
            return Err(error);
        }
        Ok(self.begun(progress))
    }

    fn refuse_stopped(&self, object: &ObjectSeen) -> Result<()> {
        if object.is_stopped {
            return Err(Error::conflict(format!(
                "run `{}` was stopped and will not be started again",
                self.spec.run
            )));
        }
        Ok(())
    }

    async fn hand_over(&self, delivery: &Delivery, object: &ObjectSeen) -> Result<()> {
        let shared = self.shared;
        let connected = shared.cluster.connected().await?;
        let owner = shared.reference(self.spec.run, &object.uid);
        let labels = shared.names.labels(self.spec.run);
        delivery.make(connected, &labels, &owner).await
    }

    /// Lets the object go if it is marked as held back; `false` if it is not.
    async fn let_go(&self, object: &ObjectSeen) -> Result<bool> {
        let patch = self.go(object);
        let shared = self.shared;
        let expected = [
            (vec!["metadata", "uid"], json!(object.uid)),
            (vec!["metadata", "annotations", GOES], json!(HELD)),
        ];
        let changed = shared.change_where(self.spec.run, &expected, "let go", &patch);
        changed.await
    }

    /// Lets the object go; `false` if it has changed since it was seen.
    async fn let_go_as_seen(&self, object: &ObjectSeen) -> Result<bool> {
        let patch = self.go(object);
        let shared = self.shared;
        shared.change(self.spec.run, object, "let go", patch).await
    }

    fn go(&self, object: &ObjectSeen) -> Value {
        let shared = self.shared;
        let mut patch = if object.is_queued {
            json!({})
        } else {
            shared.kind.go(&shared.settings)
        };
        patch["metadata"]["annotations"][GOES] = GONE.into();
        patch
    }
}

/// Makes an object, for what is told if that fails; `None` if there is one of its name.
pub(super) async fn create(
    shared: &Shared,
    what: &str,
    object: &Value,
) -> Result<Option<ObjectSeen>> {
    let connected = shared.cluster.connected().await?;
    let path = Object::url_path(&shared.kind, Some(&connected.namespace));
    let request = Request::new(path)
        .create(&PostParams::default(), object.to_string().into_bytes())
        .map_err(|_| Error::internal("the object of the run cannot be asked for"))?;
    match connected.client().request::<Object>(request).await {
        Ok(object) => Ok(Some(ObjectSeen::read(shared.kind, &object))),
        Err(error) if is_status(&error, 409) => Ok(None),
        Err(error) => Err(failed(connected, what, &error)),
    }
}
