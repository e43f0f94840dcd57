//! Hashes of tokens. The tokens themselves are nowhere.

use hybrid_runner_core::AgentId;
use hybrid_runner_store::rusqlite::{self, Connection, Row, params};

use super::{now, unreadable};
use crate::access::Role;

/// A token as it is stored.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    pub(crate) id: String,
    pub(crate) hash: [u8; 32],
    pub(crate) role: Role,
    pub(crate) agent: Option<AgentId>,
    pub(crate) name: Option<String>,
    pub(crate) created: i64,
    pub(crate) revoked: Option<i64>,
}

fn read(row: &Row<'_>) -> rusqlite::Result<Stored> {
    let agent: Option<String> = row.get(3)?;
    Ok(Stored {
        id: row.get(0)?,
        hash: row.get(1)?,
        role: row
            .get_ref(2)?
            .as_str()
            .map_err(unreadable)?
            .parse()
            .map_err(unreadable)?,
        agent: agent
            .map(|agent| agent.parse().map_err(unreadable))
            .transpose()?,
        name: row.get(4)?,
        created: row.get(5)?,
        revoked: row.get(6)?,
    })
}

/// All tokens, the oldest first.
pub(crate) fn all(tx: &Connection) -> rusqlite::Result<Vec<Stored>> {
    tx.prepare(
        "SELECT id, hash, role, agent, name, created, revoked FROM tokens ORDER BY created, id",
    )?
    .query_map([], read)?
    .collect()
}

/// Stores a new token.
pub(crate) fn insert(tx: &Connection, token: &Stored) -> rusqlite::Result<()> {
    tx.prepare_cached(
        "INSERT INTO tokens (id, hash, role, agent, name, created) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )?
    .execute(params![
        token.id,
        token.hash,
        token.role.as_str(),
        token.agent.as_ref().map(AgentId::as_str),
        token.name,
        token.created
    ])
    .map(drop)
}

/// Makes a token worthless, for ever.
pub(crate) fn revoke(tx: &Connection, id: &str) -> rusqlite::Result<()> {
    tx.prepare_cached("UPDATE tokens SET revoked = ?2 WHERE id = ?1 AND revoked IS NULL")?
        .execute(params![id, now()])
        .map(drop)
}
