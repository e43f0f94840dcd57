//! From one workload's stdout to the server's store.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result};
use http_body_util::BodyExt as _;
use serde_json::json;
use tokio::fs::File;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;
use tokio::time::Instant;

use crate::client::{Client, until};
use crate::stage::{Runner, Server, Tools, needing};
use crate::table::{Row, number};
use crate::workload::{BLOCK, block};

const BYTES: u64 = 1 << 30;
const NEEDLES: usize = 10;
const LIMIT: Duration = Duration::from_mins(2);

pub(crate) async fn measure(tools: &Tools) -> Result<Vec<Row>> {
    let room = tools.room("throughput")?;
    let server = Server::start(tools, &room).await?;
    let runner = Runner::start(&server, &tools.product, "writing", 8, NEEDLES).await?;
    let mut client = server.client().await?;
    let command = [tools.own(), "lines", &BYTES.to_string()];
    let workflow = json!({ "name": "lines", "command": command, "env": needing(NEEDLES) });
    let ticks = [server.process.ticks()?, runner.process.ticks()?];
    let start = Instant::now();
    let run = client.submit(&runner.id, &workflow).await?;
    let path = format!("/runs/{run}");
    let mut stored = 0;
    let all_stored = until(LIMIT, async || {
        stored = client.get(&path).await?["log"]["bytes"]
            .as_u64()
            .context("`log.bytes`")?;
        Ok(stored >= BYTES)
    });
    let outcome = all_stored.await;
    let ours = start.elapsed().as_secs_f64();
    outcome.with_context(|| format!("{stored} of {BYTES} bytes were stored"))?;
    let used = [
        server.process.ticks()? - ticks[0],
        runner.process.ticks()? - ticks[1],
    ];
    client.succeeded(&run).await?;
    compare(&mut client, &path).await?;

    let bare = bare(tools, &room.join("bare")).await?;
    let speed = |seconds: f64| number(BYTES) / 1e6 / seconds;
    let [of_server, of_runner] = used.map(|ticks| number(ticks) / 100.0);
    let what = "log of one run, 1 GiB of lines, masked, until the server has stored the last byte (then compared byte by byte)";
    let ours_text = format!(
        "{:.0} MB/s (processor time: server {of_server:.1} s, runner {of_runner:.1} s of {ours:.1} s)",
        speed(ours)
    );
    let floor = format!("{:.0} MB/s (one pipe into one file)", speed(bare));
    Ok(vec![
        Row::new(what, ours_text)
            .goal("≥ 100 MB/s")
            .floor(floor, speed(ours) / speed(bare)),
    ])
}

/// Reads the stored log back: it must be what was written.
async fn compare(client: &mut Client, path: &str) -> Result<()> {
    let block = block();
    let mut body = client
        .send("GET", &format!("{path}/logs"), None)
        .await?
        .into_body();
    let mut read = 0;
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else {
            continue;
        };
        for part in data.chunks(BLOCK) {
            // A part crosses the edge of a block at most once.
            let at = read % BLOCK;
            let (left, right) = part.split_at(part.len().min(BLOCK - at));
            anyhow::ensure!(
                left == &block[at..at + left.len()] && right == &block[..right.len()],
                "the stored log differs near byte {read}"
            );
            read += part.len();
        }
    }
    anyhow::ensure!(
        u64::try_from(read)? == BYTES,
        "{read} bytes came back of {BYTES}"
    );
    Ok(())
}

/// The same workload through one pipe into one file.
async fn bare(tools: &Tools, path: &std::path::Path) -> Result<f64> {
    let start = Instant::now();
    let mut child = Command::new(&tools.own)
        .args(["lines", &BYTES.to_string()])
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut out = child.stdout.take().context("stdout is a pipe")?;
    let mut file = File::create(path).await?;
    tokio::io::copy(&mut out, &mut file).await?;
    file.flush().await?;
    child.wait().await?;
    let seconds = start.elapsed().as_secs_f64();
    std::fs::remove_file(path)?;
    Ok(seconds)
}
