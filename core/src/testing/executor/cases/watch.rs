//! What `watch` promises.

use futures::StreamExt as _;

use crate::executor::Handle;
use crate::run::{Failure, Outcome, State, Status};
use crate::testing::executor::Trial;
use crate::testing::script::Script;
use crate::testing::verdict::{
    Tried, cut_short, done, ensure, equal, failed, not_offered, shown, shown_item,
};

pub(in super::super) async fn the_present_status_comes_first_at_once(t: &Trial) -> Tried {
    let handle = t.begin_and_see_running(Script::new().hold()).await?;
    for _ in 0..2 {
        let status = t.status(&handle).await?;
        equal(
            "the first level of a late watch",
            &State::Running,
            &status.state,
        )?;
    }
    Ok(())
}

pub(in super::super) async fn watch_ends_after_finished(t: &Trial) -> Tried {
    let handle = t.begin(Script::new().sleep(t.tick() / 4)).await?;
    let levels = all_levels(t, &handle).await?;
    let finished = levels.iter().filter(|status| status.is_finished()).count();
    equal("how often the end is told", &1, &finished)?;
    ensure(
        levels.last().is_some_and(Status::is_finished),
        "the end as the last level",
        || shown(&levels),
    )
}

pub(in super::super) async fn a_finished_run_says_finished_first_and_only(t: &Trial) -> Tried {
    let (handle, outcome) = t.run(Script::new().exit(7)).await?;
    let levels = all_levels(t, &handle).await?;
    let told: Vec<Option<&Outcome>> = levels.iter().map(Status::outcome).collect();
    equal("the levels of a finished run", &vec![Some(&outcome)], &told)
}

pub(in super::super) async fn an_unknown_run_is_lost(t: &Trial) -> Tried {
    let levels = all_levels(t, &Handle::of(t.harness.run_id())).await?;
    let lost = |status: &Status| matches!(status.outcome(), Some(Outcome::Lost { .. }));
    ensure(
        levels.len() == 1 && levels.iter().all(lost),
        "one level, the end as lost",
        || shown(&levels),
    )
}

pub(in super::super) async fn a_backend_that_does_not_answer_is_an_error(t: &Trial) -> Tried {
    let Some(executor) = t.harness.unreachable().await else {
        return Err(not_offered("an executor whose backend does not answer"));
    };
    let mut statuses = executor.watch(&Handle::of(t.harness.run_id()));
    match t.within("an error", statuses.next()).await? {
        Some(Err(error)) => ensure(error.is_transient(), "a transient error", || {
            crate::testing::verdict::came_error(&error)
        })?,
        came => {
            return Err(failed(
                "an error from a backend that does not answer",
                shown_item(came.as_ref()),
            ));
        }
    }
    let after = t.within("the end after the error", statuses.next()).await?;
    ensure(after.is_none(), "the error as the last item", || {
        shown_item(after.as_ref())
    })
}

pub(in super::super) async fn exit_codes_are_told_as_they_were(t: &Trial) -> Tried {
    for code in [0, 1, 42, 127, 255] {
        let (_, outcome) = t.run(Script::new().exit(code)).await?;
        match &outcome {
            Outcome::Succeeded if code == 0 => {}
            Outcome::Failed(Failure {
                exit_code: Some(came),
                signal: None,
                ..
            }) if *came == code && code != 0 => {}
            _ => return Err(failed(format!("exit code {code}"), shown(&outcome))),
        }
    }
    Ok(())
}

pub(in super::super) async fn signals_are_told_as_they_were(t: &Trial) -> Tried {
    if t.lacks("signals") {
        return Err(not_offered("a backend that tells signals"));
    }
    for signal in [9, 10, 15] {
        let (_, outcome) = t.run(Script::new().signal(signal)).await?;
        match &outcome {
            Outcome::Failed(Failure {
                signal: Some(came),
                exit_code: None,
                ..
            }) if *came == signal => {}
            _ => return Err(failed(format!("signal {signal}"), shown(&outcome))),
        }
    }
    Ok(())
}

pub(in super::super) async fn levels_never_go_back(t: &Trial) -> Tried {
    let spec = t.spec(Script::new().lines(3, t.tick() / 8));
    let handle = t.start(&spec).await?;
    let levels = all_levels(t, &handle).await?;
    let rank = |status: &Status| (status.attempt, status.state.rank());
    ensure(
        levels.is_sorted_by_key(rank),
        "levels that never go back",
        || shown(&levels),
    )
}

pub(in super::super) async fn all_watchers_see_the_same_end(t: &Trial) -> Tried {
    let other = t.harness.executor().await;
    let handle = t.begin(Script::new().sleep(t.tick() / 4).exit(5)).await?;
    let (first, second) = futures::join!(t.end(&handle), t.end_through(&*other, &handle));
    let first = first?;
    equal("the end for a second watcher", &first, &second?)?;
    equal("the end for a late watcher", &first, &t.end(&handle).await?)
}

pub(in super::super) async fn a_new_executor_watches_by_the_id_alone(t: &Trial) -> Tried {
    let handle = t.begin_and_see_running(Script::new().hold()).await?;
    let other = t.harness.executor().await;
    let mut statuses = other.watch(&Handle::of(handle.run));
    let status = t.next_status(&mut statuses).await?;
    equal(
        "the level through a new executor",
        &State::Running,
        &status.state,
    )
}

pub(in super::super) async fn dropping_a_watch_stops_nothing(t: &Trial) -> Tried {
    let handle = t.begin_and_see_running(Script::new().hold()).await?;
    for polls in 0..4 {
        let mut statuses = t.executor.watch(&handle);
        let dropped = cut_short(statuses.next(), polls);
        t.within("an await of the watch to go on", dropped).await?;
    }
    t.running(&handle).await
}

async fn all_levels(t: &Trial, handle: &Handle) -> Tried<Vec<Status>> {
    let levels: Vec<_> = t
        .within("the end of the watch", t.executor.watch(handle).collect())
        .await?;
    let levels = levels.into_iter().map(|level| done("a level", level));
    levels.collect()
}
