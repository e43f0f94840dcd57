//! One file per measurement; `beside` is what those share that stand beside a bare client.

#[cfg_attr(
    not(feature = "cluster"),
    expect(dead_code, reason = "what the measures of a cluster alone use")
)]
mod beside;
mod burst;
#[cfg(feature = "cluster")]
mod cluster;
mod docker;
mod held;
mod idle;
mod latency;
mod links;
mod reattach;
mod reconnect;
mod start;
mod throughput;

use anyhow::Result;

use crate::stage::Tools;
use crate::table::Row;

/// All measurements, in the order of the table.
pub(crate) const NAMES: &[&str] = &[
    "start",
    "burst",
    "idle",
    "held",
    "throughput",
    "latency",
    "reattach",
    "reconnect",
    "links",
    "docker",
    #[cfg(feature = "cluster")]
    "kubernetes",
    #[cfg(feature = "cluster")]
    "argo",
];

/// Runs one of [`NAMES`].
pub(crate) async fn run(name: &str, tools: &Tools) -> Result<Vec<Row>> {
    match name {
        "start" => start::measure(tools).await,
        "burst" => burst::measure(tools).await,
        "idle" => idle::measure(tools).await,
        "held" => held::measure(tools).await,
        "throughput" => throughput::measure(tools).await,
        "latency" => latency::measure(tools).await,
        "reattach" => reattach::measure(tools).await,
        "docker" => docker::measure(tools).await,
        #[cfg(feature = "cluster")]
        "kubernetes" => cluster::jobs(tools).await,
        #[cfg(feature = "cluster")]
        "argo" => cluster::workflows(tools).await,
        "reconnect" => reconnect::measure(tools).await,
        _ => links::measure(tools).await,
    }
}
