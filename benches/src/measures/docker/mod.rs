//! The Docker executor beside a bare client of the same engine, in turn and in one run.
//!
//! | file | holds |
//! |---|---|
//! | `bare` | what anybody must ask the engine for: create, start, wait, logs, remove |
//! | `ours` | the same through the executor: start, watch, logs, remove |

mod bare;
mod ours;

use std::time::Duration;

use anyhow::{Context as _, Result};
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use self::bare::Bare;
use self::ours::Ours;
use crate::process::Memory;
use crate::stage::Tools;
use crate::table::{Row, Sample, number};

/// Where the engine is; `scripts/bench` starts one.
const ENGINE: &str = "HYBRID_RUNNER_TEST_DOCKER";
const IMAGE: &str = "hybrid-runner-test/busybox:1";

const STARTS: usize = 40;
const BURST: usize = 50;
/// How many bursts of each; an even number.
const ROUNDS: usize = 4;
const FIRST: usize = 10;
const LIVE: usize = 50;
const LOG: u64 = 256 << 20;

pub(crate) async fn measure(_tools: &Tools) -> Result<Vec<Row>> {
    let host = std::env::var(ENGINE).with_context(|| format!("`{ENGINE}` is not set"))?;
    let (bare, ours) = (Bare::new(&host)?, Ours::new(&host)?);
    // The image is known to the engine, and init lies in its volume.
    bare.whole(&["true"]).await?;
    ours.whole(&["true"]).await?;
    let mut rows = starts(&bare, &ours).await?;
    for at_once in [4, 16] {
        rows.push(burst(&bare, &ours, at_once).await?);
    }
    rows.push(live(&ours).await?);
    rows.push(log(&bare, &ours).await?);
    Ok(rows)
}

/// One start of each in turn, so that both see the same machine.
async fn starts(bare: &Bare, ours: &Ours) -> Result<Vec<Row>> {
    let (mut started, mut whole) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
    for _ in 0..STARTS {
        let (start, all) = timed(bare.start(&["true"]), |id| bare.end(id)).await?;
        started[0].push(start);
        whole[0].push(all);
        let (start, all) = timed(ours.start(&["true"]), |run| ours.end(run)).await?;
        started[1].push(start);
        whole[1].push(all);
    }
    let row = |what: &str, values: [Vec<f64>; 2]| {
        let [bare, ours] = values.map(Sample::new);
        Row::new(
            format!("docker: {what}, p50 / p95 / p99, n = {STARTS}"),
            ours.spread(),
        )
        .goal("≤ 1.1 × p50")
        .floor(bare.spread(), ours.p50() / bare.p50())
    };
    Ok(vec![
        row("create and start, until the work runs", started),
        row("and wait, read its log, remove", whole),
    ])
}

/// Milliseconds of the first part, and of both.
async fn timed<T, F>(
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

/// Bursts in turn, each first as often as the other.
async fn burst(bare: &Bare, ours: &Ours, at_once: usize) -> Result<Row> {
    let bare = || took(at_once, || bare.whole(&["true"]));
    let ours = || took(at_once, || ours.whole(&["true"]));
    let (mut floor, mut taken) = (Duration::ZERO, Duration::ZERO);
    for _ in 0..ROUNDS / 2 {
        floor += bare().await?;
        taken += ours().await?;
        taken += ours().await?;
        floor += bare().await?;
    }
    let rate = |time: Duration| number((BURST * ROUNDS) as u64) / time.as_secs_f64();
    let (floor, rate) = (rate(floor), rate(taken));
    Ok(Row::new(
        format!("docker: {BURST} no-op containers, {at_once} at once, {ROUNDS} times"),
        format!("{rate:.2} runs/s"),
    )
    .goal("≥ 0.9 ×")
    .floor(format!("{floor:.2} runs/s"), rate / floor))
}

/// How long a burst took.
async fn took<F>(at_once: usize, run: impl (Fn() -> F) + Send + Sync) -> Result<Duration>
where
    F: Future<Output = Result<()>> + Send,
{
    let before = Instant::now();
    stream::iter(0..BURST)
        .map(|_| run())
        .buffer_unordered(at_once)
        .try_collect::<Vec<()>>()
        .await?;
    Ok(before.elapsed())
}

/// What a run that lives takes in this process: watched, and its log followed.
async fn live(ours: &Ours) -> Result<Row> {
    let mut held = JoinSet::new();
    let mut runs = Vec::new();
    let mut memory = Vec::new();
    // The first ones pay for what all share.
    for more in [FIRST, LIVE] {
        for _ in 0..more {
            let run = ours.start(&["sh", "-c", "echo begun; sleep 600"]).await?;
            ours.follow(&run, &mut held);
            runs.push(run);
        }
        sleep(Duration::from_secs(3)).await;
        memory.push(Memory::of(std::process::id())?.anonymous);
    }
    for run in runs {
        ours.stop(run).await?;
    }
    held.shutdown().await;
    let each = (memory[1] - memory[0]) / number(LIVE as u64);
    Ok(Row::new(
        format!("docker: memory per live run, {LIVE} beside {FIRST}, watched and followed"),
        format!("{each:.1} KiB anonymous"),
    )
    .goal("≤ 20 KB"))
}

/// A log of short lines that the engine has, read by both.
async fn log(bare: &Bare, ours: &Ours) -> Result<Row> {
    let script = format!(
        "yes 'a line of a log as they are, some eighty characters long, and nothing to be masked' | head -c {LOG}"
    );
    let run = ours.start(&["sh", "-c", &script]).await?;
    ours.ended(&run).await?;
    let before = Instant::now();
    let floor =
        number(bare.read(&ours.container(&run)).await?) / before.elapsed().as_secs_f64() / 1e6;
    let before = Instant::now();
    let read = ours.read(&run).await?;
    let rate = number(read) / before.elapsed().as_secs_f64() / 1e6;
    anyhow::ensure!(read == LOG, "{read} bytes came of {LOG}");
    ours.remove(run).await?;
    Ok(Row::new(
        format!("docker: log of {} MiB, read from the engine", LOG >> 20),
        format!("{rate:.1} MB/s"),
    )
    .goal("≥ 50 MB/s, or what a bare client gets")
    .floor(format!("{floor:.1} MB/s"), rate / floor))
}
