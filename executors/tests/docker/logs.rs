//! The output as it was written, from every place in it, and what the engine dropped as one gap in its place.

use std::fmt::Write as _;
use std::fs;
use std::time::Duration;

use futures::StreamExt as _;
use hybrid_runner_core::executor::Handle;
use hybrid_runner_core::log::Stream;
use hybrid_runner_core::run::Outcome;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::bench::{Bench, Log, within};

/// Where the engine cuts lines.
const PART: usize = 16 << 10;

/// Runs what writes these bytes to both streams at once.
async fn written(bench: &Bench, out: &[u8], err: &[u8]) -> Handle {
    let folder = bench.place.folder.path();
    fs::write(folder.join("out"), out).unwrap();
    fs::write(folder.join("err"), err).unwrap();
    let folder = folder.display();
    let run = bench
        .begin(&format!("cat {folder}/err >&2 & cat {folder}/out; wait"))
        .await;
    assert_eq!(bench.end(&run).await, Outcome::Succeeded);
    run
}

/// Fails unless the log, and the rest of it from each of its places, are these bytes.
async fn assert_exact(bench: &Bench, run: &Handle, out: &[u8], err: &[u8]) {
    let log = bench.log(run, None).await;
    assert_eq!(log.gaps(), [0; 0]);
    assert_same(&log.bytes(Some(Stream::Out)), out, "stdout");
    assert_same(&log.bytes(Some(Stream::Err)), err, "stderr");
    let step = (log.0.len() / 12).max(1);
    for at in (0..log.0.len()).step_by(step).chain([log.0.len() - 1]) {
        let rest = bench.log(run, Some(log.0[at].next.clone())).await;
        assert_eq!(rest.gaps(), [0; 0]);
        let expected = Log(log.0[at + 1..].to_vec());
        for stream in [Stream::Out, Stream::Err] {
            let what = format!("{stream:?} behind chunk {at}");
            assert_same(
                &rest.bytes(Some(stream)),
                &expected.bytes(Some(stream)),
                &what,
            );
        }
    }
}

fn assert_same(found: &[u8], expected: &[u8], what: &str) {
    let same = found
        .iter()
        .zip(expected)
        .take_while(|(a, b)| a == b)
        .count();
    assert!(
        found == expected,
        "{what}: {} bytes and not {}, the same up to {same}: {:?} and not {:?}",
        found.len(),
        expected.len(),
        String::from_utf8_lossy(&found[same.saturating_sub(20)..found.len().min(same + 20)]),
        String::from_utf8_lossy(&expected[same.saturating_sub(20)..expected.len().min(same + 20)])
    );
}

/// A line of this length with its end; no two parts of it are alike.
fn line(length: usize, seed: usize) -> Vec<u8> {
    let mut text = String::new();
    while text.len() < length {
        write!(text, "{seed}:{} ", text.len()).unwrap();
    }
    text.truncate(length - 1);
    text.push('\n');
    text.into_bytes()
}

/// Lines of lengths at which something could go wrong.
fn difficult() -> Vec<u8> {
    let lengths = [
        1,
        1,
        2,
        PART - 1,
        PART,
        PART + 1,
        2,
        2 * PART - 1,
        2 * PART,
        2 * PART + 1,
        3 * PART,
        3 * PART,
        1,
        4 * PART,
        1 << 20,
        (1 << 20) + 1,
        1,
        5,
        64 << 10,
        (64 << 10) + 1,
    ];
    let lines = lengths.iter().enumerate();
    lines
        .flat_map(|(seed, length)| line(*length, seed))
        .collect()
}

async fn long_lines_are_exact(settings: Value) {
    let Some(bench) = Bench::with(settings) else {
        return;
    };
    let whole = difficult();
    // Equal parts of one line, and an unfinished last line of any length.
    let equal = [
        vec![b'x'; 5 * PART],
        b"\n".to_vec(),
        vec![b'x'; 3 * PART],
        b"\n\n\n".to_vec(),
    ]
    .concat();
    for (out, err) in [
        (whole.clone(), equal.clone()),
        (
            [&whole[..], b"unfinished"].concat(),
            [&equal[..], &line(2 * PART + 1, 7)[..2 * PART]].concat(),
        ),
        (vec![b'y'; 2 * PART], vec![b'z'; PART - 1]),
    ] {
        let run = written(&bench, &out, &err).await;
        assert_exact(&bench, &run, &out, &err).await;
        bench.remove(&run).await;
    }
}

#[tokio::test]
async fn long_lines_are_exact_with_the_driver_local() {
    long_lines_are_exact(json!({})).await;
}

#[tokio::test]
async fn long_lines_are_exact_with_the_driver_json_file() {
    long_lines_are_exact(json!({ "log": { "driver": "json_file" } })).await;
}

#[tokio::test]
async fn two_streams_at_once_are_each_in_their_order_while_they_are_followed() {
    let Some(bench) = Bench::new() else { return };
    let script = "for i in $(seq 3000); do echo out $i; done & for i in $(seq 3000); do echo err $i >&2; done; wait";
    let run = bench.begin(script).await;
    let log = bench.log(&run, None).await;
    for (stream, word) in [(Stream::Out, "out"), (Stream::Err, "err")] {
        let mut expected = String::new();
        for number in 1..=3000 {
            writeln!(expected, "{word} {number}").unwrap();
        }
        assert_same(&log.bytes(Some(stream)), expected.as_bytes(), word);
    }
    assert_eq!(log.gaps(), [0; 0]);
    bench.end(&run).await;
    bench.remove(&run).await;
}

#[tokio::test]
async fn a_reader_that_is_dropped_again_and_again_gets_each_byte_once() {
    let Some(bench) = Bench::new() else { return };
    // A line and its parts have one time; lines may have, too.
    let script = "i=0; while [ $i -lt 60 ]; do i=$((i+1)); echo $i; head -c 40000 /dev/zero | tr '\\000' x; echo; echo err $i >&2; done";
    let run = bench.begin(script).await;
    let mut log = Log::default();
    let mut patience = 1;
    let read = async {
        loop {
            let from = log.0.last().map(|chunk| chunk.next.clone());
            let mut chunks = bench.docker.logs(&run, from);
            patience = patience * 7 % 11;
            for _ in 0..patience {
                match chunks.next().await {
                    None => return,
                    Some(chunk) => log.0.push(chunk.unwrap()),
                }
            }
        }
    };
    within(Duration::from_secs(90), "the whole log", read).await;
    let mut out = String::new();
    let mut err = String::new();
    for number in 1..=60 {
        writeln!(out, "{number}\n{}", "x".repeat(40000)).unwrap();
        writeln!(err, "err {number}").unwrap();
    }
    assert_same(&log.bytes(Some(Stream::Out)), out.as_bytes(), "stdout");
    assert_same(&log.bytes(Some(Stream::Err)), err.as_bytes(), "stderr");
    assert_eq!(log.gaps(), [0; 0]);
    bench.end(&run).await;
    bench.remove(&run).await;
}

/// So little that a megabyte of output is dropped but for its end.
fn small_log(driver: &str) -> Value {
    json!({ "log": { "driver": driver, "max_size": "256KiB", "max_files": 2 } })
}

/// `000001`, `000002`, …: the numbers of the lines, and where the gaps are among them.
fn numbers(log: &Log) -> (Vec<usize>, Vec<usize>) {
    let text = String::from_utf8(log.bytes(None)).unwrap();
    let numbers: Vec<usize> = text.lines().map(|line| line.parse().unwrap()).collect();
    let gaps = log.gaps().iter().map(|bytes| bytes / 7).collect();
    (numbers, gaps)
}

async fn what_was_rotated_before_it_was_read_is_one_gap(driver: &str) {
    let Some(bench) = Bench::with(small_log(driver)) else {
        return;
    };
    let folder = bench.place.folder.path().to_owned();
    let script = format!(
        "printf '000001\\n000002\\n000003\\n'; while [ ! -e {}/more ]; do sleep 0.05; done; seq -w 4 150000",
        folder.display()
    );
    let run = bench.begin(&script).await;
    let mut chunks = bench.docker.logs(&run, None);
    let mut log = Log::default();
    let read = async {
        while log.bytes(None).len() < 21 {
            log.0.push(chunks.next().await.unwrap().unwrap());
        }
    };
    within(Duration::from_mins(1), "the first lines", read).await;
    drop(chunks);
    fs::write(folder.join("more"), "").unwrap();
    assert_eq!(bench.end(&run).await, Outcome::Succeeded);
    let rest = bench
        .log(&run, log.0.last().map(|chunk| chunk.next.clone()))
        .await;
    log.0.extend(rest.0);
    let (found, gaps) = numbers(&log);
    assert_eq!(gaps, [3]);
    assert_eq!(found[..3], [1, 2, 3]);
    assert_eq!(*found.last().unwrap(), 150_000);
    assert!(found[3] > 1000, "nothing was dropped");
    assert!(found[3..].windows(2).all(|pair| pair[1] == pair[0] + 1));
    // From its beginning, too.
    let (found, gaps) = numbers(&bench.log(&run, None).await);
    assert_eq!(gaps, [0]);
    assert!(found.windows(2).all(|pair| pair[1] == pair[0] + 1));
    assert_eq!(*found.last().unwrap(), 150_000);
    bench.remove(&run).await;
}

#[tokio::test]
async fn what_local_rotated_before_it_was_read_is_one_gap() {
    what_was_rotated_before_it_was_read_is_one_gap("local").await;
}

#[tokio::test]
async fn what_json_file_rotated_before_it_was_read_is_one_gap() {
    what_was_rotated_before_it_was_read_is_one_gap("json_file").await;
}

async fn a_slow_reader_sees_each_line_once_and_a_gap_for_what_was_rotated(driver: &str) {
    let Some(bench) = Bench::with(small_log(driver)) else {
        return;
    };
    let run = bench.begin("seq -w 1 300000").await;
    let mut log = Log::default();
    let mut patience = 0;
    let read = async {
        let (mut from, mut seen) = (None, 0);
        loop {
            let mut chunks = bench.docker.logs(&run, from.clone());
            loop {
                match chunks.next().await {
                    None => return,
                    Some(Ok(chunk)) => {
                        from = Some(chunk.next.clone());
                        seen += chunk.item.len();
                        log.0.push(chunk);
                    }
                    Some(Err(error)) => {
                        patience += 1;
                        assert!(patience < 20, "{error:?}");
                        break;
                    }
                }
                // A reader that is slower than the workload is what is shown here.
                if seen > 16 << 10 {
                    seen = 0;
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    };
    within(Duration::from_mins(2), "the whole log", read).await;
    let (found, gaps) = numbers(&log);
    assert!(
        found.is_sorted_by(|a, b| a < b),
        "a line came twice or out of order"
    );
    let breaks: Vec<_> = (1..found.len())
        .filter(|at| found[*at] != found[at - 1] + 1)
        .collect();
    let starts_late = found.first() != Some(&1);
    assert!(
        gaps.len() >= breaks.len().min(1) + usize::from(starts_late && breaks.is_empty()),
        "lines are missing: {breaks:?}, {gaps:?}"
    );
    assert_eq!(found.last(), Some(&300_000));
    bench.end(&run).await;
    bench.remove(&run).await;
}

#[tokio::test]
async fn a_slow_reader_of_local_sees_each_line_once() {
    a_slow_reader_sees_each_line_once_and_a_gap_for_what_was_rotated("local").await;
}

#[tokio::test]
async fn a_slow_reader_of_json_file_sees_each_line_once() {
    a_slow_reader_sees_each_line_once_and_a_gap_for_what_was_rotated("json_file").await;
}

/// Moves the times of a log as a clock that was set would have: those of the lines from each of these on, in seconds.
fn set_clock(path: &str, steps: &[(usize, i64)]) {
    let text = fs::read_to_string(path).unwrap();
    let moved = text.lines().enumerate().map(|(number, line)| {
        let step = steps.iter().rfind(|(from, _)| *from <= number);
        let mut record: Value = serde_json::from_str(line).unwrap();
        let time: Timestamp = record["time"].as_str().unwrap().parse().unwrap();
        let time = time + SignedDuration::from_secs(step.map_or(0, |(_, seconds)| *seconds));
        record["time"] = json!(time.to_string());
        format!("{record}\n")
    });
    fs::write(path, moved.collect::<String>()).unwrap();
}

#[tokio::test]
async fn a_clock_that_was_set_hides_no_line_and_doubles_none() {
    let settings = json!({ "log": { "driver": "json_file" } });
    for steps in [
        &[(700, -7200)][..],
        &[(1, -30), (2000, 7200), (4000, 0)],
        &[(3000, -1), (3001, -2), (3002, -3), (4000, 86_400)],
    ] {
        let Some(bench) = Bench::with(settings.clone()) else {
            return;
        };
        let mut out = Vec::new();
        for number in 0..5000 {
            out.extend(line(200, number));
        }
        let run = written(&bench, &out, b"one\ntwo\nthree\n").await;
        let container = bench.place.container(run.run);
        let options = None::<bollard::query_parameters::InspectContainerOptions>;
        let inspected = bench
            .place
            .client()
            .inspect_container(&container, options)
            .await;
        set_clock(&inspected.unwrap().log_path.unwrap(), steps);
        assert_exact(&bench, &run, &out, b"one\ntwo\nthree\n").await;
        bench.remove(&run).await;
    }
}
