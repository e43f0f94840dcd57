//! The world below a [`super::FakeExecutor`]: runs, faults, calls.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::Either;
use futures::stream::{self, BoxStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::FakeExecutor;
use super::record::Run;
use super::work::{self, Job};
use crate::error::{Error, ErrorKind, Result};
use crate::executor::Capabilities;
use crate::id::{AgentId, Owner, RunId};
use crate::log::Stream;
use crate::run::{Outcome, Status};

/// A backend in memory. Clones are the same backend; it lives until the last of them is dropped.
///
/// It must be used inside a tokio runtime; all its time is tokio's, so that a paused clock works.
#[derive(Debug, Clone)]
pub struct FakeBackend(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    world: Mutex<World>,
    /// Whether it can be reached, and how often that has changed.
    link: watch::Sender<(bool, u64)>,
    /// Whether starts may go on.
    gate: watch::Sender<bool>,
    /// Counts what happens to the table of runs.
    changes: watch::Sender<u64>,
}

#[derive(Debug)]
struct World {
    runs: BTreeMap<(String, RunId), Arc<Run>>,
    /// Outlives removal: how often the work of each run was begun.
    starts: BTreeMap<RunId, u32>,
    calls: Vec<Call>,
    start_errors: VecDeque<Error>,
    lost_replies: u32,
    latency: Duration,
    capabilities: Capabilities,
    work: JoinSet<()>,
}

/// One call of a method.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Call {
    /// Who called.
    pub owner: Owner,
    /// The method's name.
    pub method: &'static str,
    /// The run it was about.
    pub run: Option<RunId>,
}

impl Default for FakeBackend {
    fn default() -> Self {
        Self::new()
    }
}

impl FakeBackend {
    /// An empty backend that tells streams apart and contains its runs.
    pub fn new() -> Self {
        let capabilities = Capabilities {
            streams: true,
            contained: true,
            ..Capabilities::least()
        };
        let world = World {
            runs: BTreeMap::new(),
            starts: BTreeMap::new(),
            calls: Vec::new(),
            start_errors: VecDeque::new(),
            lost_replies: 0,
            latency: Duration::ZERO,
            capabilities,
            work: JoinSet::new(),
        };
        Self(Arc::new(Inner {
            world: Mutex::new(world),
            link: watch::Sender::new((true, 0)),
            gate: watch::Sender::new(true),
            changes: watch::Sender::new(0),
        }))
    }

    /// A new executor over this backend, always of the same owner.
    pub fn executor(&self) -> Arc<FakeExecutor> {
        self.executor_of("Fake")
    }

    /// A new executor of another owner: the runner of that name.
    pub fn executor_of(&self, agent: &str) -> Arc<FakeExecutor> {
        let agent: AgentId = agent.parse().expect("the name of the runner is valid");
        let owner = Owner::of("fake", &agent);
        Arc::new(FakeExecutor::new(self.clone(), owner))
    }

    /// The control of a run by hand; the run need not exist yet.
    pub fn control(&self, run: RunId) -> Control {
        Control {
            backend: self.clone(),
            run,
        }
    }

    /// How often the work of a run was begun, removed ones included.
    pub fn starts_of(&self, run: RunId) -> u32 {
        self.world().starts.get(&run).copied().unwrap_or(0)
    }

    /// Each run (or attempt) whose work was ever begun, and how often.
    pub fn starts(&self) -> BTreeMap<RunId, u32> {
        self.world().starts.clone()
    }

    /// All calls so far, in order. The call of a stream is counted at its first poll.
    pub fn calls(&self) -> Vec<Call> {
        self.world().calls.clone()
    }

    /// How often a method was called for a run.
    pub fn calls_of(&self, method: &str, run: RunId) -> usize {
        let about = |call: &&Call| call.method == method && call.run == Some(run);
        self.world().calls.iter().filter(about).count()
    }

    /// All runs that the backend knows, of all owners.
    pub fn known(&self) -> Vec<RunId> {
        self.world().runs.keys().map(|(_, run)| *run).collect()
    }

    /// What the backend says it can do. It refuses `image`, `resources` and stops accordingly.
    pub fn set_capabilities(&self, capabilities: Capabilities) {
        self.world().capabilities = capabilities;
    }

    /// Lets each method take that long.
    pub fn set_latency(&self, latency: Duration) {
        self.world().latency = latency;
    }

    /// Makes the backend reachable or not. While it is not, each method answers `Unavailable`, and open
    /// streams end with that error; the work goes on.
    pub fn set_reachable(&self, reachable: bool) {
        self.0.link.send_if_modified(|(now, changes)| {
            let changed = *now != reachable;
            *now = reachable;
            *changes += u64::from(changed);
            changed
        });
    }

    /// Ends all open streams with `Unavailable`, as a lost connection does; new ones work.
    pub fn cut_streams(&self) {
        self.0.link.send_modify(|(_, changes)| *changes += 1);
    }

    /// The next start is refused with this error, before anything is made. Several stand in line.
    pub fn fail_next_start(&self, kind: ErrorKind, message: &str) {
        self.fail_next_start_with(Error::new(kind, message));
    }

    /// The next start (of those not yet told to fail) answers with this error.
    pub fn fail_next_start_with(&self, error: Error) {
        self.world().start_errors.push_back(error);
    }

    /// The next start does its work, but its reply is lost: it answers `Unavailable`.
    pub fn lose_next_reply(&self) {
        self.world().lost_replies += 1;
    }

    /// From now on starts make their run (`Starting`) and wait there.
    pub fn hold_starts(&self) {
        self.0.gate.send_replace(false);
    }

    /// Lets held starts go on.
    pub fn release_starts(&self) {
        self.0.gate.send_replace(true);
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.0.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn changed(&self) {
        self.0.changes.send_modify(|changes| *changes += 1);
    }
}

/// What the executor needs.
impl FakeBackend {
    /// Counts a call, takes its time, and answers if the backend can be reached.
    pub(super) async fn enter(
        &self,
        owner: &Owner,
        method: &'static str,
        run: Option<RunId>,
    ) -> Result<()> {
        let latency = {
            let mut world = self.world();
            world.calls.push(Call {
                owner: owner.clone(),
                method,
                run,
            });
            world.latency
        };
        self.changed();
        if latency.is_zero() {
            tokio::task::yield_now().await;
        } else {
            tokio::time::sleep(latency).await;
        }
        if self.0.link.borrow().0 {
            Ok(())
        } else {
            Err(unreachable_backend())
        }
    }

    pub(super) fn capabilities(&self) -> Capabilities {
        self.world().capabilities.clone()
    }

    pub(super) fn injected_start_error(&self) -> Result<()> {
        match self.world().start_errors.pop_front() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    pub(super) fn injected_lost_reply(&self) -> Result<()> {
        let mut world = self.world();
        if world.lost_replies == 0 {
            return Ok(());
        }
        world.lost_replies -= 1;
        Err(Error::unavailable("the reply of the fake backend was lost"))
    }

    pub(super) async fn gate_open(&self) {
        let mut gate = self.0.gate.subscribe();
        let seen = gate.wait_for(|open| *open).await;
        drop(seen.expect("`self` holds the sender"));
    }

    pub(super) fn find(&self, owner: &Owner, run: RunId) -> Option<Arc<Run>> {
        let key = (owner.as_str().to_owned(), run);
        self.world().runs.get(&key).cloned()
    }

    pub(super) fn find_or_make(&self, owner: &Owner, run: RunId) -> Arc<Run> {
        let key = (owner.as_str().to_owned(), run);
        let make = || Arc::new(Run::new(run));
        let found = Arc::clone(self.world().runs.entry(key).or_insert_with(make));
        self.changed();
        found
    }

    pub(super) fn forget(&self, owner: &Owner, run: RunId) {
        let key = (owner.as_str().to_owned(), run);
        self.world().runs.remove(&key);
        self.changed();
    }

    pub(super) fn runs_of(&self, owner: &Owner) -> Vec<RunId> {
        let world = self.world();
        let keys = world.runs.keys();
        keys.filter(|(of, _)| of == owner.as_str())
            .map(|(_, run)| *run)
            .collect()
    }

    /// Begins the work of a run, once; refuses what was stopped.
    pub(super) fn begin(&self, run: &Arc<Run>, job: Job) -> Result<()> {
        if !run.claim() {
            return match run.stop() {
                None => Ok(()),
                Some(_) => Err(Error::conflict(format!(
                    "the run `{}` was stopped; it cannot be started again",
                    run.id()
                ))),
            };
        }
        let mut world = self.world();
        *world.starts.entry(run.id()).or_default() += 1;
        while world.work.try_join_next().is_some() {}
        world.work.spawn(work::live(Arc::clone(run), job));
        drop(world);
        self.changed();
        Ok(())
    }

    /// A stream that ends with `Unavailable` when the link is cut.
    pub(super) fn until_cut<T: Send + 'static>(
        &self,
        items: BoxStream<'static, Result<T>>,
    ) -> BoxStream<'static, Result<T>> {
        let link = self.0.link.subscribe();
        let opened = link.borrow().1;
        let next = move |items: Option<BoxStream<'static, Result<T>>>| {
            let mut link = link.clone();
            async move {
                let mut items = items?;
                let cut = Box::pin(link.wait_for(|(_, changes)| *changes != opened));
                let next = futures::future::select(cut, items.next()).await;
                match next {
                    Either::Left(_) => Some((Err(unreachable_backend()), None)),
                    Either::Right((item, _)) => Some((item?, Some(items))),
                }
            }
        };
        stream::unfold(Some(items), next).boxed()
    }
}

fn unreachable_backend() -> Error {
    Error::unavailable("the fake backend cannot be reached; make it reachable again")
}

/// One run of a [`FakeBackend`], controlled by hand.
///
/// Methods other than the waiting ones panic if the backend does not know the run.
#[derive(Debug, Clone)]
pub struct Control {
    backend: FakeBackend,
    run: RunId,
}

impl Control {
    /// Writes to the run's standard output.
    pub fn emit(&self, bytes: impl AsRef<[u8]>) {
        self.emit_to(Stream::Out, bytes);
    }

    /// Writes to one of the run's outputs.
    pub fn emit_to(&self, stream: Stream, bytes: impl AsRef<[u8]>) {
        self.found().write(stream, bytes.as_ref());
    }

    /// Ends the run. The first end stays.
    pub fn finish(&self, outcome: Outcome) {
        self.found().finish(outcome);
    }

    /// Says in its status what the run does.
    pub fn message(&self, message: &str) {
        self.found().set_message(message);
    }

    /// From now on the run ignores SIGTERM: a stop ends it only after its grace.
    pub fn make_stubborn(&self) {
        self.found().set_stubborn();
    }

    /// Drops all but the last `keep` pieces of its log, as a rotation does. Each write is at least one piece.
    pub fn rotate(&self, keep: usize) {
        self.found().rotate(keep);
    }

    /// Makes the backend forget the run, as if it had lost it: it ends as lost, and is known no more.
    pub fn vanish(&self) {
        self.found()
            .finish(Outcome::lost("the fake backend lost it"));
        let mut world = self.backend.world();
        world.runs.retain(|(_, run), _| *run != self.run);
        drop(world);
        self.backend.changed();
    }

    /// How often its work was begun.
    pub fn starts(&self) -> u32 {
        self.backend.starts_of(self.run)
    }

    /// How it stands; `None` if the backend does not know it.
    pub fn status(&self) -> Option<Status> {
        self.try_find().map(|run| run.status())
    }

    /// Whether processes of it live.
    pub fn is_alive(&self) -> bool {
        let living = |run: &Arc<Run>| run.has_begun() && !run.status().is_finished();
        self.try_find().as_ref().is_some_and(living)
    }

    /// The shortest grace it was asked to stop with.
    pub fn stop_asked(&self) -> Option<Duration> {
        let stop = self.try_find().and_then(|run| run.stop());
        stop.map(|stop| stop.grace)
    }

    /// All output that the backend still has.
    pub fn output(&self) -> String {
        String::from_utf8_lossy(&self.found().output(None)).into_owned()
    }

    /// What the backend still has of one output.
    pub fn output_of(&self, stream: Stream) -> Vec<u8> {
        self.found().output(Some(stream))
    }

    /// Waits until the backend knows the run.
    pub async fn known(&self) {
        drop(self.wait_found().await);
    }

    /// Waits until its work has begun.
    pub async fn begun(&self) {
        self.wait_found().await.until_begun().await;
    }

    /// Waits until it is asked to stop.
    pub async fn stopping(&self) {
        self.wait_found().await.until_stop_asked().await;
    }

    /// Waits until it has ended.
    pub async fn finished(&self) {
        self.wait_found().await.until_finished().await;
    }

    /// Waits until a method has been called `times` times for this run.
    pub async fn called(&self, method: &str, times: usize) {
        let mut changes = self.backend.0.changes.subscribe();
        while self.backend.calls_of(method, self.run) < times {
            changes.changed().await.expect("`self` holds the sender");
        }
    }

    /// Waits until the backend does not know the run.
    pub async fn removed(&self) {
        let mut changes = self.backend.0.changes.subscribe();
        while self.try_find().is_some() {
            changes.changed().await.expect("`self` holds the sender");
        }
    }

    async fn wait_found(&self) -> Arc<Run> {
        let mut changes = self.backend.0.changes.subscribe();
        loop {
            if let Some(run) = self.try_find() {
                return run;
            }
            changes.changed().await.expect("`self` holds the sender");
        }
    }

    fn found(&self) -> Arc<Run> {
        let found = self.try_find();
        found.unwrap_or_else(|| panic!("the fake backend does not know the run `{}`", self.run))
    }

    fn try_find(&self) -> Option<Arc<Run>> {
        let world = self.backend.world();
        let mut runs = world.runs.iter();
        let found = runs.find(|((_, run), _)| *run == self.run);
        found.map(|(_, run)| Arc::clone(run))
    }
}
