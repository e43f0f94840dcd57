//! From the first answer of a restarted server to the runner's new link.

use std::time::Duration;

use anyhow::Result;
use tokio::time::{Instant, sleep};

use crate::stage::{Runner, Server, Tools};
use crate::table::{Row, Sample};

/// Only after a session that lived for more than 5 s the runner dials again at once.
const LIVED: Duration = Duration::from_secs(6);

pub(crate) async fn measure(tools: &Tools) -> Result<Vec<Row>> {
    let room = tools.room("reconnect")?;
    let mut server = Server::start(tools, &room).await?;
    let runner = Runner::start(&server, &tools.product, "returning", 8, 0).await?;
    let mut rows = Vec::new();
    for (away, times) in [(Duration::ZERO, 20), (Duration::from_secs(5), 10)] {
        let mut returned = Vec::new();
        for _ in 0..times {
            sleep(LIVED).await;
            server = server.restart(away).await?;
            let start = Instant::now();
            let mut client = server.client().await?;
            runner.connected(&mut client).await?;
            returned.push(start.elapsed().as_secs_f64() * 1e3);
        }
        let returned = Sample::new(returned);
        let what = format!(
            "kill -9 of the server, {} s away: it answers again → its runner is connected, n = {times}",
            away.as_secs()
        );
        let ours = format!(
            "p50 {:.0} ms, p95 {:.0} ms, max {:.0} ms",
            returned.p50(),
            returned.percentile(95),
            returned.percentile(100)
        );
        rows.push(Row::new(what, ours).goal("p50 ≤ 1 s"));
    }
    Ok(rows)
}
