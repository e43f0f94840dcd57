//! What the doctor finds about a cluster.

use hybrid_runner_core::Finding;
use hybrid_runner_core::error::{Error, Result};

use super::client::Connected;
use super::error::failed;
use super::rights::{self, Rights, missing};
use super::runs::Shared;

/// What is needed for each kind of object, besides the object itself.
const NEEDED: &[Rights] = &[
    ("", "pods", &["list", "watch", "patch", "delete"]),
    ("", "pods/log", &["get"]),
    ("", "secrets", &["create", "get", "delete"]),
];
/// Without this it is not told why an object has no pod.
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
        findings.push(match self.lacking(connected).await {
            Ok(lacking) => rights::finding(connected, &lacking),
            Err(error) => Finding::of_error(&error),
        });
        if let Ok(lacking) = missing(connected, USEFUL).await
            && !lacking.is_empty()
        {
            findings.push(Finding::warning(format!(
                "{}; without it `show RUN` cannot say why a run has no pod",
                rights::finding(connected, &lacking).message
            )));
        }
        findings.push(match self.list().await {
            Ok(runs) => Finding::ok(format!("{} runs of ours are there", runs.len())),
            Err(error) => Finding::of_error(&error),
        });
        if self.settings.pod.restricted && self.settings.pod.user.is_none() {
            findings.push(Finding::warning(
                "no `user` is set: images that run as root, or that name their user by a word, are refused by the node",
            ));
        }
        findings
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
