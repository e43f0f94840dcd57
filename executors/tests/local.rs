//! The local executor where things go wrong: helpers killed, machines restarted, disks full, records damaged.
#![cfg(feature = "local")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::future::Future;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use hybrid_runner_core::error::ErrorKind;
use hybrid_runner_core::executor::{Executor, Handle, Progress};
use hybrid_runner_core::id::Owner;
use hybrid_runner_core::kind::Context;
use hybrid_runner_core::log::GapReason;
use hybrid_runner_core::run::{Outcome, RunSpec, State};
use hybrid_runner_core::secret::{SecretValue, Secrets};
use hybrid_runner_core::testing::processes_of;
use hybrid_runner_core::{LogChunk, LogCursor, LogItem, RunId};
use hybrid_runner_helper::files;
use hybrid_runner_helper::spool::{Item, Record};
use hybrid_runner_helper::started::{Child, Started};
use rustix::process::{Pid, Signal};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(20);

async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, work)
        .await
        .expect("it comes to an end in time")
}

fn owner() -> Owner {
    Owner::of("server", &"one".parse().unwrap())
}

fn executor(data_dir: &Path, settings: Value) -> Arc<dyn Executor> {
    let name = "here".parse().unwrap();
    let context = Context::new(name, settings, data_dir, owner(), 1 << 30);
    hybrid_runner_executors::build("local", &context).unwrap()
}

fn sh(script: &str) -> RunSpec {
    let run = RunId::generate().attempt(1);
    RunSpec::new(run, "a".parse().unwrap(), ["/bin/sh", "-c", script])
}

async fn start(executor: &dyn Executor, spec: &RunSpec) -> Handle {
    executor
        .start(spec, &Secrets::none(), &Progress::none())
        .await
        .unwrap()
}

async fn end(executor: &dyn Executor, run: &Handle) -> Outcome {
    let last = within(executor.watch(run).collect::<Vec<_>>()).await.pop();
    last.unwrap().unwrap().outcome().unwrap().clone()
}

async fn read(executor: &dyn Executor, run: &Handle, from: Option<LogCursor>) -> Vec<LogChunk> {
    within(executor.logs(run, from).map(Result::unwrap).collect()).await
}

fn text(chunks: &[LogChunk]) -> String {
    let data = chunks.iter().filter_map(|chunk| match &chunk.item {
        LogItem::Data { bytes, .. } => Some(String::from_utf8_lossy(bytes)),
        _ => None,
    });
    data.collect()
}

fn gaps(chunks: &[LogChunk]) -> Vec<GapReason> {
    let gaps = chunks.iter().filter_map(|chunk| match &chunk.item {
        LogItem::Gap { why, .. } => Some(*why),
        _ => None,
    });
    gaps.collect()
}

fn folder(data_dir: &Path, run: RunId) -> PathBuf {
    let runs = data_dir.join("runs").join(owner().as_str());
    runs.join(run.to_string())
}

fn started(data_dir: &Path, run: RunId) -> Started {
    Started::parse(&fs::read(folder(data_dir, run).join(files::STARTED)).unwrap()).unwrap()
}

fn kill(pid: u32) {
    let pid = Pid::from_raw(pid.try_into().unwrap()).unwrap();
    rustix::process::kill_process(pid, Signal::KILL).unwrap();
}

/// The operating system tells nobody about processes that are not our children.
async fn until(what: &str, is_so: impl Fn() -> bool + Send + Sync) {
    let looking = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let seen = tokio::time::timeout(LIMIT, looking).await;
    assert!(seen.is_ok(), "{what}");
}

fn boot() -> String {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    id.trim().to_owned()
}

async fn a_killed_helper_loses_its_run(settings: Value) {
    let data = tempfile::tempdir().unwrap();
    let here = executor(data.path(), settings);
    let spec = sh("trap '' TERM; sleep 1000 & setsid sleep 1000 & echo up; sleep 1000");
    let run = start(&*here, &spec).await;
    let mut logs = here.logs(&run, None);
    let first = within(logs.next()).await.unwrap().unwrap();
    let mut levels = here.watch(&run);
    assert_eq!(
        within(levels.next()).await.unwrap().unwrap().state,
        State::Running
    );

    kill(started(data.path(), spec.run).helper);

    let last = within(levels.next()).await.unwrap().unwrap();
    let Some(Outcome::Lost { why }) = last.outcome() else {
        panic!("{last:?}");
    };
    assert!(why.contains("killed too"), "{why}");
    assert!(last.times.running.is_some() && last.times.finished.is_some());
    assert_eq!(processes_of(spec.run), Some(vec![]));
    // Whoever reads is told that something may be missing, once.
    let rest: Vec<_> = within(logs.map(Result::unwrap).collect()).await;
    assert_eq!(gaps(&rest), [GapReason::Crashed]);
    assert_eq!(read(&*here, &run, Some(rest[0].next.clone())).await, []);
    assert_eq!(read(&*here, &run, Some(first.next)).await, rest);
    // And so it stays.
    let later = executor(data.path(), json!({}));
    assert_eq!(end(&*later, &run).await, *last.outcome().unwrap());
    later.remove(&run).await.unwrap();
    assert_eq!(later.list().await.unwrap(), []);
}

#[tokio::test]
async fn a_killed_helper_leaves_no_orphan_and_a_lost_run() {
    a_killed_helper_loses_its_run(json!({})).await;
}

#[tokio::test]
async fn a_killed_helper_leaves_no_orphan_without_control_groups() {
    a_killed_helper_loses_its_run(json!({"cgroup": "off"})).await;
}

#[tokio::test]
async fn a_helper_that_was_killed_while_nobody_looked_is_found_by_stop() {
    let data = tempfile::tempdir().unwrap();
    let spec = sh("sleep 1000");
    let run = start(&*executor(data.path(), json!({})), &spec).await;
    let helper = started(data.path(), spec.run).helper;
    kill(helper);
    // Of a zombie it is empty.
    let cmdline = PathBuf::from(format!("/proc/{helper}/cmdline"));
    until("the helper is dead", || {
        fs::read(&cmdline).unwrap_or_default().is_empty()
    })
    .await;
    let here = executor(data.path(), json!({}));
    within(here.stop(&run, Duration::ZERO)).await.unwrap();
    assert_eq!(processes_of(spec.run), Some(vec![]));
    assert!(matches!(end(&*here, &run).await, Outcome::Lost { .. }));
}

#[test]
fn a_runner_that_comes_back_gets_each_line_once() {
    let runtime = || {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().build().unwrap()
    };
    let data = tempfile::tempdir().unwrap();
    let spec = sh("i=0; while [ $i -lt 200 ]; do i=$((i+1)); echo line $i; sleep 0.005; done");
    let mut seen = String::new();
    let before = runtime();
    let cursor = before.block_on(async {
        let here = executor(data.path(), json!({}));
        let run = start(&*here, &spec).await;
        let mut chunks = here.logs(&run, None);
        loop {
            let chunk = within(chunks.next()).await.unwrap().unwrap();
            seen.push_str(&text(std::slice::from_ref(&chunk)));
            if seen.lines().count() >= 50 {
                return chunk.next;
            }
        }
    });
    drop(before);
    runtime().block_on(async {
        let here = executor(data.path(), json!({}));
        let run = Handle::of(spec.run);
        seen.push_str(&text(&read(&*here, &run, Some(cursor)).await));
        assert_eq!(end(&*here, &run).await, Outcome::Succeeded);
    });
    let expected: String = (1..=200)
        .map(|n| format!("line {n}\n"))
        .collect::<Vec<_>>()
        .concat();
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn values_are_where_the_workload_is_and_nowhere_else() {
    let data = tempfile::tempdir().unwrap();
    let private = tempfile::tempdir_in("/dev/shm").unwrap();
    let here = executor(data.path(), json!({"private_dir": private.path()}));
    let mut spec = sh("cat \"$KEY\" $WORKFLOW_CONFIG; echo $PASSWORD; echo up; read -r _ < go");
    spec.env.insert("PASSWORD".into(), "secret:/a".into());
    spec.files.insert("KEY".into(), "secret:/b".into());
    spec.config = Some(json!({"password": "x${secret:/a}"}));
    spec.workdir = Some(data.path().display().to_string());
    let mkfifo = Command::new("mkfifo").arg(data.path().join("go")).status();
    assert!(mkfifo.unwrap().success());
    let mut secrets = Secrets::none();
    let (a, b) = ("hunter2-hunter2", "b\"quoted\"-b");
    secrets.insert("/a", SecretValue::new(a));
    secrets.insert("/b", SecretValue::new(b));
    let run = here
        .start(&spec, &secrets, &Progress::none())
        .await
        .unwrap();
    let mut chunks = here.logs(&run, None);
    let mut log = String::new();
    while !log.contains("up\n") {
        log.push_str(&text(&[within(chunks.next()).await.unwrap().unwrap()]));
    }

    let started = started(data.path(), spec.run);
    let folders: Vec<_> = fs::read_dir(private.path()).unwrap().flatten().collect();
    assert_eq!(folders.len(), 1);
    let folder_of_files = folders[0].path();
    assert_eq!(
        folder_of_files.metadata().unwrap().permissions().mode() & 0o777,
        0o700
    );
    assert_eq!(fs::read_to_string(folder_of_files.join("KEY")).unwrap(), b);
    let config = fs::read_to_string(folder_of_files.join("config.json")).unwrap();
    assert_eq!(config, format!("{{\"password\":\"x{a}\"}}"));
    let helper = PathBuf::from(format!("/proc/{}", started.helper));
    assert_eq!(fs::read(helper.join("environ")).unwrap(), b"");
    let argv = fs::read(helper.join("cmdline")).unwrap();
    let mut places = vec![argv, log.into_bytes()];
    for entry in fs::read_dir(folder(data.path(), spec.run))
        .unwrap()
        .flatten()
    {
        if entry.file_type().unwrap().is_file() {
            places.push(fs::read(entry.path()).unwrap());
        }
    }
    for place in &places {
        let place = String::from_utf8_lossy(place);
        assert!(!place.contains(a) && !place.contains("quoted"), "{place}");
    }

    fs::write(data.path().join("go"), "\n").unwrap();
    assert_eq!(end(&*here, &run).await, Outcome::Succeeded);
    assert_eq!(fs::read_dir(private.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn private_files_are_removed_after_a_killed_helper() {
    let data = tempfile::tempdir().unwrap();
    let private = tempfile::tempdir_in("/dev/shm").unwrap();
    let here = executor(data.path(), json!({"private_dir": private.path()}));
    let mut spec = sh("sleep 1000");
    spec.config = Some(json!({}));
    let run = start(&*here, &spec).await;
    assert_eq!(fs::read_dir(private.path()).unwrap().count(), 1);
    kill(started(data.path(), spec.run).helper);
    assert!(matches!(end(&*here, &run).await, Outcome::Lost { .. }));
    assert_eq!(fs::read_dir(private.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn a_helper_that_has_ended_is_no_zombie() {
    let data = tempfile::tempdir().unwrap();
    let here = executor(data.path(), json!({}));
    let spec = sh("exit 3");
    let run = start(&*here, &spec).await;
    end(&*here, &run).await;
    let helper = PathBuf::from(format!("/proc/{}", started(data.path(), spec.run).helper));
    until("the helper is reaped", || !helper.exists()).await;
}

/// A folder as a run leaves it, written by hand.
struct Remains {
    data: tempfile::TempDir,
    run: Handle,
}

impl Remains {
    fn new(started: &[u8], log: &[u8]) -> Self {
        let data = tempfile::tempdir().unwrap();
        let run = RunId::generate().attempt(1);
        let folder = folder(data.path(), run);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(files::STARTED), started).unwrap();
        fs::write(folder.join(files::LOG), log).unwrap();
        let run = Handle::of(run);
        Self { data, run }
    }

    fn write(&self, name: &str, content: &[u8]) {
        fs::write(folder(self.data.path(), self.run.run).join(name), content).unwrap();
    }

    fn executor(&self) -> Arc<dyn Executor> {
        executor(self.data.path(), json!({}))
    }
}

fn record_of(boot: String, child: Option<Child>) -> Vec<u8> {
    let started = Started {
        helper: 1,
        boot,
        cookie: "0123".into(),
        private_dir: None,
        cgroup: None,
        child,
    };
    started.encode()
}

fn line(text: &str) -> Vec<u8> {
    let item = Item::Out(text.into());
    Record {
        time: 1_000_000,
        item,
    }
    .encode()
}

/// Another process that happens to have the number of a child.
fn innocent() -> (std::process::Child, Child) {
    let process = Command::new("sleep")
        .arg("1000")
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let child = Child {
        pid: process.id(),
        ticks: 1,
        time: 2_000_000,
    };
    (process, child)
}

#[tokio::test]
async fn after_a_restart_of_the_machine_runs_are_lost_and_nobody_is_killed() {
    let (mut other, child) = innocent();
    let log = [line("a\n"), line("b\n"), line("torn\n")[..18].to_vec()].concat();
    let remains = Remains::new(&record_of("another".into(), Some(child)), &log);
    let here = remains.executor();
    let outcome = end(&*here, &remains.run).await;
    assert!(outcome.to_string().contains("restarted"), "{outcome}");
    let chunks = read(&*here, &remains.run, None).await;
    assert_eq!(
        (text(&chunks).as_str(), gaps(&chunks)),
        ("a\nb\n", vec![GapReason::Crashed])
    );
    assert!(other.try_wait().unwrap().is_none());
    other.kill().unwrap();
    other.wait().unwrap();
}

#[tokio::test]
async fn a_process_that_was_given_the_number_of_a_dead_child_is_not_killed() {
    let (mut other, child) = innocent();
    let remains = Remains::new(&record_of(boot(), Some(child)), b"");
    let outcome = end(&*remains.executor(), &remains.run).await;
    assert!(matches!(outcome, Outcome::Lost { .. }), "{outcome}");
    assert!(other.try_wait().unwrap().is_none());
    other.kill().unwrap();
    other.wait().unwrap();
}

#[tokio::test]
async fn a_log_that_was_cut_between_two_records_gets_a_gap() {
    let data = tempfile::tempdir().unwrap();
    let here = executor(data.path(), json!({}));
    let run = start(&*here, &sh("echo one; sleep 0.1; echo two")).await;
    assert_eq!(end(&*here, &run).await, Outcome::Succeeded);
    let log = folder(data.path(), run.run).join(files::LOG);
    fs::write(&log, &fs::read(&log).unwrap()[..line("one\n").len()]).unwrap();

    let chunks = read(&*here, &run, None).await;

    assert_eq!(
        (text(&chunks).as_str(), gaps(&chunks)),
        ("one\n", vec![GapReason::Crashed])
    );
}

#[tokio::test]
async fn a_cursor_behind_what_the_power_took_gets_a_gap() {
    let whole = [line("a\n"), line("b\n")].concat();
    let remains = Remains::new(&record_of("another".into(), None), &whole);
    let here = remains.executor();
    end(&*here, &remains.run).await;
    let chunks = read(&*here, &remains.run, None).await;
    let behind_b = chunks[0].next.clone();
    remains.write(files::LOG, &line("a\n"));
    let rest = read(&*here, &remains.run, Some(behind_b)).await;
    assert_eq!(
        (text(&rest).as_str(), gaps(&rest)),
        ("", vec![GapReason::Crashed])
    );
}

#[tokio::test]
async fn damaged_records_are_told_and_never_a_panic() {
    let remains = Remains::new(b"\0\0\0", &[line("a\n"), vec![0; 64], line("b\n")].concat());
    let here = remains.executor();
    assert!(matches!(
        end(&*here, &remains.run).await,
        Outcome::Lost { .. }
    ));
    let chunks = read(&*here, &remains.run, None).await;
    assert_eq!(
        (text(&chunks).as_str(), gaps(&chunks)),
        ("a\n", vec![GapReason::Damaged])
    );

    remains.write(files::END, b"hybrid-runner end 7\n.\n");
    let error = within(here.watch(&remains.run).next())
        .await
        .unwrap()
        .unwrap_err();
    assert!(error.report().contains("newer version"), "{error:?}");
    assert_eq!(here.list().await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_removal_that_was_interrupted_is_finished() {
    let remains = Remains::new(b"", b"");
    let path = folder(remains.data.path(), remains.run.run);
    let forgotten = path.with_file_name(format!(".removed-{}", remains.run.run));
    fs::rename(path, &forgotten).unwrap();
    assert_eq!(remains.executor().list().await.unwrap(), []);
    assert!(!forgotten.exists());
}

#[tokio::test]
async fn an_image_is_ignored_and_the_log_says_so() {
    let data = tempfile::tempdir().unwrap();
    let here = executor(data.path(), json!({}));
    let mut spec = sh("echo done");
    spec.image = Some("metadata:1".into());
    let run = start(&*here, &spec).await;
    assert_eq!(end(&*here, &run).await, Outcome::Succeeded);
    let log = text(&read(&*here, &run, None).await);
    assert!(
        log.contains("`metadata:1` is ignored") && log.ends_with("done\n"),
        "{log}"
    );

    let mut spec = sh("");
    (spec.image, spec.command) = (Some("metadata:1".into()), None);
    let refused = here.start(&spec, &Secrets::none(), &Progress::none()).await;
    let error = refused.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.message().contains("`command`"), "{error}");
}

#[tokio::test]
async fn a_value_too_short_to_be_masked_is_said_in_the_log_and_not_told() {
    let data = tempfile::tempdir().unwrap();
    let here = executor(data.path(), json!({}));
    let mut secrets = Secrets::none();
    for (reference, value) in [("/short", "q7x"), ("/long", "q7x8"), ("/empty", "")] {
        secrets.insert(reference, SecretValue::new(value));
    }
    let run = here
        .start(&sh("echo done"), &secrets, &Progress::none())
        .await
        .unwrap();
    assert_eq!(end(&*here, &run).await, Outcome::Succeeded);
    let log = text(&read(&*here, &run, None).await);
    assert_eq!(
        log,
        "hybrid-runner: the value of secret `/short` is too short to be masked (under 4 characters)\ndone\n"
    );
}

#[tokio::test]
async fn limits_that_are_to_be_ignored_do_not_prevent_a_run() {
    let data = tempfile::tempdir().unwrap();
    let here = executor(
        data.path(),
        json!({"cgroup": "off", "ignore": ["resources"]}),
    );
    let mut spec = sh("true");
    spec.resources.limits.memory = Some("64Mi".parse().unwrap());
    let run = start(&*here, &spec).await;
    assert_eq!(end(&*here, &run).await, Outcome::Succeeded);
}

/// A small file system of its own, if we may mount one.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    #[expect(clippy::print_stdout, reason = "says what was skipped, and why")]
    fn new(size: &str) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"])
            .arg(folder.path())
            .stderr(Stdio::null())
            .status();
        if mounted.is_ok_and(|status| status.success()) {
            return Some(Self(folder));
        }
        println!("skipped: mounting a small file system needs root");
        None
    }

    /// A file that takes all that is left.
    fn fill(&self) -> PathBuf {
        let path = self.0.path().join("fill");
        fs::write(&path, vec![0; 64 << 20]).unwrap_err();
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let umount = Command::new("umount").arg("-l").arg(self.0.path()).status();
        umount.unwrap();
    }
}

#[tokio::test]
async fn a_full_disk_refuses_starts_in_words_and_takes_them_again_later() {
    let Some(disk) = SmallDisk::new("1m") else {
        return;
    };
    let here = executor(&disk.0.path().join("data"), json!({}));
    let fill = disk.fill();
    let spec = sh("echo up");
    let refused = here.start(&spec, &Secrets::none(), &Progress::none()).await;
    let error = refused.unwrap_err();
    assert!(error.is_transient(), "{error:?}");
    assert!(error.message().contains("no space"), "{error:?}");
    fs::remove_file(fill).unwrap();
    let run = start(&*here, &spec).await;
    assert_eq!(end(&*here, &run).await, Outcome::Succeeded);
}

#[tokio::test]
async fn a_disk_that_fills_up_costs_output_and_not_the_run() {
    let Some(disk) = SmallDisk::new("1m") else {
        return;
    };
    let here = executor(&disk.0.path().join("data"), json!({}));
    let spec = sh("echo first; head -c 4000000 /dev/zero; exit 3");
    let run = start(&*here, &spec).await;
    let outcome = end(&*here, &run).await;
    assert!(
        matches!(&outcome, Outcome::Failed(failure) if failure.exit_code == Some(3)),
        "{outcome}"
    );
    let chunks = read(&*here, &run, None).await;
    assert!(text(&chunks).starts_with("first\n"));
    let gaps = gaps(&chunks);
    assert!(!gaps.is_empty());
    assert!(
        gaps.iter().all(|why| *why == GapReason::DiskFull),
        "{gaps:?}"
    );
}

#[tokio::test]
async fn a_full_disk_does_not_hide_that_a_run_is_lost() {
    let Some(disk) = SmallDisk::new("1m") else {
        return;
    };
    let data = disk.0.path().join("data");
    let here = executor(&data, json!({}));
    let spec = sh("sleep 1000");
    let run = start(&*here, &spec).await;
    disk.fill();
    kill(started(&data, spec.run).helper);
    assert!(matches!(end(&*here, &run).await, Outcome::Lost { .. }));
}
