//! Moving the log into the database, beside the writer.
//!
//! A checkpoint syncs twice. Done by the writer, as SQLite does it by default, one commit in a few hundred
//! would take 10 ms and more; so a connection of its own does it, which never blocks the writer. When
//! commits come so fast that it cannot catch up, the writer waits for it at [`LOG_LIMIT`], which bounds the log.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::{Connection, OpenFlags};

use crate::error::Result;
use crate::{Inner, open};

/// Bytes of the log from which the writer waits. Reading it back after a crash takes some 10 ms.
const LOG_LIMIT: u64 = 16 << 20;
/// Pages in the log from which moving them is worth two syncs: 4 MiB, SQLite's own default.
const WORTH_IT: i64 = 1000;
/// Commits between two looks at the log. A small one is some 4 pages, so this is well under [`WORTH_IT`].
const EVERY: u32 = 64;

pub(crate) struct Checkpointer {
    path: PathBuf,
    commits: AtomicU32,
    running: AtomicBool,
    database: Mutex<Database>,
}

enum Database {
    /// Opened when first needed.
    NotYet,
    Open(Connection),
    /// For good: one that starts late must not find the log and make a connection again.
    Closed,
}

impl Checkpointer {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self {
            path,
            commits: AtomicU32::new(0),
            running: AtomicBool::new(false),
            database: Mutex::new(Database::NotYet),
        }
    }

    /// Starts a checkpoint now and then. Called by the writer.
    pub(crate) fn after_commit(&self, inner: &Arc<Inner>) {
        let due = (self.commits.fetch_add(1, Ordering::Relaxed) + 1).is_multiple_of(EVERY);
        if inner.syncer.log_bytes() > LOG_LIMIT {
            self.run();
        } else if due && !self.running.swap(true, Ordering::SeqCst) {
            let inner = Arc::clone(inner);
            drop(tokio::task::spawn_blocking(move || {
                inner.checkpointer.run();
                inner.checkpointer.running.store(false, Ordering::SeqCst);
            }));
        }
    }

    fn run(&self) {
        if let Err(error) = self.checkpoint() {
            // The log keeps what could not be moved; the next look tries again.
            tracing::debug!(%error, "failed to move the log into the state file");
        }
    }

    fn checkpoint(&self) -> Result<()> {
        let mut database = self.database();
        if matches!(*database, Database::NotYet) {
            *database = Database::Open(self.connect()?);
        }
        let Database::Open(database) = &*database else {
            return Ok(());
        };
        let waiting = |sql| {
            database.query_row(sql, [], |row| {
                Ok(row.get::<_, i64>("log")? - row.get::<_, i64>("checkpointed")?)
            })
        };
        if waiting("PRAGMA wal_checkpoint = NOOP")? >= WORTH_IT {
            waiting("PRAGMA wal_checkpoint = PASSIVE")?;
        }
        Ok(())
    }

    fn connect(&self) -> Result<Connection> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let database = Connection::open_with_flags(&self.path, flags)?;
        open::configure(&database, 0)?;
        Ok(database)
    }

    pub(crate) fn close(&self) {
        *self.database() = Database::Closed;
    }

    fn database(&self) -> MutexGuard<'_, Database> {
        self.database.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
