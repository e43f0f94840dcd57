//! From a workload's `write` to a client that follows its log.

use std::time::Duration;

use anyhow::{Context as _, Result};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::stage::{Runner, Server, Tools, needing};
use crate::table::{Row, Sample};
use crate::workload::{millis, now};

const LINES: usize = 500;
const EVERY: u64 = 20;
const LIMIT: Duration = Duration::from_mins(1);

pub(crate) async fn measure(tools: &Tools) -> Result<Vec<Row>> {
    let room = tools.room("latency")?;
    let server = Server::start(tools, &room).await?;
    let runner = Runner::start(&server, &tools.product, "printing", 8, 10).await?;
    let mut client = server.client().await?;
    let command = [tools.own(), "clock", &EVERY.to_string(), &LINES.to_string()];
    let workflow = json!({ "name": "clock", "command": command, "env": needing(10) });
    let run = client.submit(&runner.id, &workflow).await?;
    let times = timeout(LIMIT, follow(&mut client, &run))
        .await
        .context("the log did not end")??;
    anyhow::ensure!(
        times.len() == LINES,
        "{} of {LINES} lines came",
        times.len()
    );
    let times = Sample::new(times);
    let what = format!(
        "log line → following client, a line each {EVERY} ms, p50 / p95 / p99, n = {}",
        times.len()
    );
    Ok(vec![Row::new(what, times.spread()).goal("p50 ≤ 20 ms")])
}

/// Follows a log of times by server-sent events, and compares each with the clock.
async fn follow(client: &mut crate::client::Client, run: &str) -> Result<Vec<f64>> {
    let response = client
        .send("GET", &format!("/runs/{run}/logs?follow=true"), None)
        .await?;
    let mut body = response.into_body();
    let (mut text, mut rest, mut times) = (String::new(), String::new(), Vec::new());
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else {
            continue;
        };
        let arrived = now();
        text.push_str(std::str::from_utf8(&data)?);
        while let Some(end) = text.find("\n\n") {
            let event: String = text.drain(..end + 2).collect();
            if !event.contains("event: log") && !event.contains("event:log") {
                continue;
            }
            let line = event.lines().find_map(|line| line.strip_prefix("data:"));
            let chunk: Value = serde_json::from_str(line.context("an event has data")?.trim())?;
            rest.push_str(printed(&chunk)?);
            while let Some(end) = rest.find('\n') {
                let line: String = rest.drain(..=end).collect();
                times.push(millis(line.trim().parse()?, arrived));
            }
        }
    }
    Ok(times)
}

/// The text of a chunk of a log.
fn printed(chunk: &Value) -> Result<&str> {
    chunk
        .get("text")
        .and_then(Value::as_str)
        .with_context(|| format!("no text in {chunk}"))
}
