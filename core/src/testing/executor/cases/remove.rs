//! What `remove` promises.

use crate::error::ErrorKind;
use crate::executor::Handle;
use crate::run::Outcome;
use crate::testing::executor::Trial;
use crate::testing::executor::trial::contains;
use crate::testing::script::Script;
use crate::testing::verdict::{Tried, cut_short, ensure, equal, refused_as, shown};

/// The most awaits of one call that the suite cuts at.
const MOST_POLLS: usize = 6;

pub(in super::super) async fn removing_twice_is_removing_once(t: &Trial) -> Tried {
    let (handle, _) = t.run(Script::new().out("done\n")).await?;
    for _ in 0..3 {
        t.remove(&handle).await?;
    }
    Ok(())
}

pub(in super::super) async fn removing_an_unknown_run_succeeds(t: &Trial) -> Tried {
    t.remove(&Handle::of(t.harness.run_id())).await
}

pub(in super::super) async fn a_run_that_has_not_ended_is_not_removed(t: &Trial) -> Tried {
    let script = Script::new().out("one\n").hold();
    let handle = t.begin_and_see_running(script).await?;
    let removed = t.try_remove(&handle).await?;
    refused_as(ErrorKind::Conflict, "the removal of a running run", removed)?;
    t.running(&handle).await?;
    let mut chunks = t.executor.logs(&handle, None);
    let log = t.read_until(&mut chunks, "one\n").await?;
    ensure(
        contains(&super::super::trial::all_bytes(&log), b"one"),
        "its log to be there",
        || shown(&log),
    )
}

pub(in super::super) async fn a_removed_run_is_neither_listed_nor_known(t: &Trial) -> Tried {
    let (handle, _) = t.run(Script::new().out("done\n")).await?;
    t.remove(&handle).await?;
    let other = t.harness.executor().await;
    for executor in [&t.executor, &other] {
        let listed = t.listed(&**executor).await?;
        ensure(
            !listed.contains(&handle.run),
            "the removed run not to be listed",
            || shown(&listed),
        )?;
        let outcome = t.end_through(&**executor, &handle).await?;
        let lost = matches!(outcome, Outcome::Lost { .. });
        ensure(lost, "the removed run to be known no more", || {
            shown(&outcome)
        })?;
    }
    Ok(())
}

pub(in super::super) async fn removing_one_run_keeps_the_others(t: &Trial) -> Tried {
    let (kept, outcome) = t.run(Script::new().out("kept\n").exit(4)).await?;
    let (gone, _) = t.run(Script::new()).await?;
    t.remove(&gone).await?;
    let listed = t.listed(&*t.executor).await?;
    ensure(
        listed.contains(&kept.run),
        "the other run in the list",
        || shown(&listed),
    )?;
    equal("the end of the other run", &outcome, &t.end(&kept).await?)?;
    equal(
        "the log of the other run",
        &"kept\n".to_owned(),
        &t.text(&kept).await?,
    )
}

pub(in super::super) async fn a_removal_dropped_at_any_await_is_completed_by_the_next(
    t: &Trial,
) -> Tried {
    for polls in 0..=MOST_POLLS {
        let (handle, _) = t.run(Script::new()).await?;
        let dropped = cut_short(t.executor.remove(&handle), polls);
        let dropped = t
            .within("an await of the removal to go on", dropped)
            .await?;
        t.remove(&handle).await?;
        let listed = t.listed(&*t.executor).await?;
        let gone = !listed.contains(&handle.run);
        ensure(gone, "the removed run not to be listed", || shown(&listed))?;
        if dropped.is_some() {
            break;
        }
    }
    Ok(())
}
