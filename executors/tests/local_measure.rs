//! Figures of the local executor; printed, not judged.
//!
//! `cargo test --release -p hybrid-runner-executors --features local --test local_measure -- --ignored --nocapture --test-threads=1`
#![cfg(feature = "local")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::cast_precision_loss, reason = "figures for people")]

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use hybrid_runner_core::executor::{Executor, Handle, Progress};
use hybrid_runner_core::id::Owner;
use hybrid_runner_core::kind::Context;
use hybrid_runner_core::run::RunSpec;
use hybrid_runner_core::secret::{SecretValue, Secrets};
use hybrid_runner_core::{LogItem, RunId};
use hybrid_runner_helper::started::Started;
use serde_json::json;
use tokio::time::Instant;

fn owner() -> Owner {
    Owner::of("server", &"one".parse().unwrap())
}

fn executor(data_dir: &Path) -> Arc<dyn Executor> {
    let name = "here".parse().unwrap();
    let context = Context::new(name, json!({}), data_dir, owner(), 1 << 30);
    hybrid_runner_executors::build("local", &context).unwrap()
}

fn command(words: &[&str]) -> RunSpec {
    let run = RunId::generate().attempt(1);
    RunSpec::new(run, "a".parse().unwrap(), words.to_vec())
}

fn now() -> i64 {
    jiff::Timestamp::now().as_microsecond()
}

fn started(data_dir: &Path, run: &Handle) -> Started {
    let runs = data_dir.join("runs").join(owner().as_str());
    let record = fs::read(runs.join(run.run.to_string()).join("started"));
    Started::parse(&record.unwrap()).unwrap()
}

async fn finish(here: &dyn Executor, run: &Handle) {
    let mut levels = here.watch(run);
    while levels.next().await.is_some() {}
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn starts() {
    let data = tempfile::tempdir().unwrap();
    let here = executor(data.path());
    let mut times = Vec::new();
    let mut runs = Vec::new();
    for _ in 0..200 {
        let spec = command(&["/bin/true"]);
        let (clock, begin) = (now(), Instant::now());
        let run = here
            .start(&spec, &Secrets::none(), &Progress::none())
            .await
            .unwrap();
        times.push(begin.elapsed());
        runs.push(started(data.path(), &run).child.unwrap().time - clock);
        finish(&*here, &run).await;
    }
    times.sort();
    runs.sort_unstable();
    println!(
        "start: answers after p50 {:?}, p99 {:?}; the command runs after p50 {} µs, p99 {} µs",
        times[100], times[198], runs[100], runs[198]
    );

    let begin = Instant::now();
    let runs = futures::stream::iter(0..1000).map(|_| async {
        let spec = command(&["/bin/true"]);
        let run = here
            .start(&spec, &Secrets::none(), &Progress::none())
            .await
            .unwrap();
        finish(&*here, &run).await;
        here.remove(&run).await.unwrap();
    });
    runs.buffer_unordered(16).collect::<Vec<()>>().await;
    println!(
        "runs: {:.0} a second, 16 at a time",
        1000.0 / begin.elapsed().as_secs_f64()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn logs() {
    const SIZE: usize = 500 << 20;
    let data = tempfile::tempdir().unwrap();
    let here = executor(data.path());
    for (what, script) in [
        ("64 KiB writes", format!("head -c {SIZE} /dev/zero")),
        (
            "lines",
            format!(
                "yes 'a line of a log that is eighty characters long, as most of them are, more or less' | head -c {SIZE}"
            ),
        ),
    ] {
        let spec = command(&["/bin/sh", "-c", &script]);
        let begin = Instant::now();
        let run = here
            .start(&spec, &Secrets::none(), &Progress::none())
            .await
            .unwrap();
        finish(&*here, &run).await;
        let spooled = begin.elapsed();
        let begin = Instant::now();
        let mut chunks = here.logs(&run, None);
        let (mut bytes, mut count) = (0, 0);
        while let Some(chunk) = chunks.next().await {
            bytes += chunk.unwrap().item.len();
            count += 1;
        }
        assert_eq!(bytes, SIZE);
        let rate = |time: Duration| 500.0 / time.as_secs_f64();
        println!(
            "{what}: spooled at {:.0} MiB/s, read at {:.0} MiB/s in {count} chunks",
            rate(spooled),
            rate(begin.elapsed())
        );
        here.remove(&run).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn latency_of_a_line() {
    let data = tempfile::tempdir().unwrap();
    let here = executor(data.path());
    let script = "i=0; while [ $i -lt 200 ]; do date +%s%N; sleep 0.01; i=$((i+1)); done";
    let spec = command(&["/bin/sh", "-c", script]);
    let run = here
        .start(&spec, &Secrets::none(), &Progress::none())
        .await
        .unwrap();
    let mut chunks = here.logs(&run, None);
    let mut times = Vec::new();
    while let Some(chunk) = chunks.next().await {
        let now = jiff::Timestamp::now().as_nanosecond();
        if let LogItem::Data { bytes, .. } = chunk.unwrap().item {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            let written: i128 = text.lines().last().unwrap().parse().unwrap();
            times.push((now - written) / 1000);
        }
    }
    times.sort_unstable();
    println!(
        "a line is here after: p50 {} µs, max {} µs",
        times[times.len() / 2],
        times[times.len() - 1]
    );
}

fn pss(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok())
        .unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn held_runs() {
    const RUNS: usize = 100;
    let data = tempfile::tempdir().unwrap();
    let here = executor(data.path());
    let mut secrets = Secrets::none();
    for n in 0..10 {
        secrets.insert(
            format!("/s{n}"),
            SecretValue::new(format!("a secret value {n}")),
        );
    }
    let own = std::process::id();
    let before = pss(own);
    let mut runs = Vec::new();
    for _ in 0..RUNS {
        let spec = command(&["/bin/sleep", "1000"]);
        runs.push(
            here.start(&spec, &secrets, &Progress::none())
                .await
                .unwrap(),
        );
    }
    let held = pss(own);
    let mut levels: Vec<_> = runs.iter().map(|run| here.watch(run)).collect();
    for level in &mut levels {
        level.next().await.unwrap().unwrap();
    }
    let mut logs: Vec<_> = runs.iter().map(|run| here.logs(run, None)).collect();
    for (level, log) in levels.iter_mut().zip(&mut logs) {
        let nothing = Duration::from_millis(5);
        tokio::time::timeout(nothing, level.next())
            .await
            .unwrap_err();
        tokio::time::timeout(nothing, log.next()).await.unwrap_err();
    }
    let watched = pss(own);
    let helpers: u64 = runs
        .iter()
        .map(|run| pss(started(data.path(), run).helper))
        .sum();
    println!(
        "{RUNS} held runs, KiB each: helper {:.1}, here {:.1}, here with a watch and a log reader {:.1}",
        helpers as f64 / RUNS as f64,
        (held - before) as f64 / RUNS as f64,
        (watched - before) as f64 / RUNS as f64
    );

    let again = executor(data.path());
    let begin = Instant::now();
    let found = again.list().await.unwrap();
    let mut levels: Vec<_> = found.iter().map(|run| again.watch(run)).collect();
    let firsts = levels.iter_mut().map(futures::StreamExt::next);
    assert_eq!(futures::future::join_all(firsts).await.len(), RUNS);
    println!(
        "list and first levels of {RUNS} runs: {:?}",
        begin.elapsed()
    );
    for run in &runs {
        here.stop(run, Duration::ZERO).await.unwrap();
    }
    for run in &runs {
        finish(&*here, run).await;
        here.remove(run).await.unwrap();
    }
}
