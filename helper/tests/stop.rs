//! The real helper with real processes: nothing outlives its run.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use common::{Run, eventually, kill, script};
use hybrid_runner_helper::end::How;
use hybrid_runner_helper::payload::Payload;
use hybrid_runner_helper::spool::{GapReason, Item};
use tempfile::tempdir;

/// Processes that ignore `SIGTERM`: a child, one in a session of its own, and one whose parent has gone.
const STUBBORN: &str = "trap '' TERM; sleep 1000 & \
    setsid sh -c 'trap \"\" TERM; sleep 1000; sleep 1000' & \
    sh -c 'setsid sh -c \"sleep 1000; sleep 1000\" & exit 0'; ";

/// Starts many short programs when it is asked to end, and waits for all it has started.
const CLEANER: &str = "trap \"for i in 1 2 3; do sleep 0.1 || echo lost; done; echo saved; wait; exit 7\" TERM; \
    echo ready; while :; do sleep 0.05; done";

fn alice() -> How {
    How::Stopped {
        by: Some("alice".to_owned()),
    }
}

#[test]
fn a_stop_ends_the_whole_tree_even_if_it_ignores_signals() {
    let folder = tempdir().unwrap();
    let run = Run::start(
        folder.path(),
        &script(&format!(
            "{STUBBORN} echo ready; while :; do sleep 1000; done"
        )),
    );
    run.wait_for_output("ready");
    eventually("all have begun", || (run.living().len() >= 6).then_some(()));
    run.stop(Duration::from_millis(100));
    let end = run.end();
    assert_eq!((end.how, end.left), (alice(), 0));
    assert_eq!(run.living(), []);
}

#[test]
fn a_run_whose_folder_is_deleted_ends() {
    let folder = tempdir().unwrap();
    let payload = Payload {
        grace: Duration::from_millis(100),
        ..script(&format!("{STUBBORN} while :; do sleep 1000; done"))
    };
    let run = Run::start(folder.path(), &payload);
    eventually("all have begun", || (run.living().len() >= 6).then_some(()));
    // Nobody could find it any more to stop it.
    fs::remove_dir_all(folder.path()).unwrap();
    eventually("all are gone", || run.living().is_empty().then_some(()));
}

#[test]
fn a_workload_may_use_its_grace() {
    let folder = tempdir().unwrap();
    let run = Run::start(
        folder.path(),
        &script(
            "trap 'sleep 0.2; echo saved; exit 7' TERM; echo ready; while :; do sleep 0.05; done",
        ),
    );
    run.wait_for_output("ready");
    run.stop(Duration::from_secs(20));
    assert_eq!(
        (run.end().how, run.text().as_str()),
        (alice(), "ready\nsaved\n")
    );
}

#[test]
fn what_a_workload_starts_to_end_well_is_not_asked_to_end() {
    let folder = tempdir().unwrap();
    // Some in its own group and some that left it, so that those who are asked first have begun before the last are.
    let aside = format!("setsid sh -c '{CLEANER}' & sh -c '{CLEANER}' & ");
    let run = Run::start(folder.path(), &script(&(aside.repeat(6) + CLEANER)));
    eventually("all are up", || {
        (run.text().matches("ready").count() == 13).then_some(())
    });
    run.stop(Duration::from_secs(20));
    assert_eq!(run.end().how, alice());
    let text = run.text();
    assert!(!text.contains("lost"), "{text}");
    assert_eq!(text.matches("saved").count(), 13, "{text}");
}

#[test]
fn a_later_stop_can_only_hurry() {
    let folder = tempdir().unwrap();
    let run = Run::start(
        folder.path(),
        &script("trap 'echo told' TERM; echo ready; while :; do sleep 0.05; done"),
    );
    run.wait_for_output("ready");
    run.stop(Duration::from_mins(10));
    run.wait_for_output("told");
    run.stop(Duration::from_mins(20));
    run.stop(Duration::from_millis(1));
    assert_eq!(run.end().how, alice());
}

#[test]
fn a_halted_workload_is_stopped_too() {
    let folder = tempdir().unwrap();
    let run = Run::start(
        folder.path(),
        &script("trap 'echo told; exit 0' TERM; echo ready; kill -STOP $$; sleep 1000"),
    );
    run.wait_for_output("ready");
    run.stop(Duration::from_secs(20));
    assert_eq!(
        (run.end().how, run.text().as_str()),
        (alice(), "ready\ntold\n")
    );
}

#[test]
fn an_unreadable_request_stops_with_the_grace_of_the_payload() {
    let folder = tempdir().unwrap();
    let payload = Payload {
        grace: Duration::ZERO,
        ..script("trap '' TERM; echo ready; while :; do sleep 1; done")
    };
    let run = Run::start(folder.path(), &payload);
    run.wait_for_output("ready");
    fs::write(folder.path().join("stop"), "nonsense").unwrap();
    fs::write(folder.path().join("control"), "!").unwrap();
    assert_eq!(run.end().how, How::Stopped { by: None });
}

#[test]
fn a_signal_to_the_helper_stops_the_run() {
    let folder = tempdir().unwrap();
    let run = Run::start(folder.path(), &script("echo ready; sleep 1000"));
    run.wait_for_output("ready");
    kill(run.pid, "HUP");
    kill(run.pid, "INT");
    kill(run.pid, "TERM");
    assert_eq!(run.end().how, How::Stopped { by: None });
    assert_eq!(run.living(), []);
}

#[test]
fn what_the_child_leaves_behind_is_ended_with_it() {
    let folder = tempdir().unwrap();
    let payload = Payload {
        grace: Duration::from_millis(100),
        ..script(&format!("{STUBBORN} echo done; exit 5"))
    };
    let run = Run::start(folder.path(), &payload);
    let end = run.end();
    assert_eq!((end.how, run.text().as_str()), (How::Exited(5), "done\n"));
    assert_eq!(run.living(), []);
}

#[test]
fn last_words_of_what_is_left_behind_are_kept() {
    let folder = tempdir().unwrap();
    let up = folder.path().join("up");
    let up = up.display();
    let run = Run::start(
        folder.path(),
        &script(&format!(
            "sh -c 'trap \"echo last words; exit\" TERM; touch {up}; while :; do sleep 0.02; done' & \
             until [ -e {up} ]; do sleep 0.01; done; echo done"
        )),
    );
    assert_eq!(
        (run.end().how, run.text().as_str()),
        (How::Exited(0), "done\nlast words\n")
    );
}

#[test]
fn a_fork_storm_is_ended() {
    let folder = tempdir().unwrap();
    let storm = "f() { while :; do (sleep 0.01; trap '' TERM; sleep 0.02) & sleep 0.005; done; }; \
                 trap '' TERM; f & f & f & echo ready; wait";
    let run = Run::start(folder.path(), &script(storm));
    run.wait_for_output("ready");
    run.stop(Duration::from_millis(50));
    assert_eq!((run.end().how, run.living()), (alice(), vec![]));
}

#[test]
fn the_child_dies_with_its_helper() {
    let folder = tempdir().unwrap();
    let run = Run::start(folder.path(), &script("echo ready; exec sleep 1000"));
    run.wait_for_output("ready");
    kill(run.pid, "KILL");
    assert_eq!(run.exit(), -9);
    eventually("the child is gone", || {
        run.living().is_empty().then_some(())
    });
    assert!(!folder.path().join("end").exists());
}

#[test]
fn a_stop_after_the_end_changes_nothing() {
    let folder = tempdir().unwrap();
    let payload = Payload {
        grace: Duration::from_secs(2),
        ..script("(trap '' TERM; sleep 1000) & echo gone; exit 0")
    };
    let run = Run::start(folder.path(), &payload);
    let child = run.child();
    eventually("the child has ended", || {
        (!Path::new(&format!("/proc/{child}")).exists()).then_some(())
    });
    run.stop(Duration::ZERO);
    assert_eq!(run.end().how, How::Exited(0));
    assert_eq!(run.living(), []);
}

/// A control group that goes with the test.
struct Cgroup(std::path::PathBuf);

impl Cgroup {
    fn create() -> Option<Self> {
        let roots = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];
        let root = roots
            .into_iter()
            .find(|root| Path::new(root).join("cgroup.controllers").exists())?;
        let path = Path::new(root).join(format!("hr-test-{}", std::process::id()));
        fs::create_dir(&path).ok()?;
        Some(Self(path))
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        drop(fs::remove_dir(&self.0));
    }
}

#[test]
fn a_control_group_is_entered_emptied_and_removed() {
    let Some(group) = Cgroup::create() else {
        eprintln!(
            "skipped: no control group can be made here (needs cgroup v2 and its delegation)"
        );
        return;
    };
    let folder = tempdir().unwrap();
    let payload = Payload {
        cgroup: Some(group.0.to_str().unwrap().as_bytes().to_vec()),
        ..script(&format!(
            "{STUBBORN} cat /proc/self/cgroup; echo ready; sleep 1000"
        ))
    };
    let run = Run::start(folder.path(), &payload);
    run.wait_for_output("ready");
    run.stop(Duration::ZERO);
    assert_eq!(run.end().how, alice());
    assert!(
        run.text()
            .contains(group.0.file_name().unwrap().to_str().unwrap())
    );
    assert!(!group.0.exists(), "removed, so empty");
}

/// A small disk.
struct Disk(tempfile::TempDir);

impl Disk {
    fn mount(size: &str) -> Option<Self> {
        let folder = tempdir().unwrap();
        let options = format!("size={size}");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
            .arg(folder.path())
            .output()
            .ok()?;
        mounted.status.success().then_some(Self(folder))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(self.0.path()).status());
    }
}

#[test]
fn a_full_disk_costs_output_but_not_the_run() {
    let Some(disk) = Disk::mount("512k") else {
        eprintln!("skipped: no small disk can be mounted here (needs root)");
        return;
    };
    let outside = tempdir().unwrap();
    let folder = disk.0.path().join("run");
    fs::create_dir(&folder).unwrap();
    fs::write(disk.0.path().join("ballast"), vec![1; 200_000]).unwrap();
    let at = outside.path().display();
    let run = Run::start(
        &folder,
        &script(&format!(
            "head -c 1000000 /dev/zero | tr '\\0' x; touch {at}/full; until [ -e {at}/go ]; do sleep 0.01; done; \
             echo after; exit 3"
        )),
    );
    eventually("all is written", || {
        outside.path().join("full").exists().then_some(())
    });
    fs::remove_file(disk.0.path().join("ballast")).unwrap();
    fs::write(outside.path().join("go"), "").unwrap();
    let end = run.end();
    assert_eq!(end.how, How::Exited(3));
    let items: Vec<_> = run
        .records()
        .into_iter()
        .map(|record| record.item)
        .collect();
    let lost: u64 = items
        .iter()
        .map(|item| match item {
            Item::Gap {
                bytes: Some(bytes),
                reason: GapReason::DiskFull,
            } => *bytes,
            _ => 0,
        })
        .sum();
    assert!(lost > 400_000 && lost == end.disk_full);
    assert_eq!(run.out().len() as u64 + lost, 1_000_006);
    // What was in the pipe when the room came may stand before it in one record.
    let complete = matches!(items.last(), Some(Item::Out(bytes)) if bytes.ends_with(b"after\n"));
    assert!(complete, "the output behind the gap is missing");
}

#[test]
fn a_disk_that_stays_full_still_takes_the_end() {
    let Some(disk) = Disk::mount("256k") else {
        eprintln!("skipped: no small disk can be mounted here (needs root)");
        return;
    };
    let run = Run::start(
        disk.0.path(),
        &script("head -c 1000000 /dev/zero | tr '\\0' x; exit 3"),
    );
    let end = run.end();
    assert_eq!(end.how, How::Exited(3));
    assert_eq!(run.out().len() as u64 + end.disk_full, 1_000_000);
}

#[test]
fn a_disk_that_is_full_at_the_start_starts_nothing() {
    let Some(disk) = Disk::mount("64k") else {
        eprintln!("skipped: no small disk can be mounted here (needs root)");
        return;
    };
    drop(fs::write(disk.0.path().join("ballast"), vec![1; 100_000]));
    let run = Run::start(disk.0.path(), &script("echo started"));
    let report = format!("{}", run.report.clone().unwrap());
    assert!(
        report.starts_with(&format!("failed {} ", libc::ENOSPC)),
        "{report}"
    );
    assert_eq!(run.exit(), 74);
    assert!(!disk.0.path().join("started").exists());
}
