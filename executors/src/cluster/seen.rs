//! What we want to know of a pod: little, as it is kept for each live run.

use hybrid_runner_core::RunId;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ContainerStateTerminated, ContainerStatus, Pod, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::names;
use super::pod::MAIN;

/// A pod of a run.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct PodSeen {
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) phase: Phase,
    /// When somebody deleted it; its processes may still have their grace.
    pub(crate) going: Option<Timestamp>,
    /// Whether that is only known to be before: the node is done with the pod, which changes the time of its deletion.
    pub(crate) is_late: bool,
    /// In one word, of a pod that its node or the cluster put away: `DeadlineExceeded`, `Evicted`, …
    pub(crate) reason: Option<String>,
    pub(crate) message: Option<String>,
    /// Why it has no node.
    pub(crate) unschedulable: Option<String>,
    /// Since when the cluster does not take it for well.
    pub(crate) unwell: Option<Timestamp>,
    /// Why the cluster itself ends it.
    pub(crate) disruption: Option<(String, String)>,
    /// When its node took it.
    pub(crate) accepted: Option<Timestamp>,
    /// How many seconds from then on it may live.
    pub(crate) deadline: Option<i64>,
    /// How many seconds its processes have after they were asked to end.
    pub(crate) grace: i64,
    pub(crate) main: Container,
    /// A container that must be done before the work begins, by its name, and what is wrong with it.
    pub(crate) before: Option<(String, Container)>,
}

/// Where a pod stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Pending,
    Running,
    Succeeded,
    Failed,
}

/// Where a container stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Container {
    /// Nothing is known of it.
    Unknown,
    /// Not begun: in one word why, and in more.
    Waiting {
        reason: String,
        message: String,
    },
    Running {
        since: Option<Timestamp>,
    },
    Over(Over),
}

/// How a container ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Over {
    pub(crate) exit_code: i32,
    /// `Completed`, `Error`, `OOMKilled`, `StartError`, …
    pub(crate) reason: String,
    /// The words of the container runtime. Not those of the workload, which could hold a value.
    pub(crate) message: Option<String>,
    pub(crate) started: Option<Timestamp>,
    pub(crate) finished: Option<Timestamp>,
}

impl PodSeen {
    /// The run that it belongs to, and what we want to know.
    pub(crate) fn of(pod: &Pod) -> Option<(RunId, Self)> {
        let run = names::run_of(pod.metadata.labels.as_ref())?;
        let spec = pod.spec.as_ref();
        let status = pod.status.clone().unwrap_or_default();
        let statuses = status.container_statuses.unwrap_or_default();
        let main = statuses.iter().find(|status| status.name == MAIN);
        let before = status.init_container_statuses.unwrap_or_default();
        let declared = spec.and_then(|spec| spec.init_containers.as_deref());
        // One that runs beside the work is begun again when it ends.
        let is_beside = |name: &str| {
            let mut all = declared.into_iter().flatten();
            all.any(|one| one.name == name && one.restart_policy.as_deref() == Some("Always"))
        };
        let conditions = status.conditions.unwrap_or_default();
        let condition = |kind: &str, is: &str| {
            let found = conditions
                .iter()
                .find(|c| c.type_ == kind && c.status == is);
            found.map(|found| {
                let reason = found.reason.clone().unwrap_or_default();
                (reason, found.message.clone().unwrap_or_default())
            })
        };
        let seen = Self {
            name: pod.metadata.name.clone()?,
            uid: pod.metadata.uid.clone()?,
            phase: match status.phase.as_deref() {
                Some("Running") => Phase::Running,
                Some("Succeeded") => Phase::Succeeded,
                Some("Failed") => Phase::Failed,
                _ => Phase::Pending,
            },
            going: going(pod),
            is_late: pod.metadata.deletion_grace_period_seconds == Some(0),
            reason: status.reason,
            message: status.message,
            unschedulable: condition("PodScheduled", "False").map(|(_, message)| message),
            unwell: unwell(&conditions),
            disruption: condition("DisruptionTarget", "True"),
            accepted: time(status.start_time.as_ref()),
            deadline: spec.and_then(|spec| spec.active_deadline_seconds),
            grace: spec
                .and_then(|spec| spec.termination_grace_period_seconds)
                .unwrap_or(30),
            main: main.map_or(Container::Unknown, Container::of),
            before: before.iter().find_map(|status| {
                let container = Container::of(status);
                let is_passing = matches!(container, Container::Over(_)) && is_beside(&status.name);
                (container.is_wrong() && !is_passing).then(|| (status.name.clone(), container))
            }),
        };
        Some((run, seen))
    }

    /// Whether it has ended for good.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Succeeded | Phase::Failed)
    }

    /// Whether its work was ever begun, so that there may be output.
    pub(crate) fn has_begun(&self) -> bool {
        match &self.main {
            Container::Running { .. } => true,
            Container::Over(over) => !over.never_began(),
            Container::Unknown | Container::Waiting { .. } => false,
        }
    }

    /// Whether it was deleted before its work ended, so that the end may be because of that.
    pub(crate) fn was_going(&self) -> bool {
        const SIGNALS: [i32; 2] = [128 + 9, 128 + 15];
        let Some(going) = self.going else {
            return false;
        };
        match &self.main {
            Container::Over(over) => {
                let is_behind = over.finished.is_none_or(|ended| ended >= going);
                is_behind || (self.is_late && SIGNALS.contains(&over.exit_code))
            }
            _ => true,
        }
    }

    /// Takes over what was known of the same pod before and cannot be seen any more.
    pub(crate) fn remember(&mut self, before: &Self) {
        if before.going.is_some() && !before.is_late {
            (self.going, self.is_late) = (before.going, false);
        }
    }

    /// The pod is gone from the cluster: what it had not ended by then, that has ended.
    pub(crate) fn is_gone(&mut self) {
        self.going.get_or_insert_with(Timestamp::now);
    }

    /// When the work began.
    pub(crate) fn began(&self) -> Option<Timestamp> {
        match &self.main {
            Container::Running { since } => *since,
            Container::Over(over) => over.started,
            _ => None,
        }
    }

    /// When the work ended.
    pub(crate) fn ended(&self) -> Option<Timestamp> {
        match &self.main {
            Container::Over(over) => over.finished,
            _ => None,
        }
    }
}

impl Container {
    fn of(status: &ContainerStatus) -> Self {
        let Some(state) = &status.state else {
            return Self::Unknown;
        };
        if let Some(ended) = &state.terminated {
            let mut reason = ended.reason.clone().unwrap_or_default();
            if could_not_begin(ended) {
                "StartError".clone_into(&mut reason);
            }
            let of_runtime = !matches!(reason.as_str(), "Completed" | "Error" | "OOMKilled");
            return Self::Over(Over {
                exit_code: ended.exit_code,
                message: ended.message.clone().filter(|_| of_runtime),
                reason,
                started: time(ended.started_at.as_ref()),
                finished: time(ended.finished_at.as_ref()),
            });
        }
        if let Some(running) = &state.running {
            return Self::Running {
                since: time(running.started_at.as_ref()),
            };
        }
        match &state.waiting {
            Some(waiting) => Self::Waiting {
                reason: waiting.reason.clone().unwrap_or_default(),
                message: waiting.message.clone().unwrap_or_default(),
            },
            None => Self::Unknown,
        }
    }

    fn is_wrong(&self) -> bool {
        match self {
            Self::Over(over) => over.exit_code != 0,
            Self::Waiting { reason, .. } => reason != "PodInitializing",
            _ => false,
        }
    }
}

impl Over {
    /// Whether the container runtime could not even begin it.
    pub(crate) fn never_began(&self) -> bool {
        matches!(
            self.reason.as_str(),
            "StartError" | "ContainerCannotRun" | "CreateContainerError" | "RunContainerError"
        )
    }
}

/// Whether Argo's first process says that it could not begin the work: by its exit code and its words.
fn could_not_begin(ended: &ContainerStateTerminated) -> bool {
    const CODE: i32 = 64;
    const WORDS: [&str; 2] = ["failed to find name in PATH: ", "failed to start command: "];
    let message = ended.message.as_deref().unwrap_or_default();
    ended.exit_code == CODE && WORDS.iter().any(|words| message.starts_with(words))
}

fn unwell(conditions: &[PodCondition]) -> Option<Timestamp> {
    let mut conditions = conditions.iter();
    let ready = conditions.find(|condition| condition.type_ == "Ready")?;
    time(ready.last_transition_time.as_ref()).filter(|_| ready.status == "False")
}

/// When a pod was deleted: its timestamp says when its grace is over.
fn going(pod: &Pod) -> Option<Timestamp> {
    let until = time(pod.metadata.deletion_timestamp.as_ref())?;
    let grace = pod.metadata.deletion_grace_period_seconds.unwrap_or(0);
    until.checked_sub(SignedDuration::from_secs(grace)).ok()
}

/// Kubernetes says the first second of 1970 for never.
pub(crate) fn time(time: Option<&Time>) -> Option<Timestamp> {
    time.map(|time| time.0)
        .filter(|time| *time > Timestamp::UNIX_EPOCH)
}
