//! A run that ends badly says how, whose fault it was, and what to do.

use std::time::Duration;

use bollard::query_parameters::{
    InspectContainerOptions, KillContainerOptionsBuilder, RemoveContainerOptionsBuilder,
    StopContainerOptionsBuilder,
};
use futures::StreamExt as _;
use hybrid_runner_core::executor::Handle;
use hybrid_runner_core::log::LogItem;
use hybrid_runner_core::run::{Failure, FailureClass, Outcome, RunSpec};
use hybrid_runner_core::testing::processes_of;
use hybrid_runner_core::unit::ByteSize;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::bench::{Bench, spec, until, within};

fn assert_blames(failure: &Failure, class: FailureClass, says: &[&str], source: &str) {
    assert_eq!(failure.class, class, "{failure:?}");
    for words in says {
        assert!(failure.message.contains(words), "no `{words}`: {failure:?}");
    }
    let own_words = failure.source.as_deref().unwrap_or_default();
    assert!(own_words.contains(source), "no `{source}`: {failure:?}");
}

#[tokio::test]
async fn a_command_that_is_not_there_is_named_and_told_from_its_interpreter() {
    let Some(bench) = Bench::new() else { return };
    for name in ["no-such-command", "/bin/none", "/etc/passwd/none"] {
        let failure = bench.failure_of(&spec([name])).await;
        let says = [&format!("no program `{name}`"), "correct `command`"];
        assert_blames(&failure, FailureClass::Spec, &says, "program: No");
    }
    let folder = bench.place.folder.path();
    let script = folder.join("script");
    executable(&script, "#!/bin/no-such-interpreter\n");
    let script = script.to_str().unwrap();
    let failure = bench.failure_of(&spec([script])).await;
    let says = [script, "is in the image, but the interpreter"];
    assert_blames(
        &failure,
        FailureClass::Spec,
        &says,
        "interpreter: No such file",
    );
}

fn executable(path: &std::path::Path, text: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[tokio::test]
async fn a_command_that_may_not_be_executed_is_told_from_one_that_cannot() {
    let Some(bench) = Bench::new() else { return };
    for name in ["/etc/passwd", "/etc"] {
        let failure = bench.failure_of(&spec([name])).await;
        assert_blames(
            &failure,
            FailureClass::Denied,
            &[name, "its mode"],
            "ermission denied",
        );
    }
    let garbage = bench.place.folder.path().join("garbage");
    executable(&garbage, "\x7fELF of another world");
    let garbage = garbage.to_str().unwrap();
    let failure = bench.failure_of(&spec([garbage])).await;
    assert_blames(
        &failure,
        FailureClass::Spec,
        &[garbage, "architecture"],
        "Exec format error",
    );
}

#[tokio::test]
async fn a_working_directory_that_cannot_be_is_named() {
    let Some(bench) = Bench::new() else { return };
    let mut spec = bench.spec("true");
    spec.workdir = Some("/etc/passwd/below".to_owned());
    let (_, failure) = bench.refused(&spec).await;
    assert_blames(&failure, FailureClass::Spec, &["workdir"], "passwd");
    for folder in ["/.hr/private/run", "/tmp/..//.hr/new"] {
        spec.workdir = Some(folder.to_owned());
        let (_, failure) = bench.refused(&spec).await;
        assert_blames(&failure, FailureClass::Spec, &["`workdir`", folder], "");
    }
}

fn with_memory(bench: &Bench, script: &str) -> RunSpec {
    let mut spec = bench.spec(script);
    spec.resources.limits.memory = Some(ByteSize::mib(32));
    spec
}

const GREEDY: &str = "x=$(head -c 99000000 /dev/zero | tr '\\000' x)";

/// A child that memory ends. The kernel may look for a second victim while the first still dies: the child's own children
/// come first.
fn greedy_child() -> String {
    format!(
        "/bin/sh -c \"echo 900 >/proc/self/oom_score_adj; {}\"",
        GREEDY.replace('$', "\\$")
    )
}

#[tokio::test]
async fn memory_is_blamed_for_what_it_ended_and_for_nothing_else() {
    let Some(bench) = Bench::new() else { return };
    let failure = bench.failure_of(&with_memory(&bench, GREEDY)).await;
    let says = ["for want of memory", "resources.limits.memory"];
    assert_blames(&failure, FailureClass::Oom, &says, "");
    // Only a child is killed, and the command goes on to an end of its own.
    let child = greedy_child();
    let failure = bench
        .failure_of(&with_memory(&bench, &format!("{child}; exit 3")))
        .await;
    assert_eq!(failure.class, FailureClass::Exit, "{failure:?}");
    assert_eq!(failure.exit_code, Some(3));
    // The shell's word for a child that was killed.
    let failure = bench
        .failure_of(&with_memory(&bench, &format!("{child}; exit $?")))
        .await;
    assert_eq!(failure.class, FailureClass::Oom, "{failure:?}");
}

#[tokio::test]
async fn who_kills_a_container_behind_a_child_that_memory_ended_is_not_certain() {
    let Some(bench) = Bench::new() else { return };
    let script = format!("{}; echo survived; sleep 600 & wait", greedy_child());
    let run = bench.start(&with_memory(&bench, &script)).await;
    let mut lines = bench.docker.logs(&run, None);
    let survived = async {
        let mut text = Vec::new();
        while !text.ends_with(b"survived\n") {
            if let LogItem::Data { bytes, .. } = lines.next().await.unwrap().unwrap().item {
                text.extend_from_slice(&bytes);
            }
        }
    };
    within(Duration::from_mins(1), "the child's end", survived).await;
    let options = KillContainerOptionsBuilder::default()
        .signal("KILL")
        .build();
    let container = bench.place.container(run.run);
    let client = bench.place.client();
    client
        .kill_container(&container, Some(options))
        .await
        .unwrap();
    let failure = bench.failure(&run).await;
    let says = [
        "`docker kill`",
        "for want of memory",
        "resources.limits.memory",
    ];
    assert_blames(&failure, FailureClass::Killed, &says, "exit code 137");
    bench.remove(&run).await;
}

#[tokio::test]
async fn too_few_processes_are_a_quota() {
    let Some(bench) = Bench::with(json!({ "limits": { "pids": 1 } })) else {
        return;
    };
    let failure = bench.failure_of(&bench.spec("true")).await;
    assert_blames(
        &failure,
        FailureClass::Quota,
        &["resources.limits.pids"],
        "process: ",
    );
    let Some(bench) = Bench::with(json!({ "limits": { "pids": 8 } })) else {
        return;
    };
    let many = "for i in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 9 & done; exit 0";
    let failure = bench.failure_of(&bench.spec(many)).await;
    assert_eq!(failure.class, FailureClass::Exit, "{failure:?}");
}

/// A run that lives until it is ended, and its container.
async fn living(bench: &Bench) -> (Handle, String) {
    let run = bench.begin("echo there; sleep 600 & wait").await;
    // The engine has it: what it did not take yet can go with the container.
    let mut log = bench.docker.logs(&run, None);
    let first = within(Duration::from_secs(30), "its first line", log.next()).await;
    first.unwrap().unwrap();
    let container = bench.place.container(run.run);
    (run, container)
}

#[tokio::test]
async fn who_kills_the_container_is_somebody_else() {
    let Some(bench) = Bench::new() else { return };
    let client = bench.place.client();
    for (signal, class) in [
        ("KILL", FailureClass::Killed),
        ("TERM", FailureClass::Killed),
    ] {
        let (run, container) = living(&bench).await;
        let options = KillContainerOptionsBuilder::default()
            .signal(signal)
            .build();
        client
            .kill_container(&container, Some(options))
            .await
            .unwrap();
        let failure = bench.failure(&run).await;
        assert_blames(
            &failure,
            class,
            &["somebody else"],
            "the engine says: exit code",
        );
        assert!(failure.may_pass);
        assert!(bench.text(&run).await.starts_with("there\n"));
        bench.remove(&run).await;
    }
}

#[tokio::test]
async fn who_stops_the_container_is_somebody_else_and_its_last_words_are_kept() {
    let Some(bench) = Bench::new() else { return };
    let run = bench
        .begin("trap 'echo bye; exit 0' TERM; echo there; sleep 600 & wait")
        .await;
    until("output", async || {
        bench.status(&run).await.unwrap().state.rank() == 2
    })
    .await;
    let options = StopContainerOptionsBuilder::default().t(10).build();
    let container = bench.place.container(run.run);
    bench
        .place
        .client()
        .stop_container(&container, Some(options))
        .await
        .unwrap();
    let failure = bench.failure(&run).await;
    let says = ["somebody else", "docker stop"];
    assert_blames(&failure, FailureClass::Killed, &says, "exit code");
    assert_eq!(bench.text(&run).await, "there\nbye\n");
    bench.remove(&run).await;
}

#[tokio::test]
async fn a_container_whose_shim_is_killed_ends_with_it_and_says_so() {
    let Some(bench) = Bench::new() else { return };
    let (run, container) = living(&bench).await;
    let client = bench.place.client();
    let options = None::<InspectContainerOptions>;
    let inspected = client.inspect_container(&container, options).await.unwrap();
    let init = inspected.state.unwrap().pid.unwrap();
    let stat = std::fs::read_to_string(format!("/proc/{init}/stat")).unwrap();
    let behind_name = stat.rsplit_once(')').unwrap().1;
    let shim = behind_name
        .split_whitespace()
        .nth(1)
        .unwrap()
        .parse()
        .unwrap();
    let line = std::fs::read_to_string(format!("/proc/{shim}/cmdline")).unwrap();
    assert!(line.contains("containerd-shim"), "{line}");

    kill_process(Pid::from_raw(shim).unwrap(), Signal::KILL).unwrap();

    let failure = bench.failure(&run).await;
    assert_blames(&failure, FailureClass::Killed, &["container"], "exit code");
    assert_eq!(
        processes_of(run.run).unwrap(),
        [0; 0],
        "the work outlived its container"
    );
    assert!(bench.text(&run).await.starts_with("there\n"));
    bench.remove(&run).await;
    assert_eq!(bench.listed().await, []);
}

#[tokio::test]
async fn a_container_that_somebody_removes_is_lost() {
    let Some(bench) = Bench::new() else { return };
    let (run, container) = living(&bench).await;
    let seen = bench.end(&run);
    let client = bench.place.client();
    let removed = async {
        let options = RemoveContainerOptionsBuilder::default().force(true).build();
        client
            .remove_container(&container, Some(options))
            .await
            .unwrap();
    };
    let (outcome, ()) = futures::join!(seen, removed);
    // Whether its end could still be seen before it was gone is the engine's choice.
    match outcome {
        Outcome::Lost { why } => assert!(why.contains("was removed"), "{why}"),
        Outcome::Failed(failure) => assert_eq!(failure.class, FailureClass::Killed, "{failure:?}"),
        outcome => panic!("{outcome}"),
    }
    assert!(matches!(bench.end(&run).await, Outcome::Lost { .. }));
    assert_eq!(bench.listed().await, []);
    bench.remove(&run).await;
}

#[tokio::test]
async fn an_end_by_the_work_itself_is_its_own() {
    let Some(bench) = Bench::new() else { return };
    for (script, code, signal) in [
        ("exit 7", Some(7), None),
        ("exit 137", Some(137), None),
        ("exit 255", Some(255), None),
        ("kill -TERM $$; sleep 9", None, Some(15)),
        ("kill -SEGV $$; sleep 9", None, Some(11)),
    ] {
        let failure = bench.failure_of(&bench.spec(script)).await;
        assert_eq!(failure.class, FailureClass::Exit, "{script}: {failure:?}");
        assert_eq!(
            (failure.exit_code, failure.signal),
            (code, signal),
            "{script}"
        );
    }
    let failure = bench
        .failure_of(&bench.spec("kill -KILL $$; sleep 9"))
        .await;
    assert_eq!(
        (failure.class, failure.signal),
        (FailureClass::Killed, Some(9))
    );
    // The signal of a stop, which nobody has asked for.
    let failure = bench.failure_of(&bench.spec("kill -34 1; sleep 9")).await;
    assert_eq!(failure.class, FailureClass::Killed, "{failure:?}");
}

#[tokio::test]
async fn limits_of_time_are_told_from_each_other() {
    let Some(bench) = Bench::new() else { return };
    let mut spec = bench.spec("while :; do echo; sleep 0.1; done");
    spec.limits.timeout = Duration::from_millis(700).into();
    spec.limits.grace = Duration::ZERO.into();
    let failure = bench.failure_of(&spec).await;
    assert_blames(&failure, FailureClass::Timeout, &["`timeout`"], "");
    let mut spec = bench.spec("sleep 600");
    spec.limits.stall_timeout = Duration::from_millis(700).into();
    spec.limits.grace = Duration::ZERO.into();
    let failure = bench.failure_of(&spec).await;
    assert_blames(&failure, FailureClass::Stalled, &["`stall_timeout`"], "");
}
