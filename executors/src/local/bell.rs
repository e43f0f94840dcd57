//! Tells who waits when something changes in the folder of a run: one inotify for all runs.
//!
//! Where the kernel gives no more of it, the folder is looked at several times a second instead.

use std::collections::HashMap;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use hybrid_runner_core::RunId;
use hybrid_runner_helper::files;
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::folder::Folder;

/// What is worth looking at the level again for. `CLOSE_WRITE` of the log: its helper is gone.
const LEVEL: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::CLOSE_WRITE)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE_SELF);
/// A change that nobody told is found after this long.
const LONG: Duration = Duration::from_secs(30);
/// Without inotify.
const POLL: Duration = Duration::from_millis(100);
/// After the log was closed: the event comes an instant before the lock is free.
const SHORT: Duration = Duration::from_millis(1);

/// All bells of one executor.
#[derive(Debug, Default)]
pub(super) struct Bells {
    inner: OnceLock<Option<Ringing>>,
}

#[derive(Debug)]
struct Ringing {
    shared: Arc<Shared>,
    /// Owns the one task; ends it on drop.
    _task: Mutex<JoinSet<()>>,
}

#[derive(Debug)]
struct Shared {
    inotify: AsyncFd<OwnedFd>,
    bells: Mutex<HashMap<i32, Bell>>,
}

/// The bell of one run.
#[derive(Debug)]
struct Bell {
    run: RunId,
    /// How many listen, and how many of them to the log.
    listeners: usize,
    readers: usize,
    sender: watch::Sender<Rung>,
}

/// How often it rang.
#[derive(Debug, Default, Clone, Copy)]
struct Rung {
    level: u64,
    log: u64,
    closed: u64,
}

/// What a listener wants to hear.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Listen {
    ToLevels,
    /// To the log, and to levels.
    ToLog,
}

/// What it heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Heard {
    /// Only that the log has grown.
    Log,
    /// That the level may have changed.
    Level,
}

/// Listens to one run. Whoever looks after it was made misses nothing.
#[derive(Debug)]
pub(super) struct Ear {
    heard: Option<Hearing>,
    seen: Rung,
    patience: Duration,
}

#[derive(Debug)]
struct Hearing {
    shared: Arc<Shared>,
    watch: i32,
    listen: Listen,
    receiver: watch::Receiver<Rung>,
}

impl Bells {
    /// Listens to a run whose folder is there. Must be called inside a runtime.
    pub(super) fn listen(&self, folder: &Folder, listen: Listen) -> Ear {
        let ringing = self
            .inner
            .get_or_init(|| Ringing::start().map_err(tell_once).ok());
        let heard = ringing.as_ref().and_then(|ringing| {
            Shared::listen(&ringing.shared, folder, listen)
                .map_err(tell_once)
                .ok()
        });
        let seen = heard
            .as_ref()
            .map(|heard| *heard.receiver.borrow())
            .unwrap_or_default();
        Ear {
            heard,
            seen,
            patience: LONG,
        }
    }
}

fn tell_once(error: Errno) {
    static TOLD: AtomicBool = AtomicBool::new(false);
    if error != Errno::NOENT && !TOLD.swap(true, Ordering::Relaxed) {
        tracing::warn!(%error, "inotify is used up (fs.inotify.max_user_watches, max_user_instances); runs are looked at several times a second instead");
    }
}

impl Ringing {
    fn start() -> Result<Self, Errno> {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        #[expect(
            deprecated,
            reason = "its successor is unsafe; `OwnedFd` gives the same descriptor for as long as it lives"
        )]
        let inotify = AsyncFd::with_interest(inotify, Interest::READABLE)
            .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
        let shared = Arc::new(Shared {
            inotify,
            bells: Mutex::default(),
        });
        let mut task = JoinSet::new();
        task.spawn(ring(Arc::clone(&shared)));
        Ok(Self {
            shared,
            _task: Mutex::new(task),
        })
    }
}

/// Reads events and rings, for ever.
async fn ring(shared: Arc<Shared>) {
    loop {
        let Ok(mut ready) = shared.inotify.readable().await else {
            return;
        };
        shared.ring_all();
        ready.clear_ready();
    }
}

impl Shared {
    fn bells(&self) -> MutexGuard<'_, HashMap<i32, Bell>> {
        self.bells.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn listen(shared: &Arc<Self>, folder: &Folder, listen: Listen) -> Result<Hearing, Errno> {
        let mut bells = shared.bells();
        let readers = bells
            .values()
            .any(|bell| bell.run == folder.run && bell.readers > 0);
        let watch = shared.watch(&folder.path, readers || listen == Listen::ToLog)?;
        let bell = bells.entry(watch).or_insert_with(|| Bell {
            run: folder.run,
            listeners: 0,
            readers: 0,
            sender: watch::Sender::new(Rung::default()),
        });
        bell.listeners += 1;
        bell.readers += usize::from(listen == Listen::ToLog);
        Ok(Hearing {
            shared: Arc::clone(shared),
            watch,
            listen,
            receiver: bell.sender.subscribe(),
        })
    }

    /// Adds a watch, or changes what the one that is there tells.
    fn watch(&self, path: &Path, log: bool) -> Result<i32, Errno> {
        let mut flags = LEVEL | WatchFlags::ONLYDIR;
        if log {
            flags |= WatchFlags::MODIFY;
        }
        inotify::add_watch(&self.inotify, path, flags)
    }

    fn ring_all(&self) {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut events = inotify::Reader::new(self.inotify.get_ref(), &mut buffer);
        while let Ok(event) = events.next() {
            let bells = self.bells();
            if event.events().contains(ReadFlags::QUEUE_OVERFLOW) {
                for bell in bells.values() {
                    bell.ring(ReadFlags::CLOSE_WRITE, true);
                }
            } else if let Some(bell) = bells.get(&event.wd()) {
                let of_log = event
                    .file_name()
                    .is_some_and(|name| name.to_bytes() == files::LOG.as_bytes());
                bell.ring(event.events(), of_log);
            }
        }
    }
}

impl Bell {
    fn ring(&self, events: ReadFlags, of_log: bool) {
        self.sender.send_modify(|rung| {
            if events.contains(ReadFlags::MODIFY) {
                rung.log += u64::from(of_log);
                return;
            }
            rung.level += 1;
            rung.closed += u64::from(of_log && events.contains(ReadFlags::CLOSE_WRITE));
        });
    }
}

impl Ear {
    /// Waits until something may have changed since the last time.
    pub(super) async fn changed(&mut self) -> Heard {
        let Some(hearing) = &mut self.heard else {
            tokio::time::sleep(POLL).await;
            return Heard::Level;
        };
        let seen = self.seen;
        let wanted = |rung: &Rung| {
            rung.level != seen.level || (hearing.listen == Listen::ToLog && rung.log != seen.log)
        };
        let heard = tokio::time::timeout(self.patience, hearing.receiver.wait_for(wanted)).await;
        let Ok(rung) = heard else {
            // Nobody told: look anyway, and be more patient the next time.
            self.patience = (self.patience * 2).min(LONG);
            return Heard::Level;
        };
        let rung = *rung.expect("a bell is there as long as somebody listens");
        self.seen = rung;
        if rung.closed != seen.closed {
            self.patience = SHORT;
        }
        if rung.level == seen.level {
            Heard::Log
        } else {
            Heard::Level
        }
    }
}

impl Drop for Hearing {
    fn drop(&mut self) {
        let mut bells = self.shared.bells();
        let Some(bell) = bells.get_mut(&self.watch) else {
            return;
        };
        bell.listeners -= 1;
        bell.readers -= usize::from(self.listen == Listen::ToLog);
        if bell.listeners == 0 {
            bells.remove(&self.watch);
            // Gone already if the folder is.
            inotify::remove_watch(&self.shared.inotify, self.watch).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(path: &Path) -> Folder {
        Folder {
            run: RunId::generate(),
            path: path.to_owned(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn without_inotify_runs_are_looked_at_again_and_again() {
        let bells = Bells::default();
        bells.inner.set(None).unwrap();
        let place = tempfile::tempdir().unwrap();
        let mut ear = bells.listen(&folder(place.path()), Listen::ToLog);
        for _ in 0..3 {
            let heard = tokio::time::timeout(POLL * 2, ear.changed()).await;
            assert_eq!(heard, Ok(Heard::Level));
        }
    }

    #[tokio::test]
    async fn a_growing_log_wakes_those_who_read_it_and_no_others() {
        let bells = Bells::default();
        let place = tempfile::tempdir().unwrap();
        let log = place.path().join(files::LOG);
        std::fs::write(&log, "").unwrap();
        let mut file = std::fs::OpenOptions::new().append(true).open(&log).unwrap();
        let folder = folder(place.path());
        let mut levels = bells.listen(&folder, Listen::ToLevels);
        let mut reader = bells.listen(&folder, Listen::ToLog);
        std::io::Write::write_all(&mut file, b"x").unwrap();
        let heard = tokio::time::timeout(LONG / 2, reader.changed()).await;
        assert_eq!(heard, Ok(Heard::Log));
        assert!(futures::FutureExt::now_or_never(levels.changed()).is_none());
        drop(file);
        let heard = tokio::time::timeout(LONG / 2, levels.changed()).await;
        assert_eq!(heard, Ok(Heard::Level));
        // The lock comes free an instant after: look again soon.
        assert_eq!(levels.patience, SHORT);
    }
}
