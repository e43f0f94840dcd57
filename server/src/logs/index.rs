//! Which part of which file is which run's.

use std::io;

use hybrid_runner_core::{LogCursor, fault};
use hybrid_runner_store::Store;
use hybrid_runner_store::rusqlite::{self, Connection, OptionalExtension as _, params};

use super::{Batch, Segments};

/// An extent grows up to this: what is read and checked in one piece.
const MAX_EXTENT: u64 = 512 << 10;

/// What storing a batch came to.
#[derive(Debug)]
pub(crate) enum Appended {
    /// It is stored. `fresh`: a segment has become full, and should be synced.
    Stored { fresh: bool },
    /// The log is not where the batch thinks it is, or the run has its outcome: nothing was stored.
    Fenced,
    /// The file could not be written; nothing was stored.
    Failed(io::Error),
}

/// A part of a segment that holds a part of a log.
#[derive(Debug, Clone)]
pub(super) struct Extent {
    pub(super) number: u64,
    /// The position before it.
    pub(super) start: u64,
    pub(super) size: u64,
    pub(super) segment: u64,
    pub(super) offset: u64,
    pub(super) length: u64,
    pub(super) crc: u32,
}

const EXTENT: &str = "number, start, size, segment, offset, length, crc";

fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<Extent> {
    Ok(Extent {
        number: row.get(0)?,
        start: row.get(1)?,
        size: row.get(2)?,
        segment: row.get(3)?,
        offset: row.get(4)?,
        length: row.get(5)?,
        crc: row.get(6)?,
    })
}

/// Stores a batch behind `before`, the cursor that the log has now. Bytes, index and cursor in one step.
pub(crate) fn append(
    tx: &Connection,
    store: &Store,
    segments: &Segments,
    run: i64,
    before: Option<&LogCursor>,
    batch: &Batch,
) -> rusqlite::Result<Appended> {
    let Some(cursor) = batch.cursor() else {
        return Ok(Appended::Stored { fresh: false });
    };
    let Some(size) = place_behind(tx, run, before)? else {
        return Ok(Appended::Fenced);
    };
    let place = match segments.append(&batch.bytes) {
        Ok(place) => place,
        Err(error) => return Ok(Appended::Failed(error)),
    };
    fault::step("server.log.bytes");
    store.sync_first(place.file);
    let length = batch.bytes.len() as u64;
    let last = last(tx, run)?;
    let grows = last.as_ref().is_some_and(|last| {
        last.segment == place.segment
            && last.offset + last.length == place.offset
            && last.length + length <= MAX_EXTENT
            && last.start + last.size == size
    });
    let mut crc = crc32fast::Hasher::new_with_initial(match &last {
        Some(last) if grows => last.crc,
        _ => 0,
    });
    crc.update(&batch.bytes);
    let crc = crc.finalize();
    match last {
        Some(last) if grows => tx
            .prepare_cached(
                "UPDATE extents SET size = ?3, length = ?4, crc = ?5, cursor = ?6 WHERE run = ?1 AND number = ?2",
            )?
            .execute(params![run, last.number, last.size + batch.size, last.length + length, crc, cursor.as_str()])?,
        last => tx
            .prepare_cached(
                "INSERT INTO extents (run, number, start, size, segment, offset, length, crc, cursor)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
            )?
            .execute(params![
                run,
                last.map_or(0, |last| last.number + 1),
                size,
                batch.size,
                place.segment,
                place.offset,
                length,
                crc,
                cursor.as_str()
            ])?,
    };
    tx.prepare_cached(
        "INSERT INTO logs (run, cursor, size) VALUES (?1, ?2, ?3)
         ON CONFLICT (run) DO UPDATE SET cursor = ?2, size = ?3",
    )?
    .execute(params![run, cursor.as_str(), size + batch.size])?;
    Ok(Appended::Stored { fresh: place.fresh })
}

/// The log's size, if its cursor is `before` and the run has no outcome yet.
fn place_behind(
    tx: &Connection,
    run: i64,
    before: Option<&LogCursor>,
) -> rusqlite::Result<Option<u64>> {
    tx.prepare_cached(
        "SELECT coalesce(l.size, 0) FROM runs r LEFT JOIN logs l ON l.run = r.seq
         WHERE r.seq = ?1 AND r.finished IS NULL AND l.cursor IS ?2",
    )?
    .query_row(params![run, before.map(LogCursor::as_str)], |row| {
        row.get(0)
    })
    .optional()
}

fn last(tx: &Connection, run: i64) -> rusqlite::Result<Option<Extent>> {
    tx.prepare_cached(&format!(
        "SELECT {EXTENT} FROM extents WHERE run = ?1 ORDER BY number DESC LIMIT 1"
    ))?
    .query_row([run], read)
    .optional()
}

/// The extent that holds the position, or the first one behind it.
pub(super) fn holding(
    tx: &Connection,
    run: i64,
    position: u64,
) -> rusqlite::Result<Option<Extent>> {
    // The last extent that begins at or before the position; before the first one, that.
    let at = tx
        .prepare_cached(&format!(
            "SELECT {EXTENT} FROM extents WHERE run = ?1 AND start <= ?2 ORDER BY number DESC LIMIT 1"
        ))?
        .query_row(params![run, position], read)
        .optional()?;
    match at {
        Some(extent) if position < extent.start + extent.size => Ok(Some(extent)),
        Some(extent) => numbered(tx, run, extent.number + 1),
        None => first(tx, run),
    }
}

/// The extent with that number.
pub(super) fn numbered(tx: &Connection, run: i64, number: u64) -> rusqlite::Result<Option<Extent>> {
    tx.prepare_cached(&format!(
        "SELECT {EXTENT} FROM extents WHERE run = ?1 AND number = ?2"
    ))?
    .query_row(params![run, number], read)
    .optional()
}

fn first(tx: &Connection, run: i64) -> rusqlite::Result<Option<Extent>> {
    tx.prepare_cached(&format!(
        "SELECT {EXTENT} FROM extents WHERE run = ?1 ORDER BY number LIMIT 1"
    ))?
    .query_row([run], read)
    .optional()
}

/// How much of a run's log is stored, and whether the run has its outcome.
pub(crate) fn place_of(tx: &Connection, run: i64) -> rusqlite::Result<(u64, bool)> {
    tx.prepare_cached(
        "SELECT coalesce(l.size, 0), r.finished IS NOT NULL FROM runs r LEFT JOIN logs l ON l.run = r.seq WHERE r.seq = ?1",
    )?
    .query_row([run], |row| Ok((row.get(0)?, row.get(1)?)))
    .optional()
    // Retention has taken the run: there is no more.
    .map(|found| found.unwrap_or((0, true)))
}

/// The extents of a run that lie in segments from `segment` on, the last first.
pub(super) fn from_segment(
    tx: &Connection,
    run: i64,
    segment: u64,
) -> rusqlite::Result<Vec<Extent>> {
    tx.prepare_cached(&format!(
        "SELECT {EXTENT} FROM extents WHERE run = ?1 AND segment >= ?2 ORDER BY number DESC"
    ))?
    .query_map(params![run, segment], read)?
    .collect()
}

/// Cuts a run's log off before an extent, and steps its cursor back.
pub(super) fn cut_before(tx: &Connection, run: i64, extent: &Extent) -> rusqlite::Result<()> {
    tx.execute(
        "DELETE FROM extents WHERE run = ?1 AND number >= ?2",
        params![run, extent.number],
    )?;
    tx.execute("DELETE FROM logs WHERE run = ?1", [run])?;
    tx.execute(
        "INSERT INTO logs (run, cursor, size)
         SELECT run, cursor, start + size FROM extents WHERE run = ?1 ORDER BY number DESC LIMIT 1",
        [run],
    )?;
    Ok(())
}

/// Drops a segment from the index; its part of each log reads as a gap.
pub(crate) fn drop_segment(tx: &Connection, segment: u64) -> rusqlite::Result<()> {
    tx.execute("DELETE FROM extents WHERE segment = ?1", [segment])
        .map(drop)
}

/// The last extent that begins before the position.
pub(super) fn ending_before(
    tx: &Connection,
    run: i64,
    position: u64,
) -> rusqlite::Result<Option<Extent>> {
    tx.prepare_cached(&format!(
        "SELECT {EXTENT} FROM extents WHERE run = ?1 AND start < ?2 ORDER BY number DESC LIMIT 1"
    ))?
    .query_row(params![run, position], read)
    .optional()
}
