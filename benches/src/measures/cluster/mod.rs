//! The executors over a cluster beside a bare client of the same API server, in turn and in one run.
//!
//! | file | holds |
//! |---|---|
//! | `place` | a namespace |
//! | `bare` | what anybody must ask, for the same pods: make, watch, logs, delete |
//! | `counting` | how often the API server is asked, and what |

mod bare;
mod counting;
mod place;

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use futures::future::{try_join, try_join_all};
use hybrid_runner_core::Secrets;
use hybrid_runner_core::executor::Handle;
use hybrid_runner_core::run::RunSpec;
use hybrid_runner_core::secret::SecretValue;
use serde_json::json;
use tokio::time::{Instant, sleep_until};

use self::bare::Bare;
use self::counting::Counting;
use self::place::{Over, Place};
use super::beside::{Ours, burst, compared};
use crate::stage::Tools;
use crate::table::{Row, number};

/// So that both see it run: a node looks at its containers once a second.
const COMMAND: [&str; 2] = ["sleep", "1.2"];
/// Between these.
const LOOKS: Duration = Duration::from_secs(1);
const VALUE: &str = "correct-horse-battery-staple";

/// How many of each.
#[derive(Debug, Clone, Copy)]
struct Counts {
    starts: usize,
    counted: usize,
    burst: usize,
    live: [usize; 2],
}

/// A pod of Argo has three containers, and takes a node three times as long.
fn counts(over: Over, few: bool) -> Counts {
    let all = match over {
        Over::Jobs => Counts {
            starts: 30,
            counted: 20,
            burst: 200,
            live: [10, 100],
        },
        Over::Workflows => Counts {
            starts: 12,
            counted: 10,
            burst: 40,
            live: [10, 40],
        },
    };
    if !few {
        return all;
    }
    Counts {
        starts: all.starts / 10,
        counted: all.counted / 10,
        burst: all.burst / 10,
        live: all.live.map(|count| count / 10),
    }
}

pub(crate) async fn jobs(tools: &Tools) -> Result<Vec<Row>> {
    measure(tools, Over::Jobs).await
}

pub(crate) async fn workflows(tools: &Tools) -> Result<Vec<Row>> {
    measure(tools, Over::Workflows).await
}

async fn measure(tools: &Tools, over: Over) -> Result<Vec<Row>> {
    let place = Place::made(over).await?;
    let measured = in_place(tools, &place).await;
    place.remove().await?;
    measured
}

async fn in_place(tools: &Tools, place: &Place) -> Result<Vec<Row>> {
    let kind = place.over.kind();
    let counts = counts(place.over, tools.few);
    let ours = Ours::new(kind, place.section())?;
    ours.whole(&COMMAND).await?;
    // First of all: what was once needed for something else would not be counted as new.
    let what = format!("{kind}: memory per live run");
    let (row, live) = ours.live(&what, counts.live).await?;
    let mut rows = vec![row, reattach(&ours, kind, &live[counts.live[0]..]).await?];
    place.clear().await?;
    // Only now: its watch has buffers of its own in this process.
    let bare = Bare::new(place)?;
    bare.whole(&COMMAND).await?;
    for has_value in [false, true] {
        rows.extend(starts(&bare, &ours, kind, counts.starts, has_value).await?);
    }
    rows.extend(requests(tools, place, counts.counted).await?);
    let what = format!("{kind}: no-op runs");
    let whole = (|| bare.whole(&["true"]), || ours.whole(&["true"]));
    rows.push(
        burst(
            &what,
            0.95,
            [counts.burst, counts.burst, 1],
            whole.0,
            whole.1,
        )
        .await?,
    );
    Ok(rows)
}

/// What a run is given: nothing, or a value for a variable.
fn given(command: &[&str], has_value: bool) -> Result<(RunSpec, Secrets)> {
    let mut spec = Ours::spec(command)?;
    let mut secrets = Secrets::none();
    if has_value {
        spec.env
            .insert("VALUE".to_owned(), "secret:/value".to_owned());
        secrets.insert("/value", SecretValue::new(VALUE));
    }
    Ok((spec, secrets))
}

/// One start of each in turn, so that both see the same machine.
async fn starts(
    bare: &Bare,
    ours: &Ours,
    kind: &str,
    runs: usize,
    has_value: bool,
) -> Result<Vec<Row>> {
    let (mut there, mut running) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
    let mut looked = None;
    for _ in 0..runs {
        in_step(looked).await;
        let name = Bare::name();
        let before = Instant::now();
        bare.make(&name, &COMMAND, has_value).await?;
        let pod = bare.pod(&name, |pod| pod.running.is_some()).await?;
        let since = |instant: Instant| instant.duration_since(before).as_secs_f64() * 1e3;
        there[0].push(since(pod.there));
        running[0].push(since(pod.running.unwrap_or(pod.there)));
        looked = bare.pod(&name, |pod| pod.over.is_some()).await?.over;
        bare.end(&name, has_value).await?;

        in_step(looked).await;
        let (spec, secrets) = given(&COMMAND, has_value)?;
        let before = Instant::now();
        let run = ours.start_with(&spec, &secrets).await?;
        ours.running(&run).await?;
        let since = |instant: Instant| instant.duration_since(before).as_secs_f64() * 1e3;
        running[1].push(since(Instant::now()));
        let pod = bare.pod(object(&run), |_| true).await?;
        there[1].push(since(pod.there));
        let pod = bare.pod(object(&run), |pod| pod.over.is_some()).await?;
        looked = pod.over;
        ours.end(run).await?;
    }
    let (with, goal) = if has_value {
        ("with a value", 1.1)
    } else {
        ("no value", 1.02)
    };
    Ok(vec![
        compared(
            &format!("{kind}: create → its pod is there, {with}"),
            goal,
            there,
        ),
        compared(
            &format!("{kind}: create → its pod runs, {with}"),
            goal,
            running,
        ),
    ])
}

/// Waits until a third of the time between two looks of the node at its containers is over: each start begins at the same place
/// between them, or the place would be what is measured.
async fn in_step(looked: Option<Instant>) {
    let Some(mut next) = looked.map(|looked| looked + LOOKS / 3) else {
        return;
    };
    while next < Instant::now() {
        next += LOOKS;
    }
    sleep_until(next).await;
}

/// The name of a run's object.
fn object(run: &Handle) -> &str {
    run.state["object"].as_str().unwrap_or_default()
}

/// What the API server is asked for one run.
async fn requests(tools: &Tools, place: &Place, runs: usize) -> Result<Vec<Row>> {
    let kind = place.over.kind();
    let way = Counting::to(place.client.clone()).await?;
    let kubeconfig = tools.folder.join("counting");
    std::fs::write(&kubeconfig, way.kubeconfig())?;
    let mut section = place.section();
    section["kubeconfig"] = json!(kubeconfig);
    let ours = Ours::new(kind, section)?;
    // The first one pays for what all share.
    ours.whole(&COMMAND).await?;
    let mut rows = Vec::new();
    for (what, has_value, has_limit, reads) in [
        ("no value, no log", false, false, false),
        ("a value, no log", true, false, false),
        ("a value and a time limit, no log", true, true, false),
        ("a value, its log followed", true, false, true),
    ] {
        way.taken();
        let each = (0..runs).map(|_| counted(&ours, has_value, has_limit, reads));
        try_join_all(each).await?;
        let row = Row::new(
            format!("{kind}: API requests per run, {what}, n = {runs}"),
            told(&way.taken(), runs),
        );
        rows.push(if reads { row } else { row.goal("≤ 6") });
    }
    Ok(rows)
}

async fn counted(ours: &Ours, has_value: bool, has_limit: bool, reads: bool) -> Result<()> {
    let (mut spec, secrets) = given(&COMMAND, has_value)?;
    if has_limit {
        spec.limits.timeout = "10m".parse()?;
    }
    let run = ours.start_with(&spec, &secrets).await?;
    let reading = async {
        if reads {
            ours.read(&run).await?;
        }
        anyhow::Ok(())
    };
    try_join(ours.ended(&run), reading).await?;
    ours.remove(run).await
}

fn told(counts: &BTreeMap<String, u32>, runs: usize) -> String {
    let runs = number(runs as u64);
    let all: f64 = counts.values().copied().map(f64::from).sum();
    let each: Vec<String> = counts
        .iter()
        .map(|(what, count)| format!("{what} {:.1}", f64::from(*count) / runs))
        .collect();
    format!("{:.1}: {}", all / runs, each.join(", "))
}

/// A runner that comes back to runs that run: how each stands, and the first piece of its log.
async fn reattach(ours: &Ours, kind: &str, live: &[Handle]) -> Result<Row> {
    let mut times = Vec::new();
    for reads in [false, true] {
        let anew = ours.anew()?;
        let before = Instant::now();
        anew.list().await?;
        let again = live.iter().map(async |run| {
            let reading = async {
                if reads {
                    anew.heard(run).await?;
                }
                anyhow::Ok(())
            };
            try_join(anew.running(run), reading).await
        });
        try_join_all(again).await?;
        times.push(before.elapsed().as_secs_f64());
    }
    let what = format!("{kind}: re-attach of {} that run", live.len());
    let ours = format!(
        "{:.2} s; with a piece of the log of each {:.2} s",
        times[0], times[1]
    );
    Ok(Row::new(what, ours).goal("≤ 0.5 s"))
}
