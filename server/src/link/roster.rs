//! Who is connected.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hybrid_runner_core::incarnation::Incarnation;
use hybrid_runner_core::session::Session;
use hybrid_runner_core::unit::Period;
use hybrid_runner_core::{AgentId, RunSpec};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use crate::store::runners::About;
use crate::store::runs::Run;

/// Who is connected: one chair for each runner id.
#[derive(Debug, Default)]
pub(crate) struct Roster(Mutex<HashMap<AgentId, Arc<Chair>>>);

/// Where at most one session of a runner sits.
#[derive(Debug, Default)]
pub(crate) struct Chair {
    /// Held while a hello is judged: one at a time.
    pub(super) gate: tokio::sync::Mutex<()>,
    holder: Mutex<Option<Arc<Seat>>>,
}

/// A runner that is connected.
#[derive(Debug)]
pub(crate) struct Seat {
    pub(crate) agent: AgentId,
    pub(crate) epoch: u64,
    pub(crate) incarnation: Incarnation,
    pub(crate) about: About,
    /// Connected since, in microseconds.
    pub(crate) since: i64,
    /// The id of its token.
    pub(crate) token: String,
    pub(crate) session: Session,
    /// How many runs it may have under way, and one permit for each.
    pub(super) places: usize,
    pub(super) slots: Arc<Semaphore>,
    /// Unbounded, but what is in it is not: a run holds a permit, and a stop is made by a request that waits.
    pub(super) orders: mpsc::UnboundedSender<Order>,
    /// Something is queued in the store.
    pub(super) queued: Notify,
    /// A run of this runner has ended: there may be room again.
    pub(super) ended: Notify,
    /// Asks its session to end.
    pub(super) leave: CancellationToken,
    /// Its session has ended, and nothing of it is written any more.
    pub(super) gone: CancellationToken,
}

/// What a connected runner is to be told.
#[derive(Debug)]
pub(crate) enum Order {
    /// To run this, which is stored as sent.
    Run(Box<(Run, RunSpec)>, OwnedSemaphorePermit),
    /// To stop the run with that number.
    Stop(i64, Period),
}

impl Roster {
    /// The runner, if it is connected.
    pub(crate) fn seat(&self, agent: &AgentId) -> Option<Arc<Seat>> {
        let chair = self.lock().get(agent).cloned()?;
        chair.holder()
    }

    /// All that are connected.
    pub(crate) fn seats(&self) -> Vec<Arc<Seat>> {
        let chairs: Vec<Arc<Chair>> = self.lock().values().cloned().collect();
        chairs.iter().filter_map(|chair| chair.holder()).collect()
    }

    pub(super) fn chair(&self, agent: &AgentId) -> Arc<Chair> {
        Arc::clone(self.lock().entry(agent.clone()).or_default())
    }

    /// Empties the seat's chair, unless somebody else sits there already.
    pub(super) fn leave(&self, seat: &Arc<Seat>) {
        let chair = self.chair(&seat.agent);
        let mut holder = chair.lock();
        if holder
            .as_ref()
            .is_some_and(|holder| Arc::ptr_eq(holder, seat))
        {
            *holder = None;
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<AgentId, Arc<Chair>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Chair {
    pub(super) fn holder(&self) -> Option<Arc<Seat>> {
        self.lock().clone()
    }

    pub(super) fn take(&self, seat: &Arc<Seat>) {
        *self.lock() = Some(Arc::clone(seat));
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<Seat>>> {
        self.holder.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    /// A place for one more run, if there is one and nothing that came before waits for it.
    pub(crate) fn slot(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.slots).try_acquire_owned().ok()
    }

    /// Tells the runner something. Lost if it is leaving: what matters is in the store.
    pub(crate) fn order(&self, order: Order) {
        drop(self.orders.send(order));
    }

    /// Says that something is queued in the store.
    pub(crate) fn nudge(&self) {
        self.queued.notify_one();
    }
}
