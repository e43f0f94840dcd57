//! What the doctor finds about a cluster.

use hybrid_runner_core::error::{Error, Result};
use hybrid_runner_core::{Finding, Health};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::Api;
use kube::api::ListParams;

use super::board::list;
use super::client::Connected;
use super::error::{failed, found};
use super::names::OF_ANY;
use super::object::{Bringer, ObjectSeen};
use super::rights::{self, Rights, missing};
use super::runs::Shared;
use super::watch::NEGLECTED;

/// What is needed for each kind of object, besides the object itself.
const NEEDED: &[Rights] = &[
    ("", "pods", &["list", "watch", "patch", "delete"]),
    ("", "pods/log", &["get"]),
    ("", "secrets", &["create", "get", "delete"]),
];
/// Without this it is not told why an object has no pod, or why a pod does not begin.
const USEFUL: &[Rights] = &[("", "events", &["list"])];
/// The oldest that this was written for.
const OLDEST: (u32, u32) = (1, 28);

impl Shared {
    /// Reachable, and allowed.
    pub(super) async fn check(&self) -> Result<()> {
        self.list().await?;
        let connected = self.cluster.connected().await?;
        let lacking = self.lacking(connected).await?;
        if lacking.is_empty() {
            return Ok(());
        }
        Err(Error::denied(rights::finding(connected, &lacking).message))
    }

    /// Reachable, which version, our rights, and what to know besides.
    pub(super) async fn examine(&self) -> Vec<Finding> {
        let connected = match self.cluster.connected().await {
            Ok(connected) => connected,
            Err(error) => return vec![Finding::of_error(&error)],
        };
        let mut findings = vec![match version(connected).await {
            Ok(finding) => finding,
            Err(error) => return vec![Finding::of_error(&error)],
        }];
        findings.extend(no_namespace(connected).await);
        findings.extend(self.settings.refused().map(Finding::failed));
        findings.extend(self.settings.unread().map(Finding::warning));
        if let Some(bringer) = self.kind.bringer() {
            match self.brought(connected, bringer).await {
                Ok(found) => findings.extend(found),
                // Nothing else of it can be told.
                Err(error) => {
                    findings.push(Finding::of_error(&error));
                    return findings;
                }
            }
        }
        findings.push(match self.lacking(connected).await {
            Ok(lacking) => rights::finding(connected, &lacking),
            Err(error) => Finding::of_error(&error),
        });
        if findings
            .iter()
            .all(|finding| finding.health != Health::Failed)
        {
            findings.extend(self.trial(connected).await);
        }
        if let Ok(lacking) = missing(connected, USEFUL).await
            && !lacking.is_empty()
        {
            findings.push(Finding::warning(format!(
                "{} may not look at events in `{}`, so that `show RUN` cannot say why a run has no pod, or why its node does not make it ready; \
                 add these rules to its Role:\n{}",
                connected.identity,
                connected.namespace,
                rights::rules(&lacking)
            )));
        }
        findings.extend(self.kind.warning(&self.settings).map(Finding::warning));
        // Whoever examines need not be the runner: what it has is not told from what others have.
        findings.push(match list(&connected.objects(self.kind), OF_ANY).await {
            Ok((runs, _)) => Finding::ok(format!(
                "{} {} of runners are there",
                runs.len(),
                self.kind.names().plural
            )),
            Err(error) => Finding::of_error(&failed(
                connected,
                "list what the cluster has of runners",
                &error,
            )),
        });
        if self.settings.pod.restricted {
            findings.extend(of_user(self.settings.pod.user).map(Finding::warning));
        }
        findings
    }

    /// Whether the kind is there, of which version, and whether somebody looks after our objects.
    async fn brought(&self, connected: &Connected, by: &Bringer) -> Result<Vec<Finding>> {
        let names = self.kind.names();
        let listed = connected
            .client()
            .list_api_group_resources(&names.api_version())
            .await;
        let listed = found(listed)
            .map_err(|error| failed(connected, "ask for what the cluster has", &error))?;
        let resources = listed.map(|listed| listed.resources).unwrap_or_default();
        if !resources.iter().any(|one| one.name == names.plural) {
            return Err(Error::unsupported(format!(
                "{} is not installed in the cluster, there is no `{}` of `{}`: see {}",
                by.name,
                names.plural,
                names.api_version(),
                by.install
            )));
        }
        let mut findings = vec![version_of(connected, by).await];
        findings.extend(self.neglected(connected).await);
        Ok(findings)
    }

    /// An object of a runner that nobody looks after.
    async fn neglected(&self, connected: &Connected) -> Option<Finding> {
        let objects = list(&connected.objects(self.kind), OF_ANY).await;
        let (objects, _) = objects.ok()?;
        let now = Timestamp::now();
        let old = |created: Timestamp| now.duration_since(created) >= NEGLECTED;
        let mut seen = objects.iter().map(|one| ObjectSeen::read(self.kind, one));
        let why = seen.find_map(|seen| {
            seen.standing
                .untaken
                .filter(|_| seen.created.is_some_and(old))
        });
        why.map(Finding::failed)
    }

    /// The rights that we need and do not have.
    async fn lacking(
        &self,
        connected: &Connected,
    ) -> Result<Vec<(&'static str, &'static str, Vec<&'static str>)>> {
        let wanted = [self.kind.needed(), NEEDED].concat();
        missing(connected, &wanted).await
    }
}

/// What the node may say of the user of a restricted pod.
fn of_user(user: Option<i64>) -> Option<&'static str> {
    match user {
        None => Some(
            "no `user` is set: images that run as root, or that name their user by a word, are refused by the node",
        ),
        Some(0) => {
            Some("`user = 0` is root, which the node refuses: set another, or `restricted = false`")
        }
        Some(_) => None,
    }
}

/// Its own image in the pod of a run tells its version.
async fn version_of(connected: &Connected, by: &Bringer) -> Finding {
    let wanted = ListParams::default().labels(OF_ANY).limit(50);
    let pods = connected.api::<Pod>().list(&wanted).await;
    let pods = pods.map(|pods| pods.items).unwrap_or_default();
    let containers = pods.iter().filter_map(|pod| pod.spec.as_ref());
    let mut containers = containers.flat_map(|spec| &spec.containers);
    let own = containers.find(|container| container.name == by.container);
    let image = own.and_then(|own| own.image.as_deref());
    let Some((_, version)) = image.and_then(|image| image.rsplit_once(':')) else {
        return Finding::ok(format!(
            "{} is installed; its version is told while the pod of a run is there",
            by.name
        ));
    };
    let found = format!("{} {version}", by.name);
    if by.tried.iter().any(|tried| version.starts_with(tried)) {
        return Finding::ok(found);
    }
    let tried = by.tried.join("x and ");
    Finding::warning(format!("{found}: it was tried with {tried}x alone"))
}

/// A list of a namespace that is not there is empty, and everybody may make one.
async fn no_namespace(connected: &Connected) -> Option<Finding> {
    let all: Api<Namespace> = Api::all(connected.client().clone());
    // Who may not look at namespaces is told of rights: most often a Role is bound in this one, so that it is there.
    let found = all.get_opt(&connected.namespace).await.ok()?;
    found.is_none().then(|| {
        Finding::failed(format!(
            "there is no namespace `{}`: create it, or correct `namespace`",
            connected.namespace
        ))
    })
}

async fn version(connected: &Connected) -> Result<Finding> {
    let info = connected.client().apiserver_version().await;
    let info = info.map_err(|error| failed(connected, "ask for the version", &error))?;
    let found = format!(
        "Kubernetes {} at `{}`, namespace `{}`",
        info.git_version, connected.server, connected.namespace
    );
    let number = |text: &str| {
        let digits: String = text.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().unwrap_or(0)
    };
    if (number(&info.major), number(&info.minor)) >= OLDEST {
        return Ok(Finding::ok(found));
    }
    Ok(Finding::warning(format!(
        "{found}: older than 1.28, with which nothing was tried"
    )))
}
