//! What a pipe costs: prints the rows of `docs/performance.md` about plugins.
//!
//! `scripts/bench plugins` builds it, and beside it `odd-plugin` and the example's `custom-executor-plugin`.

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a measurement: it prints, and there is nothing to go on with when a step fails"
)]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use hybrid_runner_core::executor::{Executor, Handle, Progress};
use hybrid_runner_core::id::Owner;
use hybrid_runner_core::kind::Context;
use hybrid_runner_core::log::LogItem;
use hybrid_runner_core::plugin::Contract;
use hybrid_runner_core::plugin::host::{Host, Launch, PluginSettings};
use hybrid_runner_core::secret::Secrets;
use hybrid_runner_core::testing::{FakeBackend, Script, Step};
use hybrid_runner_core::{Error, Result, RunId};
use hybrid_runner_executors::{local, plugin::Plugin};
use serde_json::{Value, json};
use tokio::time::Instant;

const CALLS: usize = 2000;
const STARTS: usize = 15;
const LOG: usize = 200 << 20;
const RUNS: usize = 1000;

fn context(folder: &Path) -> Context {
    let owner = Owner::of("measure", &"me".parse().unwrap());
    let name = "measured".parse().unwrap();
    Context::new(name, json!({}), folder, owner, 1 << 30)
}

fn plugin(folder: &Path, kind: &str) -> Result<Plugin> {
    launched(folder, &json!({ "command": [beside("odd-plugin")?, kind] }))
}

/// The example in Rust. Nothing of its batch system is needed to be ready.
fn example(folder: &Path) -> Result<Plugin> {
    let settings = json!({ "program": "/bin/true", "folder": folder });
    let program = beside("custom-executor-plugin")?;
    launched(
        folder,
        &json!({ "command": [program], "settings": settings }),
    )
}

/// A program that was built into the same folder.
fn beside(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe().map_err(|error| Error::internal(error.to_string()))?;
    Ok(own.with_file_name(name))
}

fn launched(folder: &Path, settings: &Value) -> Result<Plugin> {
    let settings: PluginSettings = serde_json::from_value(settings.clone()).unwrap();
    let context = context(folder);
    let launch = Launch::new(Contract::Executor, &context, &settings, |name| {
        std::env::var_os(name)
    })?;
    Ok(Plugin::of(Host::new(launch), &context))
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

async fn calls(executor: &dyn Executor) -> Result<Duration> {
    executor.check().await?;
    let mut times = Vec::with_capacity(CALLS);
    for _ in 0..CALLS {
        let began = Instant::now();
        executor.check().await?;
        times.push(began.elapsed());
    }
    Ok(median(times))
}

/// Megabytes a second out of the log of a run that has ended.
async fn log_rate(executor: &dyn Executor, run: &Handle) -> Result<f64> {
    let began = Instant::now();
    let mut chunks = executor.logs(run, None);
    let mut read = 0;
    while let Some(chunk) = chunks.next().await {
        if let LogItem::Data { bytes, .. } = chunk?.item {
            read += bytes.len();
        }
    }
    assert!(read >= LOG, "{read} bytes of {LOG}");
    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
    Ok(read as f64 / 1e6 / began.elapsed().as_secs_f64())
}

async fn ended(executor: &dyn Executor, run: &Handle) {
    let mut levels = executor.watch(run);
    while let Some(Ok(_)) = levels.next().await {}
}

fn resident(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .unwrap();
    line.split_whitespace()
        .nth(1)
        .unwrap()
        .parse::<u64>()
        .unwrap()
        / 1024
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<()> {
    let folder = std::env::temp_dir().join(format!("measure-plugins-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    println!("| what | in process | through the pipe |");
    println!("|---|---|---|");

    let fake: Arc<dyn Executor> = FakeBackend::new().executor();
    let piped = plugin(&folder, "fake")?;
    let (near, far) = (calls(&*fake).await?, calls(&piped).await?);
    println!(
        "| a call, p50 of {CALLS} | {near:?} | {far:?} ({:?} more) |",
        far.saturating_sub(near)
    );

    let mut starts = Vec::new();
    for _ in 0..STARTS {
        let fresh = example(&folder)?;
        let began = Instant::now();
        fresh.host().welcome().await?;
        starts.push(began.elapsed());
    }
    println!(
        "| start of the example in Rust to ready, p50 of {STARTS} | – | {:?} |",
        median(starts)
    );

    let here = (local::KIND.build)(&context(&folder))?;
    let piped_local = plugin(&folder, "local")?;
    let text = format!(
        "yes 'a line of a log as they are, neither short nor very long, with a number 4711' | head -c {LOG}"
    );
    let mut spec = Script::new().spec(RunId::generate().attempt(1));
    spec.command = Some(vec!["/bin/sh".into(), "-c".into(), text]);
    let handle = here
        .start(&spec, &Secrets::none(), &Progress::none())
        .await?;
    ended(&*here, &handle).await;
    let (near, far) = (
        log_rate(&*here, &handle).await?,
        log_rate(&piped_local, &handle).await?,
    );
    println!(
        "| log of {} MB | {near:.0} MB/s | {far:.0} MB/s |",
        LOG >> 20
    );
    here.remove(&handle).await?;

    let many = plugin(&folder, "fake")?;
    let began = Instant::now();
    let mut handles = Vec::new();
    for _ in 0..RUNS {
        let spec = Script::new()
            .out("began\n")
            .then(Step::Hold)
            .spec(RunId::generate().attempt(1));
        handles.push(
            many.start(&spec, &Secrets::none(), &Progress::none())
                .await?,
        );
    }
    let mut streams = Vec::new();
    for handle in &handles {
        let (mut levels, mut chunks) = (many.watch(handle), many.logs(handle, None));
        levels.next().await.transpose()?;
        chunks.next().await.transpose()?;
        streams.push((levels, chunks));
    }
    let process = many.host().process().await.unwrap_or_default();
    let (theirs, ours) = (resident(process), resident(std::process::id()));
    println!(
        "| {RUNS} live runs, each watched and its log followed | – | started and followed in {:?}; plugin {theirs} MiB, runner's side {ours} MiB |",
        began.elapsed()
    );
    let began = Instant::now();
    for handle in &handles {
        many.stop(handle, Duration::ZERO).await?;
    }
    for (mut levels, mut chunks) in streams {
        while levels.next().await.transpose()?.is_some() {}
        while chunks.next().await.transpose()?.is_some() {}
    }
    println!(
        "| all of them stopped, their ends and logs read | – | {:?} |",
        began.elapsed()
    );
    std::fs::remove_dir_all(&folder).unwrap();
    Ok(())
}
