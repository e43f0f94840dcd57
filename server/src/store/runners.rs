//! Who has said hello.

use hybrid_runner_core::incarnation::Incarnation;
use hybrid_runner_core::session::Hello;
use hybrid_runner_core::{AgentId, Capabilities};
use hybrid_runner_store::rusqlite::{self, Connection, OptionalExtension as _, Row, params};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{from_json, now, to_json, unreadable};

/// A runner as it is stored.
#[derive(Debug, Clone)]
pub(crate) struct Runner {
    pub(crate) agent: AgentId,
    pub(crate) about: About,
    pub(crate) last_seen: i64,
}

/// What a runner said about itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct About {
    pub(crate) host: String,
    pub(crate) software: String,
    pub(crate) capabilities: Option<Capabilities>,
}

/// What greeting a runner came to.
#[derive(Debug)]
pub(crate) struct Greeted {
    pub(crate) epoch: u64,
    /// Its state is a copy that was restored: what it remembers is not what it was told.
    pub(crate) rolled_back: bool,
}

/// Stores a hello and gives the session its epoch.
///
/// After a rollback no run counts as sent to a life that remembers: the number will grow past the mark
/// again, so the marks themselves are made void, once and for all.
pub(crate) fn greet(tx: &Connection, hello: &Hello) -> rusqlite::Result<Greeted> {
    let Incarnation { state, seq, .. } = &hello.incarnation;
    let before: Option<(u64, String, u64)> = tx
        .prepare_cached("SELECT epoch, state, seq FROM runners WHERE agent = ?1")?
        .query_row([hello.agent.as_str()], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })
        .optional()?;
    let rolled_back = before
        .as_ref()
        .is_some_and(|(_, known, last)| *known == state.to_string() && seq <= last);
    if rolled_back {
        forget_marks(tx, &hello.agent)?;
    }
    let epoch = before.map_or(1, |(epoch, ..)| epoch + 1);
    let about = About {
        host: hello.host.clone(),
        software: hello.software.clone(),
        capabilities: Some(hello.capabilities.clone()),
    };
    let time = now();
    tx.prepare_cached(
        "INSERT INTO runners (agent, epoch, state, seq, hello, since, last_seen) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6)
         ON CONFLICT (agent) DO UPDATE SET epoch = ?2, state = ?3, seq = ?4, hello = ?5, since = ?6, last_seen = ?6",
    )?
    .execute(params![hello.agent.as_str(), epoch, state.to_string(), seq, to_json(&about), time])?;
    Ok(Greeted { epoch, rolled_back })
}

/// Marks all open runs as sent to a life that is gone.
fn forget_marks(tx: &Connection, agent: &AgentId) -> rusqlite::Result<()> {
    let gone = Incarnation::new("rolled back", Uuid::nil(), u64::MAX >> 1);
    tx.prepare_cached(
        "UPDATE runs SET first_sent = ?2 WHERE runner = ?1 AND first_sent IS NOT NULL AND removed = 0",
    )?
    .execute(params![agent.as_str(), to_json(&gone)])
    .map(drop)
}

/// Notes that these runners were there until now.
pub(crate) fn seen(tx: &Connection, agents: &[AgentId]) -> rusqlite::Result<()> {
    for agent in agents {
        tx.prepare_cached("UPDATE runners SET last_seen = ?2 WHERE agent = ?1")?
            .execute(params![agent.as_str(), now()])?;
    }
    Ok(())
}

const RUNNER: &str = "agent, hello, last_seen";

fn read(row: &Row<'_>) -> rusqlite::Result<Runner> {
    Ok(Runner {
        agent: row
            .get_ref(0)?
            .as_str()
            .map_err(unreadable)?
            .parse()
            .map_err(unreadable)?,
        about: from_json(row.get_ref(1)?.as_str().map_err(unreadable)?)?,
        last_seen: row.get(2)?,
    })
}

/// All runners that ever said hello, by name.
pub(crate) fn all(tx: &Connection) -> rusqlite::Result<Vec<Runner>> {
    tx.prepare_cached(&format!("SELECT {RUNNER} FROM runners ORDER BY agent"))?
        .query_map([], read)?
        .collect()
}

/// One runner.
pub(crate) fn one(tx: &Connection, agent: &str) -> rusqlite::Result<Option<Runner>> {
    tx.prepare_cached(&format!("SELECT {RUNNER} FROM runners WHERE agent = ?1"))?
        .query_row([agent], read)
        .optional()
}
