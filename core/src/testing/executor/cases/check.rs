//! What `capabilities` and `check` promise.

use crate::finding::Health;
use crate::testing::executor::Trial;
use crate::testing::verdict::{Tried, done, ensure, equal, not_offered, refused, shown};

pub(in super::super) async fn capabilities_are_told_alike_by_every_executor(t: &Trial) -> Tried {
    let first = t.within("the capabilities", t.executor.capabilities());
    let first = done("the capabilities", first.await?)?;
    let other = t.harness.executor().await;
    let again = t.within("the capabilities", other.capabilities());
    let again = done("the capabilities", again.await?)?;
    equal("the capabilities of a new executor", &first, &again)
}

pub(in super::super) async fn check_answers_without_side_effects(t: &Trial) -> Tried {
    let before = t.listed(&*t.executor).await?;
    for _ in 0..2 {
        let checked = t.within("an answer to the check", t.executor.check());
        done("a check", checked.await?)?;
    }
    let after = t.listed(&*t.executor).await?;
    equal("the list after two checks", &before, &after)
}

pub(in super::super) async fn check_says_what_is_missing(t: &Trial) -> Tried {
    let Some(executor) = t.harness.unreachable().await else {
        return Err(not_offered("an executor whose backend does not answer"));
    };
    let checked = t.within("an answer to the check", executor.check());
    let error = refused("the check", checked.await?)?;
    ensure(
        error.message().len() > 8,
        "an error that says what is missing",
        || format!("`{}`", error.message()),
    )
}

pub(in super::super) async fn the_doctor_answers_without_side_effects(t: &Trial) -> Tried {
    let before = t.listed(&*t.executor).await?;
    for _ in 0..2 {
        let examined = t.within("the doctor's findings", t.executor.examine());
        let findings = examined.await?;
        ensure(
            !findings.is_empty() && findings.iter().all(|one| one.health != Health::Failed),
            "a line at least, and no failure of a backend that works",
            || shown(&findings),
        )?;
    }
    let after = t.listed(&*t.executor).await?;
    equal("the list after two examinations", &before, &after)
}

pub(in super::super) async fn the_doctor_says_what_is_missing(t: &Trial) -> Tried {
    let Some(executor) = t.harness.unreachable().await else {
        return Err(not_offered("an executor whose backend does not answer"));
    };
    let examined = t.within("the doctor's findings", executor.examine());
    let findings = examined.await?;
    let mut failed = findings.iter().filter(|one| one.health == Health::Failed);
    ensure(
        failed.any(|one| one.message.len() > 8),
        "a failure that says what is missing",
        || shown(&findings),
    )
}
