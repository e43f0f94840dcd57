//! What the API server would say of the object of a run: it is asked to make one without keeping it.

use hybrid_runner_core::error::Error;
use hybrid_runner_core::run::{FailureClass, RunSpec};
use hybrid_runner_core::secret::Secrets;
use hybrid_runner_core::{Finding, RunId};
use kube::Resource as _;
use serde_json::Value;

use super::client::Connected;
use super::error::failed;
use super::object::Object;
use super::plan::{self, Plan};
use super::runs::Shared;

/// An image is the workflow's affair, where the section has none.
const IMAGE: &str = "hybrid-runner-check";

/// Whether members that the kind does not have are refused, or not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unknown {
    Refused,
    Ignored,
}

impl Shared {
    /// What is wrong with the objects that the section makes, as far as the API server can tell: of all runs, else of those of a type.
    pub(super) async fn trial(&self, connected: &Connected) -> Option<Finding> {
        if let Some(finding) = self.trial_of(connected, None).await {
            return Some(finding);
        }
        for name in self.settings.types.keys() {
            let finding = self.trial_of(connected, Some(name)).await;
            if finding.is_some() {
                return finding;
            }
        }
        None
    }

    async fn trial_of(&self, connected: &Connected, of_type: Option<&str>) -> Option<Finding> {
        let of = match of_type {
            Some(name) => format!("the {} of a run of type `{name}`", self.kind.names().kind),
            None => format!("the {} of a run", self.kind.names().kind),
        };
        let object = match self.object_of(of_type) {
            Ok(object) => object,
            Err(error) => return Some(Finding::of_error(&error)),
        };
        let strictly = would_make(self, connected, &object, Unknown::Refused).await;
        let Err(unread) = strictly else { return None };
        match would_make(self, connected, &object, Unknown::Ignored).await {
            // Told already, where it is the pod's.
            Ok(()) if self.settings.unread().next().is_some() => None,
            Ok(()) => Some(Finding::warning(format!(
                "the API server does not know all of {of}, and leaves it out: {}",
                words(&unread)
            ))),
            // It has rights and webhooks of its own to tell of that, or none to tell of a trial.
            Err(error) if cannot_try(&error) => None,
            Err(error) => Some(refused(&failed(connected, &format!("make {of}"), &error))),
        }
    }

    /// Of a run that does nothing.
    fn object_of(&self, of_type: Option<&str>) -> Result<Value, Error> {
        let mut spec = RunSpec::new(RunId::generate(), "check".parse()?, ["true"]);
        if self.settings.pod.image.is_none() {
            spec.image = Some(IMAGE.to_owned());
        }
        if let Some(name) = of_type {
            spec.labels.insert(plan::TYPE.to_owned(), name.to_owned());
        }
        Ok(Plan::of(self, &spec, &Secrets::none())?.object)
    }
}

/// What cannot be made at all has failed; what quotas and policies ask for a workflow may say itself.
fn refused(error: &Error) -> Finding {
    match error.class() {
        Some(FailureClass::Policy | FailureClass::Quota) => Finding::warning(format!(
            "{}; it was asked for one as the section alone makes it: that of a workflow which says more may be taken",
            error.report()
        )),
        _ => Finding::of_error(error),
    }
}

async fn would_make(
    shared: &Shared,
    connected: &Connected,
    object: &Value,
    unknown: Unknown,
) -> Result<(), kube::Error> {
    let path = Object::url_path(&shared.kind, Some(&connected.namespace));
    let unknown = match unknown {
        Unknown::Refused => "Strict",
        Unknown::Ignored => "Ignore",
    };
    let request = http::Request::post(format!("{path}?dryRun=All&fieldValidation={unknown}"))
        .header(http::header::CONTENT_TYPE, "application/json")
        .body(object.to_string().into_bytes())
        .map_err(kube::core::request::Error::BuildRequest)
        .map_err(kube::Error::BuildRequest)?;
    connected.client().request::<Object>(request).await?;
    Ok(())
}

/// A webhook that does something else besides is not asked without need.
fn cannot_try(error: &kube::Error) -> bool {
    words(error).contains("does not support dry run")
}

fn words(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        _ => super::error::told(error),
    }
}
