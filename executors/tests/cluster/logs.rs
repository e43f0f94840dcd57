//! The output of a run, from every place in it.

use std::time::Duration;

use futures::StreamExt as _;
use hybrid_runner_core::log::LogItem;
use hybrid_runner_core::run::Outcome;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, ListParams};

use crate::bench::{Bench, Log, read_and_watch, until, within};
use crate::over::{Over, over_both};
use crate::tunnel::Tunnel;

over_both!(
    only_a_carriage_return_before_a_newline_is_lost,
    a_long_line_is_followed_before_it_ends,
    a_log_that_is_rotated_while_it_is_followed_goes_on_to_its_end,
    the_log_of_a_pod_that_is_gone_is_one_gap,
    a_deleted_pod_is_read_to_its_last_word_by_who_follows,
);

const PATIENCE: Duration = Duration::from_mins(1);

async fn only_a_carriage_return_before_a_newline_is_lost(over: Over) {
    let Some(bench) = Bench::new(over).await else {
        return;
    };
    let run = bench
        .begin(r"printf 'one\n\n two\r\na\rb no newline'")
        .await;
    assert_eq!(bench.end(&run).await, Outcome::Succeeded);
    assert_eq!(
        bench.log(&run, None).await.text(),
        "one\n\n two\na\rb no newline"
    );
}

async fn a_long_line_is_followed_before_it_ends(over: Over) {
    let Some(bench) = Bench::new(over).await else {
        return;
    };
    let run = bench
        .begin(
            "trap 'kill $! 2> /dev/null; exit 0' TERM; head -c 40000 /dev/zero | tr '\\0' x; sleep 600 & wait",
        )
        .await;
    let mut chunks = bench.executor.logs(&run, None);
    let mut log = Log::default();
    within(PATIENCE, "the beginning of the line", async {
        // The container runtime splits it; the last part waits for an end.
        while log.text().len() < 32_000 {
            log.0.push(chunks.next().await.unwrap().unwrap());
        }
    })
    .await;
    assert!(log.text().chars().all(|c| c == 'x'));
    let last = log.0.last().unwrap().next.clone();
    drop(chunks);
    // The pod's own grace: with less of it a busy node's pod is deleted, and what nobody has read goes with it.
    bench.executor.stop(&run, PATIENCE).await.unwrap();
    bench.end(&run).await;
    let rest = bench.log(&run, Some(last)).await;
    assert_eq!(rest.gaps(), [0; 0]);
    let (read, rest) = (log.text(), rest.text());
    let lengths = (read.len(), rest.len());
    let others = rest.trim_start_matches('x').to_owned();
    assert!(
        read + &rest == "x".repeat(40_000),
        "{lengths:?} bytes, at last `{others}`"
    );
}

/// The kubelet's own stream hangs at the end of a file that was rotated away before it was read to its end.
async fn a_log_that_is_rotated_while_it_is_followed_goes_on_to_its_end(over: Over) {
    let Some(bench) = Bench::new(over).await else {
        return;
    };
    let tail = "0123456789".repeat(10);
    let script = format!(
        "for r in 0 1 2 3; do seq $((r * 100000 + 100000)) $((r * 100000 + 199999)) | sed 's/$/ {tail}/'; sleep 4; done"
    );
    let run = bench.begin(&script).await;
    let (log, status) = read_and_watch(&*bench.executor, &run).await;
    assert_eq!(status.outcome(), Some(&Outcome::Succeeded));
    let (text, gaps) = (log.text(), log.gaps());
    // Who reads far too slowly may lose the last file, too.
    let is_cut = gaps.last() == Some(&text.len());
    assert!(
        text.ends_with('\n') || is_cut,
        "it ends in the middle of a line"
    );
    let whole = |line: &str| {
        let (number, rest) = line.split_once(' ')?;
        let is_whole = number.len() == 6 && rest == tail;
        is_whole.then(|| number.parse::<u64>().ok())?
    };
    let numbers: Vec<u64> = text.lines().filter_map(whole).collect();
    let torn = text.lines().count() - numbers.len();
    assert!(torn <= 2 * gaps.len(), "{torn} lines are torn");
    assert!(
        numbers.last() == Some(&499_999) || is_cut,
        "it ends behind {:?}",
        numbers.last()
    );
    let jumps = numbers.windows(2).filter(|pair| pair[1] != pair[0] + 1);
    let missing: Vec<_> = jumps.collect();
    assert!(missing.len() <= gaps.len(), "{missing:?}");
    assert!(numbers.is_sorted(), "something came twice");
    bench.remove(&run).await;
}

async fn the_log_of_a_pod_that_is_gone_is_one_gap(over: Over) {
    let Some(bench) = Bench::new(over).await else {
        return;
    };
    let run = bench.begin("echo one; sleep 600").await;
    bench.running(&run).await;
    let read = {
        let mut chunks = bench.executor.logs(&run, None);
        within(PATIENCE, "the first line", chunks.next())
            .await
            .unwrap()
            .unwrap()
    };
    assert!(matches!(&read.item, LogItem::Data { bytes, .. } if *bytes == "one\n"));
    let pods: Api<Pod> = Api::namespaced(bench.place.client().await, &bench.place.namespace);
    let listed = pods.list(&ListParams::default()).await.unwrap();
    let name = listed.items[0].metadata.name.clone().unwrap();
    pods.delete(&name, &DeleteParams::default()).await.unwrap();
    bench.end(&run).await;
    until("the end of the pod", async || {
        pods.get_opt(&name).await.unwrap().is_none()
    })
    .await;
    for from in [None, Some(read.next)] {
        let log = bench.log(&run, from).await;
        assert_eq!((log.gaps(), log.text().as_str()), (vec![0], ""));
    }
}

async fn a_deleted_pod_is_read_to_its_last_word_by_who_follows(over: Over) {
    let Some(bench) = Bench::new(over).await else {
        return;
    };
    let run = bench
        .begin("trap 'echo last words; exit 0' TERM; echo one; sleep 600 & wait")
        .await;
    bench.running(&run).await;
    let mut chunks = bench.executor.logs(&run, None);
    let mut log = Log::default();
    log.0.push(
        within(PATIENCE, "the first line", chunks.next())
            .await
            .unwrap()
            .unwrap(),
    );
    // A shorter grace than the pod's own, so that the pod is deleted.
    bench
        .executor
        .stop(&run, Duration::from_secs(10))
        .await
        .unwrap();
    within(PATIENCE, "the end of the log", async {
        while let Some(chunk) = chunks.next().await {
            log.0.push(chunk.unwrap());
        }
    })
    .await;
    assert_eq!(log.text(), "one\nlast words\n");
    assert_eq!(log.gaps(), [0; 0]);
    assert_eq!(bench.end(&run).await, Outcome::Stopped { by: None });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_break_lose_and_repeat_nothing() {
    let Some(bench) = Bench::new(Over::Jobs).await else {
        return;
    };
    let tunnel = Tunnel::to(&bench.place.server_address()).await;
    let section = bench.place.through(&tunnel.address());
    let broken = bench.place.executor_at("one", &section);
    let run = bench
        .begin("i=0; while [ $i -lt 80 ]; do i=$((i+1)); echo line $i; sleep 0.1; done")
        .await;
    let breaking = async {
        for _ in 0..4 {
            tokio::time::sleep(Duration::from_millis(1500)).await;
            tunnel.cut(Duration::from_millis(700)).await;
        }
    };
    let both = read_and_watch(&*broken, &run);
    let all = async { tokio::join!(both, breaking) };
    let ((log, status), ()) = within(PATIENCE * 2, "the end of log and run", all).await;
    assert_eq!(status.outcome(), Some(&Outcome::Succeeded));
    let expected = (1..=80).fold(String::new(), |text, n| text + &format!("line {n}\n"));
    assert_eq!(log.text(), expected);
    assert_eq!(log.gaps(), [0; 0]);
}
