//! What an agent that waits for work occupies.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use tokio::time::{Instant, sleep};

use crate::floor::Floor;
use crate::process::Process;
use crate::stage::{Runner, Server, Tools};
use crate::table::{Row, mib, number};

const SETTLE: Duration = Duration::from_secs(5);
const WATCHED: Duration = Duration::from_secs(30);

/// Both builds at the same time, each connected to one server.
pub(crate) async fn measure(tools: &Tools) -> Result<Vec<Row>> {
    let room = tools.room("idle")?;
    let server = Server::start(tools, &room).await?;
    let start = |program: &'static str, path: &Path| {
        let (server, path) = (&server, path.to_owned());
        async move { Runner::start(server, &path, program, 8, 0).await }
    };
    let minimal = start("minimal", &tools.minimal).await?;
    let product = start("default", &tools.product).await?;
    let floor = Floor::start(tools).await?;
    sleep(SETTLE).await;
    let all = [
        &minimal.process,
        &product.process,
        &server.process,
        &floor.agent,
    ];
    let before = all.map(Process::ticks);
    let since = Instant::now();
    sleep(WATCHED).await;
    let seconds = since.elapsed().as_secs_f64();

    let names = [
        "idle agent, minimal build",
        "idle agent, default build",
        "idle server with these two links",
        "idle floor",
    ];
    let mut rows = Vec::new();
    for ((process, before), name) in all.into_iter().zip(before).zip(names) {
        let memory = process.memory()?;
        // The kernel counts in hundredths of a second.
        let used = number(process.ticks()? - before?) / seconds;
        let ours = format!(
            "RSS {:.1} MiB, anonymous {:.1}, PSS {:.1}; {used:.2} % of a core over {seconds:.0} s; {} threads",
            mib(memory.rss),
            mib(memory.anonymous),
            mib(memory.pss),
            process.threads()?,
        );
        rows.push((Row::new(name, ours), memory.rss));
    }
    let bare = rows.pop().map_or(0.0, |(_, rss)| rss);
    let bare_text = format!("RSS {:.1} MiB", mib(bare));
    let rows = rows.into_iter().enumerate().map(|(n, (row, rss))| match n {
        0 => row
            .goal("RSS ≤ 8 MiB, anonymous ≤ 3 MiB, ≤ 0.05 %")
            .floor(&bare_text, rss / bare),
        1 => row.floor(&bare_text, rss / bare),
        _ => row,
    });
    Ok(rows.collect())
}
