//! How a payload comes in, and what happens where none does.

use std::time::Duration;

use hybrid_runner_helper::container::{self, End};
use hybrid_runner_helper::end::How;
use hybrid_runner_helper::payload::{self, Payload};
use hybrid_runner_helper::report::exit;

use crate::attempt::Attempt;
use crate::common::eventually;
use crate::container::{Container, Gate, Image, inside};

/// Waits for an end without a start, and makes sure that nothing else was said.
fn assert_nothing_happened(attempt: &Attempt) {
    assert_eq!(attempt.exit(), i32::from(exit::NO_PAYLOAD));
    assert_eq!((attempt.raw_out(), attempt.raw_err()), Default::default());
}

/// Waits for a stop to prevent the start.
fn assert_prevented(attempt: &Attempt) {
    assert_eq!(attempt.exit(), i32::from(exit::DONE));
    assert_eq!((attempt.out(), attempt.err()), Default::default());
    assert!(attempt.starts().is_empty());
    let End {
        how, started, out, ..
    } = attempt.end();
    assert_eq!((how, started, out), (How::Stopped { by: None }, None, 0));
}

#[test]
fn a_payload_is_found_behind_garbage_and_broken_ones() {
    let Some(container) = Container::create(Image::default()) else {
        return;
    };
    let good = payload::encode(&inside("echo good")).unwrap();
    let other = payload::encode(&inside("echo other")).unwrap();
    let (good, other) = (good.expose(), other.expose());
    let mut corrupt = other.to_vec();
    corrupt[40] ^= 0x20;
    let mut attempt = container.start();
    for piece in [
        b"GET / HTTP/1.0\r\n\xF5HRPAY\x01".as_slice(),
        &other[..other.len() / 2],
        &corrupt,
        &other[..other.len() - 1],
        &good[..10],
        good,
    ] {
        attempt.feed(piece);
    }
    assert_eq!((attempt.exit(), attempt.text().as_str()), (0, "good\n"));
}

#[test]
fn a_payload_may_come_byte_by_byte() {
    let Some(container) = Container::create(Image::default()) else {
        return;
    };
    let mut attempt = container.start();
    for byte in payload::encode(&inside("echo good")).unwrap().expose() {
        attempt.feed(&[*byte]);
    }
    assert_eq!((attempt.exit(), attempt.text().as_str()), (0, "good\n"));
}

#[test]
fn nothing_is_started_before_the_last_byte() {
    let Some(container) = Container::create(Image::default()) else {
        return;
    };
    let wire = payload::encode(&inside("echo started")).unwrap();
    let (last, most) = wire.expose().split_last().unwrap();
    let mut attempt = container.start();
    attempt.feed(most);
    eventually("the helper has read it", || {
        let (read, _) = attempt.moved();
        (read >= most.len() as u64).then_some(())
    });
    assert!(attempt.living().is_empty() && attempt.raw_err().is_empty());
    attempt.feed(&[*last]);
    assert_eq!((attempt.exit(), attempt.text().as_str()), (0, "started\n"));
}

#[test]
fn input_that_ends_too_early_starts_nothing_and_it_may_be_tried_again() {
    let Some(container) = Container::create(Image::default()) else {
        return;
    };
    let payload = inside("echo started");
    let wire = payload::encode(&payload).unwrap();
    for length in [0, wire.expose().len() / 2, wire.expose().len() - 1] {
        let mut attempt = container.start();
        attempt.feed(&wire.expose()[..length]);
        attempt.close_input();
        assert_nothing_happened(&attempt);
    }
    let attempt = container.run(&payload);
    assert_eq!((attempt.exit(), attempt.text().as_str()), (0, "started\n"));
    assert_eq!(attempt.end().how, How::Exited(0));
}

#[test]
fn the_end_of_the_input_behind_a_payload_changes_nothing() {
    let Some(container) = Container::create(Image::default()) else {
        return;
    };
    let mut gate = Gate::create(&container);
    let mut attempt = container.run(&inside("echo up; read -r x < /work/go; echo $x"));
    attempt.close_input();
    attempt.wait_for_output("up");
    gate.open();
    assert_eq!((attempt.exit(), attempt.text().as_str()), (0, "up\ngo\n"));
}

#[test]
fn a_stop_while_it_waits_for_its_payload_prevents_the_start() {
    let Some(container) = Container::create(Image::default()) else {
        return;
    };
    for grace in container::GRACES {
        let mut attempt = container.start();
        attempt.await_reading();
        attempt.stop(grace);
        assert_prevented(&attempt);
    }
}

#[test]
fn a_stop_before_anything_is_read_prevents_the_start() {
    let Some(container) = Container::create(Image::default()) else {
        return;
    };
    // Nobody writes or closes its input.
    let attempt = container.start();
    attempt.stop(Duration::from_secs(1));
    assert_prevented(&attempt);
}

#[test]
fn a_stop_wins_over_a_payload_that_comes_with_it() {
    let Some(container) = Container::create(Image::default()) else {
        return;
    };
    let mut attempt = container.start();
    attempt.signal("STOP");
    attempt.give(&inside("echo started"));
    attempt.stop(Duration::from_secs(1));
    attempt.signal("CONT");
    assert_prevented(&attempt);
}

#[test]
fn an_end_from_outside_before_the_payload_leaves_it_to_be_started() {
    let Some(container) = Container::create(Image::default()) else {
        return;
    };
    let attempt = container.start();
    // Not meant for us, and there is nobody else yet.
    attempt.signal("HUP");
    attempt.signal("USR1");
    attempt.signal("TERM");
    assert_nothing_happened(&attempt);
    assert_eq!(container.run(&inside("exit 3")).exit(), 3);
}

#[test]
fn a_long_payload_comes_through_and_leaves_no_memory_behind() {
    let Some(container) = Container::create(Image::default()) else {
        return;
    };
    let content: Vec<u8> = (0..4_000_000_u32).map(|i| i.to_be_bytes()[2]).collect();
    let file = payload::PrivateFile {
        name: b"big".to_vec(),
        content: content.clone().into(),
        env: Some(b"BIG".to_vec()),
        ..payload::PrivateFile::default()
    };
    let payload = Payload {
        files: vec![file],
        private_dir: Some(container::PRIVATE_RUN.into()),
        ..inside("cat $BIG; sleep 1000")
    };
    let mut attempt = container.run(&payload);
    eventually("all has come", || (attempt.out() == content).then_some(()));
    let init = attempt.init();
    eventually("memory is given back", || {
        (crate::output::anonymous(init) <= 300).then_some(())
    });
    attempt.give(&payload);
    eventually("it is answered, and memory given back", || {
        (attempt.starts().len() == 2 && crate::output::anonymous(init) <= 300).then_some(())
    });
}

#[test]
fn bad_command_lines_are_refused() {
    let mark = "0123456789abcdef0123456789ABCDEF";
    for arguments in [
        &[][..],
        &["init"],
        &["init", ""],
        &["init", &mark[1..]],
        &["init", &format!("{mark}0")],
        &["init", &mark.replace('a', "g")],
        &["init", mark, mark],
        &["init2", mark],
        &["run"],
    ] {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_hybrid-runner-helper"))
            .args(arguments)
            .stdin(std::process::Stdio::null())
            .output()
            .unwrap();
        let found = (output.status.code(), output.stdout, output.stderr);
        let wanted = (Some(i32::from(exit::USAGE)), vec![], vec![]);
        assert_eq!(found, wanted, "{arguments:?}");
    }
}
