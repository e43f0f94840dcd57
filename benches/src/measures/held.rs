//! What a run that is only held occupies: its helper, and its share of the runner.

use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::json;
use tokio::time::sleep;

use crate::client::{Client, until};
use crate::process::{Memory, with_argument};
use crate::stage::{Runner, Server, Tools, needing};
use crate::table::Row;

const NEEDLES: usize = 10;
const MANY_NEEDLES: usize = 1000;
const SETTLE: Duration = Duration::from_secs(3);

pub(crate) async fn measure(tools: &Tools) -> Result<Vec<Row>> {
    let room = tools.room("held")?;
    let server = Server::start(tools, &room).await?;
    let runner = Runner::start(&server, &tools.product, "holding", 200, MANY_NEEDLES).await?;
    let mut client = server.client().await?;
    // Whatever a first run needs for ever does not count.
    let warm = json!({ "name": "warm", "command": ["/bin/true"], "env": needing(NEEDLES) });
    for _ in 0..5 {
        let run = client.submit(&runner.id, &warm).await?;
        client.succeeded(&run).await?;
    }
    sleep(SETTLE).await;
    let empty = runner.process.memory()?.pss;

    let mut rows = Vec::new();
    let mut held = 0;
    for runs in [50, 100] {
        let helpers = hold(&mut client, &runner.id, held, runs, NEEDLES).await?;
        held = runs;
        let growth = runner.process.memory()?.pss - empty;
        let own: f64 = helpers.iter().map(|helper| helper.pss).sum();
        let each = f64::from(runs);
        let ours = format!(
            "{:.3} MiB PSS per run: helper {:.3} + runner {:.3}",
            (own + growth) / each / 1024.0,
            own / each / 1024.0,
            growth / each / 1024.0
        );
        let what = format!("{runs} held runs, {NEEDLES} secrets each");
        rows.push(Row::new(what, ours).goal("≤ 0.25 MiB PSS per run"));
    }
    client.stop_all().await?;

    let runs = 10;
    let helpers = hold(&mut client, &runner.id, 0, runs, MANY_NEEDLES).await?;
    let own: f64 = helpers.iter().map(|helper| helper.pss).sum();
    let ours = format!(
        "helper {:.3} MiB PSS per run",
        own / f64::from(runs) / 1024.0
    );
    rows.push(Row::new(
        format!("{runs} held runs, {MANY_NEEDLES} secrets each"),
        ours,
    ));
    client.stop_all().await?;
    Ok(rows)
}

/// Holds as many runs as are missing, lets them settle, and looks at all their helpers.
async fn hold(
    client: &mut Client,
    runner: &str,
    from: u32,
    to: u32,
    secrets: usize,
) -> Result<Vec<Memory>> {
    // An argument that nobody else has, so that the processes can be found.
    let mark = format!("600.{}", std::process::id() + u32::try_from(secrets)?);
    let workflow =
        json!({ "name": "held", "command": ["/bin/sleep", mark], "env": needing(secrets) });
    for _ in from..to {
        client.submit(runner, &workflow).await?;
    }
    let all = usize::try_from(to)?;
    until(Duration::from_mins(1), async || {
        Ok(with_argument(&mark)?.len() == all)
    })
    .await
    .context("not all runs have started")?;
    sleep(SETTLE).await;
    let sleepers = with_argument(&mark)?;
    sleepers
        .into_iter()
        .map(|(_, helper)| Memory::of(helper))
        .collect()
}
