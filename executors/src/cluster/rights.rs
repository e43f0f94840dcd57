//! What we may do in a namespace, asked beforehand.

use hybrid_runner_core::Finding;
use hybrid_runner_core::error::Result;
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use kube::Api;
use kube::api::PostParams;

use super::client::Connected;
use super::error::failed;

/// Rights that go together: `(group, resource, verbs)`.
pub(crate) type Rights = (&'static str, &'static str, &'static [&'static str]);

/// Which of these rights we lack.
pub(crate) async fn missing(
    connected: &Connected,
    wanted: &[Rights],
) -> Result<Vec<(&'static str, &'static str, Vec<&'static str>)>> {
    let mut missing = Vec::new();
    for (group, resource, verbs) in wanted {
        let mut lacking = Vec::new();
        for verb in *verbs {
            if !may(connected, group, resource, verb).await? {
                lacking.push(*verb);
            }
        }
        if !lacking.is_empty() {
            missing.push((*group, *resource, lacking));
        }
    }
    Ok(missing)
}

async fn may(connected: &Connected, group: &str, resource: &str, verb: &str) -> Result<bool> {
    let (resource, subresource) = match resource.split_once('/') {
        Some((resource, sub)) => (resource, Some(sub.to_owned())),
        None => (resource, None),
    };
    let review = SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec {
            resource_attributes: Some(ResourceAttributes {
                namespace: Some(connected.namespace.clone()),
                group: Some(group.to_owned()),
                resource: Some(resource.to_owned()),
                subresource,
                verb: Some(verb.to_owned()),
                ..ResourceAttributes::default()
            }),
            ..SelfSubjectAccessReviewSpec::default()
        },
        ..SelfSubjectAccessReview::default()
    };
    let reviews: Api<SelfSubjectAccessReview> = Api::all(connected.client().clone());
    let answer = reviews.create(&PostParams::default(), &review).await;
    let answer = answer.map_err(|error| failed(connected, "ask what we may do", &error))?;
    Ok(answer.status.is_some_and(|status| status.allowed))
}

/// A finding that says which rules a Role lacks, as YAML to be put into it.
pub(crate) fn finding(
    connected: &Connected,
    missing: &[(&'static str, &'static str, Vec<&'static str>)],
) -> Finding {
    if missing.is_empty() {
        return Finding::ok(format!(
            "{} may do all that is needed in `{}`",
            connected.identity, connected.namespace
        ));
    }
    Finding::failed(format!(
        "{} lacks rights in `{}`; add these rules to its Role:\n{}",
        connected.identity,
        connected.namespace,
        rules(missing)
    ))
}

/// As they stand in a Role.
pub(crate) fn rules(rights: &[(&'static str, &'static str, Vec<&'static str>)]) -> String {
    let rules = rights.iter().map(|(group, resource, verbs)| {
        let verbs = verbs.join(", ");
        format!("- {{apiGroups: [\"{group}\"], resources: [\"{resource}\"], verbs: [{verbs}]}}")
    });
    rules.collect::<Vec<_>>().join("\n")
}
