//! `kill -9` at each durable step: never a second start, never a lost or a second outcome.
//!
//! The walker starts this test program again as a process that lives one life of a runner and of the server's
//! side, over a folder that outlives it: the journal, a backend of files, and what the server knows. The process
//! aborts at one step; another life then goes on to the end. Which steps there are the first, undisturbed life tells.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use hybrid_runner_core::error::{Error, ErrorKind, Result};
use hybrid_runner_core::incarnation::Incarnation;
use hybrid_runner_core::log::{LogChunk, LogCursor};
use hybrid_runner_core::run::{Failure, FailureClass, Outcome, Retries, RunSpec, State, Status};
use hybrid_runner_core::unit::Period;
use hybrid_runner_core::{Capabilities, Executor, Handle, Progress, RunId, Secrets, fault};
use hybrid_runner_secrets::Stores;
use tokio::task::JoinSet;

use super::super::{Parts, Runner};
use crate::config::Resolve;
use crate::policy::Policy;

const FOLDER: &str = "HYBRID_RUNNER_WALK_FOLDER";
const STORY: &str = "HYBRID_RUNNER_WALK_STORY";
/// Real time, as processes are real: a life takes some tens of milliseconds.
const LIMIT: Duration = Duration::from_secs(30);

/// A backend of files: what was begun is one file, made with `O_EXCL` and given another name when it is removed.
#[derive(Debug)]
struct Files(PathBuf);

impl Files {
    fn path(&self, run: RunId, what: &str) -> PathBuf {
        self.0.join(format!("{run}.{what}"))
    }

    fn status(&self, run: RunId) -> Option<Status> {
        let attempt = run.attempt_number();
        let began = self.path(run, "began").exists();
        let stopped = self.path(run, "stopped").exists();
        let ends = fs::read_to_string(self.0.join("ends")).unwrap();
        let outcome = match (ends.as_str(), attempt) {
            _ if stopped => Some(Outcome::Stopped { by: None }),
            (_, _) if !began => return None,
            ("fails-once", 1) => Some(Outcome::Failed(Failure::exit(1))),
            ("fails-once", _) => Some(Outcome::Succeeded),
            _ => None,
        };
        Some(Status::new(
            attempt,
            outcome.map_or(State::Running, State::Finished),
        ))
    }
}

#[async_trait]
impl Executor for Files {
    async fn capabilities(&self) -> Result<Capabilities> {
        Ok(Capabilities::least())
    }

    async fn check(&self) -> Result<()> {
        Ok(())
    }

    async fn start(&self, spec: &RunSpec, _: &Secrets, _: &Progress) -> Result<Handle> {
        if self.path(spec.run, "stopped").exists() {
            return Err(Error::conflict("it was stopped"));
        }
        fault::step("backend.start");
        if self.path(spec.run, "gone").exists() {
            fs::write(self.0.join("twice"), spec.run.to_string()).unwrap();
        }
        // There already: it was begun before.
        drop(fs::File::create_new(self.path(spec.run, "began")));
        fault::step("backend.started");
        Ok(Handle::of(spec.run))
    }

    fn watch(&self, run: &Handle) -> BoxStream<'static, Result<Status>> {
        let lost = || {
            Status::new(
                run.run.attempt_number(),
                State::Finished(Outcome::lost("unknown")),
            )
        };
        let level = self.status(run.run).unwrap_or_else(lost);
        let ended = level.is_finished();
        let levels = stream::iter([Ok(level)]);
        if ended {
            return levels.boxed();
        }
        let (this, run) = (Self(self.0.clone()), run.run);
        let later = async move {
            // Files tell nobody that they came.
            while this.status(run).is_some_and(|level| !level.is_finished()) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            Ok(this.status(run).unwrap())
        };
        levels.chain(stream::once(later)).boxed()
    }

    fn logs(&self, _: &Handle, _: Option<LogCursor>) -> BoxStream<'static, Result<LogChunk>> {
        stream::empty().boxed()
    }

    async fn stop(&self, run: &Handle, _: Duration) -> Result<()> {
        fault::step("backend.stop");
        let ended = self
            .status(run.run)
            .is_some_and(|level| level.is_finished());
        if !ended {
            fs::write(self.path(run.run, "stopped"), "").unwrap();
        }
        fault::step("backend.stopped");
        Ok(())
    }

    async fn remove(&self, run: &Handle) -> Result<()> {
        if self
            .status(run.run)
            .is_some_and(|level| !level.is_finished())
        {
            return Err(Error::conflict("it has not ended"));
        }
        fault::step("backend.remove");
        // Of an unknown run this is success.
        drop(fs::rename(
            self.path(run.run, "began"),
            self.path(run.run, "gone"),
        ));
        drop(fs::remove_file(self.path(run.run, "stopped")));
        fault::step("backend.removed");
        Ok(())
    }

    async fn list(&self) -> Result<Vec<Handle>> {
        let runs = names(&self.0, &["began", "stopped"]);
        Ok(runs.into_iter().map(Handle::of).collect())
    }
}

/// The runs that have a file with one of those endings.
fn names(folder: &Path, endings: &[&str]) -> BTreeSet<RunId> {
    let files = fs::read_dir(folder)
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap());
    let run = |name: String| {
        let (run, ending) = name.rsplit_once('.')?;
        endings.contains(&ending).then(|| run.parse().unwrap())
    };
    files.filter_map(run).collect()
}

/// What the server has on its disk.
struct Server(PathBuf);

impl Server {
    fn known<T: serde::de::DeserializeOwned>(&self, name: &str) -> Option<T> {
        Some(serde_json::from_str(&fs::read_to_string(self.0.join(name)).ok()?).unwrap())
    }

    fn note<T: serde::Serialize>(&self, name: &str, value: &T) {
        // Whole or not at all: the process may be aborted at any time.
        let new = self.0.join("new");
        fs::write(&new, serde_json::to_string(value).unwrap()).unwrap();
        fs::rename(new, self.0.join(name)).unwrap();
    }
}

fn run() -> RunId {
    RunId::of_key("walk")
}

async fn open(folder: &Path) -> (Runner, JoinSet<()>) {
    let executor: Arc<dyn Executor> = Arc::new(Files(folder.join("backend")));
    let parts = Parts {
        agent: "Walker".parse().unwrap(),
        executors: BTreeMap::from([("files".parse().unwrap(), executor)]),
        default_executor: "files".parse().unwrap(),
        stores: Arc::new(Stores::default()),
        policy: Policy::default(),
        data_dir: folder.join("runner"),
        max_runs: 4,
        resolve: Resolve::Runner,
        workload: None,
    };
    let (runner, driver) = Runner::open(parts).await.unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(driver);
    (runner, tasks)
}

/// One life, as far as it gets: what the server has not heard of yet is done again.
async fn live(folder: &Path, stops: bool) {
    let (runner, mut tasks) = open(folder).await;
    let server = Server(folder.join("server"));
    let handle = Handle::of(run());
    let now = runner.incarnation().await.unwrap();
    if server.known::<Incarnation>("first-sent").is_none() {
        server.note("first-sent", &now);
    }
    let mut spec = RunSpec::new(run(), "walk".parse().unwrap(), ["work"]);
    spec.first_sent = server.known("first-sent");
    spec.retries = Some(Retries {
        limit: 1,
        delay: Period::millis(5),
        on: vec![FailureClass::Exit],
    });
    let start = || super::start(runner.clone(), spec.clone());
    if server.known::<Outcome>("outcome").is_none() {
        match start().await {
            Ok(_) => {}
            Err(error) if stops && error.kind() == ErrorKind::Conflict => {}
            Err(error) => panic!("{error:?}"),
        }
        if stops {
            runner.stop(&handle, Duration::ZERO).await.unwrap();
        }
        let levels: Vec<Status> = runner.watch(&handle).map(Result::unwrap).collect().await;
        let outcome = levels.last().unwrap().outcome().unwrap().clone();
        server.note("outcome", &outcome);
    } else if runner
        .list()
        .await
        .unwrap()
        .iter()
        .any(|listed| listed.run == run())
    {
        // There is one outcome, and it stays until it is acknowledged.
        let levels: Vec<Status> = runner.watch(&handle).map(Result::unwrap).collect().await;
        assert_eq!(levels[0].outcome(), server.known("outcome").as_ref());
    }
    runner.remove(&handle).await.unwrap();
    let late = start().await;
    assert_eq!(late.unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(runner.list().await.unwrap(), []);
    // One that was under way before goes on by itself; who leaves before its end leaves it to the next life.
    while runner.shared.registry.find_even_removing(run()).is_some() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    runner.drain();
    tasks.join_next().await.unwrap().unwrap();
}

/// Not a test by itself: the body of the processes that the walker starts.
#[test]
#[ignore = "started by the walker"]
fn one_life() {
    let Some(folder) = std::env::var_os(FOLDER) else {
        return;
    };
    let stops = std::env::var(STORY).is_ok_and(|story| story == "stopped");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    let life = async {
        tokio::time::timeout(LIMIT, live(Path::new(&folder), stops))
            .await
            .expect("in time");
    };
    runtime.block_on(life);
}

/// Whether a life came to its end; its steps.
fn life(folder: &Path, story: &str, at: Option<usize>) -> (bool, Vec<String>) {
    let steps = folder.join("steps");
    drop(fs::remove_file(&steps));
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args([
            "--exact",
            "supervisor::tests::walk::one_life",
            "--ignored",
            "--nocapture",
            "--test-threads=1",
        ])
        .env(FOLDER, folder)
        .env(STORY, story)
        .env("HYBRID_RUNNER_FAULT_LOG", &steps);
    if let Some(at) = at {
        command.env("HYBRID_RUNNER_FAULT_STEP", at.to_string());
    }
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        !text.contains("panicked"),
        "{story}, aborted at {at:?}: {text}"
    );
    let steps = fs::read_to_string(&steps).unwrap_or_default();
    let name = |line: &str| line.split_once(' ').unwrap().1.to_owned();
    (output.status.success(), steps.lines().map(name).collect())
}

fn place(story: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in ["backend", "server"] {
        fs::create_dir(folder.path().join(name)).unwrap();
    }
    fs::write(folder.path().join("backend/ends"), story).unwrap();
    folder
}

fn walk(story: &str, outcome: &Outcome, least: &[&str], starts: &[u32]) {
    let folder = place(story);
    let (done, steps) = life(folder.path(), story, None);
    assert!(done);
    for step in least {
        assert!(
            steps.iter().any(|name| name == step),
            "the walk does not come by {step}: {steps:?}"
        );
    }
    for at in 1..=steps.len() {
        let folder = place(story);
        let (done, before) = life(folder.path(), story, Some(at));
        assert!(!done || before.len() < at, "not aborted at {at}");
        let (done, after) = life(folder.path(), story, None);
        let told = || {
            format!(
                "aborted at {at} ({}), then {after:?}",
                before.last().unwrap()
            )
        };
        assert!(done, "{}", told());
        let server = Server(folder.path().join("server"));
        assert_eq!(
            server.known::<Outcome>("outcome").as_ref(),
            Some(outcome),
            "{}",
            told()
        );
        let backend = folder.path().join("backend");
        assert!(!backend.join("twice").exists(), "{}", told());
        assert_eq!(
            names(&backend, &["began", "stopped"]),
            BTreeSet::new(),
            "{}",
            told()
        );
        let began = names(&backend, &["gone"]);
        let most: BTreeSet<RunId> = starts.iter().map(|n| run().attempt(*n)).collect();
        if matches!(outcome, Outcome::Stopped { .. }) {
            assert!(began.is_subset(&most), "{began:?} {}", told());
        } else {
            assert_eq!(began, most, "{}", told());
        }
    }
}

#[test]
fn killed_at_each_step_from_submit_over_failure_and_retry_to_removal() {
    let steps = [
        "supervisor.raise",
        "supervisor.raised",
        "supervisor.accept",
        "supervisor.accepted",
        "supervisor.start",
        "backend.start",
        "backend.started",
        "supervisor.started",
        "supervisor.handle",
        "supervisor.retry",
        "supervisor.waiting",
        "supervisor.again",
        "supervisor.due",
        "supervisor.finish",
        "supervisor.finished",
        "supervisor.remove",
        "supervisor.removing",
        "supervisor.cleaned",
        "supervisor.removed",
        "store.sync",
    ];
    walk("fails-once", &Outcome::Succeeded, &steps, &[1, 2]);
}

#[test]
fn killed_at_each_step_of_a_stop() {
    let steps = [
        "supervisor.stop",
        "supervisor.stopping",
        "supervisor.finish",
        "supervisor.removed",
    ];
    walk("stopped", &Outcome::Stopped { by: None }, &steps, &[1]);
}
