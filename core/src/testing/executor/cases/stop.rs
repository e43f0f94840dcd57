//! What `stop` promises.

use std::time::Duration;

use crate::executor::Handle;
use crate::run::Outcome;
use crate::testing::executor::Trial;
use crate::testing::executor::trial::all_bytes;
use crate::testing::script::{Script, Step};
use crate::testing::verdict::{
    Tried, cut_short, done, ensure, equal, equal_bytes, not_offered, shown, shown_item,
};

/// A grace that no test waits for.
const LONG: Duration = Duration::from_hours(1);

/// The most awaits of one call that the suite cuts at.
const MOST_POLLS: usize = 6;

fn stubborn_tree() -> Script {
    Script::new()
        .stubborn()
        .then(Step::Tree)
        .out("ready\n")
        .hold()
}

pub(in super::super) async fn stop_ends_the_whole_tree(t: &Trial) -> Tried {
    ends_with_all_its_processes(t, stubborn_tree(), "ready\n").await
}

pub(in super::super) async fn stop_ends_what_left_its_session(t: &Trial) -> Tried {
    ends_with_all_its_processes(t, Script::new().then(Step::Daemon).hold(), "away\n").await
}

async fn ends_with_all_its_processes(t: &Trial, script: Script, ready: &str) -> Tried {
    let handle = t.begin(script).await?;
    let mut chunks = t.executor.logs(&handle, None);
    t.read_until(&mut chunks, ready).await?;
    let living = t.harness.alive(handle.run).await;
    ensure(
        living != Some(false),
        "living processes before the stop",
        || "none".into(),
    )?;
    t.stop(&handle, t.tick()).await?;
    let gone = t.gone_within(handle.run, t.tick() + t.patience()).await?;
    t.ends_stopped(&handle).await?;
    // The log ends too: nobody holds its pipe any more.
    t.log(&handle, None).await?;
    if gone {
        return Ok(());
    }
    Err(not_offered(
        "a harness that can tell whether processes live; the status and the log ended well",
    ))
}

pub(in super::super) async fn stop_ends_a_polite_run_at_once(t: &Trial) -> Tried {
    let handle = t.begin_and_see_running(Script::new().hold()).await?;
    t.stop(&handle, LONG).await?;
    t.ends_stopped(&handle).await
}

pub(in super::super) async fn stop_asks_politely_first(t: &Trial) -> Tried {
    let script = Script::new()
        .then(Step::Farewell("goodbye".into()))
        .out("ready\n")
        .hold();
    let handle = t.begin(script).await?;
    let mut chunks = t.executor.logs(&handle, None);
    t.read_until(&mut chunks, "ready\n").await?;
    t.stop(&handle, LONG).await?;
    t.ends_stopped(&handle).await?;
    let text = t.text(&handle).await?;
    equal("the output", &"ready\ngoodbye".to_owned(), &text)
}

pub(in super::super) async fn stop_is_carried_out_without_us(t: &Trial) -> Tried {
    let spec = t.spec(stubborn_tree());
    let asker = t.harness.executor().await;
    let handle = Handle::of(t.start(&spec).await?.run);
    let mut chunks = t.executor.logs(&handle, None);
    t.read_until(&mut chunks, "ready\n").await?;
    let stopped = t.within("an answer to the stop", asker.stop(&handle, t.tick()));
    done("a stop", stopped.await?)?;
    drop(asker);
    t.ends_stopped(&handle).await
}

pub(in super::super) async fn stopping_twice_is_stopping_once(t: &Trial) -> Tried {
    let handle = t.begin_and_see_running(Script::new().hold()).await?;
    for _ in 0..3 {
        t.stop(&handle, t.tick()).await?;
    }
    t.ends_stopped(&handle).await?;
    t.stop(&handle, t.tick()).await?;
    t.ends_stopped(&handle).await
}

pub(in super::super) async fn stopping_a_finished_run_changes_nothing(t: &Trial) -> Tried {
    let (handle, outcome) = t.run(Script::new().out("done\n").exit(7)).await?;
    let log = all_bytes(&t.log(&handle, None).await?);
    t.stop(&handle, Duration::ZERO).await?;
    equal("the end after a stop", &outcome, &t.end(&handle).await?)?;
    equal_bytes(
        "the log after a stop",
        &log,
        &all_bytes(&t.log(&handle, None).await?),
    )
}

pub(in super::super) async fn a_stop_before_the_start_prevents_it(t: &Trial) -> Tried {
    let spec = t.spec(Script::new().hold());
    let handle = Handle::of(spec.run);
    t.stop(&handle, LONG).await?;
    t.ends_stopped(&handle).await?;
    let other = t.harness.executor().await;
    let none = crate::secret::Secrets::none();
    let started = t.start_through(&*other, &spec, &none).await?;
    ensure(started.is_err(), "the start to be prevented", || {
        shown_item(Some(&started))
    })?;
    let outcome = t.end_through(&*other, &handle).await?;
    let stopped = matches!(outcome, Outcome::Stopped { .. });
    ensure(stopped, "the run to be stopped for ever", || {
        shown(&outcome)
    })?;
    t.began_times(&handle, 0, None).await
}

pub(in super::super) async fn a_second_stop_shortens_the_grace(t: &Trial) -> Tried {
    let handle = t.begin(stubborn_tree()).await?;
    let mut chunks = t.executor.logs(&handle, None);
    t.read_until(&mut chunks, "ready\n").await?;
    t.stop(&handle, LONG).await?;
    let early = tokio::time::timeout(t.tick(), t.end(&handle)).await;
    ensure(
        early.is_err(),
        "a run that ignores SIGTERM to live in its grace",
        || "its end".to_owned(),
    )?;
    t.stop(&handle, Duration::ZERO).await?;
    t.ends_stopped(&handle).await
}

pub(in super::super) async fn a_stop_dropped_at_any_await_is_completed_by_the_next(
    t: &Trial,
) -> Tried {
    for polls in 0..=MOST_POLLS {
        let handle = t.begin_and_see_running(Script::new().hold()).await?;
        let dropped = cut_short(t.executor.stop(&handle, LONG), polls);
        let dropped = t.within("an await of the stop to go on", dropped).await?;
        t.stop(&handle, Duration::ZERO).await?;
        t.ends_stopped(&handle).await?;
        if dropped.is_some() {
            break;
        }
    }
    Ok(())
}
