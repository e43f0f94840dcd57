//! How all runs of ours stand, kept up to date by one watch for each kind of object, and a bell for each run.
//!
//! A watch lists, then goes on from the version of the list, through bookmarks and broken connections; where the server has
//! forgotten that version, it lists again. While it is not known to be up to date, the board says so, and whoever waits asks the
//! API server instead: nothing here is needed for being right.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt as _;
use hybrid_runner_core::RunId;
use hybrid_runner_core::error::Result;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, WatchEvent, WatchParams};
use kube::{Api, ResourceExt as _};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::client::{Cluster, Connected};
use super::error::{failed, is_status};
use super::names::Names;
use super::object::{Kind, Object, ObjectSeen};
use super::seen::PodSeen;

/// A change that nobody told is found after this long.
const LONG: Duration = Duration::from_mins(1);
/// Between two tries to get a watch, at first and at most.
const PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// The server gives so many objects at once.
const PAGE: u32 = 500;
/// The API server speaks up once a minute, if only to say where a watch has come to: one that is silent for longer is asked for again.
const QUIET: Duration = Duration::from_secs(90);
/// For so many seconds a watch lives: less than the silence at which a connection counts as dead.
const WATCH: u32 = 290;

/// What the cluster has of a run.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    pub(crate) object: Option<ObjectSeen>,
    /// Nearly always one, so that there is room for no more.
    pub(crate) pods: Vec<PodSeen>,
    /// The last that was seen of a pod whose work had begun, and which the cluster does not have any more.
    pub(crate) gone: Option<Box<PodSeen>>,
    /// Whether there was a pod that the cluster does not have any more, whose work had not begun.
    pub(crate) had_vain: bool,
}

impl Seen {
    /// The pod that tells how the run stands: one that lives, else one that has begun.
    pub(crate) fn pod(&self) -> Option<&PodSeen> {
        let place = |pod: &&PodSeen| (!pod.is_over(), pod.has_begun(), pod.accepted);
        self.pods.iter().max_by_key(place)
    }

    /// The pod that tells of the work: one that is gone, if its work had begun.
    pub(crate) fn telling(&self) -> Option<&PodSeen> {
        self.gone.as_deref().or(self.pod())
    }

    /// Whether there is enough to judge by: of the two watches that of pods may be behind, so that no pod is known of what has ended.
    pub(crate) fn is_whole(&self) -> bool {
        let has_pod = self.gone.is_some() || !self.pods.is_empty();
        let object = self.object.as_ref();
        object.is_some_and(|object| has_pod || object.standing.end.is_none())
    }

    /// Puts a pod as it is now there.
    fn put(&mut self, mut pod: PodSeen) {
        let known = self.pods.iter_mut().find(|known| known.uid == pod.uid);
        if let Some(known) = known {
            pod.remember(known);
            *known = pod;
            return;
        }
        self.pods.reserve_exact(1);
        self.pods.push(pod);
    }

    /// Takes a pod away. Of several that had begun the first counts.
    fn bury(&mut self, uid: &str) {
        let at = self.pods.iter().position(|pod| pod.uid == uid);
        let Some(at) = at else { return };
        let mut pod = self.pods.remove(at);
        if pod.began().is_none() {
            // It ends in words of no meaning.
            self.had_vain = true;
        } else if self.gone.is_none() {
            pod.is_gone();
            self.gone = Some(Box::new(pod));
        }
    }

    /// The pods that have not ended.
    pub(crate) fn living(&self) -> impl Iterator<Item = &PodSeen> {
        self.pods.iter().filter(|pod| !pod.is_over())
    }
}

/// All runs of one executor.
#[derive(Debug)]
pub(crate) struct Board {
    shared: Arc<Known>,
    /// Owns the two tasks, from the first listener on; ends them on drop.
    tasks: Mutex<JoinSet<()>>,
}

#[derive(Debug)]
struct Known {
    state: Mutex<State>,
    bells: Mutex<HashMap<RunId, watch::Sender<u64>>>,
}

#[derive(Debug)]
struct State {
    /// Boxed, since the map has room for up to twice as many.
    runs: HashMap<RunId, Box<Seen>>,
    /// Whether the watch of objects, and that of pods, is up to date.
    is_current: [bool; 2],
}

/// Listens to one run. Whoever looks after it was made misses nothing.
#[derive(Debug)]
pub(crate) struct Ear {
    shared: Arc<Known>,
    run: RunId,
    receiver: Option<watch::Receiver<u64>>,
}

impl Board {
    pub(crate) fn new() -> Self {
        Self {
            shared: Arc::new(Known {
                state: Mutex::new(State {
                    runs: HashMap::new(),
                    is_current: [false; 2],
                }),
                bells: Mutex::default(),
            }),
            tasks: Mutex::default(),
        }
    }

    /// Listens to a run. Must be called inside a runtime.
    pub(crate) fn listen(
        &self,
        cluster: &Arc<Cluster>,
        kind: &'static dyn Kind,
        names: &Names,
        run: RunId,
    ) -> Ear {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        // They ended with the runtime in which they ran.
        while tasks.try_join_next().is_some() {}
        if tasks.is_empty() {
            let keeper = |slot| Keeper {
                cluster: Arc::clone(cluster),
                selector: names.selector(),
                shared: Arc::clone(&self.shared),
                slot,
            };
            tasks.spawn(keeper(Slot::Object).keep(Side {
                quick: Box::new(|connected| connected.objects(kind)),
                patient: Box::new(|connected| connected.following_objects(kind)),
                of: Box::new(|object: &Object| ObjectSeen::of(kind, object)),
                put: |seen, object, _| seen.object = object,
            }));
            tasks.spawn(keeper(Slot::Pod).keep(Side {
                quick: Box::new(Connected::api::<Pod>),
                patient: Box::new(Connected::following::<Pod>),
                of: Box::new(PodSeen::of),
                put: |seen, pod, uid| match pod {
                    Some(pod) => seen.put(pod),
                    None => seen.bury(uid),
                },
            }));
        }
        Ear {
            shared: Arc::clone(&self.shared),
            run,
            receiver: Some(self.shared.listen(run)),
        }
    }

    /// How a run stands, if that is surely up to date.
    pub(crate) fn current(&self, run: RunId) -> Option<Seen> {
        self.shared.current(run)
    }

    /// Adds to what the API server says what it does not say any more: of pods that are gone, or on their way out. That never changes.
    pub(crate) fn remind(&self, run: RunId, seen: &mut Seen) {
        let state = self.shared.state();
        let Some(known) = state.runs.get(&run) else {
            return;
        };
        seen.gone.clone_from(&known.gone);
        seen.had_vain = known.had_vain;
        for pod in &mut seen.pods {
            if let Some(before) = known.pods.iter().find(|before| before.uid == pod.uid) {
                pod.remember(before);
            }
        }
    }

    /// Forgets a run that was removed.
    pub(crate) fn forget(&self, run: RunId) {
        self.shared.state().runs.remove(&run);
        self.shared.ring(run);
    }
}

impl Ear {
    /// Waits for the next ring, or until it is time to look anyway.
    pub(crate) async fn changed(&mut self) {
        if let Some(receiver) = &mut self.receiver {
            loop {
                let rung = timeout(LONG, receiver.changed()).await.is_ok();
                // Where the watch is well, silence means that there is nothing new.
                if rung || self.shared.current(self.run).is_none() {
                    return;
                }
            }
        }
    }
}

impl Drop for Ear {
    fn drop(&mut self) {
        self.receiver = None;
        self.shared.forget_bell(self.run);
    }
}

impl Known {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn bells(&self) -> MutexGuard<'_, HashMap<RunId, watch::Sender<u64>>> {
        self.bells.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn listen(&self, run: RunId) -> watch::Receiver<u64> {
        self.bells().entry(run).or_default().subscribe()
    }

    fn ring(&self, run: RunId) {
        if let Some(bell) = self.bells().get(&run) {
            bell.send_modify(|count| *count += 1);
        }
    }

    fn ring_all(&self) {
        for bell in self.bells().values() {
            bell.send_modify(|count| *count += 1);
        }
    }

    fn forget_bell(&self, run: RunId) {
        let mut bells = self.bells();
        if bells.get(&run).is_some_and(watch::Sender::is_closed) {
            bells.remove(&run);
        }
    }

    fn current(&self, run: RunId) -> Option<Seen> {
        let state = self.state();
        if state.is_current != [true; 2] {
            return None;
        }
        let seen = state.runs.get(&run);
        Some(seen.map_or_else(Seen::default, |seen| Seen::clone(seen)))
    }
}

/// Which of the two watches.
#[derive(Debug, Clone, Copy)]
enum Slot {
    Object,
    Pod,
}

/// Keeps one kind of object up to date.
struct Keeper {
    cluster: Arc<Cluster>,
    selector: String,
    shared: Arc<Known>,
    slot: Slot,
}

/// Objects of a kind, over one of the clients of a connection.
type Reach<K> = Box<dyn Fn(&Connected) -> Api<K> + Send + Sync>;
/// The run that an object belongs to, and what we want to know of it.
type View<K, V> = Box<dyn Fn(&K) -> Option<(RunId, V)> + Send + Sync>;

/// How one kind of object comes onto the board.
struct Side<K, V> {
    quick: Reach<K>,
    patient: Reach<K>,
    of: View<K, V>,
    /// Puts what is known there, or takes it away; by its uid.
    put: fn(&mut Seen, Option<V>, &str),
}

/// What a kind of object must be, to be watched.
trait Watched:
    kube::Resource + Clone + DeserializeOwned + std::fmt::Debug + Send + Sync + 'static
{
}

impl<K> Watched for K where
    K: kube::Resource + Clone + DeserializeOwned + std::fmt::Debug + Send + Sync + 'static
{
}

/// How far a watch has come.
#[derive(Default)]
struct Progress {
    /// The version to go on from; without one it lists.
    version: Option<String>,
    /// The runs of the objects that are on the board, by uid.
    known: HashMap<String, RunId>,
}

/// Why a watch ended.
enum Broken {
    /// The version is forgotten: list anew.
    TooOld,
    /// The connection, or the server.
    Away,
    /// In due time: go on from the last version.
    Due,
}

impl Keeper {
    /// For ever.
    async fn keep<K: Watched, V: Send>(self, side: Side<K, V>) {
        let mut progress = Progress::default();
        let mut pause = PAUSE;
        loop {
            let since = Instant::now();
            match self.once(&side, &mut progress).await {
                Ok(Broken::Due) => continue,
                Ok(Broken::TooOld) => progress.version = None,
                Ok(Broken::Away) => {}
                Err(error) => tracing::debug!(%error, "the watch of the cluster is away"),
            }
            self.is_current(false);
            // One that lived for a while broke for a reason of its own.
            pause = if since.elapsed() > LONGEST_PAUSE {
                PAUSE
            } else {
                (pause * 2).min(LONGEST_PAUSE)
            };
            sleep(pause).await;
        }
    }

    /// Lists if there is no version to go on from, then watches until that breaks.
    async fn once<K: Watched, V: Send>(
        &self,
        side: &Side<K, V>,
        progress: &mut Progress,
    ) -> Result<Broken> {
        let connected = self.cluster.connected().await?;
        let from = match progress.version.clone() {
            Some(version) => version,
            None => self.list(side, progress).await?,
        };
        let following = (side.patient)(connected);
        let wanted = WatchParams::default().labels(&self.selector).timeout(WATCH);
        let events = match following.watch(&wanted, &from).await {
            Ok(events) => events,
            Err(error) if is_status(&error, 410) => return Ok(Broken::TooOld),
            Err(error) => return Err(failed(connected, "watch what is ours", &error)),
        };
        self.is_current(true);
        let mut events = std::pin::pin!(events);
        while let Ok(next) = timeout(QUIET, events.next()).await {
            let Some(event) = next else {
                break;
            };
            match event {
                Ok(WatchEvent::Error(status)) if status.code == 410 => return Ok(Broken::TooOld),
                Ok(WatchEvent::Error(_)) | Err(_) => return Ok(Broken::Away),
                Ok(event) => self.take(side, progress, event),
            }
        }
        Ok(Broken::Due)
    }

    /// Brings the board to what there is now; gives the version of that.
    async fn list<K: Watched, V: Send>(
        &self,
        side: &Side<K, V>,
        progress: &mut Progress,
    ) -> Result<String> {
        let connected = self.cluster.connected().await?;
        let listed = list::<K>(&(side.quick)(connected), &self.selector).await;
        let (items, version) = listed
            .map_err(|error| failed(connected, "list what the cluster has of ours", &error))?;
        let mut gone = std::mem::take(&mut progress.known);
        for item in &items {
            if let Some(uid) = item.uid() {
                gone.remove(&uid);
            }
            self.put(side, progress, item);
        }
        for (uid, run) in gone {
            self.remove(side, run, &uid);
        }
        progress.version = Some(version.clone());
        Ok(version)
    }

    fn take<K: Watched, V>(
        &self,
        side: &Side<K, V>,
        progress: &mut Progress,
        event: WatchEvent<K>,
    ) {
        let version = match event {
            WatchEvent::Added(item) | WatchEvent::Modified(item) => {
                self.put(side, progress, &item);
                item.resource_version()
            }
            WatchEvent::Deleted(item) => {
                if let Some(uid) = item.uid()
                    && let Some(run) = progress.known.remove(&uid)
                {
                    self.remove(side, run, &uid);
                }
                item.resource_version()
            }
            WatchEvent::Bookmark(bookmark) => Some(bookmark.metadata.resource_version),
            WatchEvent::Error(_) => None,
        };
        if version.is_some() {
            progress.version = version;
        }
    }

    fn put<K: Watched, V>(&self, side: &Side<K, V>, progress: &mut Progress, item: &K) {
        let (Some((run, view)), Some(uid)) = ((side.of)(item), item.uid()) else {
            return;
        };
        let mut state = self.shared.state();
        (side.put)(state.runs.entry(run).or_default(), Some(view), &uid);
        drop(state);
        progress.known.insert(uid, run);
        self.shared.ring(run);
    }

    fn remove<K, V>(&self, side: &Side<K, V>, run: RunId, uid: &str) {
        let mut state = self.shared.state();
        if let Some(seen) = state.runs.get_mut(&run) {
            (side.put)(seen, None, uid);
            if seen.object.is_none() && seen.pods.is_empty() {
                state.runs.remove(&run);
            }
        }
        drop(state);
        self.shared.ring(run);
    }

    fn is_current(&self, is: bool) {
        let at = match self.slot {
            Slot::Object => 0,
            Slot::Pod => 1,
        };
        let before = std::mem::replace(&mut self.shared.state().is_current[at], is);
        if before != is {
            self.shared.ring_all();
        }
    }
}

/// All objects with these labels, and the version of the list: a strong read.
pub(crate) fn list<K>(
    api: &Api<K>,
    selector: &str,
) -> impl Future<Output = Result<(Vec<K>, String), kube::Error>> + Send + use<K>
where
    K: Clone + DeserializeOwned + std::fmt::Debug + Send + 'static,
{
    let (api, mut wanted) = (
        api.clone(),
        ListParams::default().labels(selector).limit(PAGE),
    );
    async move {
        let mut all = Vec::new();
        loop {
            let page = api.list(&wanted).await?;
            all.extend(page.items);
            match page.metadata.continue_.filter(|next| !next.is_empty()) {
                Some(next) => wanted.continue_token = Some(next),
                None => return Ok((all, page.metadata.resource_version.unwrap_or_default())),
            }
        }
    }
}
