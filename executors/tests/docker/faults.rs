//! Killed at each durable step, the executor starts nothing twice, loses no end, and leaves nothing behind.
//!
//! Each scenario runs in a process of its own (this program again) that aborts at step N, for all N; then the same is
//! asked of a new executor over the same engine.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use bollard::query_parameters::{ListContainersOptionsBuilder, ListVolumesOptionsBuilder};
use hybrid_runner_core::RunId;
use hybrid_runner_core::error::ErrorKind;
use hybrid_runner_core::executor::{Handle, Progress};
use hybrid_runner_core::run::{Outcome, RunSpec};
use hybrid_runner_core::secret::{References, Secrets};
use hybrid_runner_core::testing::processes_of;
use serde_json::json;

use crate::bench::{Bench, until, within};
use crate::place::{LABEL, Place, engine};

const LIMIT: Duration = Duration::from_secs(60);
const SCENARIO: &str = "SCENARIO";
const FOLDER: &str = "SCENARIO_FOLDER";

/// What is asked, and how it must end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scenario {
    /// Start, end, remove.
    Ends,
    /// Start, stop, end, remove.
    IsStopped,
    /// Stop, start in vain, remove.
    IsStoppedBefore,
}

impl Scenario {
    const ALL: [Self; 3] = [Self::Ends, Self::IsStopped, Self::IsStoppedBefore];

    fn name(self) -> String {
        format!("{self:?}")
    }

    fn has_ended_well(self, outcome: &Outcome) -> bool {
        match self {
            Self::Ends => *outcome == Outcome::Succeeded,
            Self::IsStopped | Self::IsStoppedBefore => matches!(outcome, Outcome::Stopped { .. }),
        }
    }
}

/// Everything is derived from the folder, so that both processes mean the same run of the same owner.
struct Stage {
    bench: Bench,
    run: RunId,
}

impl Stage {
    fn at(folder: &Path) -> Option<Self> {
        let text = folder.to_str().unwrap();
        let mounts = json!({ "mounts": [{ "source": text, "target": text }] });
        let mut place = Place::with(Some(engine()?), mounts, References::none());
        place.server = text.to_owned();
        let docker = place.docker("one");
        let run = RunId::of_key(text).attempt(1);
        Some(Self {
            bench: Bench { place, docker },
            run,
        })
    }

    fn evidence(&self) -> String {
        format!("{}/evidence", self.bench.place.server)
    }

    fn spec(&self, scenario: Scenario) -> RunSpec {
        let mut script = format!("echo began >> {}", self.evidence());
        if scenario != Scenario::Ends {
            script.push_str("; sleep 600 & wait");
        }
        let mut spec = self.bench.spec(&script);
        spec.run = self.run;
        spec
    }

    /// How often the work began.
    fn starts(&self) -> usize {
        let text = std::fs::read_to_string(self.evidence());
        text.unwrap_or_default().lines().count()
    }

    async fn play(&self, scenario: Scenario) -> Outcome {
        let here = &self.bench.docker;
        let spec = self.spec(scenario);
        let run = Handle::of(spec.run);
        if scenario == Scenario::IsStoppedBefore {
            here.stop(&run, Duration::ZERO).await.unwrap();
        }
        let started = here.start(&spec, &Secrets::none(), &Progress::none()).await;
        match started {
            Ok(_) => until("the beginning", async || self.starts() > 0).await,
            Err(error) => assert_eq!(error.kind(), ErrorKind::Conflict, "{error:?}"),
        }
        if scenario == Scenario::IsStopped {
            here.stop(&run, Duration::ZERO).await.unwrap();
        }
        let outcome = self.bench.end(&run).await;
        here.remove(&run).await.unwrap();
        outcome
    }

    /// Names of what the engine has of this owner.
    async fn left(&self) -> Vec<String> {
        let owner = self.bench.place.owner("one");
        let filter = [("label", vec![format!("{LABEL}={owner}")])].into();
        let client = self.bench.place.client();
        let options = ListContainersOptionsBuilder::default()
            .all(true)
            .filters(&filter);
        let containers = client.list_containers(Some(options.build())).await.unwrap();
        let options = ListVolumesOptionsBuilder::default().filters(&filter);
        let volumes = client.list_volumes(Some(options.build())).await.unwrap();
        let containers = containers
            .into_iter()
            .flat_map(|found| found.names.unwrap_or_default());
        let volumes = volumes
            .volumes
            .into_iter()
            .flatten()
            .map(|found| found.name);
        containers.chain(volumes).collect()
    }
}

/// Not a test: the process that is killed.
#[tokio::test]
#[ignore = "played by the walk"]
async fn play() {
    let (Ok(name), Ok(folder)) = (std::env::var(SCENARIO), std::env::var(FOLDER)) else {
        return;
    };
    let mut known = Scenario::ALL.into_iter();
    let scenario = known.find(|scenario| scenario.name() == name).unwrap();
    Stage::at(Path::new(&folder)).unwrap().play(scenario).await;
}

/// Plays in a process of its own up to step `at`; the names of the steps that it passed.
async fn play_until(scenario: Scenario, folder: &Path, at: usize) -> Vec<String> {
    let log = folder.join("steps");
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["faults::play", "--exact", "--ignored", "--test-threads=1"])
        .env(SCENARIO, scenario.name())
        .env(FOLDER, folder)
        .env("HYBRID_RUNNER_FAULT_STEP", at.to_string())
        .env("HYBRID_RUNNER_FAULT_LOG", &log);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap());
    let output = within(LIMIT, "a play", output).await.unwrap();
    let steps = std::fs::read_to_string(log).unwrap_or_default();
    let steps: Vec<_> = steps.lines().map(str::to_owned).collect();
    assert!(output.status.success() || steps.len() == at, "{output:?}");
    steps
}

async fn killed_at_each_step(scenario: Scenario, least: usize) {
    let whole = tempfile::tempdir().unwrap();
    if Stage::at(whole.path()).is_none() {
        return;
    }
    let steps = play_until(scenario, whole.path(), 0).await;
    assert!(steps.len() >= least, "{steps:?}");
    for at in 1..=steps.len() {
        let folder = tempfile::tempdir().unwrap();
        let stage = Stage::at(folder.path()).unwrap();
        let passed = play_until(scenario, folder.path(), at).await;
        let step = passed.last().unwrap();
        if step.contains("docker.remove.") {
            // The runner's tombstone keeps it from being started again; it removes what it still finds.
            stage.bench.remove(&Handle::of(stage.run)).await;
        } else {
            assert!(stage.starts() <= 1, "{step}");
            let outcome = stage.play(scenario).await;
            assert!(scenario.has_ended_well(&outcome), "{outcome} after {step}");
        }
        let begun = usize::from(scenario != Scenario::IsStoppedBefore);
        assert_eq!(stage.starts(), begun, "{step}");
        assert_eq!(stage.left().await, [""; 0], "{step}");
        assert_eq!(processes_of(stage.run), Some(vec![]), "{step}");
    }
}

#[tokio::test]
async fn a_run_that_ends_survives_a_death_at_each_step() {
    killed_at_each_step(Scenario::Ends, 7).await;
}

#[tokio::test]
async fn a_stop_survives_a_death_at_each_step() {
    killed_at_each_step(Scenario::IsStopped, 8).await;
}

#[tokio::test]
async fn a_stop_that_comes_first_survives_a_death_at_each_step() {
    killed_at_each_step(Scenario::IsStoppedBefore, 2).await;
}
