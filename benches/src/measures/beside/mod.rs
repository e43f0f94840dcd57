//! An executor beside a bare client of its backend, in turn and in one run.
//!
//! | file | holds |
//! |---|---|
//! | `ours` | what anybody must ask, through the executor: start, watch, logs, remove |

mod ours;

use std::time::Duration;

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

/// A row of so many runs, so many at once, of the bare client and of ours, each twice in so many rounds: in turn, since what
/// one leaves behind slows the next down.
pub(super) async fn burst<B, O>(
    what: &str,
    goal: f64,
    [runs, at_once, rounds]: [usize; 3],
    bare: impl (Fn() -> B) + Send + Sync,
    ours: impl (Fn() -> O) + Send + Sync,
) -> Result<Row>
where
    B: Future<Output = Result<()>> + Send,
    O: Future<Output = Result<()>> + Send,
{
    let (mut floor, mut taken) = (Duration::ZERO, Duration::ZERO);
    for _ in 0..rounds {
        floor += took(runs, at_once, &bare).await?;
        taken += took(runs, at_once, &ours).await?;
        taken += took(runs, at_once, &ours).await?;
        floor += took(runs, at_once, &bare).await?;
    }
    let times = 2 * rounds;
    let rate = |time: Duration| number((runs * times) as u64) / time.as_secs_f64();
    let (floor, rate) = (rate(floor), rate(taken));
    let what = format!("{what}, {runs} in all, {at_once} at once, {times} times");
    Ok(Row::new(what, format!("{rate:.2} runs/s"))
        .goal(format!("≥ {goal} ×"))
        .floor(format!("{floor:.2} runs/s"), rate / floor))
}

async fn took<F>(
    runs: usize,
    at_once: usize,
    run: impl (Fn() -> F) + Send + Sync,
) -> Result<Duration>
where
    F: Future<Output = Result<()>> + Send,
{
    let before = Instant::now();
    stream::iter(0..runs)
        .map(|_| run())
        .buffer_unordered(at_once)
        .try_collect::<Vec<()>>()
        .await?;
    Ok(before.elapsed())
}
