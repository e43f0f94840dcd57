//! The contract suite against a program, as a user would see it: `plugin test`.
//!
//! | file | holds |
//! |---|---|
//! | `candidate` | what is tried: a program, or a section of the configuration |
//! | `frames` | the messages of the case that is being tried |
//! | `wire` | promises of the pipe, which no contract has |
//! | `store` | a secret store behind a program |
//! | `only` | the promises that are asked for |
//! | `report` | what came of it: lines, JSON, `JUnit` |

mod candidate;
mod frames;
mod only;
mod report;
mod store;
mod wire;

use std::sync::Arc;

use hybrid_runner_core::error::Result;
use hybrid_runner_core::plugin::Contract;
use hybrid_runner_core::testing::{
    CASES, Case, Failed, Harness, PROVIDER_CASES, ProviderHarness, Verdict,
};

pub use candidate::{Candidate, Options};
pub use frames::Frames;
use only::Only;
pub use report::{Outcome, Report, junit};
pub use store::StoreCandidate;
pub use wire::{WIRE_CASES, WireCase};

/// Tries every promise that has one of these words in its name, all if there is none; tells each as it is done.
///
/// What cannot be tried at all (a program that is not there, or whose first exchange fails) is a report with one promise that
/// is not kept.
///
/// # Errors
///
/// If no promise has any of these words in its name.
///
/// # Cancel safety
///
/// Dropped midway, runs of the candidate may be left: [`Candidate::clean_up`] ends and removes them.
pub async fn run(
    candidate: Candidate,
    only: &[String],
    mut told: impl FnMut(&Outcome),
) -> Result<Report> {
    let only = Only::new(only);
    only.matches_any(candidate.fixed_contract(), candidate.is_program())?;
    let frames = candidate.frames().clone();
    frames.begin();
    let candidate = match candidate.clone().probed().await {
        Ok(probed) => probed,
        Err(error) => {
            let mut report = Report::new(&candidate);
            let failed = Failed {
                expected: "something that can be tried".to_owned(),
                came: error.report(),
            };
            let verdict = Verdict::Failed(failed);
            report.add("hello", "it_can_be_used", verdict, &frames, &mut told);
            return Ok(report);
        }
    };
    only.matches_any(Some(candidate.contract()), candidate.is_program())?;
    let mut report = Report::new(&candidate);
    if candidate.contract() == Contract::Secrets {
        let store: Arc<dyn ProviderHarness> = Arc::new(StoreCandidate::new(candidate.clone()));
        for case in PROVIDER_CASES.iter().filter(|case| only.wants(case.name)) {
            frames.begin();
            let verdict = case.check(Arc::clone(&store)).await;
            report.add(case.method, case.name, verdict, &frames, &mut told);
        }
    } else {
        let harness = Arc::new(candidate.clone());
        for case in CASES.iter().filter(|case| only.wants(case.name)) {
            frames.begin();
            let verdict = check(case, Arc::clone(&harness)).await;
            report.add(case.method, case.name, verdict, &frames, &mut told);
        }
    }
    if candidate.is_program() {
        for case in WIRE_CASES.iter().filter(|case| only.wants(case.name)) {
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
