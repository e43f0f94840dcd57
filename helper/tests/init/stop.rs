//! Stops, signals and limits.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use hybrid_runner_helper::container::{self, GRACES};
use hybrid_runner_helper::end::{ChildEnd, How};
use hybrid_runner_helper::payload::Payload;

use crate::attempt::Attempt;
use crate::common::eventually;
use crate::container::{Container, Image, inside, run, skipped};

/// Processes that ignore `SIGTERM`: a child, one in a session of its own, and one whose parent has gone.
const STUBBORN: &str = "trap '' TERM; sleep 1000 & \
    setsid sh -c 'trap \"\" TERM; sleep 1000; sleep 1000' & \
    sh -c 'setsid sh -c \"sleep 1000; sleep 1000\" & exit 0'; ";

const STOPPED: How = How::Stopped { by: None };

#[test]
fn a_stop_ends_the_whole_tree_even_if_it_ignores_signals() {
    let Some(attempt) = run(&inside(&format!(
        "{STUBBORN} echo ready; while :; do sleep 1000; done"
    ))) else {
        return;
    };
    attempt.wait_for_output("ready");
    eventually("all have begun", || {
        (attempt.living().len() >= 6).then_some(())
    });
    let workload = attempt.living();
    attempt.stop(Duration::ZERO);
    assert_eq!(attempt.exit(), 137);
    let end = attempt.end();
    assert_eq!((end.how, end.left), (STOPPED, 0));
    let gone = |pid: &u32| !Path::new(&format!("/proc/{pid}")).exists();
    assert!(workload.iter().all(gone));
}

#[test]
fn a_workload_may_use_its_grace() {
    let Some(attempt) = run(&inside(
        "trap 'sleep 0.2; echo saved; exit 7' TERM; echo ready; while :; do sleep 0.05; done",
    )) else {
        return;
    };
    attempt.wait_for_output("ready");
    attempt.stop(Duration::from_secs(20));
    assert_eq!(attempt.exit(), 7);
    assert_eq!(
        (attempt.end().how, attempt.text().as_str()),
        (STOPPED, "ready\nsaved\n")
    );
}

#[test]
fn what_a_workload_starts_to_end_well_is_not_asked_to_end() {
    let Some(attempt) = run(&inside(
        "trap 'for i in 1 2 3; do sleep 0.1 || echo lost; done; echo saved; exit 7' TERM; \
        echo ready; while :; do sleep 0.05; done",
    )) else {
        return;
    };
    attempt.wait_for_output("ready");
    attempt.stop(Duration::from_secs(20));
    assert_eq!(attempt.exit(), 7);
    assert_eq!(attempt.text(), "ready\nsaved\n");
}

#[test]
fn a_later_stop_can_only_hurry() {
    let Some(attempt) = run(&inside(
        "trap 'echo told' TERM; echo ready; while :; do sleep 0.05; done",
    )) else {
        return;
    };
    attempt.wait_for_output("ready");
    attempt.stop(Duration::from_mins(10));
    attempt.wait_for_output("told");
    let since = SystemTime::now();
    attempt.stop(Duration::from_secs(1));
    attempt.stop(Duration::from_hours(1));
    assert_eq!((attempt.exit(), attempt.end().how), (137, STOPPED));
    let waited = since.elapsed().unwrap();
    assert!(waited >= Duration::from_millis(900), "{waited:?}");
}

#[test]
fn every_stop_signal_is_a_stop() {
    for grace in GRACES {
        let Some(attempt) = run(&inside(
            "trap 'echo told; exit 7' TERM; echo ready; while :; do sleep 0.02; done",
        )) else {
            return;
        };
        attempt.wait_for_output("ready");
        attempt.stop(grace);
        let exit = attempt.exit();
        assert_eq!(attempt.end().how, STOPPED, "{grace:?}");
        if grace.is_zero() {
            assert!(exit == 137 || exit == 7, "{exit}");
        } else {
            assert_eq!((exit, attempt.text().as_str()), (7, "ready\ntold\n"));
        }
    }
}

#[test]
fn an_end_from_outside_is_told_from_a_stop() {
    let Some(attempt) = run(&inside(
        "trap 'echo told; exit 7' TERM; sh -c 'trap \"echo told, too; exit\" TERM; echo ready; while :; do sleep 0.02; done' & \
         while :; do sleep 0.02; done",
    )) else {
        return;
    };
    attempt.wait_for_output("ready");
    attempt.signal("TERM");
    assert_eq!(attempt.exit(), 7);
    assert_eq!(attempt.end().how, How::Terminated(ChildEnd::Exited(7)));
    let text = attempt.text();
    assert!(
        text.contains("told\n") && text.contains("told, too\n"),
        "{text}"
    );
}

#[test]
fn who_does_not_hear_an_end_from_outside_is_killed() {
    let Some(attempt) = run(&Payload {
        grace: Duration::from_millis(100),
        ..inside("trap '' TERM; echo ready; while :; do sleep 1; done")
    }) else {
        return;
    };
    attempt.wait_for_output("ready");
    attempt.signal("TERM");
    assert_eq!(attempt.exit(), 137);
    assert_eq!(attempt.end().how, How::Terminated(ChildEnd::Signaled(9)));
}

#[test]
fn a_stop_after_an_end_from_outside_hurries_it_and_is_not_its_cause() {
    let Some(attempt) = run(&Payload {
        grace: Duration::from_mins(10),
        ..inside("trap 'echo told' TERM; echo ready; while :; do sleep 0.05; done")
    }) else {
        return;
    };
    attempt.wait_for_output("ready");
    attempt.signal("TERM");
    attempt.wait_for_output("told");
    attempt.stop(Duration::ZERO);
    assert_eq!(attempt.exit(), 137);
    assert_eq!(attempt.end().how, How::Terminated(ChildEnd::Signaled(9)));
}

#[test]
fn an_end_from_within_is_one_from_outside() {
    let Some(attempt) = run(&inside("kill -TERM 1; sleep 1000")) else {
        return;
    };
    assert_eq!(attempt.exit(), 143);
    assert_eq!(attempt.end().how, How::Terminated(ChildEnd::Signaled(15)));
}

#[test]
fn other_signals_are_for_the_main_process_alone() {
    // Real-time signals have no names.
    let signals = [
        "HUP", "INT", "QUIT", "USR1", "USR2", "WINCH", "ALRM", "CONT", "TSTP", "ABRT", "SEGV",
        "SYS", "64",
    ];
    let traps = signals.map(|signal| format!("trap 'echo got {signal}' {signal}; "));
    let all = signals.join(" ");
    let Some(attempt) = run(&inside(&format!(
        "(trap 'echo grandchild' {all}; while :; do sleep 0.02; done) & {} \
         echo ready; while :; do sleep 0.02; done",
        traps.concat()
    ))) else {
        return;
    };
    attempt.wait_for_output("ready");
    for signal in signals {
        attempt.signal(signal);
        attempt.wait_for_output(&format!("got {signal}\n"));
    }
    assert!(!attempt.text().contains("grandchild"), "{}", attempt.text());
    attempt.stop(Duration::from_secs(10));
    assert_eq!(attempt.exit(), 143);
}

#[test]
fn behind_an_init_of_the_engine_nothing_is_left_either() {
    // Not the first process of its namespace, as the engine's `--init` makes it.
    let mark = "0123456789abcdef0123456789abcdef";
    let child = Command::new(env!("CARGO_BIN_EXE_hybrid-runner-helper"))
        .args([container::ROLE, mark])
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let up = folder.path().join("up").display().to_string();
    let mut attempt = Attempt::new(child, mark.to_owned());
    attempt.read_all();
    attempt.give(&Payload {
        grace: Duration::ZERO,
        ..inside(&format!(
            "setsid sh -c 'trap \"\" TERM; echo $$; touch {up}; sleep 1000; sleep 1000' & \
             until [ -e {up} ]; do sleep 0.01; done; exit 5"
        ))
    });
    assert_eq!(attempt.exit(), 5);
    let end = attempt.end();
    assert_eq!((end.how, end.left), (How::Exited(5), 0));
    let daemon: u32 = attempt.text().trim().parse().unwrap();
    assert!(!Path::new(&format!("/proc/{daemon}")).exists());
}

#[test]
fn a_forwarded_signal_that_kills_is_the_end_of_the_workload() {
    let Some(attempt) = run(&inside("echo ready; exec sleep 1000")) else {
        return;
    };
    attempt.wait_for_output("ready");
    attempt.signal("INT");
    assert_eq!((attempt.exit(), attempt.end().how), (130, How::Signaled(2)));
}

#[test]
fn what_the_child_leaves_behind_is_ended_with_it() {
    let Some(attempt) = run(&Payload {
        grace: Duration::from_millis(100),
        ..inside(&format!("{STUBBORN} echo done; exit 5"))
    }) else {
        return;
    };
    assert_eq!((attempt.exit(), attempt.text().as_str()), (5, "done\n"));
    let end = attempt.end();
    assert_eq!((end.how, end.left), (How::Exited(5), 0));
}

#[test]
fn last_words_of_what_is_left_behind_are_kept() {
    let Some(attempt) = run(&inside(
        "setsid sh -c 'trap \"echo last words; exit\" TERM; touch /work/up; while :; do sleep 0.02; done' & \
         until [ -e /work/up ]; do sleep 0.01; done; echo done",
    )) else {
        return;
    };
    assert_eq!(
        (attempt.exit(), attempt.text().as_str()),
        (0, "done\nlast words\n")
    );
}

#[test]
fn a_fork_storm_is_ended() {
    let Some(attempt) = run(&inside(
        "f() { while :; do (sleep 0.01; trap '' TERM; sleep 0.02) & sleep 0.005; done; }; \
         trap '' TERM; f & f & f & echo ready; wait",
    )) else {
        return;
    };
    attempt.wait_for_output("ready");
    attempt.stop(Duration::ZERO);
    assert_eq!(attempt.exit(), 137);
    let end = attempt.end();
    assert_eq!((end.how, end.left), (STOPPED, 0));
}

#[test]
fn time_limit_and_silence_end_a_run() {
    let limit = Some(Duration::from_millis(600));
    for (timeout, stall_timeout, how) in [(limit, None, How::TimedOut), (None, limit, How::Stalled)]
    {
        let Some(attempt) = run(&Payload {
            timeout,
            stall_timeout,
            ..inside("trap 'echo told; exit 9' TERM; echo begun; sleep 1000 & wait")
        }) else {
            return;
        };
        assert_eq!(attempt.exit(), 9);
        assert_eq!(attempt.text(), "begun\ntold\n");
        assert_eq!(attempt.end().how, how);
    }
}

/// A control group with a limit of memory, and where a container sees its own.
struct Group(PathBuf, &'static str);

impl Group {
    fn create(limit: &str) -> Option<Self> {
        let v1 = Path::new("/sys/fs/cgroup/memory");
        let (root, file, place) = if v1.join("memory.limit_in_bytes").exists() {
            (v1, "memory.limit_in_bytes", "/sys/fs/cgroup/memory")
        } else {
            (Path::new("/sys/fs/cgroup"), "memory.max", "/sys/fs/cgroup")
        };
        let path = root.join(format!("hr-test-{}", std::process::id()));
        let made = fs::create_dir(&path).and_then(|()| fs::write(path.join(file), limit));
        if made.is_err() {
            drop(fs::remove_dir(&path));
            skipped("no control group with a limit of memory can be made here (needs root)");
            return None;
        }
        Some(Self(path, place))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // It is empty a moment after the container has ended.
        eventually("the control group is removed", || {
            fs::remove_dir(&self.0).ok()
        });
    }
}

#[test]
fn a_kill_by_the_kernel_for_want_of_memory_is_told_from_another() {
    let Some(group) = Group::create("40000000") else {
        return;
    };
    let hungry = "tail /dev/zero";
    for (script, exit, how) in [
        ("kill -KILL $$".to_owned(), 137, How::Signaled(9)),
        (format!("exec {hungry}"), 137, How::OutOfMemory),
        (format!("{hungry}; exit $?"), 137, How::OutOfMemory),
        (format!("{hungry}; exit 4"), 4, How::Exited(4)),
        // What was killed before does not count.
        ("kill -KILL $$".to_owned(), 137, How::Signaled(9)),
    ] {
        let image = Image {
            group: Some((group.0.clone(), group.1)),
            ..Image::default()
        };
        let Some(container) = Container::create(image) else {
            return;
        };
        let attempt = container.run(&inside(&script));
        assert_eq!((attempt.exit(), attempt.end().how), (exit, how), "{script}");
        let kills = u64::from(script.contains(hungry));
        assert_eq!(attempt.end().oom_kills, kills, "{script}");
    }
}
