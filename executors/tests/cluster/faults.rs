//! Killed at each durable step, the executor starts nothing twice, loses no end, and leaves nothing behind.
//!
//! Each scenario runs in a process of its own (this program again) that aborts at step N, for all N; then the same is
//! asked of a new executor over the same namespace.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use hybrid_runner_core::RunId;
use hybrid_runner_core::error::ErrorKind;
use hybrid_runner_core::executor::{Executor, Handle, Progress};
use hybrid_runner_core::run::{Outcome, RunSpec};
use hybrid_runner_core::secret::{SecretValue, Secrets};
use hybrid_runner_core::testing::processes_of;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::ListParams;
use serde_json::json;

use crate::bench::{Bench, until, within};
use crate::over::{Over, over_both};

over_both!(
    a_run_that_ends_survives_a_death_at_each_step,
    a_stop_survives_a_death_at_each_step,
    a_stop_that_comes_first_survives_a_death_at_each_step,
);

const LIMIT: Duration = Duration::from_mins(2);
/// Says whose an object is.
const LABEL: &str = "hybrid-runner.io/owner";
const SCENARIO: &str = "SCENARIO";
/// The kind of the executor.
const KIND: &str = "SCENARIO_KIND";
/// The section of the executor, as JSON.
const SECTION: &str = "SCENARIO_SECTION";
const RUN: &str = "SCENARIO_RUN";
const EVIDENCE: &str = "SCENARIO_EVIDENCE";

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

/// How often the work began.
fn starts(evidence: &Path) -> usize {
    let text = std::fs::read_to_string(evidence);
    text.unwrap_or_default().lines().count()
}

fn spec(scenario: Scenario, run: RunId, evidence: &Path) -> RunSpec {
    let mut script = format!("echo began >> {}", evidence.display());
    if scenario != Scenario::Ends {
        script.push_str("; sleep 600 & wait");
    }
    let mut spec = RunSpec::new(run, "a".parse().unwrap(), ["/bin/sh", "-c", &script]);
    spec.env
        .insert("PASSWORD".into(), "secret:/password".into());
    spec
}

async fn play_through(
    here: &dyn Executor,
    scenario: Scenario,
    run: RunId,
    evidence: &Path,
) -> Outcome {
    use futures::StreamExt as _;
    let spec = spec(scenario, run, evidence);
    let run = Handle::of(run);
    if scenario == Scenario::IsStoppedBefore {
        here.stop(&run, Duration::ZERO).await.unwrap();
    }
    let mut values = Secrets::none();
    values.insert(
        "/password",
        SecretValue::new("correct-horse-battery-staple"),
    );
    match here.start(&spec, &values, &Progress::none()).await {
        Ok(_) => until("the beginning", async || starts(evidence) > 0).await,
        Err(error) => assert_eq!(error.kind(), ErrorKind::Conflict, "{error:?}"),
    }
    if scenario == Scenario::IsStopped {
        here.stop(&run, Duration::ZERO).await.unwrap();
    }
    let levels = here.watch(&run).collect::<Vec<_>>();
    let last = within(LIMIT, "the end", levels)
        .await
        .pop()
        .unwrap()
        .unwrap();
    let removed = here.remove(&run).await;
    assert!(removed.is_ok(), "{removed:?} after {last:?}");
    last.outcome().unwrap().clone()
}

/// Not a test: the process that is killed.
#[tokio::test]
#[ignore = "played by the walk"]
async fn play() {
    let variable = |name| std::env::var(name).ok();
    let (Some(name), Some(kind), Some(section), Some(run), Some(evidence)) = (
        variable(SCENARIO),
        variable(KIND),
        variable(SECTION),
        variable(RUN),
        variable(EVIDENCE),
    ) else {
        return;
    };
    let mut known = Scenario::ALL.into_iter();
    let scenario = known.find(|scenario| scenario.name() == name).unwrap();
    let section: serde_json::Value = serde_json::from_str(&section).unwrap();
    let context = hybrid_runner_core::kind::Context::new(
        "here".parse().unwrap(),
        section["settings"].clone(),
        "/nowhere",
        section["owner"].as_str().unwrap().parse().unwrap(),
        1 << 30,
    );
    let here = hybrid_runner_executors::build(&kind, &context).unwrap();
    play_through(&*here, scenario, run.parse().unwrap(), Path::new(&evidence)).await;
}

/// A namespace, in which one run is played.
struct Stage {
    bench: Bench,
    run: RunId,
}

impl Stage {
    async fn new(over: Over) -> Option<Self> {
        Some(Self {
            bench: Bench::new(over).await?,
            run: RunId::generate().attempt(1),
        })
    }

    fn evidence(&self) -> std::path::PathBuf {
        self.bench.place.folder.path().join("evidence")
    }

    async fn play(&self, scenario: Scenario) -> Outcome {
        play_through(&*self.bench.executor, scenario, self.run, &self.evidence()).await
    }

    /// Plays in a process of its own up to step `at`; the names of the steps that it passed.
    async fn play_until(&self, scenario: Scenario, at: usize) -> Vec<String> {
        let log = self.bench.place.folder.path().join("steps");
        let section = json!({
            "settings": self.bench.place.settings(&json!({})),
            "owner": self.bench.place.owner("one").as_str(),
        });
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["faults::play", "--exact", "--ignored", "--test-threads=1"])
            .env(SCENARIO, scenario.name())
            .env(KIND, self.bench.place.over.kind())
            .env(SECTION, section.to_string())
            .env(RUN, self.run.to_string())
            .env(EVIDENCE, self.evidence())
            .env("HYBRID_RUNNER_FAULT_STEP", at.to_string())
            .env("HYBRID_RUNNER_FAULT_LOG", &log);
        let output = tokio::task::spawn_blocking(move || command.output().unwrap());
        let output = within(LIMIT, "a play", output).await.unwrap();
        let steps = std::fs::read_to_string(log).unwrap_or_default();
        let steps: Vec<_> = steps.lines().map(str::to_owned).collect();
        assert!(output.status.success() || steps.len() == at, "{output:?}");
        steps
    }

    /// Names of what the cluster has of this owner.
    async fn left(&self) -> Vec<String> {
        let client = self.bench.place.client().await;
        let owner = self.bench.place.owner("one");
        let wanted = ListParams::default().labels(&format!("{LABEL}={owner}"));
        let namespace = &self.bench.place.namespace;
        let objects = self.bench.place.objects().await;
        let secrets: Api<Secret> = Api::namespaced(client, namespace);
        let objects = objects.list(&wanted).await.unwrap().items;
        let secrets = secrets.list(&wanted).await.unwrap().items;
        let objects = objects
            .into_iter()
            .map(|object| object.metadata.name.unwrap());
        let secrets = secrets
            .into_iter()
            .map(|secret| secret.metadata.name.unwrap());
        objects.chain(secrets).collect()
    }
}

async fn killed_at_each_step(over: Over, scenario: Scenario, least: usize) {
    let Some(whole) = Stage::new(over).await else {
        return;
    };
    let steps = whole.play_until(scenario, 0).await;
    assert!(steps.len() >= least, "{steps:?}");
    for at in 1..=steps.len() {
        let stage = Stage::new(over).await.unwrap();
        let passed = stage.play_until(scenario, at).await;
        let step = passed.last().unwrap();
        if step.contains("cluster.remove.") {
            // The runner's tombstone keeps it from being started again; it removes what it still finds.
            stage.bench.remove(&Handle::of(stage.run)).await;
        } else {
            assert!(starts(&stage.evidence()) <= 1, "{step}");
            let outcome = stage.play(scenario).await;
            assert!(scenario.has_ended_well(&outcome), "{outcome} after {step}");
        }
        let begun = usize::from(scenario != Scenario::IsStoppedBefore);
        assert_eq!(starts(&stage.evidence()), begun, "{step}");
        assert_eq!(stage.left().await, [""; 0], "{step}");
        until("the end of all processes", async || {
            processes_of(stage.run).is_some_and(|found| found.is_empty())
        })
        .await;
    }
}

async fn a_run_that_ends_survives_a_death_at_each_step(over: Over) {
    killed_at_each_step(over, Scenario::Ends, 5).await;
}

async fn a_stop_survives_a_death_at_each_step(over: Over) {
    killed_at_each_step(over, Scenario::IsStopped, 6).await;
}

async fn a_stop_that_comes_first_survives_a_death_at_each_step(over: Over) {
    killed_at_each_step(over, Scenario::IsStoppedBefore, 2).await;
}
