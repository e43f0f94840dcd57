//! The engine dies, or is restarted, or dies together with us: the end is the right one, there is no second container, no
//! line comes twice, and what the engine lost is a gap.

use std::time::Duration;

use futures::StreamExt as _;
use hybrid_runner_core::error::Result;
use hybrid_runner_core::executor::Handle;
use hybrid_runner_core::log::{LogChunk, LogCursor};
use hybrid_runner_core::run::{FailureClass, Outcome};
use hybrid_runner_core::secret::References;
use rustix::process::Signal;
use serde_json::json;

use crate::bench::{Bench, Log, until, within};
use crate::own::Own;

const LIMIT: Duration = Duration::from_secs(90);

fn bench(own: &Own) -> Bench {
    Bench::at(own.host.clone(), json!({}), References::none())
}

/// Writes a line each tenth of a second until the folder holds `enough`, then ends with this code.
fn writer(bench: &Bench, code: u8) -> String {
    let folder = bench.place.folder.path().display();
    format!(
        "i=0; while [ ! -e {folder}/enough ]; do i=$((i+1)); echo line $i; echo $i > {folder}/count; sleep 0.1; done; exit {code}"
    )
}

/// How many lines were written.
fn count(bench: &Bench) -> usize {
    let text = std::fs::read_to_string(bench.place.folder.path().join("count"));
    text.unwrap_or_default().trim().parse().unwrap_or(0)
}

async fn until_lines(bench: &Bench, more: usize) {
    let wanted = count(bench) + more;
    until("lines", async || count(bench) >= wanted).await;
}

fn enough(bench: &Bench) {
    std::fs::write(bench.place.folder.path().join("enough"), "").unwrap();
}

/// Follows as the runner does: asked again from the last cursor after each error.
async fn follow(bench: &Bench, run: &Handle, log: &mut Log, mut enough: impl FnMut(&Log) -> bool) {
    let follow = async {
        loop {
            let from = log.0.last().map(|chunk| chunk.next.clone());
            let mut chunks = bench.docker.logs(run, from);
            loop {
                if enough(log) {
                    return;
                }
                match chunks.next().await {
                    None => return,
                    Some(Ok(chunk)) => log.0.push(chunk),
                    Some(Err(_)) => break,
                }
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    within(LIMIT, "the log", follow).await;
}

/// Watches as the runner does.
async fn end(bench: &Bench, run: &Handle) -> Outcome {
    let end = async {
        loop {
            let levels: Vec<Result<_>> = bench.docker.watch(run).collect().await;
            if let Some(Ok(last)) = levels.last() {
                return last.outcome().unwrap().clone();
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    within(LIMIT, "the end", end).await
}

/// The numbers of the lines, which must rise one by one but for gaps; how many gaps.
fn assert_in_order(log: &Log) -> (Vec<usize>, usize) {
    let text = String::from_utf8(log.bytes(None)).unwrap();
    let number = |line: &str| {
        line.strip_prefix("line ")
            .unwrap()
            .parse::<usize>()
            .unwrap()
    };
    let numbers: Vec<_> = text.lines().map(number).collect();
    let breaks = numbers
        .windows(2)
        .filter(|pair| pair[1] != pair[0] + 1)
        .count();
    assert!(
        numbers.is_sorted_by(|a, b| a < b),
        "a line came twice: {numbers:?}"
    );
    assert!(
        breaks <= log.gaps().len(),
        "lines are missing without a gap: {numbers:?}"
    );
    (numbers, log.gaps().len())
}

/// How many containers the engine has.
async fn containers(own: &Own) -> usize {
    let client = crate::place::connect(&own.host);
    let options = bollard::query_parameters::ListContainersOptionsBuilder::default().all(true);
    client
        .list_containers(Some(options.build()))
        .await
        .unwrap()
        .len()
}

#[tokio::test]
async fn with_live_restore_a_run_survives_its_engine_without_a_gap() {
    let Some(mut own) = Own::up(&["--live-restore"]).await else {
        return;
    };
    let bench = bench(&own);
    let run = bench.begin(&writer(&bench, 7)).await;
    let ended = end(&bench, &run);
    let mut log = Log::default();
    let deaths = async {
        for signal in [Signal::KILL, Signal::TERM] {
            until_lines(&bench, 5).await;
            own.end(signal).await;
            until_lines(&bench, 5).await;
            own.again().await;
        }
        until_lines(&bench, 5).await;
        enough(&bench);
    };
    let (outcome, (), ()) =
        futures::join!(ended, follow(&bench, &run, &mut log, |_| false), deaths);
    assert!(
        matches!(&outcome, Outcome::Failed(failure) if failure.exit_code == Some(7)),
        "{outcome}"
    );
    let (numbers, gaps) = assert_in_order(&log);
    assert_eq!((numbers.len(), gaps), (count(&bench), 0));
    assert_eq!(containers(&own).await, 1);
    bench.remove(&run).await;
}

#[tokio::test]
async fn with_live_restore_an_end_while_the_engine_was_dead_is_the_right_one() {
    let Some(mut own) = Own::up(&["--live-restore"]).await else {
        return;
    };
    let mut bench = bench(&own);
    let run = bench.begin(&writer(&bench, 7)).await;
    let mut log = Log::default();
    follow(&bench, &run, &mut log, |log| log.0.len() >= 3).await;
    own.end(Signal::KILL).await;
    until_lines(&bench, 5).await;
    enough(&bench);
    let seen = count(&bench);
    until("the end of the work", async || {
        let processes = hybrid_runner_core::testing::processes_of(run.run);
        processes.is_some_and(|found| found.is_empty())
    })
    .await;
    own.again().await;
    // We were killed, too.
    bench.anew();
    let outcome = end(&bench, &run).await;
    assert!(
        matches!(&outcome, Outcome::Failed(failure) if failure.exit_code == Some(7)),
        "{outcome}"
    );
    follow(&bench, &run, &mut log, |_| false).await;
    let (numbers, gaps) = assert_in_order(&log);
    // The engine may have taken what the pipe held, or not.
    assert!(gaps <= 1, "{gaps}");
    assert!(
        numbers.len() == count(&bench) || gaps == 1,
        "{} of {seen}, {gaps} gaps",
        numbers.len()
    );
    assert_eq!(containers(&own).await, 1);
    bench.remove(&run).await;
}

#[tokio::test]
async fn without_live_restore_a_killed_engine_ends_the_run_and_says_so() {
    let Some(mut own) = Own::up(&[]).await else {
        return;
    };
    let mut bench = bench(&own);
    let run = bench.begin(&writer(&bench, 7)).await;
    let mut log = Log::default();
    follow(&bench, &run, &mut log, |log| log.0.len() >= 3).await;
    own.end(Signal::KILL).await;
    until_lines(&bench, 5).await;
    own.again().await;
    bench.anew();
    let outcome = end(&bench, &run).await;
    assert!(
        matches!(&outcome, Outcome::Failed(failure) if failure.class == FailureClass::Killed && failure.message.contains("somebody else")),
        "{outcome}"
    );
    follow(&bench, &run, &mut log, |_| false).await;
    let (numbers, gaps) = assert_in_order(&log);
    assert!(gaps <= 1, "{gaps}");
    assert!(
        gaps == 1 || numbers.len() >= count(&bench).saturating_sub(1),
        "{} of {}",
        numbers.len(),
        count(&bench)
    );
    assert_eq!(containers(&own).await, 1);
    assert_eq!(bench.listed().await, [run.run]);
    bench.remove(&run).await;
    assert_eq!(containers(&own).await, 0);
}

#[tokio::test]
async fn without_live_restore_an_engine_that_is_shut_down_ends_the_run_and_all_is_kept() {
    let Some(mut own) = Own::up(&[]).await else {
        return;
    };
    let bench = bench(&own);
    let run = bench.begin(&writer(&bench, 7)).await;
    let mut log = Log::default();
    let ended = end(&bench, &run);
    let death = async {
        until_lines(&bench, 5).await;
        own.end(Signal::TERM).await;
        own.again().await;
    };
    let (outcome, (), ()) = futures::join!(ended, follow(&bench, &run, &mut log, |_| false), death);
    assert!(
        matches!(&outcome, Outcome::Failed(failure) if failure.class == FailureClass::Killed),
        "{outcome}"
    );
    let (numbers, gaps) = assert_in_order(&log);
    assert_eq!(gaps, 0, "{numbers:?}");
    assert!(numbers.len() >= 5);
    assert_eq!(containers(&own).await, 1);
}

#[tokio::test]
async fn a_start_goes_on_once_the_engine_is_back() {
    let Some(mut own) = Own::up(&[]).await else {
        return;
    };
    let bench = bench(&own);
    own.end(Signal::KILL).await;
    let spec = bench.spec("echo done");
    let (error, _) = bench.refused(&spec).await;
    assert!(error.is_transient(), "{error:?}");
    own.again().await;
    let run = bench.start(&spec).await;
    assert_eq!(end(&bench, &run).await, Outcome::Succeeded);
    let log: Vec<LogChunk> = bench.log(&run, None::<LogCursor>).await.0;
    assert_eq!(Log(log).bytes(None), b"done\n");
    assert_eq!(containers(&own).await, 1);
}
