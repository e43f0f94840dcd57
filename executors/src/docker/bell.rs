//! Tells who waits when something changes in the engine: one stream of events for all runs.
//!
//! An event that was missed does not matter: whoever hears the bell looks for itself, and it rings for all when the
//! stream breaks, when it is there again, and once in a while.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bollard::query_parameters::EventsOptionsBuilder;
use futures::StreamExt as _;
use hybrid_runner_core::RunId;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use super::engine::Engine;
use super::names::{self, Names};

/// A change that nobody told is found after this long.
const LONG: Duration = Duration::from_mins(1);
/// After a stream was asked for it rings for all so much later, since nothing says that it is there.
const SETTLING: [Duration; 3] = [
    Duration::from_millis(50),
    Duration::from_millis(500),
    Duration::from_secs(3),
];
/// Between two tries to get a stream, at first and at most.
const PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// All bells of one executor.
#[derive(Debug, Default)]
pub(super) struct Bells {
    rope: Arc<Rope>,
    /// Owns the one task, from the first listener on; ends it on drop.
    task: Mutex<JoinSet<()>>,
}

#[derive(Debug, Default)]
struct Rope(Mutex<HashMap<RunId, watch::Sender<u64>>>);

/// Listens to one run. Whoever looks after it was made misses nothing.
#[derive(Debug)]
pub(super) struct Ear {
    rope: Arc<Rope>,
    run: RunId,
    receiver: Option<watch::Receiver<u64>>,
}

impl Bells {
    /// Listens to a run. Must be called inside a runtime.
    pub(super) fn listen(&self, engine: &Arc<Engine>, names: &Names, run: RunId) -> Ear {
        let mut task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        // It ended with the runtime in which it ran.
        while task.try_join_next().is_some() {}
        if task.is_empty() {
            task.spawn(ring(
                Arc::clone(engine),
                names.clone(),
                Arc::clone(&self.rope),
            ));
        }
        Ear {
            rope: Arc::clone(&self.rope),
            run,
            receiver: Some(self.rope.listen(run)),
        }
    }

    /// Rings for one run.
    pub(super) fn ring(&self, run: RunId) {
        self.rope.ring(run);
    }
}

impl Ear {
    /// Waits for the next ring, or until it is time to look anyway.
    pub(super) async fn changed(&mut self) {
        if let Some(receiver) = &mut self.receiver {
            // The sender lives as long as there are receivers.
            drop(timeout(LONG, receiver.changed()).await);
        }
    }
}

impl Drop for Ear {
    fn drop(&mut self) {
        self.receiver = None;
        self.rope.forget(self.run);
    }
}

impl Rope {
    fn listen(&self, run: RunId) -> watch::Receiver<u64> {
        let mut bells = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        bells.entry(run).or_default().subscribe()
    }

    fn ring(&self, run: RunId) {
        let bells = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bell) = bells.get(&run) {
            bell.send_modify(|count| *count += 1);
        }
    }

    fn ring_all(&self) {
        let bells = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for bell in bells.values() {
            bell.send_modify(|count| *count += 1);
        }
    }

    fn forget(&self, run: RunId) {
        let mut bells = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if bells.get(&run).is_some_and(watch::Sender::is_closed) {
            bells.remove(&run);
        }
    }
}

/// Rings for each event of ours, for ever.
async fn ring(engine: Arc<Engine>, names: Names, rope: Arc<Rope>) {
    let mut pause = PAUSE;
    loop {
        let since = Instant::now();
        if let Ok(docker) = engine.order() {
            let mut filters = names.filter();
            filters.insert("type".to_owned(), vec!["container".to_owned()]);
            let options = EventsOptionsBuilder::default().filters(&filters).build();
            let mut events = docker.events(Some(options));
            let mut settling = SETTLING.iter().map(|delay| since + *delay);
            let mut next = settling.next();
            loop {
                let event = tokio::select! {
                    event = events.next() => event,
                    () = sleep_until(next.unwrap_or(since)), if next.is_some() => {
                        next = settling.next();
                        rope.ring_all();
                        continue;
                    }
                };
                let Some(Ok(event)) = event else { break };
                let labels = event.actor.and_then(|actor| actor.attributes);
                if let Some(run) = names::run_of(labels.as_ref()) {
                    rope.ring(run);
                }
            }
        }
        rope.ring_all();
        // One that lived for a while broke for a reason of its own.
        pause = if since.elapsed() > LONGEST_PAUSE {
            PAUSE
        } else {
            (pause * 2).min(LONGEST_PAUSE)
        };
        tokio::time::sleep(pause).await;
    }
}
