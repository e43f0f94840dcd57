//! Cutting off what a power loss tore.

use hybrid_runner_core::RunId;
use hybrid_runner_core::processes;
use hybrid_runner_core::run::State;
use hybrid_runner_store::rusqlite::{self, Connection, params};

use super::segment::Segments;
use super::{index, read};
use crate::store::{self, runs};

/// The name under which the first segment that may not be synced stands in `meta`.
const UNSYNCED: &str = "unsynced_segment";
const BOOT: &str = "boot";

/// Notes that all segments before this one are synced.
pub(crate) fn set_synced_before(tx: &Connection, segment: u64) -> rusqlite::Result<()> {
    store::set_meta(tx, UNSYNCED, &segment.to_string())
}

/// Checks the ends of the logs that the runners can still send, and steps back over what is not sound.
///
/// After `kill -9` the kernel still has every byte, so the last extent of each is looked at, no more. In
/// another boot everything from the first segment on that is not known to be synced is.
///
/// A run that has its outcome but is not removed loses the outcome with the end of its log: it was never
/// acknowledged, and the runner will say the same again.
pub(crate) fn recover(
    tx: &Connection,
    segments: &Segments,
    boot: &str,
) -> rusqlite::Result<Vec<RunId>> {
    let same_boot = store::meta(tx, BOOT)?.as_deref() == Some(boot);
    let unsynced = store::meta(tx, UNSYNCED)?
        .and_then(|text| text.parse().ok())
        .unwrap_or(0);
    let open: Vec<(i64, String)> = tx
        .prepare("SELECT r.seq, r.id FROM runs r JOIN logs l ON l.run = r.seq WHERE r.removed = 0")?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    let mut cut = Vec::new();
    for (run, id) in open {
        if check(
            tx,
            segments,
            run,
            if same_boot { u64::MAX >> 1 } else { unsynced },
        )? {
            reopen(tx, run)?;
            cut.extend(id.parse::<RunId>());
        }
    }
    store::set_meta(tx, BOOT, boot)?;
    Ok(cut)
}

/// Cuts off the first extent that is not sound and all behind it. Whether there was one.
fn check(tx: &Connection, segments: &Segments, run: i64, from: u64) -> rusqlite::Result<bool> {
    let mut extents = index::from_segment(tx, run, from)?;
    if extents.is_empty() {
        extents.extend(index::ending_before(tx, run, u64::MAX >> 1)?);
    }
    let mut first_bad = None;
    let mut behind = 0;
    for extent in extents {
        let bad = read::whole(segments, &extent).is_none();
        behind = extent.number;
        if bad {
            first_bad = Some(extent);
        }
    }
    // A torn end may reach back over what was looked at.
    while first_bad
        .as_ref()
        .is_some_and(|bad| bad.number == behind && behind > 0)
    {
        behind -= 1;
        match index::numbered(tx, run, behind)? {
            Some(extent) if read::whole(segments, &extent).is_none() => first_bad = Some(extent),
            _ => break,
        }
    }
    match first_bad {
        Some(extent) => index::cut_before(tx, run, &extent).map(|()| true),
        None => Ok(false),
    }
}

/// Takes back an outcome that nobody was told is safe.
fn reopen(tx: &Connection, run: i64) -> rusqlite::Result<()> {
    let known = runs::by_seq(tx, run)?;
    if known.finished.is_none() {
        return Ok(());
    }
    let mut status = known.status;
    status.state = State::Running;
    tx.execute(
        "UPDATE runs SET finished = NULL, state = ?2, rank = ?3, status = ?4 WHERE seq = ?1",
        params![
            run,
            status.state.name(),
            status.state.rank(),
            store::to_json(&status)
        ],
    )
    .map(drop)
}

/// The boot that this process lives in.
pub(crate) fn boot_id() -> String {
    processes::boot_id().unwrap_or_else(|_| "unknown".to_owned())
}
