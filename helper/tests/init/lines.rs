//! What the helper says between the output: lines of its own, and never a byte of the workload's changed for them.

use hybrid_runner_helper::container::{self, Line};
use hybrid_runner_helper::end::How;
use hybrid_runner_helper::payload::Payload;

use crate::attempt::Attempt;
use crate::common::eventually;
use crate::container::{Container, Gate, Image, inside, run};

/// What stands before and behind the last line that begins with the needle.
fn around_last(raw: &[u8], mark: &str) -> Option<(Vec<u8>, Vec<u8>)> {
    let needle = container::needle(mark);
    let at = raw
        .windows(needle.len())
        .rposition(|window| window == needle)?;
    let end = at + raw[at..].iter().position(|&byte| byte == b'\n')?;
    Some((raw[..at].to_vec(), raw[end + 1..].to_vec()))
}

/// Makes sure that the totals are those of what was read, and gives the end.
fn end_with_totals(attempt: &Attempt) -> container::End {
    let end = attempt.end();
    let read = (attempt.out().len() as u64, attempt.err().len() as u64);
    assert_eq!((end.out, end.err), read);
    end
}

#[test]
fn the_start_stands_before_all_output_and_the_end_behind() {
    let Some(container) = Container::create(Image::default()) else {
        return;
    };
    let attempt = container.run(&inside("echo $$ >&2; echo out; echo err >&2; exit 3"));
    assert_eq!(attempt.exit(), 3);
    let raw = String::from_utf8(attempt.raw_err()).unwrap();
    let lines: Vec<&str> = raw.lines().collect();
    let [first, pid, "err", last] = lines[..] else {
        panic!("{raw}");
    };
    let parse = |line: &str| {
        let needle = String::from_utf8(container::needle(&container.mark)).unwrap();
        Line::parse(format!("{}\n", line.strip_prefix(&needle).unwrap()).as_bytes()).unwrap()
    };
    let (Line::Started { pid: said, time }, Line::End(end)) = (parse(first), parse(last)) else {
        panic!("{raw}");
    };
    assert_eq!(pid, said.to_string());
    assert_eq!((end.started, end.how.clone()), (Some(time), How::Exited(3)));
    assert!(end.ended >= time);
    assert_eq!(attempt.raw_out(), b"out\n");
    end_with_totals(&attempt);
}

#[test]
fn the_end_stands_where_a_line_begins_and_adds_nothing_to_the_output() {
    // What is written to the output and to the error output; whether the end is on the error output.
    for (out, err, on_err) in [
        ("", "", true),
        ("a\\n", "b\\n", true),
        ("a", "b\\n", true),
        ("a", "", true),
        ("a\\n", "b", false),
        ("", "b", false),
        ("a", "b", true),
        ("\\n\\n", "\\036", false),
    ] {
        let script = format!("printf '{out}'; printf '{err}' >&2");
        let Some(container) = Container::create(Image::default()) else {
            return;
        };
        let attempt = container.run(&inside(&script));
        assert_eq!(attempt.exit(), 0);
        let plain = |text: &str| text.replace("\\n", "\n").replace("\\036", "\x1e");
        assert_eq!(attempt.text(), plain(out), "{script}");
        assert_eq!(attempt.error_text(), plain(err), "{script}");
        end_with_totals(&attempt);
        let raw = if on_err {
            attempt.raw_err()
        } else {
            attempt.raw_out()
        };
        let (before, behind) = around_last(&raw, &container.mark).unwrap();
        let begins = before.is_empty() || before.ends_with(b"\n");
        let glued = out == "a" && err == "b";
        assert_eq!(begins, !glued, "{script}");
        assert!(behind.is_empty(), "the end is the end: {script}");
        let (on_out, on_err_lines) = attempt.lines();
        let has_end = |lines: &[Line]| lines.iter().any(|line| matches!(line, Line::End(_)));
        assert_eq!(
            (has_end(&on_out), has_end(&on_err_lines)),
            (!on_err, on_err)
        );
    }
}

#[test]
fn what_was_held_back_for_masking_stands_before_the_end() {
    let Some(attempt) = run(&Payload {
        needles: vec![b"hunter22".into()],
        ..inside("printf 'at the end: hunter2' >&2; printf hunter2")
    }) else {
        return;
    };
    assert_eq!(attempt.exit(), 0);
    assert_eq!(attempt.error_text(), "at the end: hunter2");
    assert_eq!(attempt.text(), "hunter2");
    let raw = String::from_utf8(attempt.raw_err()).unwrap();
    assert!(raw.contains("hunter2\x1e"), "glued: {raw}");
    end_with_totals(&attempt);
}

#[test]
fn a_further_payload_is_answered_and_not_run() {
    let Some(container) = Container::create(Image::default()) else {
        return;
    };
    let mut gate = Gate::create(&container);
    let mut attempt = container.run(&inside(
        "printf 'no end of line' >&2; printf 'nor here'; read -r x < /work/go; echo",
    ));
    attempt.wait_for_output("nor here");
    eventually("its words", || {
        attempt.error_text().contains("line").then_some(())
    });
    for wanted in [2, 3] {
        attempt.give(&inside("echo twice; touch /work/twice"));
        eventually("an answer", || {
            (attempt.starts().len() == wanted).then_some(())
        });
    }
    let pids = attempt.starts();
    assert!(pids.iter().all(|pid| *pid == pids[0]), "{pids:?}");
    gate.open();
    assert_eq!(attempt.exit(), 0);
    assert!(!container.work("twice").exists());
    assert_eq!(attempt.text(), "nor here\n");
    assert_eq!(attempt.error_text(), "no end of line");
    end_with_totals(&attempt);
}

#[test]
fn a_further_payload_that_is_cut_is_not_answered() {
    let Some(container) = Container::create(Image::default()) else {
        return;
    };
    let mut gate = Gate::create(&container);
    let mut attempt = container.run(&inside("echo up; read -r x < /work/go"));
    attempt.wait_for_output("up");
    let other = hybrid_runner_helper::payload::encode(&inside("echo twice")).unwrap();
    let other = other.expose();
    attempt.feed(&other[..other.len() - 1]);
    // More than fits into a pipe, so that it is read before the end comes.
    attempt.feed(&vec![b'x'; 256 << 10]);
    attempt.close_input();
    gate.open();
    assert_eq!((attempt.exit(), attempt.text().as_str()), (0, "up\n"));
    assert_eq!(attempt.starts().len(), 1);
}

#[test]
fn payloads_that_come_at_once_start_one_workload() {
    let Some(container) = Container::create(Image::default()) else {
        return;
    };
    let wire = |text| {
        let wire = hybrid_runner_helper::payload::encode(&inside(text)).unwrap();
        wire.expose().to_vec()
    };
    let mut attempt = container.start();
    attempt.feed(&[wire("echo first"), wire("echo second"), wire("echo third")].concat());
    assert_eq!((attempt.exit(), attempt.text().as_str()), (0, "first\n"));
    assert!(!attempt.starts().is_empty());
}

#[test]
fn many_further_payloads_while_nobody_reads_cost_no_memory() {
    let Some(container) = Container::create(Image::default()) else {
        return;
    };
    let mut attempt = container.start_unread();
    attempt.give(&inside("yes unread & yes unread >&2"));
    attempt.wait_until_it_is_full();
    let mut stdin = attempt.stdin.take().unwrap();
    let wire = hybrid_runner_helper::payload::encode(&inside("echo twice")).unwrap();
    let flood = wire.expose().repeat(50_000);
    // It cannot be written whole: nothing takes it.
    let writer = std::thread::spawn(move || std::io::Write::write_all(&mut stdin, &flood));
    attempt.wait_until_it_is_full();
    let memory = crate::output::anonymous(attempt.init());
    assert!(memory < 1000, "{memory} KiB");
    attempt.stop(std::time::Duration::from_secs(10));
    attempt.read_all();
    assert_eq!(attempt.exit(), 143);
    assert!(writer.join().unwrap().is_err(), "the pipe was broken");
    end_with_totals(&attempt);
}

#[test]
fn notes_stand_before_all_else_and_count_as_error_output() {
    let notes = vec![
        "pulled image `x` in 12 s".to_owned(),
        "two\nlines".to_owned(),
    ];
    let wanted =
        "hybrid-runner: pulled image `x` in 12 s\nhybrid-runner: two\nhybrid-runner: lines\n";
    for (argv, exit) in [("true", 0), ("no-such-program", 127)] {
        let payload = Payload {
            argv: vec![argv.into()],
            notes: notes.clone(),
            ..inside("")
        };
        let Some(attempt) = run(&payload) else {
            return;
        };
        assert_eq!(attempt.exit(), exit);
        assert!(attempt.raw_err().starts_with(wanted.as_bytes()));
        assert_eq!(attempt.error_text(), wanted);
        end_with_totals(&attempt);
    }
}

#[test]
fn what_looks_like_a_line_of_ours_is_the_workloads() {
    let fake = "\x1e00000000000000000000000000000000 hybrid-runner end how=exit code=0";
    let Some(attempt) = run(&inside(&format!(
        "echo '{fake}'; echo '{fake}' >&2; exit 1"
    ))) else {
        return;
    };
    assert_eq!(attempt.exit(), 1);
    assert_eq!(attempt.text(), format!("{fake}\n"));
    assert_eq!(attempt.error_text(), format!("{fake}\n"));
    assert_eq!(end_with_totals(&attempt).how, How::Exited(1));
}

#[test]
fn the_end_is_said_where_somebody_reads() {
    for script in ["exit 3", "read -r x < /work/go; echo lost >&2; exit 3"] {
        let Some(container) = Container::create(Image::default()) else {
            return;
        };
        let mut gate = Gate::create(&container);
        let mut attempt = container.start_unread();
        attempt.stderr = None;
        attempt.read_all();
        attempt.give(&inside(script));
        gate.open();
        assert_eq!(attempt.exit(), 3);
        assert_eq!(
            (attempt.end().how, attempt.starts().len()),
            (How::Exited(3), 1)
        );
    }
}
