//! Measures the real binaries on this machine, beside a floor, and prints one table as Markdown.
//!
//! Started by `scripts/bench`, which builds what is measured. Each measurement has its own server and
//! runner, in a folder of its own on a real disk, connected over loopback without TLS. Everything is
//! bounded in number and time, and whatever was started is ended, by its pid.
//!
//! | file | holds |
//! |---|---|
//! | `stage` | a server and its runners as child processes, with their configuration |
//! | `process` | one child process; what `/proc` says about it |
//! | `client` | one keep-alive connection to the REST API |
//! | `floor` | the driver's side of the floor |
//! | `workload` | what some runs execute: this program itself |
//! | `machine` | where all this was measured |
//! | `table` | figures and rows |
//! | `measures` | one file per measurement |
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "it prints a table, and how far it is"
)]

mod client;
mod floor;
mod machine;
mod measures;
mod process;
mod stage;
mod table;
mod workload;

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};

use crate::stage::Tools;
use crate::table::Row;

#[derive(Debug, Parser)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measures, and prints the table.
    Measure(Measure),
    /// A workload: prints so many bytes of lines in large blocks.
    Lines { bytes: u64 },
    /// A workload: prints the time each so many milliseconds, so many times.
    Clock { every: u64, times: u64 },
}

#[derive(Debug, clap::Args)]
struct Measure {
    /// Only these measurements: start burst idle held throughput latency reattach reconnect links docker kubernetes argo
    names: Vec<String>,
    /// `hybrid-runner` with its default features
    #[arg(long)]
    product: PathBuf,
    /// `hybrid-runner` with the feature `local` alone
    #[arg(long)]
    minimal: PathBuf,
    /// The floor's agent
    #[arg(long)]
    floor: PathBuf,
    /// The process that stamps its start
    #[arg(long)]
    stamp: PathBuf,
    /// Where servers and runners keep their data: a folder on a real disk
    #[arg(long)]
    folder: PathBuf,
    /// A cluster gets a tenth of the runs: to see that it works
    #[arg(long)]
    few: bool,
}

#[tokio::main]
async fn main() -> Result<()> {
    match Args::parse().command {
        Command::Lines { bytes } => workload::lines(bytes),
        Command::Clock { every, times } => workload::clock(every, times).await,
        // Dropping what is under way ends the children.
        Command::Measure(measure) => tokio::select! {
            measured = measure_all(measure) => measured,
            _ = tokio::signal::ctrl_c() => anyhow::bail!("interrupted"),
        },
    }
}

async fn measure_all(args: Measure) -> Result<()> {
    let unknown = args
        .names
        .iter()
        .find(|name| !measures::NAMES.contains(&name.as_str()));
    if let Some(name) = unknown {
        anyhow::bail!(
            "no measurement `{name}`; there are {}",
            measures::NAMES.join(", ")
        );
    }
    let tools = Tools {
        own: std::env::current_exe().context("failed to find this program")?,
        product: args.product,
        minimal: args.minimal,
        floor: args.floor,
        stamp: args.stamp,
        folder: args.folder,
        few: args.few,
    };
    println!("{}", machine::describe(&tools)?);
    let mut rows: Vec<Row> = Vec::new();
    let mut failed = false;
    for name in measures::NAMES {
        if !args.names.is_empty() && !args.names.iter().any(|wanted| wanted == name) {
            continue;
        }
        let load = machine::load();
        eprintln!("{name} (load average {load})");
        match measures::run(name, &tools).await {
            Ok(measured) => rows.extend(measured.into_iter().map(|row| row.at(&load))),
            Err(error) => {
                eprintln!("{name} failed: {error:#}");
                failed = true;
            }
        }
    }
    println!("{}", table::markdown(&rows));
    println!("Load average at the end: {}.", machine::load());
    anyhow::ensure!(!failed, "some measurements failed");
    Ok(())
}
