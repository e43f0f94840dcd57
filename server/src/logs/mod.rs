//! The output of runs: bytes in segment files that all runs share, an index of them in the state file.
//!
//! | file | holds |
//! |---|---|
//! | `frame` | how an item of a log stands in a file |
//! | `batch` | items that are stored in one write, with the cursor behind them |
//! | `segment` | the files, and appending to them |
//! | `index` | which part of which file is which run's |
//! | `read` | from a position on, item by item |
//! | `view` | what a reader asked for: the last lines, one stream, since a time |
//! | `recover` | cutting off what a power loss tore |
//!
//! A run's log has positions: the bytes of data before it, and 1 for each gap. They do not depend on how
//! the items were cut, so a position that a client holds is good even if the end was fetched again.
//!
//! # Durability
//!
//! Bytes are appended before the row that points to them, in the writer's own thread, and registered so
//! that a sync covers first the bytes and then the row. Nothing is synced for each item: only before the
//! outcome is acknowledged, and when a segment is full. So after a power loss rows may point to bytes that
//! are not there; `recover` finds them by their checksum and steps the cursor back, and the runner, which
//! keeps a log until its outcome is acknowledged, sends the rest again.

mod batch;
mod frame;
mod index;
mod read;
pub(crate) mod recover;
mod segment;
#[cfg(test)]
mod tests;
mod view;

pub(crate) use batch::{Batch, attempt_of};
pub(crate) use index::{Appended, append, drop_segment, place_of};
pub(crate) use read::{Chunk, Reader};
pub(crate) use segment::Segments;
pub(crate) use view::{View, tail_start};
