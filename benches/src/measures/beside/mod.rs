//! An executor beside a bare client of its backend, in turn and in one run.
//!
//! | file | holds |
//! |---|---|
//! | `ours` | what anybody must ask, through the executor: start, watch, logs, remove |

mod ours;

use anyhow::Result;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use tokio::time::Instant;

pub(super) use self::ours::Ours;
use crate::table::{Row, Sample, number};

/// Milliseconds of the first part, and of both.
pub(super) async fn timed<T, F>(
    start: impl Future<Output = Result<T>>,
    end: impl FnOnce(T) -> F,
) -> Result<(f64, f64)>
where
    F: Future<Output = Result<()>>,
{
    let before = Instant::now();
    let begun = start.await?;
    let started = before.elapsed();
    end(begun).await?;
    Ok((
        started.as_secs_f64() * 1e3,
        before.elapsed().as_secs_f64() * 1e3,
    ))
}

/// A row of milliseconds: those of the bare client, and ours.
pub(super) fn compared(what: &str, goal: f64, [bare, ours]: [Vec<f64>; 2]) -> Row {
    let [bare, ours] = [Sample::new(bare), Sample::new(ours)];
    let what = format!("{what}, p50 / p95 / p99, n = {}", ours.len());
    Row::new(what, ours.spread())
        .goal(format!("≤ {goal} × p50"))
        .floor(bare.spread(), ours.p50() / bare.p50())
}

/// A row of so many runs, so many at once: first of the bare client, then ours.
pub(super) async fn burst<B, O>(
    what: &str,
    goal: f64,
    [runs, at_once]: [usize; 2],
    bare: impl (Fn() -> B) + Send + Sync,
    ours: impl (Fn() -> O) + Send + Sync,
) -> Result<Row>
where
    B: Future<Output = Result<()>> + Send,
    O: Future<Output = Result<()>> + Send,
{
    let floor = rate(runs, at_once, bare).await?;
    let rate = rate(runs, at_once, ours).await?;
    let what = format!("{what}, {runs} in all, {at_once} at once");
    Ok(Row::new(what, format!("{rate:.2} runs/s"))
        .goal(format!("≥ {goal} ×"))
        .floor(format!("{floor:.2} runs/s"), rate / floor))
}

async fn rate<F>(runs: usize, at_once: usize, run: impl (Fn() -> F) + Send + Sync) -> Result<f64>
where
    F: Future<Output = Result<()>> + Send,
{
    let before = Instant::now();
    stream::iter(0..runs)
        .map(|_| run())
        .buffer_unordered(at_once)
        .try_collect::<Vec<()>>()
        .await?;
    Ok(number(runs as u64) / before.elapsed().as_secs_f64())
}
