//! What `start` promises about the spec's time limits.

use crate::run::{FailureClass, Outcome};
use crate::testing::executor::Trial;
use crate::testing::script::Script;
use crate::testing::verdict::{Tried, ensure, equal, not_offered, shown};

pub(in super::super) async fn timeout_ends_the_run(t: &Trial) -> Tried {
    offered(t, "timeout")?;
    let mut spec = t.spec(Script::new().out("began\n").hold());
    spec.limits.timeout = t.tick().into();
    let handle = t.start(&spec).await?;
    fails_as(FailureClass::Timeout, &t.end(&handle).await?)?;
    t.gone_within(spec.run, t.patience()).await.map(drop)
}

pub(in super::super) async fn timeout_ends_a_run_that_ignores_the_request(t: &Trial) -> Tried {
    offered(t, "timeout")?;
    let mut spec = t.spec(Script::new().stubborn().hold());
    spec.limits.timeout = t.tick().into();
    spec.limits.grace = t.tick().into();
    let handle = t.start(&spec).await?;
    fails_as(FailureClass::Timeout, &t.end(&handle).await?)?;
    t.gone_within(spec.run, t.patience()).await.map(drop)
}

pub(in super::super) async fn stall_timeout_ends_a_silent_run(t: &Trial) -> Tried {
    offered(t, "stall_timeout")?;
    let mut spec = t.spec(Script::new().out("began\n").hold());
    spec.limits.stall_timeout = t.tick().into();
    let handle = t.start(&spec).await?;
    fails_as(FailureClass::Stalled, &t.end(&handle).await?)
}

pub(in super::super) async fn output_keeps_a_run_from_stalling(t: &Trial) -> Tried {
    offered(t, "stall_timeout")?;
    let stall = t.tick() * 2;
    let mut spec = t.spec(Script::new().lines(20, stall / 8));
    spec.limits.stall_timeout = stall.into();
    let handle = t.start(&spec).await?;
    let outcome = t.end(&handle).await?;
    equal(
        "the end of a run that goes on writing",
        &Outcome::Succeeded,
        &outcome,
    )
}

/// A backend may say that it keeps no time, or not this one.
fn offered(t: &Trial, limit: &str) -> Tried {
    if t.lacks("limits") || t.lacks(limit) {
        return Err(not_offered(&format!("a backend with `{limit}`")));
    }
    Ok(())
}

fn fails_as(class: FailureClass, outcome: &Outcome) -> Tried {
    let came = match outcome {
        Outcome::Failed(failure) => Some(failure.class),
        _ => None,
    };
    ensure(
        came == Some(class),
        &format!("the run to end as failed, class `{class}`"),
        || shown(outcome),
    )
}
