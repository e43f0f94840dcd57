//! The object of a run: what an executor says of its kind, what we want to know of one, and the marks that we leave on it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use hybrid_runner_core::RunId;
use hybrid_runner_core::run::Failure;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use kube::core::DynamicResourceScope;
use serde::Deserialize;
use serde_json::Value;

use super::config::Settings;
use super::names;
use super::rights::Rights;
use super::seen::time;

/// Annotation: a stop was asked for. It forbids a start for ever.
pub(crate) const STOPPED: &str = "hybrid-runner.io/stopped";
/// Annotation: the run failed, in the words of the contract as JSON: before its work began, or because its pod is gone.
pub(super) const FAILED: &str = "hybrid-runner.io/failed";
/// Annotation beside [`FAILED`]: its work had begun, and its pod is gone.
pub(super) const BEGUN: &str = "hybrid-runner.io/begun";
/// Annotation: there is a Secret, without which the object must not be let go.
pub(super) const SECRET: &str = "hybrid-runner.io/secret";
/// Annotation: whether the object was let go, be it when it was made. One that is held back all the same was held back by somebody else.
pub(super) const GOES: &str = "hybrid-runner.io/goes";
/// It was.
pub(super) const GONE: &str = "true";
/// It is held back, and nobody has asked for a stop.
pub(super) const HELD: &str = "false";
/// Annotation: somebody else held the object back after it was let go, so that its pod is gone or going.
pub(super) const TAKEN: &str = "hybrid-runner.io/taken-back";
/// Annotation: the time limit in milliseconds, counted from the beginning of the work.
pub(super) const TIMEOUT: &str = "hybrid-runner.io/timeout-ms";

/// What an executor says of its kind of object: each runs one pod, once, and can be held back until it is let go.
pub(crate) trait Kind: fmt::Debug + Send + Sync + 'static {
    /// As the API server calls it.
    fn names(&self) -> &'static KindNames;

    /// Who brings the kind into a cluster, where it is not there anyway: to be found, and where to get it.
    fn bringer(&self) -> Option<&'static Bringer>;

    /// What must be allowed, so that anything works.
    fn needed(&self) -> &'static [Rights];

    /// The `spec` around a pod, before the section's template is merged into it.
    fn spec(&self, shell: &Shell<'_>) -> Value;

    /// Of a whole object: what no template may change.
    fn keep(&self, shell: &Shell<'_>) -> Value;

    /// An object that never runs, without its name.
    fn never(&self, labels: &Value) -> Value;

    /// The change that lets an object go which was made held back.
    fn go(&self, settings: &Settings) -> Value;

    /// The change after which no pod is ever made for an object.
    fn hold(&self) -> Value;

    /// A label by which a queue is known that lets an object go in its turn, and holds back what anybody else lets go.
    fn queue(&self) -> Option<&'static str>;

    /// Whether the cluster at once deletes the pod of an object that is held.
    fn puts_away(&self) -> bool;

    /// Whether the cluster may make another pod for one that is gone, so that the object is to be held before that.
    fn makes_others(&self) -> bool;

    /// Whether the first process of a container is a program of the cluster, which writes lines of its own into the log.
    fn has_first_process(&self) -> bool;

    /// Where the log of a run is whose pod is gone, by its whole object. What reads it gets this name; `from`: so many
    /// bytes of it are known.
    fn archive(&self, object: &Value, name: &str, from: u64) -> Archive;

    /// What the doctor has to say of what a section asks for.
    fn warning(&self, settings: &Settings) -> Option<&'static str>;

    /// How an object stands.
    fn standing(&self, object: &Object) -> Standing;

    /// Why a run failed whose object ended like this, and whose pod is gone or never was.
    fn blame(&self, end: &End) -> Failure;
}

/// A program that brings a kind into a cluster.
#[derive(Debug)]
pub(crate) struct Bringer {
    pub(crate) name: &'static str,
    pub(crate) install: &'static str,
    /// Its container in our pods, whose image tells the version.
    pub(crate) container: &'static str,
    /// The versions with which it was tried.
    pub(crate) tried: &'static [&'static str],
}

/// Where the log of a pod is that is gone.
#[derive(Debug, PartialEq)]
#[cfg_attr(
    not(feature = "argo"),
    expect(dead_code, reason = "nobody archives the log of a Job")
)]
pub(crate) enum Archive {
    /// Nobody archived it.
    Nowhere,
    /// It is being archived.
    Later,
    /// It can be had by this object: the log of its pod, which has the label [`READS`](names::READS), is the size of the whole in a line, and
    /// then in base64 what is not known yet.
    At(Box<Value>),
}

/// Names of a kind.
#[derive(Debug)]
pub(crate) struct KindNames {
    pub(crate) group: &'static str,
    pub(crate) version: &'static str,
    /// `Job`.
    pub(crate) kind: &'static str,
    /// `jobs`.
    pub(crate) plural: &'static str,
}

impl KindNames {
    /// `batch/v1`.
    pub(crate) fn api_version(&self) -> String {
        format!("{}/{}", self.group, self.version)
    }
}

/// What goes into an object.
pub(crate) struct Shell<'a> {
    pub(crate) settings: &'a Settings,
    /// Of the object and its pod.
    pub(crate) labels: &'a Value,
    /// The pod's `spec`.
    pub(crate) pod: &'a Value,
    /// Whether it is held back until it is let go.
    pub(crate) is_held: bool,
}

/// An object as the API server knows it, of any kind: no more of it than we look at. It is never written back.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Object {
    pub(crate) metadata: ObjectMeta,
    pub(crate) spec: ObjectSpec,
    pub(crate) status: ObjectStatus,
}

/// Of its `spec`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ObjectSpec {
    pub(crate) suspend: Option<bool>,
    /// Of a Job; a template may give a Workflow anything here.
    pub(crate) parallelism: Value,
    /// Of a Workflow.
    pub(crate) shutdown: Option<String>,
}

/// Of its `status`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ObjectStatus {
    pub(crate) conditions: Vec<Condition>,
    /// Of a Workflow.
    pub(crate) phase: Option<String>,
    pub(crate) message: Option<String>,
    pub(crate) nodes: BTreeMap<String, Node>,
}

/// What a controller says of its object.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Condition {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) status: String,
    pub(crate) reason: Option<String>,
    pub(crate) message: Option<String>,
}

/// A step of a Workflow.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Node {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) phase: Option<String>,
    pub(crate) message: Option<String>,
    /// Where its pod was, if it had one.
    pub(crate) host_node_name: Option<String>,
}

impl Resource for Object {
    type DynamicType = &'static dyn Kind;
    type Scope = DynamicResourceScope;

    fn kind(kind: &Self::DynamicType) -> Cow<'_, str> {
        kind.names().kind.into()
    }

    fn group(kind: &Self::DynamicType) -> Cow<'_, str> {
        kind.names().group.into()
    }

    fn version(kind: &Self::DynamicType) -> Cow<'_, str> {
        kind.names().version.into()
    }

    fn plural(kind: &Self::DynamicType) -> Cow<'_, str> {
        kind.names().plural.into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// What we want to know of an object: little, as it is kept for each live run.
#[derive(Debug, Clone, PartialEq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "marks that are independent of each other"
)]
pub(crate) struct ObjectSeen {
    pub(super) uid: String,
    pub(super) version: String,
    pub(super) created: Option<Timestamp>,
    /// Whether somebody deleted it, and it stays until its pods are gone.
    pub(super) is_going: bool,
    pub(super) is_stopped: bool,
    /// When that was asked for.
    pub(super) stopped: Option<Timestamp>,
    pub(super) failed: Option<Failure>,
    /// Whether it failed after its work had begun.
    pub(super) had_begun: bool,
    pub(super) has_secret: bool,
    /// Whether a queue lets it go.
    pub(super) is_queued: bool,
    /// Whether it was ever let go, as far as that is ours to do.
    pub(super) was_let_go: bool,
    /// Whether somebody else held it back after that, be it that it was let go again: who has it wait from the beginning, as a queue
    /// does, did not.
    was_taken_back: bool,
    pub(super) timeout: Option<Duration>,
    pub(super) standing: Standing,
}

/// How an object stands, by its own kind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "what an object says, each for itself"
)]
pub(crate) struct Standing {
    /// Not let go yet.
    pub(crate) is_suspended: bool,
    /// No pod is made for it (any more), be it for want of the word to go or by a stop.
    pub(crate) is_held: bool,
    /// The same for ever, by a word of ours.
    pub(crate) is_closed: bool,
    /// Whether somebody else let it go.
    pub(crate) was_resumed: bool,
    /// Whether somebody told the cluster to end it: of a kind that can be told so.
    pub(crate) is_shut: bool,
    /// What it waits for, as long as it has no pod.
    pub(crate) waits: Option<String>,
    /// What is wrong, if it stays like this for a while.
    pub(crate) untaken: Option<&'static str>,
    /// What the cluster says of its end.
    pub(crate) end: Option<End>,
}

/// What the cluster says of an object's end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct End {
    pub(crate) is_complete: bool,
    /// Whether it never had a pod, so that there is no log.
    pub(crate) never_began: bool,
    /// In one word.
    pub(crate) reason: String,
    pub(crate) message: String,
}

impl ObjectSeen {
    pub(super) fn read(kind: &dyn Kind, object: &Object) -> Self {
        let metadata = &object.metadata;
        let annotation = |name| metadata.annotations.as_ref()?.get(name);
        let timeout = annotation(TIMEOUT).and_then(|text| text.parse().ok());
        let standing = kind.standing(object);
        let has_secret = annotation(SECRET).is_some();
        let labels = metadata.labels.as_ref();
        let is_queued = kind
            .queue()
            .is_some_and(|label| labels.is_some_and(|labels| labels.contains_key(label)));
        let was_let_go = annotation(GOES).is_some_and(|goes| goes == GONE)
            || !(standing.is_suspended || is_queued);
        // It is made, and if it has a Secret let go. One that is let go again was changed twice more.
        let changes = 1 + i64::from(has_secret && !is_queued);
        let more = metadata.generation.unwrap_or_default() - changes;
        let is_held_again = standing.is_suspended && was_let_go && more >= 1;
        let goes_again = !standing.is_suspended && standing.was_resumed && more >= 2;
        let was_taken_back = annotation(TAKEN).is_some()
            || (kind.puts_away() && !standing.is_closed && (is_held_again || goes_again));
        Self {
            uid: metadata.uid.clone().unwrap_or_default(),
            version: metadata.resource_version.clone().unwrap_or_default(),
            created: time(metadata.creation_timestamp.as_ref()),
            is_going: metadata.deletion_timestamp.is_some(),
            is_stopped: annotation(STOPPED).is_some(),
            stopped: annotation(STOPPED).and_then(|text| text.parse().ok()),
            failed: annotation(FAILED).and_then(|text| serde_json::from_str(text).ok()),
            had_begun: annotation(BEGUN).is_some(),
            has_secret,
            is_queued,
            was_let_go,
            was_taken_back,
            timeout: timeout.map(Duration::from_millis),
            standing,
        }
    }

    /// The run that it belongs to, and what we want to know of it.
    pub(super) fn of(kind: &dyn Kind, object: &Object) -> Option<(RunId, Self)> {
        let run = names::run_of(object.metadata.labels.as_ref())?;
        Some((run, Self::read(kind, object)))
    }

    /// Whether its run has a log that is masked by its Secret: not before it is let go, and not if it never was.
    pub(super) fn is_to_be_masked(&self) -> bool {
        self.has_secret && self.was_let_go
    }

    /// Whether it ended, if it did, without ever having had a pod whose work began.
    pub(super) fn never_began(&self) -> bool {
        let standing = &self.standing;
        match (&self.failed, &standing.end) {
            (Some(_), _) => !self.had_begun,
            (None, Some(end)) => end.never_began,
            (None, None) => standing.is_held && !self.is_taken_back(),
        }
    }

    /// Whether it may still be let go.
    pub(super) fn may_go(&self) -> bool {
        !self.was_let_go && !self.is_stopped && self.failed.is_none()
    }

    /// Whether somebody else held it back after it was let go, so that the cluster put its pod away.
    pub(super) fn is_taken_back(&self) -> bool {
        self.was_taken_back && !self.is_stopped && self.failed.is_none()
    }

    /// Whether it was let go again after that, so that the cluster makes another pod.
    pub(super) fn goes_again(&self) -> bool {
        self.is_taken_back() && !self.standing.is_held
    }

    /// Whether it does not go although we let it go.
    pub(super) fn is_held_by_others(&self) -> bool {
        self.standing.is_suspended && self.was_let_go
    }
}
