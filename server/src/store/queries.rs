//! Lists and look-ups of runs.

use hybrid_runner_core::run::State;
use hybrid_runner_core::{AgentId, Outcome, RunId};
use hybrid_runner_store::rusqlite::{self, Connection, OptionalExtension as _, ToSql, params};

use super::runs::{self, RUN, Run, read_run};

/// Which runs a list shows, the newest first.
#[derive(Debug, Default)]
pub(crate) struct Filter {
    pub(crate) states: Vec<&'static str>,
    pub(crate) runner: Option<AgentId>,
    pub(crate) deployment: Option<String>,
    /// Only runs that came before this one.
    pub(crate) before: Option<i64>,
    pub(crate) limit: usize,
}

/// The runs that a filter lets through.
pub(crate) fn list(tx: &Connection, filter: &Filter) -> rusqlite::Result<Vec<Run>> {
    let mut sql = format!("SELECT {RUN} FROM runs r LEFT JOIN logs l ON l.run = r.seq WHERE 1");
    let mut values: Vec<&dyn ToSql> = Vec::new();
    if !filter.states.is_empty() {
        let marks = vec!["?"; filter.states.len()].join(", ");
        sql += " AND r.state IN (";
        sql += &marks;
        sql.push(')');
        values.extend(filter.states.iter().map(|state| state as &dyn ToSql));
    }
    let runner = filter.runner.as_ref().map(AgentId::as_str);
    if let Some(runner) = &runner {
        sql.push_str(" AND r.runner = ?");
        values.push(runner);
    }
    if let Some(deployment) = &filter.deployment {
        sql.push_str(" AND r.deployment = ?");
        values.push(deployment);
    }
    if let Some(before) = &filter.before {
        sql.push_str(" AND r.seq < ?");
        values.push(before);
    }
    sql.push_str(" ORDER BY r.seq DESC LIMIT ?");
    values.push(&filter.limit);
    tx.prepare_cached(&sql)?
        .query_map(values.as_slice(), read_run)?
        .collect()
}

/// The run with that id.
pub(crate) fn by_id(tx: &Connection, id: RunId) -> rusqlite::Result<Option<Run>> {
    let sql = format!("SELECT {RUN} FROM runs r LEFT JOIN logs l ON l.run = r.seq WHERE r.id = ?1");
    tx.prepare_cached(&sql)?
        .query_row([id.run().to_string()], read_run)
        .optional()
}

/// The runs whose id begins with `prefix` (at most two: more would not tell more).
pub(crate) fn by_prefix(tx: &Connection, prefix: &str) -> rusqlite::Result<Vec<Run>> {
    let sql = format!(
        "SELECT {RUN} FROM runs r LEFT JOIN logs l ON l.run = r.seq WHERE r.id >= ?1 AND r.id < ?1 || 'g' LIMIT 10"
    );
    tx.prepare_cached(&sql)?
        .query_map([prefix], read_run)?
        .collect()
}

/// What a runner was sent and has not let go of.
pub(crate) fn open_of(tx: &Connection, runner: &AgentId) -> rusqlite::Result<Vec<Run>> {
    let sql = format!(
        "SELECT {RUN} FROM runs r LEFT JOIN logs l ON l.run = r.seq
         WHERE r.runner = ?1 AND r.removed = 0 AND r.first_sent IS NOT NULL ORDER BY r.seq"
    );
    tx.prepare_cached(&sql)?
        .query_map([runner.as_str()], read_run)?
        .collect()
}

/// How many runs a runner has: sent and not ended, and not yet sent.
pub(crate) fn counts_of(tx: &Connection, runner: &str) -> rusqlite::Result<(u64, u64)> {
    tx.prepare_cached(
        "SELECT count(*) FILTER (WHERE first_sent IS NOT NULL), count(*) FILTER (WHERE first_sent IS NULL)
         FROM runs WHERE runner = ?1 AND removed = 0 AND finished IS NULL",
    )?
    .query_row([runner], |row| Ok((row.get(0)?, row.get(1)?)))
}

/// How many runs there are in each state.
pub(crate) fn counts_by_state(tx: &Connection) -> rusqlite::Result<Vec<(String, u64)>> {
    tx.prepare_cached("SELECT state, count(*) FROM runs GROUP BY state ORDER BY state")?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect()
}

/// Gives up the runs of a runner that has been away too long. The queued ones stay queued.
pub(crate) fn lose(tx: &Connection, runner: &AgentId, why: &str) -> rusqlite::Result<Vec<RunId>> {
    let mut lost = Vec::new();
    for run in open_of(tx, runner)?
        .into_iter()
        .filter(|run| run.finished.is_none())
    {
        let mut status = run.status;
        status.state = State::Finished(Outcome::lost(why));
        if runs::finish(tx, run.seq, &status)? {
            lost.push(run.id);
        }
    }
    Ok(lost)
}

/// Forgets up to 1,000 runs that ended before `before`, and their logs' index. The count of what went.
pub(crate) fn forget(tx: &Connection, before: i64) -> rusqlite::Result<usize> {
    let seqs: Vec<i64> = tx
        .prepare_cached("SELECT seq FROM runs WHERE finished < ?1 LIMIT 1000")?
        .query_map([before], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    for seq in &seqs {
        for sql in [
            "DELETE FROM runs WHERE seq = ?1",
            "DELETE FROM specs WHERE run = ?1",
            "DELETE FROM logs WHERE run = ?1",
            "DELETE FROM extents WHERE run = ?1",
        ] {
            tx.prepare_cached(sql)?.execute(params![seq])?;
        }
    }
    Ok(seqs.len())
}
