//! The queue of closures and the group that commits them.

use std::any::Any;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hybrid_runner_core::fault;
use rusqlite::{Connection, Transaction, TransactionBehavior, ffi};
use tokio::sync::{Semaphore, oneshot};

use crate::Inner;
use crate::error::{Error, Result};
use crate::sync::{Commit, Syncer};

/// Closures queued or in the group under way. A group of this size commits in a few milliseconds, about
/// as long as a sync, so a deeper queue would add waiting but no throughput; and it bounds what the closures hold.
const QUEUE: u32 = 256;

/// What a closure returned, committed.
#[derive(Debug)]
pub struct Committed<T> {
    value: T,
    commit: Commit,
}

impl<T> Committed<T> {
    /// What the closure returned.
    pub fn value(&self) -> &T {
        &self.value
    }

    /// What the closure returned, without waiting for more.
    pub fn into_value(self) -> T {
        self.value
    }

    /// The value, and the commit to wait for later.
    pub fn into_parts(self) -> (T, Commit) {
        (self.value, self.commit)
    }

    /// The commit, to wait for later or elsewhere.
    pub fn commit(&self) -> Commit {
        self.commit.clone()
    }

    /// Waits until the write survives power loss, then gives what the closure returned.
    ///
    /// # Cancel safety
    /// Dropping the future stops the waiting (and loses the value), not the sync.
    pub async fn synced(self) -> Result<T> {
        self.commit.synced().await?;
        Ok(self.value)
    }
}

/// The one that writes: whoever holds `database`.
pub(crate) struct Writer {
    room: Semaphore,
    queue: Mutex<Queue>,
    database: Mutex<Option<Connection>>,
    pub(crate) count: AtomicU64,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Box<dyn Job>>,
    /// Whether somebody is on the way to take them.
    draining: bool,
}

/// A closure of any type and the caller that waits for it.
trait Job: Send {
    /// Runs the closure and keeps its result; `Err` when that must be undone.
    fn run(&mut self, transaction: &Transaction<'_>) -> std::result::Result<(), Undo>;
    /// Tells the caller, who may have left.
    fn answer(self: Box<Self>, commit: Result<Commit>);
}

/// Why a closure's writes are undone.
enum Undo {
    Failed(Error),
    Panicked,
}

struct Write<T, F> {
    work: Option<F>,
    result: Option<Answer<T>>,
    caller: oneshot::Sender<Answer<Committed<T>>>,
}

enum Answer<T> {
    Done(T),
    Failed(Error),
    Panicked(Box<dyn Any + Send>),
}

impl<T, F> Job for Write<T, F>
where
    T: Send,
    F: FnOnce(&Transaction<'_>) -> rusqlite::Result<T> + Send,
{
    fn run(&mut self, transaction: &Transaction<'_>) -> std::result::Result<(), Undo> {
        let work = self.work.take().expect("a job runs once");
        let (answer, undo) = match catch_unwind(AssertUnwindSafe(|| work(transaction))) {
            Ok(Ok(value)) => (Answer::Done(value), Ok(())),
            Ok(Err(error)) => {
                let error = Error::from(error);
                (Answer::Failed(error.clone()), Err(Undo::Failed(error)))
            }
            Err(panic) => (Answer::Panicked(panic), Err(Undo::Panicked)),
        };
        self.result = Some(answer);
        undo
    }

    fn answer(self: Box<Self>, commit: Result<Commit>) {
        let answer = match (self.result, commit) {
            (Some(Answer::Panicked(panic)), _) => Answer::Panicked(panic),
            (Some(Answer::Done(value)), Ok(commit)) => Answer::Done(Committed { value, commit }),
            (Some(Answer::Failed(error)), _) | (_, Err(error)) => Answer::Failed(error),
            (None, Ok(_)) => unreachable!("a group commits only after each of its jobs ran"),
        };
        drop(self.caller.send(answer));
    }
}

pub(crate) async fn write<T, F>(inner: &Arc<Inner>, f: F) -> Result<Committed<T>>
where
    T: Send + 'static,
    F: FnOnce(&Transaction<'_>) -> rusqlite::Result<T> + Send + 'static,
{
    // Given back by `drain`: the job holds its place even if this future is dropped.
    inner
        .writer
        .room
        .acquire()
        .await
        .map_err(|_| Error::Closed)?
        .forget();
    let (caller, answer) = oneshot::channel();
    enqueue(
        inner,
        Box::new(Write {
            work: Some(f),
            result: None,
            caller,
        }),
    );
    match answer.await {
        Ok(Answer::Done(committed)) => Ok(committed),
        Ok(Answer::Failed(error)) => Err(error),
        Ok(Answer::Panicked(panic)) => resume_unwind(panic),
        Err(_) => Err(Error::Closed),
    }
}

fn enqueue(inner: &Arc<Inner>, job: Box<dyn Job>) {
    let mut queue = inner.writer.queue();
    queue.jobs.push_back(job);
    if !queue.draining {
        queue.draining = true;
        let inner = Arc::clone(inner);
        drop(tokio::task::spawn_blocking(move || drain(&inner)));
    }
}

/// Commits group after group until nothing is queued.
fn drain(inner: &Arc<Inner>) {
    let writer = &inner.writer;
    let database = writer.database();
    loop {
        let group = {
            let mut queue = writer.queue();
            if queue.jobs.is_empty() {
                queue.draining = false;
                return;
            }
            std::mem::take(&mut queue.jobs)
        };
        let size = group.len();
        match database.as_ref() {
            Some(database) => writer.commit(database, &inner.syncer, group),
            None => group
                .into_iter()
                .for_each(|job| job.answer(Err(Error::Closed))),
        }
        writer.room.add_permits(size);
        inner.checkpointer.after_commit(inner);
    }
}

impl Writer {
    pub(crate) fn new(database: Connection) -> Self {
        Self {
            room: Semaphore::new(QUEUE as usize),
            queue: Mutex::default(),
            database: Mutex::new(Some(database)),
            count: AtomicU64::new(0),
        }
    }

    fn commit(
        &self,
        database: &Connection,
        syncer: &Arc<Syncer>,
        mut group: VecDeque<Box<dyn Job>>,
    ) {
        self.count.fetch_add(group.len() as u64, Ordering::Relaxed);
        fault::step("store.commit");
        let result = transact(database, group.make_contiguous()).map(|()| syncer.committed());
        fault::step("store.committed");
        for job in group {
            job.answer(result.clone());
        }
    }

    /// Waits for the queue to run empty and lets nobody in again.
    pub(crate) async fn stop(&self) {
        // Fair: whoever came before is served before this gets all places.
        if let Ok(all) = self.room.acquire_many(QUEUE).await {
            self.room.close();
            drop(all);
        }
    }

    /// Closes the connection, then does `then` before anybody else can see it closed.
    pub(crate) fn close(&self, then: impl FnOnce()) {
        let mut database = self.database();
        drop(database.take());
        then();
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn database(&self) -> MutexGuard<'_, Option<Connection>> {
        self.database.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One transaction for the group, one savepoint for each job.
fn transact(database: &Connection, group: &mut [Box<dyn Job>]) -> Result<()> {
    let transaction = Transaction::new_unchecked(database, TransactionBehavior::Immediate)?;
    for job in group {
        run(database, "SAVEPOINT job")?;
        let result = job.run(&transaction);
        if database.is_autocommit() {
            // SQLite has rolled everything back (disk full, I/O), so the jobs before are undone as well.
            return Err(match result {
                Err(Undo::Failed(error)) => error,
                Ok(()) | Err(Undo::Panicked) => ended_early(),
            });
        }
        if result.is_err() {
            run(database, "ROLLBACK TO job")?;
        }
        run(database, "RELEASE job")?;
    }
    Ok(transaction.commit()?)
}

fn run(database: &Connection, sql: &str) -> rusqlite::Result<()> {
    database.prepare_cached(sql)?.execute([]).map(drop)
}

fn ended_early() -> Error {
    let message = "a closure of this group ended the transaction".to_owned();
    rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_ABORT), Some(message)).into()
}
