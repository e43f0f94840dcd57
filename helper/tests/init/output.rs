//! The output reaches the engine whole, in order, masked, and waits for it.

use std::fs;
use std::io::Read as _;
use std::time::{Duration, SystemTime};

use hybrid_runner_helper::end::How;
use hybrid_runner_helper::payload::Payload;

use crate::attempt::Attempt;
use crate::common::eventually;
use crate::container::{Container, Gate, Image, inside, run};

const STOPPED: How = How::Stopped { by: None };

/// Bytes that repeat nowhere near.
fn noise(len: u32) -> Vec<u8> {
    let bytes = (0..len).map(|i| {
        let x = i.wrapping_mul(2_654_435_761);
        (x ^ (x >> 15)).to_be_bytes()[1]
    });
    bytes.collect()
}

#[test]
fn output_comes_as_it_is_written() {
    let Some(attempt) = run(&inside("printf 'no end of line'; sleep 1000")) else {
        return;
    };
    attempt.wait_for_output("no end of line");
    attempt.stop(Duration::from_secs(10));
    assert_eq!(attempt.exit(), 143);
}

#[test]
fn both_streams_are_told_apart_and_keep_their_order() {
    let Some(attempt) = run(&inside(
        "i=0; while [ $i -lt 2000 ]; do echo out $i; echo err $i >&2; i=$((i+1)); done",
    )) else {
        return;
    };
    assert_eq!(attempt.exit(), 0);
    let lines = |word| {
        let lines = (0..2000).map(|i| format!("{word} {i}\n"));
        lines.collect::<Vec<_>>().concat()
    };
    assert_eq!(attempt.text(), lines("out"));
    assert_eq!(attempt.error_text(), lines("err"));
}

#[test]
fn a_hundred_megabytes_come_through_byte_by_byte() {
    let Some(container) = Container::create(Image::default()) else {
        return;
    };
    let data = noise(10_000_000);
    container.put("data", &data);
    let attempt = container.run(&Payload {
        needles: vec![b"a value that is not in it".into()],
        ..inside(
            "for i in 1 2 3 4 5; do cat /work/data >&2; done & \
             for i in 1 2 3 4 5 6 7 8 9 10; do cat /work/data; done; wait",
        )
    });
    assert_eq!(attempt.exit(), 0);
    assert!(attempt.out() == data.repeat(10) && attempt.err() == data.repeat(5));
    let end = attempt.end();
    assert_eq!((end.out, end.err), (100_000_000, 50_000_000));
}

#[test]
fn values_are_masked_on_both_streams_however_they_are_cut() {
    let Some(attempt) = run(&Payload {
        env: vec![(b"PASSWORD".to_vec(), b"correct horse".into())],
        needles: vec![b"correct horse".into()],
        ..inside(
            "letters() { rest=$PASSWORD; while [ \"$rest\" ]; do printf %.1s \"$rest\"; rest=${rest#?}; sleep 0.01; done; }; \
             printf '<'; letters; printf '>'; printf '<' >&2; letters >&2; printf '>' >&2; \
             printf %s \"$PASSWORD\" | base64 >&2; printf 'correct hors'",
        )
    }) else {
        return;
    };
    assert_eq!(attempt.exit(), 0);
    assert_eq!(attempt.text(), "<***>correct hors");
    assert_eq!(attempt.error_text(), "<***>***\n");
    let end = attempt.end();
    assert_eq!((end.out, end.err, end.masked), (17, 9, 3));
}

#[test]
fn the_totals_are_those_of_the_masked_output() {
    let Some(attempt) = run(&Payload {
        needles: vec![b"hunter22".into()],
        ..inside(
            "i=0; while [ $i -lt 5000 ]; do echo $i hunter22; echo hunter2 >&2; i=$((i+1)); done",
        )
    }) else {
        return;
    };
    assert_eq!(attempt.exit(), 0);
    let end = attempt.end();
    assert_eq!(end.out, attempt.out().len() as u64);
    assert_eq!(end.err, attempt.err().len() as u64);
    assert_eq!(end.masked, 5000);
}

#[test]
fn a_reader_that_pauses_makes_the_workload_wait_and_loses_nothing() {
    let Some(container) = Container::create(Image::default()) else {
        return;
    };
    let data = noise(8_000_000);
    container.put("data", &data);
    let mut attempt = container.start_unread();
    attempt.give(&Payload {
        // It is not the workload that is silent.
        stall_timeout: Some(Duration::from_millis(300)),
        ..inside("cat /work/data; touch /work/written; cat /work/data >&2; exit 4")
    });
    let written = container.work("written");
    let init = attempt.init();
    attempt.wait_until_it_is_full();
    assert!(!written.exists(), "the workload waits");
    assert!(anonymous(init) < 2048, "{} KiB", anonymous(init));
    attempt.read_all();
    assert_eq!(attempt.exit(), 4);
    assert!(attempt.out() == data && attempt.err() == data);
    let end = attempt.end();
    assert_eq!(end.how, How::Exited(4));
    assert_eq!((end.out, end.err), (8_000_000, 8_000_000));
}

#[test]
fn one_stream_that_is_not_read_does_not_hold_up_the_other() {
    let Some(container) = Container::create(Image::default()) else {
        return;
    };
    container.put("data", &noise(3_000_000));
    let mut attempt = container.start_unread();
    let stdout = attempt.stdout.take();
    attempt.read_all();
    attempt.give(&inside(
        "cat /work/data & echo other >&2; wait; echo end >&2",
    ));
    eventually("the other stream", || {
        attempt.error_text().contains("other\n").then_some(())
    });
    attempt.stdout = stdout;
    attempt.read_all();
    assert_eq!(attempt.exit(), 0);
    assert_eq!(attempt.out().len(), 3_000_000);
    assert_eq!(attempt.error_text(), "other\nend\n");
}

/// Waits until the workload has begun, and none of its processes is left.
fn wait_for_the_last(container: &Container, attempt: &Attempt) {
    container.wait_for_file("up");
    eventually("the workload is gone", || {
        attempt.living().is_empty().then_some(())
    });
}

#[test]
fn a_limit_is_kept_while_nobody_reads_and_the_rest_waits_for_its_reader() {
    let Some(container) = Container::create(Image::default()) else {
        return;
    };
    let mut attempt = container.start_unread();
    attempt.give(&Payload {
        timeout: Some(Duration::from_millis(500)),
        grace: Duration::from_millis(100),
        ..inside("trap '' TERM; touch /work/up; cat /dev/zero")
    });
    wait_for_the_last(&container, &attempt);
    // Nobody wants a stop, so the rest waits as long as it takes.
    assert!(!attempt.has_exited());
    attempt.read_all();
    assert_eq!(attempt.exit(), 137);
    let (end, read) = (attempt.end(), attempt.out().len() as u64);
    assert_eq!((end.how, end.out), (How::TimedOut, read));
}

#[test]
fn a_stop_is_kept_while_nobody_reads_and_gives_the_reader_up() {
    let Some(container) = Container::create(Image::default()) else {
        return;
    };
    let mut attempt = container.start_unread();
    attempt.give(&inside("trap '' TERM; touch /work/up; cat /dev/zero"));
    attempt.wait_until_it_is_full();
    attempt.stop(Duration::ZERO);
    wait_for_the_last(&container, &attempt);
    let since = SystemTime::now();
    assert_eq!(attempt.exit(), 137);
    let waited = since.elapsed().unwrap();
    assert!(waited > Duration::from_secs(3), "{waited:?}");
    attempt.read_all();
    attempt.finish_reading();
    // The error output had room for the line that tells of the loss.
    let end = attempt.end();
    assert_eq!(end.how, STOPPED);
    let read = attempt.out().len() as u64;
    assert!(read < end.out, "given up, and told: {read} of {}", end.out);
}

#[test]
fn a_stop_while_the_rest_waits_for_its_reader_does_not_change_the_end() {
    let Some(container) = Container::create(Image::default()) else {
        return;
    };
    container.put("data", &noise(100_000));
    let mut attempt = container.start_unread();
    attempt.give(&inside("touch /work/up; cat /work/data; exit 3"));
    wait_for_the_last(&container, &attempt);
    attempt.stop(Duration::ZERO);
    assert_eq!(attempt.exit(), 3);
    attempt.read_all();
    attempt.finish_reading();
    let end = attempt.end();
    assert_eq!((end.how, end.out), (How::Exited(3), 100_000));
}

#[test]
fn the_end_waits_for_its_reader_and_a_stop_gives_it_up() {
    for stop in [false, true] {
        let Some(container) = Container::create(Image::default()) else {
            return;
        };
        // The line of the start fills one page of the pipe, the output the other fifteen. No stream is at the
        // beginning of a line, so that of the end belongs there, too.
        let mut attempt = container.start_unread();
        attempt.give(&Payload {
            grace: Duration::ZERO,
            ..inside("touch /work/up; printf x; head -c 61440 /dev/zero >&2; exit 3")
        });
        wait_for_the_last(&container, &attempt);
        assert!(!attempt.has_exited());
        if stop {
            attempt.signal("TERM");
        } else {
            attempt.read_all();
        }
        assert_eq!(attempt.exit(), 3);
        attempt.read_all();
        attempt.finish_reading();
        assert_eq!((attempt.out().len(), attempt.err().len()), (1, 61440));
        assert_eq!(attempt.end_if_any().is_some(), !stop);
    }
}

#[test]
fn a_reader_that_is_gone_for_good_costs_output_but_not_the_run() {
    let Some(container) = Container::create(Image::default()) else {
        return;
    };
    let mut gate = Gate::create(&container);
    let mut attempt = container.start_unread();
    container.put("data", &noise(3_000_000));
    let mut first = [0; 4];
    let mut stdout = attempt.stdout.take().unwrap();
    attempt.read_all();
    attempt.give(&inside(
        "echo one; read -r x < /work/go; cat /work/data; echo end >&2; exit 3",
    ));
    stdout.read_exact(&mut first).unwrap();
    drop(stdout);
    gate.open();
    assert_eq!(attempt.exit(), 3);
    assert_eq!(attempt.error_text(), "end\n");
    let end = attempt.end();
    assert_eq!((end.how, end.out, end.err), (How::Exited(3), 3_000_004, 4));
}

#[test]
fn an_idle_helper_is_small() {
    let Some(container) = Container::create(Image::default()) else {
        return;
    };
    container.put("data", &noise(3_000_000));
    let attempt = container.run(&Payload {
        needles: vec![b"hunter22".into()],
        ..inside("cat /work/data; echo end >&2; sleep 1000")
    });
    eventually("all is written", || {
        attempt.error_text().contains("end").then_some(())
    });
    let init = attempt.init();
    eventually("memory is given back", || {
        (anonymous(init) <= 200).then_some(())
    });
}

/// The memory of a process that it shares with nobody, in KiB.
pub(crate) fn anonymous(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"));
    line.unwrap()
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .unwrap()
}
