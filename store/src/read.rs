//! Connections that only read.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::{Connection, OpenFlags};
use tokio::sync::Semaphore;

use crate::Inner;
use crate::error::{Error, Result};
use crate::open;

/// Reads at a time: a long one does not stand in the way of a short one, and more would only cost memory.
const READERS: u32 = 2;

pub(crate) struct Readers {
    path: PathBuf,
    cache_kib: u32,
    room: Arc<Semaphore>,
    /// Opened when first needed.
    idle: Mutex<Vec<Connection>>,
}

pub(crate) async fn read<T, F>(inner: &Arc<Inner>, f: F) -> Result<T>
where
    T: Send + 'static,
    F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
{
    let room = Arc::clone(&inner.readers.room)
        .acquire_owned()
        .await
        .map_err(|_| Error::Closed)?;
    let inner = Arc::clone(inner);
    let reading = tokio::task::spawn_blocking(move || {
        let result = inner.readers.run(f);
        drop(room);
        result
    });
    match reading.await {
        Ok(result) => result,
        Err(failed) => match failed.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(Error::Closed),
        },
    }
}

impl Readers {
    pub(crate) fn new(path: PathBuf, cache_kib: u32) -> Self {
        Self {
            path,
            cache_kib,
            room: Arc::new(Semaphore::new(READERS as usize)),
            idle: Mutex::default(),
        }
    }

    fn run<T>(&self, f: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T> {
        let idle = self.idle().pop();
        let database = match idle {
            Some(database) => database,
            None => self.connect()?,
        };
        let transaction = database.unchecked_transaction()?;
        let value = f(&transaction);
        // Nothing was written, so the end of the transaction cannot lose anything.
        transaction.finish()?;
        self.idle().push(database);
        Ok(value?)
    }

    fn connect(&self) -> Result<Connection> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let database = Connection::open_with_flags(&self.path, flags)?;
        open::configure(&database, self.cache_kib)?;
        Ok(database)
    }

    /// Waits for the reads under way and lets nobody in again.
    pub(crate) async fn stop(&self) {
        if let Ok(all) = self.room.acquire_many(READERS).await {
            self.room.close();
            drop(all);
        }
    }

    pub(crate) fn close(&self) {
        self.idle().clear();
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
