//! What the control plane remembers.
//!
//! | file | holds |
//! |---|---|
//! | `schema.sql` | runs, specs, extents of logs, runners (`server.db`) |
//! | `access.sql` | tokens and the server's id (`access.db`): apart, because they must outlive a damaged `server.db` |
//! | `runs` | one run: made, sent, advanced, finished |
//! | `queries` | lists and look-ups of runs |
//! | `reconcile` | what is to be done when a runner has come back |
//! | `runners` | who has said hello |
//! | `tokens` | hashes of tokens |
//!
//! Functions here are plain SQL on a connection; [`Db`] runs them in the writer's group or on a reader.

pub(crate) mod queries;
pub(crate) mod reconcile;
pub(crate) mod runners;
pub(crate) mod runs;
pub(crate) mod tokens;

use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

use hybrid_runner_store::rusqlite::{self, Connection, Transaction};
use hybrid_runner_store::{Commit, Committed, Error, Options, Result, Store};
use jiff::Timestamp;

/// "hrsv" and "hrac": tells these files from others.
const SERVER: i32 = 0x6872_7376;
const ACCESS: i32 = 0x6872_6163;

/// A state file, and whether its disk takes writes.
#[derive(Debug)]
pub(crate) struct Db {
    store: Store,
    /// Why the last write failed, if it did.
    trouble: Mutex<Option<String>>,
    /// Why nothing can be made durable any more, until the file is opened anew.
    broken: OnceLock<String>,
}

/// A state file, and what opening it found.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) db: Db,
    pub(crate) set_aside: Option<PathBuf>,
    pub(crate) created: bool,
}

impl Db {
    /// Opens runs, logs' index and runners.
    pub(crate) async fn open_server(data_dir: &Path) -> Result<Opened> {
        let mut options = Options::new(
            data_dir.join("server.db"),
            SERVER,
            &[include_str!("schema.sql")],
        );
        options.cache_kib = 4096;
        Self::open(options).await
    }

    /// Opens tokens.
    pub(crate) async fn open_access(data_dir: &Path) -> Result<Opened> {
        let options = Options::new(
            data_dir.join("access.db"),
            ACCESS,
            &[include_str!("access.sql")],
        );
        Self::open(options).await
    }

    async fn open(options: Options) -> Result<Opened> {
        let opened = Store::open(options).await?;
        Ok(Opened {
            db: Self {
                store: opened.store,
                trouble: Mutex::default(),
                broken: OnceLock::new(),
            },
            set_aside: opened.set_aside,
            created: opened.created,
        })
    }

    /// Runs `f` in the writer's group; what it wrote survives `kill -9` when this resolves.
    pub(crate) async fn write<T, F>(&self, f: F) -> Result<Committed<T>>
    where
        T: Send + 'static,
        F: FnOnce(&Transaction<'_>) -> rusqlite::Result<T> + Send + 'static,
    {
        let result = self.store.write(f).await;
        self.note(result.as_ref().err());
        result
    }

    /// Runs `f` on a connection that only reads.
    pub(crate) async fn read<T, F>(&self, f: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    {
        self.store.read(f).await
    }

    /// Waits until a commit survives power loss.
    pub(crate) async fn synced(&self, commit: &Commit) -> Result<()> {
        let result = commit.synced().await;
        if let Err(error) = &result
            && error.is_storage()
        {
            // The first reason stays.
            let _known = self.broken.set(error.to_string());
        }
        result
    }

    /// The store below, for what must be synced before its log.
    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    /// Syncs and closes the file.
    pub(crate) async fn close(&self) {
        self.store.clone().close().await;
    }

    /// Why writes fail now, after trying one.
    pub(crate) async fn trouble(&self) -> Option<String> {
        if let Some(why) = self.broken.get() {
            return Some(format!("{why}; mend the disk and start the server anew"));
        }
        if self.noted().is_some() {
            drop(self.write(probe).await);
        }
        self.noted()
    }

    /// Remembers trouble with the disk, or that it is over.
    pub(crate) fn note(&self, error: Option<&Error>) {
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        match error {
            None => *trouble = None,
            Some(error) if error.is_storage() => *trouble = Some(error.to_string()),
            Some(_) => {}
        }
    }

    fn noted(&self) -> Option<String> {
        self.trouble
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// A write that means nothing, to see whether the disk takes one.
fn probe(tx: &Transaction<'_>) -> rusqlite::Result<()> {
    set_meta(tx, "probe", &now().to_string())
}

/// Sets a named value.
pub(crate) fn set_meta(tx: &Connection, name: &str, value: &str) -> rusqlite::Result<()> {
    let sql = "INSERT INTO meta (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = ?2";
    tx.prepare_cached(sql)?.execute([name, value]).map(drop)
}

/// Reads a named value.
pub(crate) fn meta(tx: &Connection, name: &str) -> rusqlite::Result<Option<String>> {
    use rusqlite::OptionalExtension as _;
    tx.prepare_cached("SELECT value FROM meta WHERE name = ?1")?
        .query_row([name], |row| row.get(0))
        .optional()
}

/// Now, in microseconds.
pub(crate) fn now() -> i64 {
    Timestamp::now().as_microsecond()
}

/// A stored time.
pub(crate) fn time(micros: i64) -> Timestamp {
    Timestamp::from_microsecond(micros).unwrap_or_default()
}

/// A stored value that this build cannot read, as an error of the statement.
pub(crate) fn unreadable(
    error: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, error.into())
}

/// Reads a stored JSON value.
pub(crate) fn from_json<T: serde::de::DeserializeOwned>(text: &str) -> rusqlite::Result<T> {
    serde_json::from_str(text).map_err(unreadable)
}

/// Writes a value as JSON.
pub(crate) fn to_json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).expect("our own types have a JSON form")
}
