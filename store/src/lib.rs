//! A SQLite file with one writer, group commit and two grades of durability.
//!
//! | module | holds |
//! |---|---|
//! | `open` | options, the lock, checks, migrations, setting an unreadable file aside |
//! | `write` | the queue of closures and the group that commits them |
//! | `sync` | when a commit survives power loss |
//! | `read` | connections that only read |
//! | `checkpoint` | moving the log into the database, beside the writer |
//! | `error` | what can go wrong, in words a caller can act on |
//!
//! # Durability without waiting
//!
//! A sync costs about 4 ms on a common disk; a commit without one costs some 20 µs. So there are two
//! grades, and the caller says which one it needs and when:
//!
//! 1. [`Store::write`] resolves when the group is committed with `synchronous=NORMAL`: the bytes are
//!    in the kernel's page cache, so they survive `kill -9` of this process.
//! 2. [`Committed::synced`] resolves when they also survive power loss. Any number of waiters share
//!    one `fdatasync`, and without a waiter there is none.
//!
//! Why one `fdatasync` of the `-wal` file, from a second descriptor, is enough for (2):
//!
//! * A group's frames are in the WAL before `COMMIT` returns, and `fdatasync` covers the pages of the
//!   file (not of the descriptor) and the size needed to read them back.
//! * The WAL is a chain of checksums. What was appended later may be torn by the power loss, but
//!   recovery stops at the first bad frame, so whatever comes before it is kept: a prefix of the order
//!   of commits, which has at least everything that was synced.
//! * Frames leave the WAL only through a checkpoint. SQLite syncs the WAL before it copies them, syncs
//!   the database after all were copied, and only then lets a writer start the WAL over (syncing the
//!   new header). So a commit that is no longer in the WAL is already durable in the database.
//! * The WAL is one file from open to close: it is removed only by the last connection, and ours stays.
//!   Its name in the directory is synced by the first sync.
//! * After a failed `fdatasync` the kernel drops the pages' dirty marks, so a later success proves
//!   nothing. [`Committed::synced`] then fails until the store is opened anew, which reads the
//!   checksums again. Writes go on and still survive `kill -9`.
//!
//! # Shape
//!
//! All work happens on tokio's blocking pool and ends when there is none left: an idle store has no
//! thread, and a paused clock of a test stands still while a commit is under way. Whoever queues the
//! first closure starts the writer; the writer takes all that is queued, commits it as one group,
//! answers, and repeats. It never lingers for more: while it commits, the next group gathers by itself.
//!
//! Nothing else in the process may open the database file: closing *any* descriptor of it would drop
//! SQLite's POSIX locks.

mod checkpoint;
mod error;
mod open;
mod read;
mod sync;
mod write;

use std::fmt;
use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rusqlite::{Connection, Transaction};

pub use error::{Error, Result};
pub use open::{Opened, Options};
pub use rusqlite;
pub use sync::Commit;
pub use write::Committed;

/// A state file. Cheap to clone; all clones are the same store.
///
/// Dropping the last clone closes it too, on the spot and without a word about failures; [`Store::close`]
/// waits for what is under way and does not block the caller's thread.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

/// Fields drop in this order: the writer's connection is the one that removes the log, the lock goes last.
pub(crate) struct Inner {
    readers: read::Readers,
    checkpointer: checkpoint::Checkpointer,
    writer: write::Writer,
    syncer: Arc<sync::Syncer>,
    lock: open::Lock,
}

/// Counts since the store was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    /// Closures that [`Store::write`] ran.
    pub writes: u64,
    /// Groups committed.
    pub commits: u64,
    /// Syncs made for [`Committed::synced`] and [`Store::sync`].
    pub syncs: u64,
}

impl Store {
    /// Opens the file: takes its lock, checks it, makes or migrates it.
    ///
    /// A file that cannot be read (not a database, damaged, another application's) is moved aside under a
    /// dated name, never deleted, and a new one is made; [`Opened::set_aside`] says so.
    ///
    /// # Errors
    /// [`Error::Locked`] when another process has it, [`Error::TooNew`] when a newer program wrote it (the
    /// file is left as it is), [`Error::Io`] or [`Error::Full`] when the disk refuses.
    pub async fn open(options: Options) -> Result<Opened> {
        tokio::task::spawn_blocking(move || open::open(options))
            .await
            .unwrap_or_else(|failed| match failed.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Err(Error::Closed),
            })
    }

    /// Runs `f` in the next group's transaction and resolves when that is committed: it survives `kill -9`.
    ///
    /// Each closure has a savepoint of its own: an error that it returns undoes what it did and nothing
    /// else. Only what SQLite answers by rolling everything back (disk full, I/O) fails the whole group,
    /// with the same error. Closures run in the order in which they were queued, so in the order of the
    /// calls when one task makes them. `f` must not end the transaction itself. A panic in it is raised
    /// again in the caller.
    ///
    /// When the queue is full, this waits for room.
    ///
    /// # Cancel safety
    /// Dropped while it waits for room, `f` never runs. Dropped later, `f` runs and is committed all the
    /// same; only the answer is lost.
    pub async fn write<T, F>(&self, f: F) -> Result<Committed<T>>
    where
        T: Send + 'static,
        F: FnOnce(&Transaction<'_>) -> rusqlite::Result<T> + Send + 'static,
    {
        write::write(&self.inner, f).await
    }

    /// Runs `f` on a connection that can only read, in a transaction, so that it sees one state.
    ///
    /// It sees every write whose future has resolved. Keep it short: while it runs, the log cannot start
    /// over. A panic in it is raised again in the caller.
    ///
    /// # Cancel safety
    /// Dropping the future loses the answer; `f` may still run to its end.
    pub async fn read<T, F>(&self, f: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        read::read(&self.inner, f).await
    }

    /// Makes the next sync `fdatasync` this file as well, before the log.
    ///
    /// For bytes that a row points to: append them, call this, then [`Store::write`] the row; when that
    /// row's [`Committed::synced`] resolves, both are durable. A row that nobody has waited for may be on
    /// disk before its bytes, so after power loss rows can point past the end of the file: the reader
    /// must cut such rows off. A new file's directory entry is the caller's to sync, and after a restart
    /// a file that this process goes on with must be named again: its last bytes may not be durable yet.
    pub fn sync_first(&self, file: Arc<File>) {
        self.inner.syncer.add(file);
    }

    /// Waits until everything committed so far survives power loss.
    ///
    /// # Cancel safety
    /// Dropping the future stops the waiting, not the sync.
    pub async fn sync(&self) -> Result<()> {
        sync::Commit::latest(&self.inner.syncer).synced().await
    }

    /// Counts since the store was opened.
    pub fn stats(&self) -> Stats {
        let (commits, syncs) = self.inner.syncer.counts();
        Stats {
            writes: self.inner.writer.count.load(Ordering::Relaxed),
            commits,
            syncs,
        }
    }

    /// Waits for all that is queued, syncs it, closes the file and lets go of its lock.
    ///
    /// Other clones answer [`Error::Closed`] from then on.
    ///
    /// # Cancel safety
    /// Dropped before it resolves, the store may be closed or not; dropping the last clone finishes it.
    pub async fn close(self) {
        self.inner.writer.stop().await;
        self.inner.readers.stop().await;
        let inner = self.inner;
        // Fails only when the runtime is going away, and then dropping `Inner` does the same.
        drop(tokio::task::spawn_blocking(move || inner.finish()).await);
    }
}

impl Inner {
    /// Closes the connections, the writer's last, and unlocks. Again is nothing.
    fn finish(&self) {
        self.syncer.finish();
        self.readers.close();
        self.checkpointer.close();
        self.writer.close(|| self.lock.release());
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store")
            .field("path", &self.inner.lock.path())
            .finish_non_exhaustive()
    }
}
