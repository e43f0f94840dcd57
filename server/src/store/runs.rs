//! One run: made, sent, advanced, finished.

use hybrid_runner_core::incarnation::Incarnation;
use hybrid_runner_core::run::State;
use hybrid_runner_core::unit::Period;
use hybrid_runner_core::{AgentId, LogCursor, Outcome, RunId, RunSpec, Status};
use hybrid_runner_store::rusqlite::{self, Connection, OptionalExtension as _, Row, params};
use serde::{Deserialize, Serialize};

use super::{from_json, now, time, to_json, unreadable};

/// A run as it is stored, without its spec.
#[derive(Debug, Clone)]
pub(crate) struct Run {
    pub(crate) seq: i64,
    pub(crate) id: RunId,
    pub(crate) name: String,
    pub(crate) runner: AgentId,
    pub(crate) executor: Option<String>,
    pub(crate) deployment: Option<String>,
    pub(crate) labels: Option<String>,
    pub(crate) key: Option<String>,
    pub(crate) created: i64,
    pub(crate) status: Status,
    pub(crate) finished: Option<i64>,
    pub(crate) first_sent: Option<Incarnation>,
    pub(crate) stop: Option<Stop>,
    pub(crate) cursor: Option<LogCursor>,
    pub(crate) log_size: u64,
}

/// That somebody asked the run to stop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stop {
    /// Who.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) by: Option<String>,
    /// Between asking to end and ending by force.
    pub(crate) grace: Period,
}

/// A run that is to be stored.
#[derive(Debug)]
pub(crate) struct NewRun {
    pub(crate) spec: RunSpec,
    pub(crate) runner: AgentId,
    pub(crate) key: Option<String>,
    pub(crate) deployment: Option<String>,
    /// Set when it is sent as soon as it is stored.
    pub(crate) first_sent: Option<Incarnation>,
    pub(crate) status: Status,
}

/// What storing a run came to.
#[derive(Debug)]
pub(crate) enum Made {
    New(i64),
    /// It is there, with the same content.
    Same,
    /// Its id is taken by something else.
    Different,
}

/// The columns of [`read_run`], of `runs r LEFT JOIN logs l`.
pub(crate) const RUN: &str = "r.seq, r.id, r.name, r.runner, r.executor, r.deployment, r.labels, r.key, r.created, \
     r.status, r.finished, r.first_sent, r.stop, l.cursor, l.size";

/// Reads the columns of [`RUN`].
pub(crate) fn read_run(row: &Row<'_>) -> rusqlite::Result<Run> {
    let text = |at: usize| row.get_ref(at)?.as_str().map_err(unreadable);
    let json = |at: usize| row.get_ref(at)?.as_str_or_null().map_err(unreadable);
    Ok(Run {
        seq: row.get(0)?,
        id: text(1)?.parse().map_err(unreadable)?,
        name: row.get(2)?,
        runner: text(3)?.parse().map_err(unreadable)?,
        executor: row.get(4)?,
        deployment: row.get(5)?,
        labels: row.get(6)?,
        key: row.get(7)?,
        created: row.get(8)?,
        status: from_json(text(9)?)?,
        finished: row.get(10)?,
        first_sent: json(11)?.map(from_json).transpose()?,
        stop: json(12)?.map(from_json).transpose()?,
        cursor: json(13)?
            .map(|text| text.parse().map_err(unreadable))
            .transpose()?,
        log_size: row.get::<_, Option<u64>>(14)?.unwrap_or(0),
    })
}

/// Stores a run, once for its id.
pub(crate) fn insert(tx: &Connection, new: &NewRun) -> rusqlite::Result<Made> {
    let id = new.spec.run.to_string();
    let spec = to_json(&new.spec);
    if let Some(known) = stored_spec(tx, &id)? {
        let same =
            known == spec || from_json::<RunSpec>(&known).is_ok_and(|known| known == new.spec);
        return Ok(if same { Made::Same } else { Made::Different });
    }
    let labels = (!new.spec.labels.is_empty()).then(|| to_json(&new.spec.labels));
    tx.prepare_cached(
        "INSERT INTO runs (id, name, runner, executor, deployment, labels, key, created, state, attempt, rank, status, first_sent)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)",
    )?
    .execute(params![
        id,
        new.spec.name.as_str(),
        new.runner.as_str(),
        new.spec.executor.as_ref().map(AsRef::<str>::as_ref),
        new.deployment,
        labels,
        new.key,
        new.status.times.queued.map_or_else(now, jiff::Timestamp::as_microsecond),
        new.status.state.name(),
        new.status.attempt,
        new.status.state.rank(),
        to_json(&new.status),
        new.first_sent.as_ref().map(to_json),
    ])?;
    let seq = tx.last_insert_rowid();
    tx.prepare_cached("INSERT INTO specs (run, spec) VALUES (?1, ?2)")?
        .execute(params![seq, spec])?;
    Ok(Made::New(seq))
}

fn stored_spec(tx: &Connection, id: &str) -> rusqlite::Result<Option<String>> {
    tx.prepare_cached("SELECT s.spec FROM runs r JOIN specs s ON s.run = r.seq WHERE r.id = ?1")?
        .query_row([id], |row| row.get(0))
        .optional()
}

/// The spec of a run.
pub(crate) fn spec(tx: &Connection, seq: i64) -> rusqlite::Result<RunSpec> {
    tx.prepare_cached("SELECT spec FROM specs WHERE run = ?1")?
        .query_row([seq], |row| {
            from_json(row.get_ref(0)?.as_str().map_err(unreadable)?)
        })
}

/// Takes up to `limit` queued runs of a runner, the oldest first, and marks them as sent under `incarnation`.
pub(crate) fn claim(
    tx: &Connection,
    runner: &AgentId,
    incarnation: &Incarnation,
    limit: usize,
) -> rusqlite::Result<Vec<(Run, RunSpec)>> {
    let mark = to_json(incarnation);
    let seqs: Vec<i64> = tx
        .prepare_cached(
            "SELECT seq FROM runs WHERE runner = ?1 AND first_sent IS NULL AND finished IS NULL ORDER BY seq LIMIT ?2",
        )?
        .query_map(params![runner.as_str(), limit], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    let mut claimed = Vec::with_capacity(seqs.len());
    for seq in seqs {
        tx.prepare_cached("UPDATE runs SET first_sent = ?2 WHERE seq = ?1")?
            .execute(params![seq, mark])?;
        claimed.push((by_seq(tx, seq)?, spec(tx, seq)?));
    }
    Ok(claimed)
}

/// Takes back that these runs were sent under `incarnation`: they were not.
pub(crate) fn unmark(
    tx: &Connection,
    seqs: &[i64],
    incarnation: &Incarnation,
) -> rusqlite::Result<()> {
    let mark = to_json(incarnation);
    for seq in seqs {
        tx.prepare_cached("UPDATE runs SET first_sent = NULL WHERE seq = ?1 AND first_sent = ?2")?
            .execute(params![seq, mark])?;
    }
    Ok(())
}

/// The run with that number.
pub(crate) fn by_seq(tx: &Connection, seq: i64) -> rusqlite::Result<Run> {
    let sql =
        format!("SELECT {RUN} FROM runs r LEFT JOIN logs l ON l.run = r.seq WHERE r.seq = ?1");
    tx.prepare_cached(&sql)?.query_row([seq], read_run)
}

/// Stores a later level. `false`: it is not later, or the run has ended.
pub(crate) fn advance(tx: &Connection, seq: i64, status: &Status) -> rusqlite::Result<bool> {
    let changed = tx
        .prepare_cached(
            "UPDATE runs SET status = ?2, state = ?3, attempt = ?4, rank = ?5
             WHERE seq = ?1 AND finished IS NULL AND (attempt < ?4 OR (attempt = ?4 AND rank <= ?5))",
        )?
        .execute(params![
            seq,
            to_json(status),
            status.state.name(),
            status.attempt,
            status.state.rank()
        ])?;
    Ok(changed == 1)
}

/// Stores the outcome, once. `true`: the run has one now; `false`: this one is of an attempt before the present one.
pub(crate) fn finish(tx: &Connection, seq: i64, status: &Status) -> rusqlite::Result<bool> {
    let finished = now();
    let mut status = status.clone();
    status.times.finished.get_or_insert(time(finished));
    let (created, stop, attempt, has_one): (i64, Option<String>, u32, bool) = tx
        .prepare_cached(
            "SELECT created, stop, attempt, finished IS NOT NULL FROM runs WHERE seq = ?1",
        )?
        .query_row([seq], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
        })?;
    if has_one {
        return Ok(true);
    }
    status.times.queued.get_or_insert(time(created));
    if matches!(status.state, State::Finished(Outcome::Lost { .. })) {
        // Who does not know the run does not know its attempt either.
        status.attempt = status.attempt.max(attempt);
    }
    if let State::Finished(Outcome::Stopped { by: by @ None }) = &mut status.state
        && let Some(stop) = stop
    {
        *by = from_json::<Stop>(&stop)?.by;
    }
    let changed = tx
        .prepare_cached(
            "UPDATE runs SET status = ?2, state = ?3, attempt = max(attempt, ?4), rank = 3, finished = ?5
             WHERE seq = ?1 AND finished IS NULL AND attempt <= ?4",
        )?
        .execute(params![seq, to_json(&status), status.state.name(), status.attempt, finished])?;
    Ok(changed == 1)
}

/// Notes that the runner has let go of a finished run.
pub(crate) fn set_removed(tx: &Connection, seq: i64) -> rusqlite::Result<()> {
    tx.prepare_cached("UPDATE runs SET removed = 1 WHERE seq = ?1 AND finished IS NOT NULL")?
        .execute([seq])
        .map(drop)
}

/// Asks a run to stop. One that was never sent ends here.
pub(crate) fn request_stop(tx: &Connection, seq: i64, stop: &Stop) -> rusqlite::Result<Run> {
    let run = by_seq(tx, seq)?;
    if run.finished.is_some() {
        return Ok(run);
    }
    if run.first_sent.is_none() {
        let outcome = Outcome::Stopped {
            by: stop.by.clone(),
        };
        let mut status = run.status;
        status.state = State::Finished(outcome);
        finish(tx, seq, &status)?;
        set_removed(tx, seq)?;
        return by_seq(tx, seq);
    }
    let stop = match run.stop {
        Some(before) => Stop {
            by: before.by.or_else(|| stop.by.clone()),
            grace: before.grace.min(stop.grace),
        },
        None => stop.clone(),
    };
    tx.prepare_cached("UPDATE runs SET stop = ?2 WHERE seq = ?1")?
        .execute(params![seq, to_json(&stop)])?;
    by_seq(tx, seq)
}
