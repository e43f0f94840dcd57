//! The journal: what the runner has promised, in `<data_dir>/state.db`.
//!
//! Each run's row is written by its own task alone. A write survives `kill -9` when it returns, and power
//! loss once its [`Commit`] is synced; who needs which stands at each call.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use hybrid_runner_core::RunId;
use hybrid_runner_core::error::{Error, Result};
use hybrid_runner_core::fault;
use hybrid_runner_core::id::SectionName;
use hybrid_runner_core::run::RunSpec;
use hybrid_runner_store::rusqlite::{
    self, Connection, OptionalExtension as _, Transaction, params,
};
use hybrid_runner_store::{Commit, Options, Store};
use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use super::record::{Phase, Record, Row};

/// `hrrn`: a runner's state.
const APPLICATION_ID: i32 = 0x6872_726e;

const MIGRATIONS: &[&str] = &["
    CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
    CREATE TABLE connects (seq INTEGER PRIMARY KEY, at INTEGER NOT NULL) STRICT;
    CREATE TABLE runs (
        run TEXT PRIMARY KEY,
        executor TEXT NOT NULL,
        spec TEXT,
        record TEXT NOT NULL,
        stage INTEGER NOT NULL,
        accepted_at INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE graves (run TEXT PRIMARY KEY, at INTEGER NOT NULL, stopped TEXT) STRICT, WITHOUT ROWID;
    CREATE INDEX graves_at ON graves (at);
"];

/// How long a removed run is remembered, so that a late redelivery does not start it again.
const GRAVES_KEPT: SignedDuration = SignedDuration::from_hours(7 * 24);
/// How long a number given to a connect is known as ours. A run that a server first sent before that, and
/// that nothing else knows, ends as lost.
const CONNECTS_KEPT: SignedDuration = SignedDuration::from_hours(90 * 24);
/// Random bits below the counter in `seq`: a restored copy counts to the same number again, but not to the same bits.
const LUCK: u32 = 20;

/// The journal. Cheap to clone; all clones are the same.
#[derive(Debug, Clone)]
pub(super) struct Journal {
    store: Store,
    path: PathBuf,
}

/// What opening found.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) journal: Journal,
    pub(super) state: Uuid,
    pub(super) seq: u64,
    /// Where a file that could not be read is now.
    pub(super) set_aside: Option<PathBuf>,
}

/// Whether a run was taken up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    Accepted,
    /// It is not taken up, because it was buried.
    Buried(Grave),
}

/// What is remembered of a run that is no more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Grave {
    /// It was stopped before it was ever started here.
    Stopped { by: Option<String> },
    /// It ended, and its outcome was acknowledged.
    Removed,
}

/// A run as `list` shows it.
#[derive(Debug)]
pub(super) struct Listed {
    pub(super) run: RunId,
    pub(super) executor: String,
    pub(super) spec: Option<serde_json::Value>,
}

impl Journal {
    pub(super) async fn open(data_dir: &Path) -> Result<Opened> {
        let path = data_dir.join("state.db");
        let opened = Store::open(Options::new(&path, APPLICATION_ID, MIGRATIONS)).await?;
        let journal = Self {
            store: opened.store,
            path,
        };
        let (state, seq) = journal.identity().await?;
        Ok(Opened {
            journal,
            state,
            seq,
            set_aside: opened.set_aside,
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The id made together with the database, and the last number.
    async fn identity(&self) -> Result<(Uuid, u64)> {
        let fresh = Uuid::new_v4().to_string();
        let written = self.store.write(move |tx| {
            tx.execute("INSERT OR IGNORE INTO meta VALUES ('state', ?)", [fresh])?;
            let state: String =
                tx.query_row("SELECT value FROM meta WHERE name = 'state'", [], |row| {
                    row.get(0)
                })?;
            Ok((state, last_seq(tx)?))
        });
        let (state, seq) = written.await?.synced().await?;
        let state = Uuid::parse_str(&state).map_err(|error| {
            Error::internal("the journal's state id is damaged").with_source(error)
        })?;
        Ok((state, seq))
    }

    /// Raises the number and makes it durable.
    ///
    /// The number is a counter with random bits below it. The journal remembers each that it gave out:
    /// after an old copy was restored the counter comes by the same place again, the number does not.
    pub(super) async fn raise(&self) -> Result<u64> {
        let luck = getrandom::u32().map_err(|error| {
            Error::internal("failed to draw a random number").with_source(error.to_string())
        })?;
        let luck = u64::from(luck >> (32 - LUCK));
        let now = Timestamp::now();
        fault::step("supervisor.raise");
        let written = self.store.write(move |tx| {
            let seq = (((last_seq(tx)? >> LUCK) + 1) << LUCK) | luck;
            tx.prepare_cached("INSERT INTO connects VALUES (?, ?)")?
                .execute(params![number(seq), now.as_second()])?;
            // After the new one is there, so that the counter is never forgotten.
            tx.prepare_cached("DELETE FROM connects WHERE at < ?")?
                .execute([past(now, CONNECTS_KEPT)])?;
            Ok(seq)
        });
        let seq = written.await?.synced().await?;
        fault::step("supervisor.raised");
        Ok(seq)
    }

    /// Whether this very journal gave that number out.
    pub(super) async fn gave_out(&self, seq: u64) -> Result<bool> {
        Ok(self
            .store
            .read(move |db| exists(db, "SELECT 1 FROM connects WHERE seq = ?", [number(seq)]))
            .await?)
    }

    pub(super) async fn meta(&self, name: &'static str) -> Result<Option<String>> {
        let read = self.store.read(move |db| {
            db.query_row("SELECT value FROM meta WHERE name = ?", [name], |row| {
                row.get(0)
            })
            .optional()
        });
        Ok(read.await?)
    }

    pub(super) async fn set_meta(&self, name: &'static str, value: String) -> Result<()> {
        let written = self.store.write(move |tx| {
            tx.execute(
                "INSERT OR REPLACE INTO meta VALUES (?, ?)",
                params![name, value],
            )
            .map(drop)
        });
        Ok(written.await?.synced().await?)
    }

    /// Takes a run up, unless it is buried.
    pub(super) async fn accept(&self, row: &Row) -> Result<(Verdict, Commit)> {
        let (run, executor) = (row.run.to_string(), row.executor.to_string());
        let spec = row.spec.as_deref().map(json).transpose()?;
        let record = json(&row.record)?;
        let (stage, at) = (Stage::of(&row.record), row.accepted_at.as_millisecond());
        let written = self.store.write(move |tx| {
            if let Some(grave) = grave(tx, &run)? {
                return Ok(Verdict::Buried(grave));
            }
            tx.prepare_cached("INSERT INTO runs VALUES (?, ?, ?, ?, ?, ?)")?
                .execute(params![run, executor, spec, record, stage as i64, at])?;
            Ok(Verdict::Accepted)
        });
        Ok(written.await?.into_parts())
    }

    /// Writes where a run stands.
    pub(super) async fn save(&self, run: RunId, record: &Record) -> Result<Commit> {
        let (run, stage, record) = (run.to_string(), Stage::of(record), json(record)?);
        let written = self.store.write(move |tx| {
            tx.prepare_cached("UPDATE runs SET record = ?, stage = ? WHERE run = ?")?
                .execute(params![record, stage as i64, run])
                .map(drop)
        });
        Ok(written.await?.commit())
    }

    /// Gives an adopted run its spec.
    pub(super) async fn set_spec(&self, run: RunId, spec: &RunSpec) -> Result<Commit> {
        let (run, spec) = (run.to_string(), json(spec)?);
        let written = self.store.write(move |tx| {
            tx.execute("UPDATE runs SET spec = ? WHERE run = ?", params![spec, run])
                .map(drop)
        });
        Ok(written.await?.commit())
    }

    /// Remembers that a run must never start here. `false`: the journal has the run itself.
    pub(super) async fn stop_before_start(&self, run: RunId, by: Option<String>) -> Result<bool> {
        let run = run.to_string();
        let now = Timestamp::now();
        fault::step("supervisor.prevent");
        let written = self.store.write(move |tx| {
            if exists(tx, "SELECT 1 FROM runs WHERE run = ?", [&run])? {
                return Ok(false);
            }
            prune(tx, now)?;
            tx.prepare_cached("INSERT OR IGNORE INTO graves VALUES (?, ?, ?)")?
                .execute(params![run, now.as_second(), by.unwrap_or_default()])?;
            Ok(true)
        });
        let buried = written.await?.synced().await?;
        fault::step("supervisor.prevented");
        Ok(buried)
    }

    /// Forgets a run but for its grave.
    pub(super) async fn bury(&self, run: RunId) -> Result<Commit> {
        let run = run.to_string();
        let now = Timestamp::now();
        let written = self.store.write(move |tx| {
            prune(tx, now)?;
            tx.prepare_cached("DELETE FROM runs WHERE run = ?")?
                .execute([&run])?;
            tx.prepare_cached("INSERT OR REPLACE INTO graves VALUES (?, ?, NULL)")?
                .execute(params![run, now.as_second()])
                .map(drop)
        });
        Ok(written.await?.commit())
    }

    /// What is remembered of a run that is no more.
    pub(super) async fn grave(&self, run: RunId) -> Result<Option<Grave>> {
        let run = run.to_string();
        Ok(self.store.read(move |db| grave(db, &run)).await?)
    }

    /// All runs; the specs of live ones only.
    ///
    /// A record that cannot be read is told, and its run goes on as one of which nothing is known but that it was
    /// accepted: what the backend shows of it is adopted.
    pub(super) async fn load(&self) -> Result<Vec<Row>> {
        let rows = self.store.read(|db| {
            let mut select = db.prepare(
                "SELECT run, executor, CASE stage WHEN 0 THEN spec END, spec IS NOT NULL, accepted_at, record FROM runs",
            )?;
            let rows = select.query_map([], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?))
            })?;
            rows.collect::<rusqlite::Result<Vec<Stored>>>()
        });
        let readable = |stored: Stored| {
            let run = stored.0.clone();
            row(stored)
                .inspect_err(|error| {
                    tracing::error!(
                        run,
                        error = error.report(),
                        "the journal's entry of a run cannot be read"
                    );
                })
                .ok()
        };
        Ok(rows.await?.into_iter().filter_map(readable).collect())
    }

    /// All runs that were not removed, with their specs.
    pub(super) async fn list(&self) -> Result<Vec<Listed>> {
        let read = self.store.read(|db| {
            let mut select = db.prepare("SELECT run, executor, spec FROM runs WHERE stage <> ?")?;
            let rows = select.query_map([Stage::Removing as i64], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?))
            })?;
            rows.collect::<rusqlite::Result<Vec<(String, String, Option<String>)>>>()
        });
        let listed = |(run, executor, spec): (String, String, Option<String>)| {
            let spec = spec.and_then(|spec| serde_json::from_str(&spec).ok());
            Some(Listed {
                run: run.parse().ok()?,
                executor,
                spec,
            })
        };
        Ok(read.await?.into_iter().filter_map(listed).collect())
    }

    /// Waits until all that was written so far survives power loss.
    pub(super) async fn sync(&self) -> Result<()> {
        Ok(self.store.sync().await?)
    }

    pub(super) async fn close(self) {
        self.store.close().await;
    }
}

/// What a query must tell apart without reading the record.
#[derive(Debug, Clone, Copy)]
enum Stage {
    Live = 0,
    Finished = 1,
    Removing = 2,
}

impl Stage {
    fn of(record: &Record) -> Self {
        match record.phase {
            Phase::Finished => Self::Finished,
            Phase::Removing => Self::Removing,
            Phase::Starting { .. } | Phase::Started { .. } | Phase::Waiting { .. } => Self::Live,
        }
    }
}

type Stored = (String, String, Option<String>, bool, i64, String);

fn row((run, executor, spec, has_spec, accepted_at, record): Stored) -> Result<Row> {
    let accepted_at = Timestamp::from_millisecond(accepted_at).unwrap_or(Timestamp::UNIX_EPOCH);
    let unreadable =
        |error: serde_json::Error| Error::internal("the entry is damaged").with_source(error);
    let record = serde_json::from_str(&record).unwrap_or_else(|error| {
        tracing::error!(run, %error, "the journal's record of a run cannot be read; its backend is asked");
        // Of no boot: it is never taken for one that was surely not begun.
        Record::accepted(accepted_at, "")
    });
    Ok(Row {
        run: run.parse()?,
        executor: executor.parse::<SectionName>()?,
        spec: spec
            .map(|spec| serde_json::from_str(&spec).map(Arc::new))
            .transpose()
            .map_err(unreadable)?,
        has_spec,
        accepted_at,
        record,
    })
}

fn json<T: serde::Serialize>(value: &T) -> Result<String> {
    serde_json::to_string(value)
        .map_err(|error| Error::internal("failed to write JSON").with_source(error))
}

fn last_seq(db: &Connection) -> rusqlite::Result<u64> {
    db.query_row("SELECT max(seq) FROM connects", [], |row| {
        row.get::<_, Option<i64>>(0)
    })
    .map(|seq| seq.unwrap_or(0).unsigned_abs())
}

/// A `seq` as SQLite keeps it; one beyond its range was never given out.
fn number(seq: u64) -> i64 {
    i64::try_from(seq).unwrap_or(i64::MAX)
}

fn past(now: Timestamp, kept: SignedDuration) -> i64 {
    now.as_second() - kept.as_secs()
}

fn prune(tx: &Transaction<'_>, now: Timestamp) -> rusqlite::Result<()> {
    tx.prepare_cached("DELETE FROM graves WHERE at < ?")?
        .execute([past(now, GRAVES_KEPT)])
        .map(drop)
}

fn grave(db: &Connection, run: &str) -> rusqlite::Result<Option<Grave>> {
    let mut select = db.prepare_cached("SELECT stopped FROM graves WHERE run = ?")?;
    let found = select
        .query_row([run], |row| row.get::<_, Option<String>>(0))
        .optional()?;
    Ok(found.map(|stopped| match stopped {
        None => Grave::Removed,
        Some(by) => Grave::Stopped {
            by: (!by.is_empty()).then_some(by),
        },
    }))
}

fn exists(db: &Connection, sql: &str, params: impl rusqlite::Params) -> rusqlite::Result<bool> {
    db.prepare_cached(sql)?.exists(params)
}

/// What goes wrong with disks.
#[cfg(test)]
impl Journal {
    pub(super) fn stats(&self) -> hybrid_runner_store::Stats {
        self.store.stats()
    }

    /// Makes a run's record unreadable.
    pub(super) async fn damage(&self, run: RunId) {
        let written = self.store.write(move |tx| {
            tx.execute(
                "UPDATE runs SET record = '{' WHERE run = ?",
                [run.to_string()],
            )
            .map(drop)
        });
        drop(written.await.unwrap());
    }

    /// Lets the file grow or not.
    pub(super) async fn set_room(&self, room: bool) {
        let written = self.store.write(move |tx| {
            // A smaller number than there are pages means as many as there are.
            let most: i64 = if room { 1 << 30 } else { 1 };
            tx.query_row(&format!("PRAGMA max_page_count = {most}"), [], |row| {
                row.get::<_, i64>(0)
            })
        });
        drop(written.await.unwrap());
    }
}
