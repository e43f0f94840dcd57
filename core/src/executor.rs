//! The contract of everything that runs work.
//!
//! Server → runner → executor → plugin speak this one contract. Recovery is not a feature of it:
//! re-attaching is calling [`Executor::watch`] and [`Executor::logs`] again.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::Result;
use crate::finding::Finding;
use crate::id::RunId;
use crate::log::{LogChunk, LogCursor};
use crate::run::{RunSpec, Status};
use crate::secret::Secrets;

/// Something that runs work: a backend, a plugin, or a whole runner seen from its server.
///
/// An executor keeps nothing in memory that it cannot find again from an id: the backend is the
/// database. Names of backend objects are derived from the attempt; labels carry owner and run;
/// "already exists" is success.
///
/// # Contract
///
/// Every executor passes [`crate::testing::executor_contract`]; each bullet under `# Behavior` has its cases there,
/// named as promises. Every method may be dropped at any await: dropping stops the asking, never the run.
#[async_trait]
pub trait Executor: fmt::Debug + Send + Sync + 'static {
    /// What this backend can do.
    ///
    /// # Behavior
    ///
    /// - the same through every executor over one backend.
    async fn capabilities(&self) -> Result<Capabilities>;

    /// Whether the backend can be reached and we are allowed to use it.
    ///
    /// # Behavior
    ///
    /// - has no side effects;
    /// - an error says what is missing and what to do.
    async fn check(&self) -> Result<()>;

    /// What the doctor (`hybrid-runner check`) finds, a line each.
    ///
    /// By default what `check` and the notes of the capabilities say. A plugin is asked if it answers `examine`.
    ///
    /// # Behavior
    ///
    /// - has no side effects, and answers even if the backend does not;
    /// - each finding that is not well says what to do.
    async fn examine(&self) -> Vec<Finding> {
        findings(self.check().await, self.capabilities().await)
    }

    /// What a start would make in the backend, for a person who asks before it is done (`exec --dry-run`). By default nothing.
    ///
    /// # Behavior
    ///
    /// - has no side effects, and asks the backend nothing;
    /// - `***` stands for each value.
    async fn preview(&self, _spec: &RunSpec, _secrets: &Secrets) -> Result<Vec<Value>> {
        Ok(Vec::new())
    }

    /// Starts the run named by `spec.run` and returns when the backend will run the work without us.
    ///
    /// May take minutes (an image pull); `progress` tells. Values travel in `secrets`, beside the spec.
    ///
    /// # Behavior
    ///
    /// - starting twice starts once, also at the same time and from two executors over one backend;
    /// - a half-done start is completed when called again;
    /// - a start after a stop of that id answers `Conflict`, and nothing runs;
    /// - a field that this backend cannot honour is refused as `Unsupported` before anything is made;
    /// - a reference without a value in `secrets` is refused before anything is made;
    /// - work that cannot begin (no such command) is a started run that ends `Failed` (`spec`), not an error;
    /// - arguments, variables, `files` and `config` reach the work as written, with `WORKFLOW_*` and the values in
    ///   place, and nothing of our own environment;
    /// - a value that was handed over stands in no output: `***` does;
    /// - `timeout` and `stall_timeout` are kept by the backend: `Failed`, class `timeout` or `stalled`.
    ///
    /// # Cancel safety
    ///
    /// Dropped midway, the run may or may not have been started: call it again, or look with [`Executor::list`].
    async fn start(&self, spec: &RunSpec, secrets: &Secrets, progress: &Progress)
    -> Result<Handle>;

    /// The levels of a run's status: the present one first, then each change, ending after `Finished`.
    ///
    /// # Behavior
    ///
    /// - the present status comes first, at once;
    /// - ends after `Finished`, and says `Finished` first and only if the run has ended already;
    /// - a run that the backend does not know is `Finished(Lost)`; a backend that does not answer is an error;
    /// - exit codes and signals are told as they were;
    /// - levels may be skipped, never repeated backwards; `Err` is the last item: call again.
    fn watch(&self, run: &Handle) -> BoxStream<'static, Result<Status>>;

    /// The output of a run from `from` (`None`: its beginning), followed until the run has ended.
    ///
    /// # Behavior
    ///
    /// - from any cursor of this run, gives exactly the rest;
    /// - follows a running run: what is written arrives without asking again;
    /// - ends without error only when the run has ended and all is delivered; at once for a run without output;
    /// - bytes come as written (unicode, binary, long lines, no final newline), each stream in its order;
    /// - what the backend has dropped is one `Gap` in its place;
    /// - a cursor that is not of this run is refused as `Invalid`.
    fn logs(&self, run: &Handle, from: Option<LogCursor>) -> BoxStream<'static, Result<LogChunk>>;

    /// Asks the whole tree of the run to end: politely, and by force after `grace`. The end comes through `watch`.
    ///
    /// # Behavior
    ///
    /// - the whole tree is gone within grace (and a little), grandchildren and those that ignore SIGTERM too;
    /// - returns when the request will be carried out without us; idempotent;
    /// - of a run that has ended changes nothing: the end that was stays;
    /// - of a run that never started prevents it for ever; `watch` then says `Stopped`;
    /// - a second stop with a shorter grace shortens it.
    async fn stop(&self, run: &Handle, grace: Duration) -> Result<()>;

    /// Removes what the backend keeps of a finished run. This is the acknowledgement of its outcome.
    ///
    /// # Behavior
    ///
    /// - idempotent; of an unknown run it is success;
    /// - of a run that has not ended it is refused as `Conflict`;
    /// - afterwards the run is neither listed nor known.
    async fn remove(&self, run: &Handle) -> Result<()>;

    /// All runs of ours that the backend still knows: a strong read.
    ///
    /// # Behavior
    ///
    /// - finds every run that was started and not removed, also through a new executor over the same backend;
    /// - shows nothing that belongs to another owner.
    async fn list(&self) -> Result<Vec<Handle>>;

    /// Completes what must not be broken off, and puts away what is open: called once before the process ends, which does not
    /// wait for ever. Nothing is asked afterwards. Runs go on.
    async fn close(&self) {}
}

/// The findings of an executor that has none of its own to tell: what `check` and the notes of its capabilities say.
pub fn findings(checked: Result<()>, capabilities: Result<Capabilities>) -> Vec<Finding> {
    if let Err(error) = checked {
        return vec![Finding::of_error(&error)];
    }
    let mut findings = vec![Finding::ok("reachable")];
    match capabilities {
        Ok(capabilities) => {
            let notes = capabilities.notes.into_iter();
            findings.extend(notes.map(Finding::warning));
        }
        Err(error) => findings.push(Finding::of_error(&error)),
    }
    findings
}

/// How long a backend keeps a run's output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum LogKeeping {
    /// Until `remove`.
    UntilRemoved,
    /// May drop it at any time: the runner copies it to its spool.
    Volatile,
}

/// What a backend can do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent yes-or-no facts, as on the wire"
)]
#[non_exhaustive]
pub struct Capabilities {
    /// How long output is kept.
    pub logs: LogKeeping,
    /// Whether stdout and stderr are told apart.
    pub streams: bool,
    /// Whether resource limits are enforced.
    pub resources: bool,
    /// Whether `image` is used.
    pub images: bool,
    /// Whether no process can escape the end of its run, whoever is killed.
    pub contained: bool,
    /// Runs at the same time, if there is a limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_runs: Option<u32>,
    /// Whether a run goes by the name that its caller chose. Without it the backend gives names of its own: a start whose
    /// answer is lost is never made again, and the run is `lost` unless the backend can [find](Self::find) it.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub named_start: bool,
    /// Whether a backend with names of its own carries a mark of ours, by which `find` tells what a run became there.
    #[serde(default, skip_serializing_if = "is_no")]
    pub find: bool,
    /// Whether the values of a run are masked in its output before they reach us, also for who comes back later.
    #[serde(default, skip_serializing_if = "is_no")]
    pub masks: bool,
    /// What the contract has and this backend has not, by name: `logs`, `stop`, `limits`, `masking`, …
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<String>,
    /// What a person should know: one line each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

fn yes() -> bool {
    true
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_yes(value: &bool) -> bool {
    *value
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_no(value: &bool) -> bool {
    !*value
}

impl Capabilities {
    /// The least: output kept until removed, nothing else.
    pub fn least() -> Self {
        Self {
            logs: LogKeeping::UntilRemoved,
            streams: false,
            resources: false,
            images: false,
            contained: false,
            max_runs: None,
            named_start: true,
            find: false,
            masks: false,
            missing: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// Whether the backend has this part of the contract.
    pub fn offers(&self, part: &str) -> bool {
        !self.missing.iter().any(|missing| missing == part)
    }
}

/// What a run is found by.
///
/// `Handle::of(id)` works in every method; `state` is the executor's own cache, stored verbatim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct Handle {
    /// The run, or the attempt of it.
    pub run: RunId,
    /// The version of `state`'s format; the executor's own.
    #[serde(default)]
    pub version: u16,
    /// The executor's own cache.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub state: Value,
}

impl Handle {
    /// The handle of a run of which nothing but the id is known.
    pub fn of(run: RunId) -> Self {
        Self {
            run,
            version: 0,
            state: Value::Null,
        }
    }

    /// A handle with the executor's own cache.
    pub fn with_state(run: RunId, version: u16, state: Value) -> Self {
        Self {
            run,
            version,
            state,
        }
    }
}

/// Tells how a long start is getting on. Cheap to clone; dropping it is fine.
#[derive(Clone, Default)]
pub struct Progress(Option<Arc<Listener>>);

type Listener = dyn Fn(&str) + Send + Sync;

impl Progress {
    /// Nobody listens.
    pub fn none() -> Self {
        Self(None)
    }

    /// Calls `listener` with each message. It must not block.
    pub fn to(listener: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(listener)))
    }

    /// Says where the start is, in one line without secrets.
    pub fn report(&self, message: &str) {
        if let Some(listener) = &self.0 {
            listener(message);
        }
    }
}

impl fmt::Debug for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Progress")
    }
}
