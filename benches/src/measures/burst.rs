//! Many no-op runs at once, until the last has ended on the server.

use std::time::Duration;

use anyhow::Result;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::client::until;
use crate::floor::Floor;
use crate::stage::{Runner, Server, Tools};
use crate::table::{Row, number};

const RUNS: u32 = 1000;
const CONNECTIONS: u32 = 8;
const AT_ONCE: u32 = 64;
const PROGRAM: &str = "/bin/true";

pub(crate) async fn measure(tools: &Tools) -> Result<Vec<Row>> {
    let room = tools.room("burst")?;
    let server = Server::start(tools, &room).await?;
    let runner = Runner::start(&server, &tools.product, "bursting", AT_ONCE, 0).await?;
    // Whatever happens only once has happened before.
    submit(&server, &runner.id, CONNECTIONS).await?;
    let mut client = server.client().await?;
    until(Duration::from_secs(20), async || {
        Ok(client.active().await?.is_empty())
    })
    .await?;

    let ticks = [server.process.ticks()?, runner.process.ticks()?];
    let start = Instant::now();
    let ids = submit(&server, &runner.id, RUNS).await?;
    let accepted = start.elapsed().as_secs_f64();
    let limit = Duration::from_mins(2);
    until(limit, async || {
        Ok(client.get("/runs?state=active&limit=1").await?["runs"][0].is_null())
    })
    .await?;
    let ended = start.elapsed().as_secs_f64();
    let used = [
        server.process.ticks()? - ticks[0],
        runner.process.ticks()? - ticks[1],
    ];
    for id in &ids {
        client.succeeded(id).await?;
    }

    let mut floor = Floor::start(tools).await?;
    let start = Instant::now();
    for _ in 0..RUNS {
        floor.order(&[PROGRAM]).await?;
    }
    floor.flush().await?;
    for _ in 0..RUNS {
        floor.ended().await?;
    }
    let bare = start.elapsed().as_secs_f64();

    let all = f64::from(RUNS);
    let [of_server, of_runner] = used.map(|ticks| number(ticks) * 10.0 / all);
    let what = format!(
        "burst of {RUNS} no-op runs, `max_runs = {AT_ONCE}`, until the last has ended on the server"
    );
    let ours = format!(
        "{:.0} runs/s (accepted: {:.0}/s; processor time per run: server {of_server:.2} ms, runner {of_runner:.2} ms)",
        all / ended,
        all / accepted
    );
    let row = Row::new(what, ours)
        .goal("≥ 300 runs/s")
        .floor(format!("{:.0} runs/s", all / bare), bare / ended);
    Ok(vec![row])
}

/// Submits this many no-op runs over a few connections at once.
async fn submit(server: &Server, runner: &str, runs: u32) -> Result<Vec<String>> {
    let mut tasks = JoinSet::new();
    for part in 0..CONNECTIONS {
        let mut client = server.client().await?;
        let (runner, share) = (
            runner.to_owned(),
            (part..runs).step_by(CONNECTIONS as usize).count(),
        );
        tasks.spawn(async move {
            let workflow = json!({ "name": "noop", "command": [PROGRAM] });
            let mut ids = Vec::with_capacity(share);
            for _ in 0..share {
                ids.push(client.submit(&runner, &workflow).await?);
            }
            anyhow::Ok(ids)
        });
    }
    let parts = tasks
        .join_all()
        .await
        .into_iter()
        .collect::<Result<Vec<_>>>()?;
    Ok(parts.concat())
}
