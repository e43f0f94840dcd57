//! One at a time for each run: a removal must not overtake a start that was dropped but still has a hand on the disk.

use std::collections::HashMap;
use std::sync::{Arc, Mutex as StdMutex, PoisonError, Weak};

use hybrid_runner_core::RunId;
use tokio::sync::{Mutex, OwnedMutexGuard};

/// The turns of all runs that somebody is busy with.
#[derive(Debug, Default)]
pub(crate) struct Turns(StdMutex<HashMap<RunId, Weak<Mutex<()>>>>);

impl Turns {
    /// Waits for its turn; the next one comes when the guard is dropped.
    pub(crate) async fn take(&self, run: RunId) -> OwnedMutexGuard<()> {
        self.of(run).lock_owned().await
    }

    fn of(&self, run: RunId) -> Arc<Mutex<()>> {
        let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(turn) = turns.get(&run).and_then(Weak::upgrade) {
            return turn;
        }
        turns.retain(|_, turn| turn.strong_count() > 0);
        let turn = Arc::default();
        turns.insert(run, Arc::downgrade(&turn));
        turn
    }
}
