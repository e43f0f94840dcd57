//! From the client's clock before `POST /runs` to the clock of the started process.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::json;
use tokio::time::sleep;

use crate::floor::Floor;
use crate::stage::{Runner, Server, Tools};
use crate::table::{Row, Sample};
use crate::workload::{millis, now};

const TIMES: usize = 200;
const PAUSE: Duration = Duration::from_millis(100);

/// One trigger of each in turn, so that both see the same machine.
pub(crate) async fn measure(tools: &Tools) -> Result<Vec<Row>> {
    let room = tools.room("start")?;
    let server = Server::start(tools, &room).await?;
    let runner = Runner::start(&server, &tools.product, "starter", 8, 0).await?;
    let mut client = server.client().await?;
    let mut floor = Floor::start(tools).await?;
    let stamp = tools.stamp.to_str().context("the path is text")?;

    let (mut starts, mut ends) = (Vec::new(), Vec::new());
    let (mut floor_starts, mut floor_ends) = (Vec::new(), Vec::new());
    for n in 0..TIMES {
        let file = room.join(format!("floor.{n}"));
        let name = file.to_str().context("the path is text")?;
        let before = now();
        floor.order(&[stamp, name]).await?;
        floor.flush().await?;
        floor.ended().await?;
        floor_ends.push(millis(before, now()));
        floor_starts.push(millis(before, stamped(&file)?));
        sleep(PAUSE).await;

        let file = room.join(format!("stamp.{n}"));
        let workflow = json!({ "name": "stamp", "command": [stamp, file] });
        let before = now();
        let run = client.submit(&runner.id, &workflow).await?;
        client.succeeded(&run).await?;
        ends.push(millis(before, now()));
        starts.push(millis(before, stamped(&file)?));
        sleep(PAUSE).await;
    }
    let [starts, ends, floor_starts, floor_ends] =
        [starts, ends, floor_starts, floor_ends].map(Sample::new);
    let row = |what: &str, ours: &Sample, floor: &Sample| {
        Row::new(
            format!("{what}, p50 / p95 / p99, n = {}", ours.len()),
            ours.spread(),
        )
        .floor(floor.spread(), ours.p50() / floor.p50())
    };
    Ok(vec![
        row("trigger → process start", &starts, &floor_starts)
            .goal("p50 ≤ 5 ms and ≤ 4 × floor, p99 ≤ 15 ms"),
        row(
            "trigger → its end is known to the client",
            &ends,
            &floor_ends,
        ),
    ])
}

fn stamped(file: &Path) -> Result<u128> {
    let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
    fs::remove_file(file)?;
    Ok(text.trim().parse()?)
}
