//! A log that is held back: it stays in the backend, because the values that its run was given cannot be had again.
//!
//! It is one gap. The cursor behind it is `~~<cursor>`, the last one before it: who comes back with that is told no second
//! gap, and goes on from there if the values can be had by then.

use futures::StreamExt as _;
use futures::stream::{self, BoxStream};

use crate::error::Result;
use crate::log::{GapReason, LogChunk, LogCursor, LogItem};
use crate::poll::no_logs;
use crate::run::Status;

/// Begins the cursor behind the gap. No cursor of [`crate::masked`] begins so.
const MARK: &str = "~~";

/// The place from which the log is to be read, and whether the gap behind it was told before.
pub(super) fn place(from: Option<LogCursor>) -> (Option<LogCursor>, bool) {
    let behind = from
        .as_ref()
        .and_then(|from| from.as_str().strip_prefix(MARK));
    match behind {
        Some(before) => (before.parse().ok(), true),
        None => (from, false),
    }
}

/// One gap behind `from`, unless it was `told` before; then nothing until the run has ended.
pub(super) fn held(
    from: Option<&LogCursor>,
    told: bool,
    levels: BoxStream<'static, Result<Status>>,
) -> BoxStream<'static, Result<LogChunk>> {
    let from = from.map_or("", LogCursor::as_str);
    let next = format!("{MARK}{from}").parse();
    let gap = next.map(|next| LogChunk {
        item: LogItem::Gap {
            bytes: None,
            why: GapReason::HeldBack,
        },
        next,
    });
    stream::iter((!told).then_some(gap))
        .chain(no_logs(levels))
        .boxed()
}
