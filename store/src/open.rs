//! Options, the lock, checks, migrations, setting an unreadable file aside.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read as _, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use crate::error::{Error, Result};
use crate::{Inner, Store, checkpoint, read, sync, write};

/// Files up to this size are checked page by page at each open: some 10 ms. A larger one shows its damage when it is read.
const CHECKED_UP_TO: u64 = 8 << 20;
/// Only an outsider's tool can make us wait: in here there is one writer.
const BUSY: Duration = Duration::from_secs(5);

/// Which file to open and as what.
#[derive(Debug, Clone)]
pub struct Options {
    /// The database file; its directory must exist. `-wal`, `-shm` and `.lock` appear beside it.
    pub path: PathBuf,
    /// The `application_id` that tells this kind of file from others.
    pub application_id: i32,
    /// SQL that leads from each version to the next, each in one transaction. The file's `user_version` is how many
    /// were applied. Append only.
    pub migrations: &'static [&'static str],
    /// Page cache of the writer, and of each connection that reads.
    pub cache_kib: u32,
}

impl Options {
    /// Options with the default cache, 256 KiB.
    pub fn new(
        path: impl Into<PathBuf>,
        application_id: i32,
        migrations: &'static [&'static str],
    ) -> Self {
        Self {
            path: path.into(),
            application_id,
            migrations,
            cache_kib: 256,
        }
    }
}

/// A store, and what opening it found.
#[derive(Debug)]
#[non_exhaustive]
pub struct Opened {
    /// The store.
    pub store: Store,
    /// Where the file that could not be read is now.
    pub set_aside: Option<PathBuf>,
    /// Whether the store is new and empty.
    pub created: bool,
}

pub(crate) fn open(mut options: Options) -> Result<Opened> {
    // Absolute: a change of directory must not matter, and SQLite reads a leading `file:` as a URI.
    options.path = std::path::absolute(&options.path)?;
    let path = options.path.clone();
    let lock = Lock::acquire(&path)?;
    let mut set_aside = None;
    let (database, created) = match prepare(&options) {
        Err(Error::Corrupt(why)) => {
            let aside = move_aside(&path)?;
            tracing::warn!(path = %path.display(), set_aside = %aside.display(), error = %why, "set an unreadable state file aside");
            set_aside = Some(aside);
            prepare(&options)?
        }
        other => other?,
    };
    let log = File::open(beside(&path, "-wal"))?;
    let directory = File::open(path.parent().unwrap_or(Path::new("/")))?;
    let inner = Inner {
        readers: read::Readers::new(path.clone(), options.cache_kib),
        checkpointer: checkpoint::Checkpointer::new(path),
        writer: write::Writer::new(database),
        syncer: Arc::new(sync::Syncer::new(log, directory)),
        lock,
    };
    Ok(Opened {
        store: Store {
            inner: Arc::new(inner),
        },
        set_aside,
        created,
    })
}

/// Opens the file for writing, checks and migrates it. [`Error::Corrupt`] asks for setting it aside.
fn prepare(options: &Options) -> Result<(Connection, bool)> {
    let path = &options.path;
    let log_bytes = size(&beside(path, "-wal"))?;
    if size(path)? == 0 && log_bytes > 0 {
        // SQLite would delete the log, and with it commits that were synced.
        return Err(Error::corrupt("there is a log without its database"));
    }
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)?;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut database = Connection::open_with_flags(path, flags)?;
    // Until the file is known to be ours, closing leaves it as it is.
    database.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    database.busy_timeout(BUSY)?;
    let version = inspect(&database, options, size(path)? + log_bytes)?;
    configure(&database, options.cache_kib)?;
    let mode: String = database.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
    if mode != "wal" {
        let message = format!(
            "the file system of `{}` cannot share memory, which the log needs",
            path.display()
        );
        return Err(std::io::Error::new(ErrorKind::Unsupported, message).into());
    }
    // The module `checkpoint` does it.
    database.pragma_update(None, "wal_autocheckpoint", 0)?;
    // After a burst the log shrinks again.
    database.pragma_update(None, "journal_size_limit", 4 << 20)?;
    migrate(&mut database, options, version.unwrap_or(0))?;
    database.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
    Ok((database, version.is_none()))
}

/// What every connection has set.
pub(crate) fn configure(database: &Connection, cache_kib: u32) -> Result<()> {
    database.busy_timeout(BUSY)?;
    // Enough for all statements of one program, so that none is parsed twice.
    database.set_prepared_statement_cache_capacity(64);
    database.pragma_update(None, "cache_size", -i64::from(cache_kib))?;
    database.pragma_update(None, "synchronous", "NORMAL")?;
    database.pragma_update(None, "mmap_size", 0)?;
    database.pragma_update(None, "temp_store", "MEMORY")?;
    database.pragma_update(None, "trusted_schema", false)?;
    database.pragma_update(None, "cell_size_check", true)?;
    Ok(())
}

/// The file's version, `None` if it is empty. Writes nothing.
fn inspect(database: &Connection, options: &Options, bytes: u64) -> Result<Option<usize>> {
    let number = |sql| database.query_row(sql, [], |row| row.get::<_, i64>(0));
    let application = number("PRAGMA application_id")?;
    let found = number("PRAGMA user_version")?;
    if application == 0 && found == 0 && number("SELECT count(*) FROM sqlite_schema")? == 0 {
        return Ok(None);
    }
    if application != i64::from(options.application_id) {
        return Err(Error::corrupt(format!(
            "it belongs to another program (application id {application:#010x}, not {:#010x})",
            options.application_id
        )));
    }
    let supported = options.migrations.len();
    let Ok(version) = usize::try_from(found) else {
        return Err(Error::corrupt(format!("it has version {found}")));
    };
    if version > supported {
        let supported = i64::try_from(supported).unwrap_or(i64::MAX);
        return Err(Error::TooNew {
            path: options.path.clone(),
            found,
            supported,
        });
    }
    if bytes <= CHECKED_UP_TO {
        let first: String = database.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
        if first != "ok" {
            return Err(Error::corrupt(first));
        }
    }
    Ok(Some(version))
}

fn migrate(database: &mut Connection, options: &Options, version: usize) -> Result<()> {
    let mark = |database: &Connection, version: usize| {
        database.pragma_update(None, "application_id", options.application_id)?;
        database.pragma_update(
            None,
            "user_version",
            i64::try_from(version).unwrap_or(i64::MAX),
        )
    };
    if options.migrations.is_empty() {
        mark(database, 0)?;
    }
    for (index, sql) in options.migrations.iter().enumerate().skip(version) {
        let transaction = database.transaction_with_behavior(TransactionBehavior::Immediate)?;
        transaction.execute_batch(sql)?;
        mark(&transaction, index + 1)?;
        transaction.commit()?;
    }
    Ok(())
}

/// Renames the database, its log and its index so that they still belong together.
///
/// The database goes first: left behind without its log it would look sound and be older than it was.
fn move_aside(path: &Path) -> Result<PathBuf> {
    let date = jiff::Timestamp::now()
        .strftime("%Y%m%dT%H%M%SZ")
        .to_string();
    let mut aside = beside(path, &format!(".unreadable-{date}"));
    let mut count = 1;
    while aside.exists() || beside(&aside, "-wal").exists() {
        count += 1;
        aside = beside(path, &format!(".unreadable-{date}-{count}"));
    }
    for suffix in ["", "-wal", "-shm", "-journal"] {
        match fs::rename(beside(path, suffix), beside(&aside, suffix)) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
    }
    Ok(aside)
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

fn size(path: &Path) -> Result<u64> {
    match fs::metadata(path) {
        Ok(found) => Ok(found.len()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error.into()),
    }
}

/// An exclusive lock beside the file, with the holder's process id in it. The kernel lets go of it
/// when the process ends, however it ends. The file stays: removing it would let two hold it.
pub(crate) struct Lock {
    path: PathBuf,
    file: Mutex<Option<File>>,
}

impl Lock {
    fn acquire(path: &Path) -> Result<Self> {
        let mut options = OpenOptions::new();
        options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600);
        let mut file = options.open(beside(path, ".lock"))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // A holder that has not written yet is told as unknown.
                drop(file.read_to_string(&mut holder));
                return Err(Error::Locked {
                    path: path.to_owned(),
                    by: holder.trim().parse().ok(),
                });
            }
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
        file.set_len(0)?;
        file.rewind()?;
        // On a full disk the lock holds all the same; only its holder's name is missing.
        drop(writeln!(file, "{}", std::process::id()));
        Ok(Self {
            path: path.to_owned(),
            file: Mutex::new(Some(file)),
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn release(&self) {
        let file = self
            .file
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(file) = file {
            // Not just closed: a child that was forked and has not reached its `exec` has the descriptor too.
            // It fails only for a file that was not locked.
            file.unlock().ok();
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        self.release();
    }
}
