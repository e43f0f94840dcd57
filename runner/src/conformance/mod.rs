//! The contract suite against a program, as a user would see it: `plugin test`.
//!
//! | file | holds |
//! |---|---|
//! | `candidate` | what is tried: a program, or a section of the configuration |
//! | `frames` | the messages of the case that is being tried |
//! | `wire` | promises of the pipe, which no contract has |
//! | `store` | a secret store behind a program |
//! | `report` | what came of it: lines, JSON, `JUnit` |

mod candidate;
mod frames;
mod report;
mod store;
mod wire;

use std::sync::Arc;

use hybrid_runner_core::error::Result;
use hybrid_runner_core::plugin::Contract;
use hybrid_runner_core::testing::{CASES, Case, Harness, PROVIDER_CASES, ProviderHarness, Verdict};

pub use candidate::{Candidate, Options};
pub use frames::Frames;
pub use report::{Outcome, Report, junit};
pub use store::StoreCandidate;
pub use wire::{WIRE_CASES, WireCase};

/// Tries every promise that has one of these words in its name, all if there is none; tells each as it is done.
///
/// # Errors
///
/// If the program cannot be tried at all: it is not there, or its first exchange fails.
pub async fn run(
    candidate: Candidate,
    only: &[String],
    mut told: impl FnMut(&Outcome),
) -> Result<Report> {
    let candidate = candidate.probed().await?;
    let mut report = Report::new(candidate.software());
    let wanted = |name: &str| only.is_empty() || only.iter().any(|word| name.contains(word));
    let frames = candidate.frames().clone();
    if candidate.contract() == Contract::Secrets {
        let store: Arc<dyn ProviderHarness> = Arc::new(StoreCandidate::new(candidate.clone()));
        for case in PROVIDER_CASES.iter().filter(|case| wanted(case.name)) {
            frames.begin();
            let verdict = case.check(Arc::clone(&store)).await;
            report.add(case.method, case.name, verdict, &frames, &mut told);
        }
    } else {
        let harness = Arc::new(candidate.clone());
        for case in CASES.iter().filter(|case| wanted(case.name)) {
            frames.begin();
            let verdict = check(case, Arc::clone(&harness)).await;
            report.add(case.method, case.name, verdict, &frames, &mut told);
        }
    }
    if candidate.is_program() {
        for case in WIRE_CASES.iter().filter(|case| wanted(case.name)) {
            frames.begin();
            let verdict = case.check(&candidate).await;
            report.add("pipe", case.name, verdict, &frames, &mut told);
        }
    }
    Ok(report)
}

async fn check(case: &Case, harness: Arc<Candidate>) -> Verdict {
    let harness: Arc<dyn Harness> = harness;
    case.check(harness).await
}
