//! Killed at each durable step, the local executor starts nothing twice and loses no end.
//!
//! Each scenario runs in a process of its own (this program again) that aborts at step N, for all N; then the same is
//! asked of a new executor over the same folder.
#![cfg(all(feature = "local", feature = "_faults"))]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use hybrid_runner_core::RunId;
use hybrid_runner_core::executor::{Executor, Handle, Progress};
use hybrid_runner_core::id::Owner;
use hybrid_runner_core::kind::Context;
use hybrid_runner_core::run::{Outcome, RunSpec};
use hybrid_runner_core::secret::Secrets;
use hybrid_runner_core::testing::processes_of;
use hybrid_runner_helper::files;
use hybrid_runner_helper::started::Started;
use rustix::process::{Pid, Signal};
use serde_json::json;

const LIMIT: Duration = Duration::from_secs(20);
const SCENARIO: &str = "SCENARIO";
const PLACE: &str = "SCENARIO_PLACE";

/// What is asked, and how it must end.
#[derive(Debug, Clone, Copy)]
enum Scenario {
    /// Start, end, remove.
    Ends,
    /// Start, stop, end, remove.
    IsStopped,
    /// Start, the helper is killed, end, remove.
    LosesItsHelper,
}

impl Scenario {
    const ALL: [Self; 3] = [Self::Ends, Self::IsStopped, Self::LosesItsHelper];

    fn name(self) -> String {
        format!("{self:?}")
    }

    fn has_ended_well(self, outcome: &Outcome) -> bool {
        match self {
            Self::Ends => *outcome == Outcome::Succeeded,
            Self::IsStopped => matches!(outcome, Outcome::Stopped { .. }),
            Self::LosesItsHelper => matches!(outcome, Outcome::Lost { .. }),
        }
    }
}

struct Place(PathBuf);

impl Place {
    fn executor(&self) -> Arc<dyn Executor> {
        let owner = Owner::of("server", &"one".parse().unwrap());
        let name = "here".parse().unwrap();
        let context = Context::new(name, json!({}), self.0.join("data"), owner, 1 << 30);
        hybrid_runner_executors::build("local", &context).unwrap()
    }

    fn run(&self) -> RunId {
        RunId::of_key(&self.0.display().to_string()).attempt(1)
    }

    fn evidence(&self) -> PathBuf {
        self.0.join("evidence")
    }

    fn spec(&self, scenario: Scenario) -> RunSpec {
        let mut script = format!("echo began >> {}", self.evidence().display());
        if !matches!(scenario, Scenario::Ends) {
            script.push_str("; sleep 1000");
        }
        let name = "a".parse().unwrap();
        RunSpec::new(self.run(), name, ["/bin/sh", "-c", &script])
    }

    fn folder(&self) -> PathBuf {
        let owner = Owner::of("server", &"one".parse().unwrap());
        let runs = self.0.join("data/runs").join(owner.as_str());
        runs.join(self.run().to_string())
    }

    /// How often the work began.
    fn starts(&self) -> usize {
        fs::read_to_string(self.evidence())
            .unwrap_or_default()
            .lines()
            .count()
    }

    async fn end(&self, executor: &dyn Executor) -> Outcome {
        let levels = executor.watch(&Handle::of(self.run()));
        let last = levels.collect::<Vec<_>>().await.pop();
        last.unwrap().unwrap().outcome().unwrap().clone()
    }

    fn kill_helper(&self) {
        let Ok(bytes) = fs::read(self.folder().join(files::STARTED)) else {
            return;
        };
        let started = Started::parse(&bytes).unwrap();
        let pid = Pid::from_raw(started.helper.try_into().unwrap()).unwrap();
        // Dead already if this is the second try.
        rustix::process::kill_process(pid, Signal::KILL).ok();
    }

    /// Nobody tells when a process writes to a file that is not ours.
    async fn until_begun(&self) {
        while self.starts() == 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    async fn play(&self, scenario: Scenario) -> Outcome {
        let here = self.executor();
        let spec = self.spec(scenario);
        let run = Handle::of(spec.run);
        let started = here.start(&spec, &Secrets::none(), &Progress::none()).await;
        if !self.folder().join(files::STOP).exists() {
            started.unwrap();
            self.until_begun().await;
        }
        match scenario {
            Scenario::Ends => {}
            Scenario::IsStopped => here.stop(&run, Duration::ZERO).await.unwrap(),
            Scenario::LosesItsHelper => self.kill_helper(),
        }
        let outcome = self.end(&*here).await;
        here.remove(&run).await.unwrap();
        outcome
    }
}

/// Not a test: the process that is killed.
#[tokio::test]
#[ignore = "played by the walk"]
async fn play() {
    let (Ok(name), Ok(place)) = (std::env::var(SCENARIO), std::env::var(PLACE)) else {
        return;
    };
    let scenario = Scenario::ALL
        .into_iter()
        .find(|scenario| scenario.name() == name);
    Place(place.into()).play(scenario.unwrap()).await;
}

/// Plays in a process of its own up to step `at`; the names of the steps that it passed.
fn play_until(scenario: Scenario, place: &Path, at: usize) -> Vec<String> {
    let log = place.join("steps");
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["play", "--exact", "--ignored", "--test-threads=1"])
        .env(SCENARIO, scenario.name())
        .env(PLACE, place)
        .env("HYBRID_RUNNER_FAULT_STEP", at.to_string())
        .env("HYBRID_RUNNER_FAULT_LOG", &log)
        .output()
        .unwrap();
    let steps = fs::read_to_string(log).unwrap_or_default();
    let steps: Vec<_> = steps.lines().map(str::to_owned).collect();
    assert!(output.status.success() || steps.len() == at, "{output:?}");
    steps
}

async fn killed_at_each_step(scenario: Scenario) {
    let whole = tempfile::tempdir().unwrap();
    let steps = play_until(scenario, whole.path(), 0);
    assert!(steps.len() >= 6, "{steps:?}");
    for at in 1..=steps.len() {
        let folder = tempfile::tempdir().unwrap();
        let place = Place(folder.path().to_owned());
        let passed = play_until(scenario, folder.path(), at);
        let step = passed.last().unwrap();
        let here = place.executor();
        if step.contains("local.remove.") {
            // The runner's tombstone keeps it from being started again.
            assert_eq!(here.list().await.unwrap(), [], "{step}");
        } else {
            assert!(place.starts() <= 1, "{step}");
            let outcome = tokio::time::timeout(LIMIT, place.play(scenario)).await;
            let outcome = outcome.unwrap_or_else(|_| panic!("no end after a death at {step}"));
            assert!(scenario.has_ended_well(&outcome), "{outcome} after {step}");
        }
        assert_eq!(place.starts(), 1, "{step}");
        assert_eq!(here.list().await.unwrap(), [], "{step}");
        assert_eq!(processes_of(place.run()), Some(vec![]), "{step}");
    }
}

#[tokio::test]
async fn a_run_that_ends_survives_a_death_at_each_step() {
    killed_at_each_step(Scenario::Ends).await;
}

#[tokio::test]
async fn a_stop_survives_a_death_at_each_step() {
    killed_at_each_step(Scenario::IsStopped).await;
}

#[tokio::test]
async fn the_loss_of_a_helper_survives_a_death_at_each_step() {
    killed_at_each_step(Scenario::LosesItsHelper).await;
}
