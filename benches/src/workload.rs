//! What some runs execute: this program itself.

use std::io::{self, Write as _};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use tokio::time::{MissedTickBehavior, interval};

/// What is written at once.
pub(crate) const BLOCK: usize = 64 << 10;

/// One block of lines as a real log has them; its last line ends with the block.
pub(crate) fn block() -> Vec<u8> {
    let mut text = Vec::with_capacity(BLOCK + 256);
    for line in 0_u64.. {
        let id = line.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let millis = line * 7919 % 1000;
        let rows = line * 31;
        writeln!(
            text,
            "2026-01-28T12:{:02}:07.{millis:03}Z INFO  ingestion.source - table orders_{line}, {rows} rows, id={id:x}, sample='The quick brown fox'",
            line % 60,
        )
        .expect("writing to a vector");
        if text.len() >= BLOCK {
            break;
        }
    }
    text.truncate(BLOCK - 1);
    text.push(b'\n');
    text
}

/// Prints so many bytes (whole blocks).
pub(crate) fn lines(bytes: u64) -> Result<()> {
    let block = block();
    let mut out = io::stdout().lock();
    for _ in 0..bytes / u64::try_from(BLOCK)? {
        out.write_all(&block)?;
    }
    Ok(out.flush()?)
}

/// Prints the time, a line each so many milliseconds.
pub(crate) async fn clock(every: u64, times: u64) -> Result<()> {
    let mut ticks = interval(Duration::from_millis(every));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for _ in 0..times {
        ticks.tick().await;
        let line = format!("{}\n", now());
        io::stdout().lock().write_all(line.as_bytes())?;
    }
    Ok(())
}

/// The clock that all processes of a machine share, in nanoseconds.
pub(crate) fn now() -> u128 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.expect("the clock is set").as_nanos()
}

/// Milliseconds between two times.
pub(crate) fn millis(from: u128, to: u128) -> f64 {
    let nanos = i64::try_from(to).unwrap_or(i64::MAX) - i64::try_from(from).unwrap_or(i64::MAX);
    #[expect(clippy::cast_precision_loss, reason = "a table shows three digits")]
    let nanos = nanos as f64;
    nanos / 1e6
}
