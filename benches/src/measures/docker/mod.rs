//! The Docker executor beside a bare client of the same engine, in turn and in one run.
//!
//! | file | holds |
//! |---|---|
//! | `bare` | what anybody must ask the engine for: create, start, wait, logs, remove |

mod bare;

use anyhow::{Context as _, Result};
use serde_json::json;
use tokio::time::Instant;

use self::bare::Bare;
use super::beside::{Ours, burst, compared, timed};
use crate::stage::Tools;
use crate::table::{Row, number};

/// Where the engine is; `scripts/bench` starts one.
const ENGINE: &str = "HYBRID_RUNNER_TEST_DOCKER";
const IMAGE: &str = "hybrid-runner-test/busybox:1";

const STARTS: usize = 40;
const BURST: usize = 50;
const ROUNDS: usize = 2;
const LIVE: [usize; 2] = [10, 50];
const LOG: u64 = 256 << 20;

pub(crate) async fn measure(_tools: &Tools) -> Result<Vec<Row>> {
    let host = std::env::var(ENGINE).with_context(|| format!("`{ENGINE}` is not set"))?;
    let settings = json!({ "host": host, "image": IMAGE, "network": "none" });
    let (bare, ours) = (Bare::new(&host)?, Ours::new("docker", settings)?);
    // The image is known to the engine, and init lies in its volume.
    bare.whole(&["true"]).await?;
    ours.whole(&["true"]).await?;
    let mut rows = starts(&bare, &ours).await?;
    for at_once in [4, 16] {
        let (bare, ours) = (|| bare.whole(&["true"]), || ours.whole(&["true"]));
        rows.push(
            burst(
                "docker: no-op containers",
                0.9,
                [BURST, at_once, ROUNDS],
                bare,
                ours,
            )
            .await?,
        );
    }
    let (row, runs) = ours.live("docker: memory per live run", LIVE).await?;
    rows.push(row);
    for run in runs {
        ours.stop(run).await?;
    }
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
    Ok(vec![
        compared(
            "docker: create and start, until the work runs",
            1.1,
            started,
        ),
        compared("docker: and wait, read its log, remove", 1.1, whole),
    ])
}

/// A log of short lines that the engine has, read by both.
async fn log(bare: &Bare, ours: &Ours) -> Result<Row> {
    let script = format!(
        "yes 'a line of a log as they are, some eighty characters long, and nothing to be masked' | head -c {LOG}"
    );
    let run = ours.start(&["sh", "-c", &script]).await?;
    ours.ended(&run).await?;
    let container = format!("hr-{}-{}", ours.owner, run.run);
    let before = Instant::now();
    let floor = number(bare.read(&container).await?) / before.elapsed().as_secs_f64() / 1e6;
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
