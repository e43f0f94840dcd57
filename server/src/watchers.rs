//! Who waits for news of a run: long polls and followers of logs.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

/// Who waits for news, by the number of the run.
#[derive(Debug, Clone, Default)]
pub(crate) struct Watchers(Arc<Mutex<HashMap<i64, watch::Sender<()>>>>);

/// Waits for news of one run.
#[derive(Debug)]
pub(crate) struct News {
    run: i64,
    receiver: Option<watch::Receiver<()>>,
    watchers: Watchers,
}

impl Watchers {
    /// Tells all who wait that the run's status or log has changed.
    pub(crate) fn tell(&self, run: i64) {
        if let Some(sender) = self.lock().get(&run) {
            sender.send_replace(());
        }
    }

    /// News of a run from now on. Look at the run after this, not before.
    pub(crate) fn of(&self, run: i64) -> News {
        let receiver = self.lock().entry(run).or_default().subscribe();
        News {
            run,
            receiver: Some(receiver),
            watchers: self.clone(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<i64, watch::Sender<()>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl News {
    /// Waits until something has changed since the last call.
    pub(crate) async fn next(&mut self) {
        if let Some(receiver) = &mut self.receiver {
            // The sender lives as long as a receiver does.
            let _told = receiver.changed().await;
        }
    }
}

impl Drop for News {
    fn drop(&mut self) {
        let mut watchers = self.watchers.lock();
        drop(self.receiver.take());
        if watchers
            .get(&self.run)
            .is_some_and(|sender| sender.receiver_count() == 0)
        {
            watchers.remove(&self.run);
        }
    }
}
