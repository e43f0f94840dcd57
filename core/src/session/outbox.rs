//! What waits to be sent: control before data.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

/// Items that wait to be sent. A pump waits for a place, so that a slow wire slows its sources.
const DATA: usize = 16;

/// Control messages that wait before the driver stops reading: the peer asks faster than it listens.
const CONTROL: usize = 4096;

#[derive(Debug)]
pub(super) struct Outbox {
    queues: Mutex<Queues>,
    /// Signals that there is something to send.
    filled: Notify,
    /// Signals that control messages went out.
    drained: Notify,
    places: Arc<Semaphore>,
}

#[derive(Debug, Default)]
struct Queues {
    control: VecDeque<String>,
    data: VecDeque<(String, OwnedSemaphorePermit)>,
}

impl Outbox {
    pub(super) fn new() -> Self {
        Self {
            queues: Mutex::default(),
            filled: Notify::new(),
            drained: Notify::new(),
            places: Arc::new(Semaphore::new(DATA)),
        }
    }

    fn queues(&self) -> std::sync::MutexGuard<'_, Queues> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a control message. Never waits: what makes them is bounded (see [`Self::room`]).
    pub(super) fn control(&self, message: String) {
        self.queues().control.push_back(message);
        self.filled.notify_one();
    }

    /// Queues an item when there is a place.
    pub(super) async fn data(&self, message: String) {
        let Ok(place) = Arc::clone(&self.places).acquire_owned().await else {
            return;
        };
        self.queues().data.push_back((message, place));
        self.filled.notify_one();
    }

    /// Waits until the peer has taken enough of our answers.
    pub(super) async fn room(&self) {
        loop {
            let drained = self.drained.notified();
            if self.queues().control.len() < CONTROL {
                return;
            }
            drained.await;
        }
    }

    pub(super) fn try_next(&self) -> Option<String> {
        let mut queues = self.queues();
        if let Some(message) = queues.control.pop_front() {
            if queues.control.len() + 1 == CONTROL {
                self.drained.notify_one();
            }
            return Some(message);
        }
        queues.data.pop_front().map(|(message, _place)| message)
    }

    /// The next message to send.
    pub(super) async fn next(&self) -> String {
        loop {
            let filled = self.filled.notified();
            if let Some(message) = self.try_next() {
                return message;
            }
            filled.await;
        }
    }
}
