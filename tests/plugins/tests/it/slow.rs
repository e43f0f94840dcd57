//! Starts at a backend with names of its own that go on although nobody waits for them: what is not found yet may be there
//! later, so it is not started again before whoever is at work on it is gone.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use hybrid_runner_core::RunId;
use hybrid_runner_core::error::{Error, ErrorKind};
use hybrid_runner_core::executor::{Executor, Handle, Progress};
use hybrid_runner_core::run::{Outcome, RunSpec, State};
use hybrid_runner_core::secret::Secrets;
use hybrid_runner_core::testing::Script;
use hybrid_runner_executors::command;
use hybrid_runner_tests::rest::Run;
use hybrid_runner_tests::{Runner, Server, Story, processes};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::{Place, end, has, told};

/// Submits a run when the file `go` is there; a shell stands before it, as a shell often does, and may capture what it prints.
const SUBMIT: &str = r#"#!/bin/sh
cd "$(dirname "$0")" || exit 1
case $1 in
start) cat >/dev/null; echo "$2" >>begun; echo $$ >>starts; /bin/sh ./batch.sh submit "$2"; exit $?;;
captures) cat >/dev/null; echo $$ >>starts; answer=$(/bin/sh ./batch.sh submit "$2"); echo "$answer";;
leaves) cat >/dev/null; echo $$ >>starts; /bin/sh ./batch.sh submit "$2" >answer & sleep 1; exit 1;;
refuses) cat >/dev/null; echo $$ >>starts; /bin/sh ./batch.sh submit "$2" >answer & sleep 1; exit 4;;
alone) cat >/dev/null; echo $$ >>starts; answer=$(env -i timeout 60 /bin/sh ./batch.sh submit "$2"); echo "$answer";;
submit) echo $$ >submitting
  while ! [ -e go ]; do sleep 0.02; done
  echo "$2" >>submitted; echo running >job; echo "{\"id\": \"job of $2\"}";;
find) if [ -e nonsense ]; then cat nonsense; exit 0; fi; if [ -e refused ]; then exit 4; fi
  if [ -e job ]; then echo "{\"id\": \"job of $2\"}"; else echo '{"id": null}'; fi;;
status) echo "{\"state\": \"$(cat job)\"}";;
stop) echo stopped >job;;
esac
"#;

fn settings(place: &Place, timeout: &str) -> Value {
    let script = place.path("batch.sh");
    std::fs::write(&script, SUBMIT).unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    json!({
        "start": ["./batch.sh", "start", "{run}"],
        "find": ["./batch.sh", "find", "{run}"],
        "status": ["./batch.sh", "status", "{id}"],
        "stop": ["./batch.sh", "stop", "{id}"],
        "interval": "50ms",
        "timeout": timeout,
    })
}

fn commands(place: &Place, timeout: &str) -> Arc<dyn Executor> {
    built(place, settings(place, timeout))
}

/// Started in another way than usual.
fn commands_by(place: &Place, start: &str, timeout: &str) -> Arc<dyn Executor> {
    let mut settings = settings(place, timeout);
    settings["start"][1] = start.into();
    built(place, settings)
}

fn built(place: &Place, settings: Value) -> Arc<dyn Executor> {
    let mut context = place.context();
    context.settings = settings;
    (command::KIND.build)(&context).unwrap()
}

fn spec() -> RunSpec {
    Script::new().exit(0).spec(RunId::generate().attempt(1))
}

async fn start(executor: &dyn Executor, spec: &RunSpec) -> Result<Handle, Error> {
    executor
        .start(spec, &Secrets::none(), &Progress::none())
        .await
}

/// Asks for a start, whose answer comes later.
fn begin(
    starting: &mut JoinSet<Result<Handle, Error>>,
    executor: &Arc<dyn Executor>,
    spec: &RunSpec,
) {
    let (executor, spec) = (Arc::clone(executor), spec.clone());
    starting.spawn(async move { start(&*executor, &spec).await });
}

/// The run ends, and as one that was stopped.
async fn is_stopped(executor: &dyn Executor, run: &Handle) {
    let outcome = end(executor, run).await;
    assert!(matches!(outcome, Outcome::Stopped { .. }), "{outcome}");
}

/// Asked again as a runner does.
async fn started(executor: &dyn Executor, spec: &RunSpec) -> Handle {
    loop {
        match start(executor, spec).await {
            Ok(handle) => return handle,
            Err(error) => assert!(error.is_transient(), "{error:?}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn lines(place: &Place, file: &str) -> usize {
    let text = std::fs::read_to_string(place.path(file)).unwrap_or_default();
    text.lines().count()
}

/// So many starts were made, and so many jobs.
#[track_caller]
fn assert_made(place: &Place, starts: usize, jobs: usize) {
    let made = (lines(place, "starts"), lines(place, "submitted"));
    assert_eq!(made, (starts, jobs));
}

/// Whether a start of this run was made.
fn begun(place: &Place, run: RunId) -> bool {
    let text = std::fs::read_to_string(place.path("begun")).unwrap_or_default();
    text.lines().any(|line| line == run.to_string())
}

/// Waits for a file.
async fn there(path: &Path) {
    while std::fs::read(path).unwrap_or_default().is_empty() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Kills whoever submits.
async fn kill(place: &Place) {
    there(&place.path("submitting")).await;
    let process = std::fs::read_to_string(place.path("submitting")).unwrap();
    processes::signal(process.trim().parse().unwrap(), Signal::KILL);
}

/// A life of a runner that ends while a start is under way.
async fn life(place: &Place, executor: Arc<dyn Executor>, spec: &RunSpec) {
    let (spec, folder) = (spec.clone(), place.path("submitting"));
    let ends = tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            tokio::select! {
                started = start(&*executor, &spec) => panic!("{started:?}"),
                () = there(&folder) => {}
            }
        });
        // With all that goes on in it.
        drop((executor, runtime));
    });
    ends.await.unwrap();
}

/// Refused because somebody is at work.
async fn is_awaited(executor: &dyn Executor, spec: &RunSpec) {
    let error = start(executor, spec).await.unwrap_err();
    assert!(
        error.is_transient() && error.report().contains("at work"),
        "{error:?}"
    );
    let level = executor.watch(&Handle::of(spec.run)).next().await;
    let level = level.unwrap().unwrap();
    assert_eq!(level.state, State::Starting);
    assert!(level.message.unwrap().contains("at work"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_over_its_time_is_waited_for() {
    // The last gives up, and what it has started does not.
    for start in ["start", "captures", "leaves", "refuses"] {
        over_its_time(start).await;
    }
}

async fn over_its_time(with: &str) {
    let (place, spec) = (Place::new(), spec());
    told(120, async {
        let executor = commands_by(&place, with, "2s");
        start(&*executor, &spec).await.unwrap_err();
        is_awaited(&*executor, &spec).await;
        is_awaited(&*executor, &spec).await;
        std::fs::write(place.path("go"), "").unwrap();
        let handle = started(&*executor, &spec).await;
        assert_made(&place, 1, 1);
        executor.stop(&handle, Duration::ZERO).await.unwrap();
        is_stopped(&*executor, &handle).await;
        executor.remove(&handle).await.unwrap();
        let left = std::fs::read_dir(place.path("data").join("starts")).unwrap();
        assert_eq!(left.count(), 0, "no pipe is left");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_that_a_life_left_behind_is_waited_for_by_the_next() {
    for (start, kills) in [
        ("start", false),
        ("captures", false),
        ("captures", true),
        ("alone", true),
    ] {
        left_behind(start, kills).await;
    }
}

/// Somebody else may kill the shell that stands before what submits.
async fn left_behind(with: &str, kills: bool) {
    let (place, spec) = (Place::new(), spec());
    told(120, async {
        life(&place, commands_by(&place, with, "60s"), &spec).await;
        if kills {
            let shell = std::fs::read_to_string(place.path("starts")).unwrap();
            processes::signal(shell.trim().parse().unwrap(), Signal::KILL);
        }
        let later = commands_by(&place, with, "60s");
        is_awaited(&*later, &spec).await;
        std::fs::write(place.path("go"), "").unwrap();
        started(&*later, &spec).await;
        assert_made(&place, 1, 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_came_to_nothing_is_made_again() {
    let (place, spec) = (Place::new(), spec());
    told(120, async {
        let executor = commands(&place, "2s");
        start(&*executor, &spec).await.unwrap_err();
        is_awaited(&*executor, &spec).await;
        kill(&place).await;
        std::fs::write(place.path("go"), "").unwrap();
        started(&*executor, &spec).await;
        assert_made(&place, 2, 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_is_stopped_meanwhile_has_not_ended_before_what_came_of_it_was_stopped() {
    for comes in [true, false] {
        let (place, spec) = (Place::new(), spec());
        let run = Handle::of(spec.run);
        told(120, async {
            let executor = commands(&place, "2s");
            start(&*executor, &spec).await.unwrap_err();
            is_awaited(&*executor, &spec).await;
            executor.stop(&run, Duration::from_mins(1)).await.unwrap();
            let refused = executor.remove(&run).await.unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Conflict);
            is_awaited(&*executor, &spec).await;
            // The next life knows of it, too.
            drop(executor);
            let later = commands(&place, "2s");
            is_awaited(&*later, &spec).await;
            if comes {
                std::fs::write(place.path("go"), "").unwrap();
            } else {
                kill(&place).await;
            }
            is_stopped(&*later, &run).await;
            assert_eq!(lines(&place, "submitted"), usize::from(comes));
            if comes {
                let job = std::fs::read_to_string(place.path("job")).unwrap();
                assert_eq!(job, "stopped\n");
            }
            let refused = start(&*later, &spec).await.unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Conflict);
            later.remove(&run).await.unwrap();
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_that_hangs_is_ended_by_a_stop_when_its_grace_is_over() {
    for grace in [Duration::ZERO, Duration::from_secs(2)] {
        let (place, spec) = (Place::new(), spec());
        let run = Handle::of(spec.run);
        told(120, async {
            let executor = commands(&place, "2s");
            start(&*executor, &spec).await.unwrap_err();
            executor.stop(&run, grace).await.unwrap();
            is_stopped(&*executor, &run).await;
            assert_made(&place, 1, 0);
            executor.remove(&run).await.unwrap();
            let submitting = std::fs::read_to_string(place.path("submitting")).unwrap();
            let submitting = processes::Process::read(submitting.trim().parse().unwrap());
            assert!(submitting.is_none_or(|left| !left.mentions("batch.sh")));
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_answer_to_the_question_for_it_refuses_a_start_that_may_be_at_work() {
    let (place, spec) = (Place::new(), spec());
    told(120, async {
        let executor = commands(&place, "2s");
        start(&*executor, &spec).await.unwrap_err();
        for (file, text) in [
            ("nonsense", "a page"),
            ("nonsense", ""),
            ("nonsense", "{}"),
            ("nonsense", r#"{"error": "controller down"}"#),
            ("nonsense", r#"{"id": ""}"#),
            ("refused", "the ticket"),
        ] {
            std::fs::write(place.path(file), text).unwrap();
            for _ in 0..2 {
                let error = start(&*executor, &spec).await.unwrap_err();
                assert!(error.is_transient(), "{file} `{text}`: {error:?}");
            }
            std::fs::remove_file(place.path(file)).unwrap();
        }
        std::fs::write(place.path("go"), "").unwrap();
        started(&*executor, &spec).await;
        assert_made(&place, 1, 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_of_an_earlier_life_is_ended_by_a_stop_although_nothing_can_be_asked_for() {
    let (place, spec) = (Place::new(), spec());
    let run = Handle::of(spec.run);
    told(120, async {
        life(&place, commands(&place, "60s"), &spec).await;
        std::fs::write(place.path("refused"), "").unwrap();
        let later = commands(&place, "60s");
        later.stop(&run, Duration::ZERO).await.unwrap();
        let submitting = std::fs::read_to_string(place.path("submitting")).unwrap();
        let submitting = submitting.trim().parse().unwrap();
        let lives = || {
            let process = processes::Process::read(submitting);
            process.is_some_and(|process| process.mentions("batch.sh"))
        };
        while lives() {
            // As a runner does, which looks until it is told.
            drop(later.watch(&run).next().await);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        std::fs::remove_file(place.path("refused")).unwrap();
        is_stopped(&*later, &run).await;
        assert_made(&place, 1, 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_that_says_conflict_is_not_taken_for_a_stop() {
    let (place, spec) = (Place::new(), spec());
    told(60, async {
        let mut settings = settings(&place, "20s");
        let script =
            r#"cat >/dev/null; echo '{"error": {"kind": "conflict", "message": "it is there"}}'"#;
        settings["start"] = json!(["/bin/sh", "-c", script]);
        let executor = built(&place, settings);
        let error = start(&*executor, &spec).await.unwrap_err();
        assert!(
            error.is_transient() && error.report().contains("it is there"),
            "{error:?}"
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_that_was_never_written_is_none() {
    let (place, spec) = (Place::new(), spec());
    told(60, async {
        let claim = place.claim(spec.run);
        std::fs::create_dir_all(claim.parent().unwrap()).unwrap();
        std::fs::write(claim, b"\n{\"version\":1,\"name\":\"\xc3").unwrap();
        let executor = commands(&place, "20s");
        assert_eq!(executor.list().await.unwrap(), []);
        std::fs::write(place.path("go"), "").unwrap();
        started(&*executor, &spec).await;
        assert_made(&place, 1, 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn starts_that_hang_do_not_keep_a_run_from_being_stopped() {
    let place = Place::new();
    told(120, async {
        let executor = commands(&place, "60s");
        let live = spec();
        std::fs::write(place.path("go"), "").unwrap();
        let handle = started(&*executor, &live).await;
        std::fs::remove_file(place.path("go")).unwrap();
        let mut starting = JoinSet::new();
        let mut runs = Vec::new();
        for _ in 0..20 {
            let spec = spec();
            runs.push(Handle::of(spec.run));
            begin(&mut starting, &executor, &spec);
        }
        while lines(&place, "starts") < 17 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        executor.stop(&handle, Duration::ZERO).await.unwrap();
        is_stopped(&*executor, &handle).await;
        // One that has no turn yet never gets one, however long its grace.
        for run in &runs {
            if !begun(&place, run.run) {
                executor.stop(run, Duration::from_mins(10)).await.unwrap();
                is_stopped(&*executor, run).await;
            }
        }
        std::fs::write(place.path("go"), "").unwrap();
        let mut refused = 0;
        while let Some(started) = starting.join_next().await {
            refused += usize::from(started.unwrap().is_err());
        }
        assert_eq!(refused, 4);
        assert_made(&place, 17, 17);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_that_hangs_is_ended_by_a_stop_where_nothing_can_be_found_too() {
    let (place, spec) = (Place::new(), spec());
    told(50, async {
        let mut settings = settings(&place, "60s");
        settings.as_object_mut().unwrap().remove("find");
        settings["start"][1] = "alone".into();
        let executor = built(&place, settings);
        let mut starting = JoinSet::new();
        begin(&mut starting, &executor, &spec);
        there(&place.path("submitting")).await;
        let run = Handle::of(spec.run);
        executor.stop(&run, Duration::ZERO).await.unwrap();
        starting.join_next().await.unwrap().unwrap().unwrap_err();
        std::fs::write(place.path("go"), "").unwrap();
        // Whether the backend has it is not known, as it never is here.
        let outcome = end(&*executor, &run).await;
        assert!(matches!(outcome, Outcome::Lost { .. }), "{outcome}");
        assert_made(&place, 1, 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_that_hangs_within_its_time_is_ended_by_a_stop() {
    if !has(&["python3"]) {
        return;
    }
    for is_plugin in [false, true] {
        let (place, spec) = (Place::new(), spec());
        let run = Handle::of(spec.run);
        std::fs::write(place.path("slow.py"), PLUGIN).unwrap();
        let commands = commands(&place, "60s");
        told(50, async {
            let executor: Arc<dyn Executor> = if is_plugin {
                Arc::new(place.plugin(&["python3", "slow.py", "captures"]))
            } else {
                commands
            };
            let mut starting = JoinSet::new();
            begin(&mut starting, &executor, &spec);
            there(&place.path("submitting")).await;
            executor.stop(&run, Duration::from_secs(1)).await.unwrap();
            is_stopped(&*executor, &run).await;
            starting.join_next().await.unwrap().unwrap().unwrap_err();
            assert_made(&place, 1, 0);
            executor.remove(&run).await.unwrap();
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_of_a_record_that_a_full_disk_left_is_no_record() {
    let (place, spec) = (Place::new(), spec());
    told(60, async {
        let executor = commands(&place, "20s");
        std::fs::write(place.path("go"), "").unwrap();
        let handle = started(&*executor, &spec).await;
        drop(executor);
        let claim = place.claim(spec.run);
        let whole = std::fs::read(&claim).unwrap();
        // Cut within a character.
        let half = [whole.as_slice(), b"\n{\"version\":1,\"name\":\"\xc3"].concat();
        std::fs::write(&claim, half).unwrap();
        let later = commands(&place, "20s");
        assert_eq!(later.list().await.unwrap(), std::slice::from_ref(&handle));
        later.stop(&handle, Duration::ZERO).await.unwrap();
        end(&*later, &handle).await;
        later.remove(&handle).await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_keeps_the_stderr_of_its_start_does_not_hold_up_the_answer() {
    let (place, spec) = (Place::new(), spec());
    told(60, async {
        let mut settings = settings(&place, "20s");
        let script = "cat >/dev/null; sleep 30 >/dev/null & echo '{\"id\": \"one\"}'";
        settings["start"] = json!(["/bin/sh", "-c", script]);
        settings.as_object_mut().unwrap().remove("find");
        let executor = built(&place, settings);
        let started = tokio::time::timeout(Duration::from_secs(15), start(&*executor, &spec));
        started.await.unwrap().unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_that_is_under_way_is_completed_before_the_process_ends() {
    let (place, spec) = (Place::new(), spec());
    told(120, async {
        let mut settings = settings(&place, "60s");
        // Nothing but its answer says what the backend made of it.
        settings.as_object_mut().unwrap().remove("find");
        let executor = built(&place, settings.clone());
        let submitting = place.path("submitting");
        tokio::select! {
            started = start(&*executor, &spec) => panic!("{started:?}"),
            () = there(&submitting) => {}
        }
        let go = async {
            tokio::task::yield_now().await;
            std::fs::write(place.path("go"), "").unwrap();
        };
        tokio::join!(executor.close(), go);
        drop(executor);
        let later = built(&place, settings);
        let level = later.watch(&Handle::of(spec.run)).next().await;
        assert_eq!(level.unwrap().unwrap().state, State::Running);
    })
    .await;
}

/// A plugin that answers `start` when the file `go` is there. What it was asked for it does, whoever waits; as `captures`, it
/// ends with us, and what it has started to submit does not.
const PLUGIN: &str = r#"
import json, pathlib, subprocess, sys, threading, time
root = pathlib.Path(__file__).parent
turn = threading.Lock()
captures = "captures" in sys.argv
def say(id, result):
    with turn:
        print(json.dumps({"jsonrpc": "2.0", "id": id, "result": result}), flush=True)
def note(file, text):
    with open(root / file, "a") as notes:
        notes.write(text + "\n")
def handle(run):
    return {"run": run, "version": 1, "state": {"id": "a job"}}
def start(id, run):
    if captures:
        subprocess.run(["/bin/sh", root / "batch.sh", "captures", run], stdin=subprocess.DEVNULL, capture_output=True)
    else:
        note("starts", run)
        note("submitting", run)
        while not (root / "go").exists():
            time.sleep(0.02)
        note("submitted", run)
    say(id, handle(run))
for line in sys.stdin:
    message = json.loads(line)
    method, id, params = message.get("method"), message.get("id"), message.get("params")
    if method == "hello":
        least = {"logs": "until_removed", "streams": False, "resources": False, "images": False, "contained": False}
        say(id, {"version": params["versions"][0], "software": "slow", "capabilities": {**least, "named_start": False, "find": True}})
    elif method == "start":
        threading.Thread(target=start, args=(id, params["spec"]["run"]), daemon=captures).start()
    elif method == "find":
        is_there = (root / "submitted").exists()
        say(id, {"run": handle(params["spec"]["run"])} if is_there else {})
    elif id is not None:
        say(id, {})
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plugin_that_has_not_answered_in_time_is_waited_for() {
    if !has(&["python3"]) {
        return;
    }
    let (place, spec) = (Place::new(), spec());
    std::fs::write(place.path("slow.py"), PLUGIN).unwrap();
    told(120, async {
        let timeouts = json!({ "timeouts": { "start": "500ms" } });
        let plugin = place.plugin_with(&["python3", "slow.py"], &timeouts);
        let error = start(&plugin, &spec).await.unwrap_err();
        assert!(error.is_transient(), "{error:?}");
        let process = plugin.host().process().await;
        let error = start(&plugin, &spec).await.unwrap_err();
        assert!(
            error.report().contains("has not answered `start` yet"),
            "{error:?}"
        );
        std::fs::write(place.path("go"), "").unwrap();
        started(&plugin, &spec).await;
        assert_made(&place, 1, 1);
        assert_eq!(
            plugin.host().process().await,
            process,
            "others are not disturbed"
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plugin_that_a_life_left_behind_at_a_start_is_waited_for_by_the_next() {
    if !has(&["python3"]) {
        return;
    }
    let (place, spec) = (Place::new(), spec());
    std::fs::write(place.path("slow.py"), PLUGIN).unwrap();
    told(120, async {
        // The shell is killed with us, and what it has started is not.
        let command = ["/bin/sh", "-c", "python3 slow.py; exit $?"];
        life(&place, Arc::new(place.plugin(&command)), &spec).await;
        let later = place.plugin(&command);
        is_awaited(&later, &spec).await;
        std::fs::write(place.path("go"), "").unwrap();
        started(&later, &spec).await;
        assert_made(&place, 1, 1);
        later.close().await;
        let left = std::fs::read_dir(place.path("data").join("processes")).unwrap();
        assert_eq!(left.count(), 0, "no pipe is left");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_plugin_that_is_gone_has_started_to_submit_is_waited_for() {
    if !has(&["python3"]) {
        return;
    }
    let (place, spec) = (Place::new(), spec());
    settings(&place, "60s");
    std::fs::write(place.path("slow.py"), PLUGIN).unwrap();
    told(120, async {
        let command = ["python3", "slow.py", "captures"];
        life(&place, Arc::new(place.plugin(&command)), &spec).await;
        let later = place.plugin(&command);
        is_awaited(&later, &spec).await;
        std::fs::write(place.path("go"), "").unwrap();
        started(&later, &spec).await;
        assert_made(&place, 1, 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_runner_killed_while_a_start_is_under_way_submits_nothing_twice() {
    Story::told(180, async |story| {
        let place = Place::new();
        let server = Server::started(&story).await;
        let mut runner = Runner::new(&story, &server, "killed").await;
        let settings = settings(&place, "60s");
        let keys = settings.as_object().unwrap().iter();
        let folder = place.path("batch.sh");
        let keys = keys.map(|(key, value)| {
            format!(
                "{key} = {}\n",
                value
                    .to_string()
                    .replace("./batch.sh", folder.to_str().unwrap())
            )
        });
        runner.executor = format!("kind = \"command\"\n{}", keys.collect::<String>());
        runner.start().await;
        let client = server.client();
        let run = client.submit(&story.sh("slow", "true"), "killed").await;
        there(&place.path("submitting")).await;
        runner.kill().await;
        runner.start().await;
        let waits = |run: &Run| run.0["message"].to_string().contains("at work");
        client.until(&run, waits).await;
        std::fs::write(place.path("go"), "").unwrap();
        client.running(&run).await;
        std::fs::write(place.path("job"), "succeeded\n").unwrap();
        assert_eq!(client.finished(&run).await.state(), "succeeded");
        assert_made(&place, 1, 1);
    })
    .await;
}
