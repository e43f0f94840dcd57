//! A container that the doctor has made, never starts, and removes: what the engine refuses of a section, it says then.

use std::collections::HashMap;

use bollard::query_parameters::{CreateContainerOptionsBuilder, RemoveContainerOptionsBuilder};
use hybrid_runner_core::error::Result;
use hybrid_runner_core::run::RunSpec;
use hybrid_runner_core::secret::Secrets;
use hybrid_runner_core::{Finding, RunId};
use hybrid_runner_helper::container::FOLDER;

use super::Shared;
use super::carrier;
use super::engine::{found, is_status};
use super::plan::Plan;

/// Tells people whose a container is that `check` has made.
const TRIAL: &str = "io.hybrid-runner.trial";
const DONE: &str = "make a container as the section describes it";

impl Shared {
    /// Whether the engine makes a container as the section describes it. The section's image must be there.
    pub(super) async fn trial(&self) -> Finding {
        match self.try_section().await {
            Ok(true) => Finding::ok("makes containers as the section describes them"),
            Ok(false) => {
                let carrier = carrier::name();
                Finding::warning(format!(
                    "the volume `{carrier}` does not hold init as it was laid: the next start lays it anew; if that is refused, remove the volume (`docker volume rm {carrier}`)"
                ))
            }
            Err(error) => Finding::of_error(&self.blamed(error)),
        }
    }

    /// Whether the volume of init, if there is one, is as it was laid.
    async fn try_section(&self) -> Result<bool> {
        let spec = RunSpec::new(RunId::generate().attempt(1), "check".parse()?, ["true"]);
        let plan = Plan::of(&spec, &Secrets::none(), &self.settings)?;
        let carrier = carrier::name();
        let has_carrier = self.has_volume(&carrier).await?;
        let mut body = plan.body(self, "", &carrier);
        // It belongs to no run.
        let owner = self.names.trial();
        body.labels = Some(HashMap::from([(TRIAL.to_owned(), owner.clone())]));
        if !has_carrier
            && let Some(mounts) = body
                .host_config
                .as_mut()
                .and_then(|host| host.mounts.as_mut())
        {
            mounts.retain(|mount| mount.target.as_deref() != Some(FOLDER));
        }
        let docker = self.engine.order()?;
        let options = CreateContainerOptionsBuilder::default()
            .name(&owner)
            .build();
        let mut made = docker
            .create_container(Some(options.clone()), body.clone())
            .await;
        if made.as_ref().is_err_and(|error| is_status(error, 409)) {
            // Of a check that was interrupted, or that is at it now.
            self.discard_trial(&owner).await?;
            made = docker.create_container(Some(options), body).await;
        }
        made.map_err(|error| self.engine.failed(DONE, error))?;
        let is_laid = if has_carrier {
            self.is_laid(&owner).await
        } else {
            Ok(true)
        };
        self.discard_trial(&owner).await?;
        is_laid
    }

    async fn discard_trial(&self, name: &str) -> Result<()> {
        let options = RemoveContainerOptionsBuilder::default().v(true).build();
        let removed = self
            .engine
            .order()?
            .remove_container(name, Some(options))
            .await;
        match found(removed) {
            Err(error) if is_status(&error, 409) => Ok(()),
            removed => removed
                .map(drop)
                .map_err(|error| self.engine.failed(DONE, error)),
        }
    }
}
