//! From the start of a runner that was killed to the moment at which the logs of all its runs flow again.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::client::{Client, until};
use crate::stage::{Runner, Server, Tools, needing};
use crate::table::{Row, Sample};

const RUNS: u32 = 100;
const TIMES: usize = 5;
const LIMIT: Duration = Duration::from_secs(30);
/// How long the runner is away: each run prints something meanwhile.
const AWAY: Duration = Duration::from_millis(2500);

/// Each run prints a line a second. A run counts as attached again when the server has stored more of its log
/// than it had when the runner was dead.
pub(crate) async fn measure(tools: &Tools) -> Result<Vec<Row>> {
    let room = tools.room("reattach")?;
    let server = Server::start(tools, &room).await?;
    let mut runner = Runner::start(&server, &tools.product, "killed", 200, 10).await?;
    let mut client = server.client().await?;
    let script = "while :; do echo $((n += 1)); sleep 1; done";
    let workflow = json!({ "name": "talks", "command": ["/bin/sh", "-c", script], "timeout": "300s", "env": needing(10) });
    for _ in 0..RUNS {
        client.submit(&runner.id, &workflow).await?;
    }
    until(LIMIT, async || {
        Ok(logs(&mut client)
            .await?
            .values()
            .filter(|bytes| **bytes > 0)
            .count()
            == 100)
    })
    .await
    .context("not all runs have started")?;

    let (mut connected, mut attached) = (Vec::new(), Vec::new());
    for _ in 0..TIMES {
        let gone = runner.kill().await?;
        sleep(AWAY).await;
        let before = logs(&mut client).await?;
        let start = Instant::now();
        runner = gone.start()?;
        runner.connected(&mut client).await?;
        connected.push(start.elapsed().as_secs_f64() * 1e3);
        until(LIMIT, async || {
            let after = logs(&mut client).await?;
            Ok(before
                .iter()
                .all(|(run, bytes)| after.get(run).is_some_and(|now| now > bytes)))
        })
        .await
        .context("not all logs flow again")?;
        attached.push(start.elapsed().as_secs_f64() * 1e3);
        sleep(Duration::from_secs(1)).await;
    }
    client.stop_all().await?;
    let [connected, attached] = [connected, attached].map(Sample::new);
    let what = format!(
        "kill -9 of the runner with {RUNS} runs: its new start → new output of all {RUNS} is stored on the server, n = {TIMES}"
    );
    let ours = format!(
        "p50 {:.0} ms, max {:.0} ms (connected after {:.0} ms)",
        attached.p50(),
        attached.percentile(100),
        connected.p50()
    );
    Ok(vec![Row::new(what, ours).goal("≤ 300 ms")])
}

/// How much of each active run's log is stored.
async fn logs(client: &mut Client) -> Result<BTreeMap<String, u64>> {
    let of = |run: &Value| {
        Some((
            run["id"].as_str()?.to_owned(),
            run["log"]["bytes"].as_u64()?,
        ))
    };
    Ok(client.active().await?.iter().filter_map(of).collect())
}
