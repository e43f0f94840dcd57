//! The real helper with real processes: how runs start, write and end.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::time::Duration;

use common::{Run, eventually, feed, helper, private_dir, request_stop, script, state_and_parent};
use hybrid_runner_helper::end::{How, SpawnFailure, Step};
use hybrid_runner_helper::payload::{self, Payload, PrivateFile};
use hybrid_runner_helper::report::Report;
use hybrid_runner_helper::spool::{GapReason, Item};
use tempfile::tempdir;

#[test]
fn an_exit_code_is_recorded() {
    for code in [0, 3, 255] {
        let folder = tempdir().unwrap();
        let run = Run::start(folder.path(), &script(&format!("exit {code}")));
        let end = run.end();
        assert_eq!(end.how, How::Exited(code));
        let Some(Report::Started { time, pid }) = run.report else {
            panic!("{:?}", run.report)
        };
        assert_eq!((end.started, end.spool, end.left), (Some(time), 0, 0));
        assert!(end.ended >= time);
        assert_eq!(run.child(), pid);
    }
}

#[test]
fn a_signal_is_recorded() {
    let folder = tempdir().unwrap();
    let run = Run::start(folder.path(), &script("kill -SEGV $$"));
    assert_eq!(run.end().how, How::Signaled(11));
}

fn spawn_failure(payload: &Payload) -> SpawnFailure {
    let folder = tempdir().unwrap();
    let run = Run::start(folder.path(), payload);
    assert_eq!(run.report, Some(Report::SpawnFailed));
    let How::SpawnFailed(failure) = run.end().how else {
        panic!("not a failure to spawn")
    };
    failure
}

#[test]
fn the_reasons_why_a_program_cannot_run_are_told_apart() {
    let folder = tempdir().unwrap();
    let file = |name: &str, content: &str, mode| {
        let path = folder.path().join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path.to_str().unwrap().as_bytes().to_vec()
    };
    let cases = [
        (
            b"no-such-program-here".to_vec(),
            Step::Program,
            libc::ENOENT,
        ),
        (b"/no/such/program".to_vec(), Step::Program, libc::ENOENT),
        (file("data", "text", 0o644), Step::Program, libc::EACCES),
        (
            file("text", "echo no interpreter", 0o755),
            Step::Program,
            libc::ENOEXEC,
        ),
        (
            file("script", "#!/no/such/interpreter\n", 0o755),
            Step::Interpreter,
            libc::ENOENT,
        ),
    ];
    for (program, step, errno) in cases {
        let failure = spawn_failure(&Payload {
            argv: vec![program.clone()],
            ..script("")
        });
        assert_eq!(
            failure,
            SpawnFailure {
                step,
                errno,
                program
            }
        );
    }
    let long = Payload {
        argv: vec![b"true".to_vec(), vec![b'x'; 200 << 10]],
        ..script("")
    };
    assert_eq!(spawn_failure(&long).errno, libc::E2BIG);
    let nowhere = Payload {
        cwd: Some(b"/no/such/folder".to_vec()),
        ..script("true")
    };
    assert_eq!(spawn_failure(&nowhere).step, Step::WorkingDirectory);
    let groupless = Payload {
        cgroup: Some(b"/no/such/group".to_vec()),
        ..script("true")
    };
    assert_eq!(spawn_failure(&groupless).step, Step::Cgroup);
}

#[test]
fn a_program_is_found_in_the_path_of_the_workload() {
    let folder = tempdir().unwrap();
    let bin = tempdir().unwrap();
    let program = bin.path().join("only-here");
    fs::write(&program, "#!/bin/sh\necho found\n").unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("/nowhere:{}", bin.path().display());
    let run = Run::start(
        folder.path(),
        &Payload {
            argv: vec![b"only-here".to_vec()],
            env: vec![(b"PATH".to_vec(), path.into())],
            ..script("")
        },
    );
    assert_eq!(
        (run.end().how, run.text().as_str()),
        (How::Exited(0), "found\n")
    );
}

#[test]
fn both_streams_keep_their_order() {
    let folder = tempdir().unwrap();
    let run = Run::start(
        folder.path(),
        &script("i=0; while [ $i -lt 2000 ]; do echo out $i; echo err $i >&2; i=$((i+1)); done"),
    );
    let end = run.end();
    let lines = |word| {
        (0..2000)
            .map(|i| format!("{word} {i}\n"))
            .collect::<Vec<_>>()
            .concat()
    };
    assert_eq!(run.text(), lines("out"));
    assert_eq!(String::from_utf8(run.err()).unwrap(), lines("err"));
    assert_eq!(
        end.spool,
        fs::metadata(folder.path().join("log")).unwrap().len()
    );
    let times: Vec<_> = run.records().iter().map(|record| record.time).collect();
    assert!(times.is_sorted() && times[0] > 1_600_000_000_000_000);
}

#[test]
fn any_bytes_come_through() {
    let folder = tempdir().unwrap();
    let bytes: Vec<u8> = (0..3_000_000_u32)
        .map(|i| i.wrapping_mul(2_654_435_761).to_be_bytes()[0])
        .collect();
    fs::write(folder.path().join("data"), &bytes).unwrap();
    let data = folder.path().join("data");
    let run = Run::start(folder.path(), &script(&format!("cat {}", data.display())));
    assert_eq!(run.end().how, How::Exited(0));
    assert!(run.out() == bytes);
}

#[test]
fn a_line_of_a_megabyte_without_end_comes_through() {
    let folder = tempdir().unwrap();
    let run = Run::start(
        folder.path(),
        &Payload {
            needles: vec![b"xyxyxyxyz".into()],
            ..script("head -c 1000000 /dev/zero | tr '\\0' x")
        },
    );
    assert_eq!(run.end().how, How::Exited(0));
    assert!(run.out() == vec![b'x'; 1_000_000]);
}

#[test]
fn output_is_spooled_as_it_comes() {
    let folder = tempdir().unwrap();
    let run = Run::start(
        folder.path(),
        &script("printf 'no end of line'; sleep 1000"),
    );
    run.wait_for_output("no end of line");
    run.stop(Duration::ZERO);
    assert_eq!(
        run.end().how,
        How::Stopped {
            by: Some("alice".to_owned())
        }
    );
}

#[test]
fn the_workload_gets_exactly_its_environment() {
    let folder = tempdir().unwrap();
    let payload = Payload {
        argv: vec![b"/usr/bin/env".to_vec(), b"-0".to_vec()],
        env: vec![
            (b"A".to_vec(), b"1\n2=3".into()),
            (b"B".to_vec(), b"".into()),
        ],
        ..script("")
    };
    let run = Run::start(folder.path(), &payload);
    run.end();
    let cookie = run.started().cookie;
    assert_eq!(
        run.text(),
        format!("A=1\n2=3\0B=\0HYBRID_RUNNER_COOKIE={cookie}\0")
    );
}

#[test]
fn the_workload_gets_a_clean_process() {
    let folder = tempdir().unwrap();
    let run = Run::start(
        folder.path(),
        &script(
            "exec 3</proc/self/status; while read -r k v; do case $k in Sig[BIC]*) echo $k $v;; esac; done <&3; \
                 exec 3<&-; pwd; readlink /proc/$$/fd/0; ls /proc/$$/fd | tr '\\n' ' '; cut -d' ' -f5,6 /proc/$$/stat; echo $$",
        ),
    );
    run.end();
    let text = run.text();
    let pid = run.child();
    let zeros = "0000000000000000";
    let (status, rest) = text.split_at(text.find('/').unwrap());
    assert!(
        status.contains(&format!("SigBlk: {zeros}"))
            && status.contains(&format!("SigIgn: {zeros}")),
        "{text}"
    );
    assert!(rest.starts_with("/\n/dev/null\n0 1 2 "), "{text}");
    assert!(
        rest.contains(&format!("{pid} {pid}\n{pid}\n")),
        "leads its group and its session: {text}"
    );
}

#[test]
fn private_files_are_there_for_the_workload_alone_and_gone_afterwards() {
    let folder = tempdir().unwrap();
    let private = private_dir("files");
    let path = String::from_utf8(private.clone()).unwrap();
    let payload = Payload {
        private_dir: Some(private),
        files: vec![PrivateFile {
            name: b"config.json".to_vec(),
            content: b"{\"a\":1}".into(),
            mode: 0o400,
            env: Some(b"WORKFLOW_CONFIG".to_vec()),
        }],
        ..script(
            "stat -c '%a %n' $WORKFLOW_CONFIG ${WORKFLOW_CONFIG%/*}; cat $WORKFLOW_CONFIG; echo own > ${WORKFLOW_CONFIG%/*}/own",
        )
    };
    let run = Run::start(folder.path(), &payload);
    assert_eq!(run.end().how, How::Exited(0));
    assert_eq!(
        run.text(),
        format!("400 {path}/config.json\n700 {path}\n{{\"a\":1}}")
    );
    assert!(!fs::exists(&path).unwrap());
    assert_eq!(run.started().private_dir, Some(path.into_bytes()));
}

#[test]
fn a_private_folder_that_is_there_already_starts_nothing() {
    let taken = tempdir().unwrap();
    let private_dir = Some(taken.path().to_str().unwrap().as_bytes().to_vec());
    let failure = spawn_failure(&Payload {
        private_dir,
        ..script("true")
    });
    assert_eq!(
        (failure.step, failure.errno),
        (Step::PrivateFiles, libc::EEXIST)
    );
    assert!(taken.path().exists());
}

const SECRET: &str = "p\"a's\\s% wörd\n2nd line of it";

#[test]
fn values_are_masked_in_the_spool_and_not_to_be_seen_from_outside() {
    let folder = tempdir().unwrap();
    let payload = Payload {
        env: vec![
            (b"PATH".to_vec(), b"/usr/bin:/bin".into()),
            (b"PASSWORD".to_vec(), SECRET.into()),
        ],
        needles: vec![SECRET.into()],
        ..script(
            "printf %s \"$PASSWORD\" | while IFS= read -r -n1 -d '' c || [ -n \"$c\" ]; do printf %s \"$c\"; done; \
             echo; printf '<%s>' \"$PASSWORD\"; printf %s \"$PASSWORD\" | base64 -w0 >&2; read -r _ < /dev/null; \
             echo ready; sleep 1000",
        )
    };
    let payload = Payload {
        argv: [vec![b"bash".to_vec()], payload.argv[1..].to_vec()].concat(),
        ..payload
    };
    let run = Run::start(folder.path(), &payload);
    run.wait_for_output("ready");
    let of_helper = |file| fs::read(format!("/proc/{}/{file}", run.pid));
    match of_helper("environ") {
        Ok(environ) => assert_eq!(environ, b""),
        // Who is not root may not even look.
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied),
    }
    let wanted = format!(
        "{}\0run\0{}\0",
        env!("CARGO_BIN_EXE_hybrid-runner-helper"),
        folder.path().display()
    );
    assert_eq!(
        String::from_utf8(of_helper("cmdline").unwrap()).unwrap(),
        wanted
    );
    run.stop(Duration::ZERO);
    let end = run.end();
    assert_eq!(
        (run.text().as_str(), run.err().as_slice()),
        ("***\n<***>ready\n", b"***".as_slice())
    );
    assert_eq!(end.masked, 3);
    for file in fs::read_dir(folder.path()).unwrap() {
        let file = file.unwrap();
        if file.file_type().unwrap().is_file() {
            let bytes = fs::read(file.path()).unwrap();
            assert!(
                !bytes.windows(6).any(|window| window == b"2nd li"),
                "{:?}",
                file.path()
            );
        }
    }
}

#[test]
fn a_prompt_that_ends_like_a_value_begins_is_spooled_and_the_value_behind_it_masked() {
    let folder = tempdir().unwrap();
    let payload = Payload {
        needles: vec!["> hunter22".into()],
        ..script("printf 'name> '; read -r _ < $0; printf hunter22; sleep 1000")
    };
    // The shell waits at a pipe until the prompt is seen.
    let answer = folder.path().join("answer");
    let made = std::process::Command::new("mkfifo").arg(&answer).status();
    assert!(made.unwrap().success());
    let payload = Payload {
        argv: [payload.argv, vec![answer.to_str().unwrap().into()]].concat(),
        ..payload
    };
    let run = Run::start(folder.path(), &payload);
    run.wait_for_output("name> ");
    fs::write(&answer, "go\n").unwrap();
    run.wait_for_output("***");
    run.stop(Duration::ZERO);
    assert_eq!((run.end().masked, run.text().as_str()), (1, "name> ***"));
}

#[test]
fn a_value_that_the_workload_names_is_masked_in_both_streams() {
    let folder = tempdir().unwrap();
    let payload = script(
        "echo '::add-mask::token-1'; while [ ! -e $0 ]; do sleep 0.01; done; echo token-1; echo token-1 >&2",
    );
    let seen = folder.path().join("seen");
    let payload = Payload {
        argv: [payload.argv, vec![seen.to_str().unwrap().into()]].concat(),
        ..payload
    };
    let run = Run::start(folder.path(), &payload);
    run.wait_for_output("::add-mask::***\n");
    fs::write(&seen, "").unwrap();
    assert_eq!(run.end().masked, 3);
    assert_eq!(
        (run.text().as_str(), run.err().as_slice()),
        ("::add-mask::***\n***\n", b"***\n".as_slice())
    );
}

#[test]
fn the_memory_of_the_helper_is_its_own() {
    let folder = tempdir().unwrap();
    let run = Run::start(folder.path(), &script("sleep 1000"));
    // Not dumpable: the files of the process belong to root, whoever runs it.
    assert_eq!(
        fs::metadata(format!("/proc/{}/environ", run.pid))
            .unwrap()
            .uid(),
        0
    );
    let limits = fs::read_to_string(format!("/proc/{}/limits", run.pid)).unwrap();
    let core = limits
        .lines()
        .find(|line| line.starts_with("Max core file size"))
        .unwrap();
    assert_eq!(core.split_whitespace().nth(4), Some("0"));
    run.stop(Duration::ZERO);
    run.end();
}

#[test]
fn a_payload_that_is_cut_starts_nothing() {
    let folder = tempdir().unwrap();
    let payload = script("echo started");
    let wire = payload::encode(&payload).unwrap();
    let (child, stdout) = helper(folder.path());
    let run = feed(
        folder.path(),
        child,
        stdout,
        &wire.expose()[..wire.expose().len() - 1],
    );
    assert!(matches!(run.report, Some(Report::BadPayload(_))));
    assert_eq!(run.exit(), 65);
    assert!(!folder.path().join("started").exists() && !folder.path().join("end").exists());
    // The same folder may be used again.
    assert_eq!(
        Run::start(folder.path(), &payload).end().how,
        How::Exited(0)
    );
}

#[test]
fn a_stop_before_the_start_prevents_it() {
    let folder = tempdir().unwrap();
    request_stop(folder.path(), Duration::from_secs(1));
    let run = Run::start(folder.path(), &script("echo started"));
    assert_eq!(run.report, Some(Report::Stopped));
    let end = run.end();
    assert_eq!(
        (end.how, end.started),
        (
            How::Stopped {
                by: Some("alice".to_owned())
            },
            None
        )
    );
    assert!(!folder.path().join("started").exists());
    assert!(run.records().is_empty());
}

#[test]
fn two_helpers_in_one_folder_start_once() {
    let folder = tempdir().unwrap();
    let payload = script("echo started; sleep 1000");
    let first = Run::start(folder.path(), &payload);
    first.wait_for_output("started");
    let second = Run::start(folder.path(), &payload);
    assert_eq!(
        (second.report.clone(), second.exit()),
        (Some(Report::Busy), 75)
    );
    first.stop(Duration::ZERO);
    let end = first.end();
    let third = Run::start(folder.path(), &payload);
    assert_eq!(
        (third.report.clone(), third.exit()),
        (Some(Report::Already), 76)
    );
    assert_eq!(first.text(), "started\n");
    assert_eq!(
        hybrid_runner_helper::end::End::parse(&fs::read(folder.path().join("end")).unwrap()),
        Ok(end)
    );
}

#[test]
fn a_start_that_may_have_happened_is_not_repeated() {
    let folder = tempdir().unwrap();
    fs::write(folder.path().join("started"), b"").unwrap();
    request_stop(folder.path(), Duration::ZERO);
    let run = Run::start(folder.path(), &script("echo started"));
    assert_eq!(
        (run.report.clone(), run.exit()),
        (Some(Report::Already), 76)
    );
    assert!(!folder.path().join("end").exists());
}

#[test]
fn helpers_that_race_start_once() {
    let folder = tempdir().unwrap();
    let payload = script("echo started");
    let wire = payload::encode(&payload).unwrap();
    let helpers: Vec<_> = (0..8).map(|_| helper(folder.path())).collect();
    let runs: Vec<_> = std::thread::scope(|scope| {
        let feeds: Vec<_> = helpers
            .into_iter()
            .map(|(child, stdout)| {
                scope.spawn(|| feed(folder.path(), child, stdout, wire.expose()))
            })
            .collect();
        feeds.into_iter().map(|feed| feed.join().unwrap()).collect()
    });
    let started = runs
        .iter()
        .filter(|run| matches!(run.report, Some(Report::Started { .. })))
        .count();
    let codes: Vec<_> = runs.iter().map(Run::exit).collect();
    assert_eq!(
        (started, codes.iter().filter(|&&code| code == 0).count()),
        (1, 1),
        "{codes:?}"
    );
    assert_eq!(runs[0].text(), "started\n");
}

#[test]
fn the_run_goes_on_without_the_runner() {
    let folder = tempdir().unwrap();
    let go = folder.path().join("go");
    let payload = script(&format!(
        "until [ -e {} ]; do sleep 0.01; done; echo done",
        go.display()
    ));
    let (mut child, stdout) = helper(folder.path());
    drop(stdout);
    let wire = payload::encode(&payload).unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), wire.expose()).unwrap();
    fs::write(&go, "").unwrap();
    assert!(child.wait().unwrap().success());
    let end = hybrid_runner_helper::end::End::parse(&fs::read(folder.path().join("end")).unwrap())
        .unwrap();
    assert_eq!(end.how, How::Exited(0));
}

#[test]
fn the_time_limit_ends_a_run() {
    let folder = tempdir().unwrap();
    let run = Run::start(
        folder.path(),
        &Payload {
            timeout: Some(Duration::from_millis(300)),
            ..script("trap 'echo told; exit 0' TERM; sleep 1000 & wait")
        },
    );
    let end = run.end();
    assert_eq!((end.how, run.text().as_str()), (How::TimedOut, "told\n"));
    assert!(end.ended - end.started.unwrap() >= 290_000);
}

#[test]
fn silence_ends_a_run_and_output_does_not() {
    let folder = tempdir().unwrap();
    let run = Run::start(
        folder.path(),
        &Payload {
            stall_timeout: Some(Duration::from_millis(600)),
            ..script("for i in 1 2 3 4 5; do echo $i; sleep 0.2; done; sleep 1000")
        },
    );
    let end = run.end();
    assert_eq!(
        (end.how, run.text().as_str()),
        (How::Stalled, "1\n2\n3\n4\n5\n")
    );
}

#[test]
fn the_limit_of_the_spool_is_kept_and_the_run_goes_on() {
    let folder = tempdir().unwrap();
    let run = Run::start(
        folder.path(),
        &Payload {
            spool_limit: 200_000,
            ..script("head -c 1000000 /dev/zero; exit 4")
        },
    );
    let end = run.end();
    assert_eq!(end.how, How::Exited(4));
    let kept = run.out().len() as u64;
    assert!(end.spool <= 200_000 && kept > 100_000);
    assert_eq!(kept + end.over_limit, 1_000_000);
    let gap = run.records().pop().unwrap().item;
    assert_eq!(
        gap,
        Item::Gap {
            bytes: None,
            reason: GapReason::Limit
        }
    );
}

#[test]
fn a_kill_by_the_kernel_for_want_of_memory_is_told_from_another() {
    // Looks like a control group to the helper, and needs no permission.
    let group = tempdir().unwrap();
    let payload = Payload {
        cgroup: Some(group.path().to_str().unwrap().as_bytes().to_vec()),
        ..script("kill -KILL $$")
    };
    fs::write(group.path().join("cgroup.procs"), "").unwrap();
    for (kills, how) in [(0, How::Signaled(9)), (2, How::OutOfMemory)] {
        fs::write(
            group.path().join("memory.events"),
            format!("high 0\noom 7\noom_kill {kills}\n"),
        )
        .unwrap();
        let folder = tempdir().unwrap();
        let end = Run::start(folder.path(), &payload).end();
        assert_eq!((end.how, end.oom_kills), (how, kills));
    }
}

#[test]
fn nothing_stays_a_zombie() {
    let folder = tempdir().unwrap();
    let run = Run::start(
        folder.path(),
        &script("for i in 1 2 3 4 5; do (sh -c 'exit 0' & ) ; done; echo ready; sleep 1000"),
    );
    run.wait_for_output("ready");
    eventually("all orphans are reaped", || {
        let children = common::pids()
            .filter_map(state_and_parent)
            .filter(|(_, parent)| *parent == run.pid);
        (children.count() == 1).then_some(())
    });
    run.stop(Duration::ZERO);
    run.end();
}

#[test]
fn who_finds_the_log_unlocked_finds_the_end() {
    for _ in 0..50 {
        let folder = tempdir().unwrap();
        let run = Run::start(folder.path(), &script("exit 0"));
        let log = fs::File::open(folder.path().join("log")).unwrap();
        // Waits for the helper to let go of it.
        log.lock_shared().unwrap();
        assert!(folder.path().join("end").exists());
        assert_eq!(run.exit(), 0);
    }
}
