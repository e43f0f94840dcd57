//! What `start` promises about beginning the work.

use std::time::Duration;

use futures::future::join_all;

use crate::error::ErrorKind;
use crate::executor::{Handle, Progress};
use crate::run::{FailureClass, Outcome};
use crate::secret::Secrets;
use crate::testing::executor::Trial;
use crate::testing::executor::trial::{all_bytes, contains};
use crate::testing::script::Script;
use crate::testing::verdict::{
    Tried, cut_short, done, ensure, equal, not_offered, refused, refused_as, shown,
};
use crate::unit::ByteSize;

const BEGAN: &str = "began";

/// The most awaits of one call that the suite cuts at.
const MOST_POLLS: usize = 10;

fn short() -> Script {
    Script::new().out(format!("{BEGAN}\n"))
}

pub(in super::super) async fn starting_twice_starts_once(t: &Trial) -> Tried {
    let spec = t.spec(short().hold());
    let first = t.start(&spec).await?;
    let mut chunks = t.executor.logs(&first, None);
    t.read_until(&mut chunks, BEGAN).await?;
    let second = t.start(&spec).await?;
    equal("the run of the second start", &first.run, &second.run)?;
    let other = t.harness.executor().await;
    let third = t.start_through(&*other, &spec, &Secrets::none()).await?;
    done("a start through another executor", third)?;
    t.stop(&first, Duration::ZERO).await?;
    t.end(&first).await?;
    // By whoever reads already: a stop without grace may take the log with it.
    let rest = t.rest(&mut chunks).await?;
    let more = contains(&all_bytes(&rest), BEGAN.as_bytes());
    equal("whether the work wrote its first line again", &false, &more)?;
    t.began_times(&first, 1, None).await
}

pub(in super::super) async fn starting_at_the_same_time_starts_once(t: &Trial) -> Tried {
    let spec = t.spec(short());
    let other = t.harness.executor().await;
    let none = Secrets::none();
    let starts = [&t.executor, &other, &t.executor, &other]
        .map(|executor| t.start_through(&**executor, &spec, &none));
    for started in join_all(starts).await {
        done("each of four starts at the same time", started?)?;
    }
    let handle = Handle::of(spec.run);
    let outcome = t.end(&handle).await?;
    equal("the end", &Outcome::Succeeded, &outcome)?;
    t.began_times(&handle, 1, Some(BEGAN)).await
}

pub(in super::super) async fn starting_a_finished_run_starts_nothing(t: &Trial) -> Tried {
    let spec = t.spec(short().exit(3));
    let handle = t.start(&spec).await?;
    let outcome = t.end(&handle).await?;
    t.start(&spec).await?;
    let again = t.end(&handle).await?;
    equal("the end after a second start", &outcome, &again)?;
    t.began_times(&handle, 1, Some(BEGAN)).await
}

pub(in super::super) async fn a_half_done_start_is_completed(t: &Trial) -> Tried {
    let spec = t.spec(short());
    if !t.harness.half_start(&spec, &Secrets::none()).await {
        return Err(not_offered("a way to leave a half-done start behind"));
    }
    let handle = t.start(&spec).await?;
    let outcome = t.end(&handle).await?;
    equal("the end", &Outcome::Succeeded, &outcome)?;
    t.began_times(&handle, 1, Some(BEGAN)).await
}

pub(in super::super) async fn a_start_dropped_at_any_await_is_completed_by_the_next(
    t: &Trial,
) -> Tried {
    for polls in 0..=MOST_POLLS {
        let spec = t.spec(short());
        let secrets = t.harness.hand_over(&Secrets::none()).await;
        let progress = Progress::none();
        let dropped = cut_short(t.executor.start(&spec, &secrets, &progress), polls);
        let dropped = t.within("an await of the start to go on", dropped).await?;
        let handle = t.start(&spec).await?;
        let outcome = t.end(&handle).await?;
        let what = format!("the end after a start dropped at await {polls}");
        equal(&what, &Outcome::Succeeded, &outcome)?;
        t.began_times(&handle, 1, Some(BEGAN)).await?;
        if dropped.is_some() {
            break;
        }
    }
    Ok(())
}

pub(in super::super) async fn a_start_after_a_stop_is_refused(t: &Trial) -> Tried {
    let spec = t.spec(short());
    let handle = Handle::of(spec.run);
    t.stop(&handle, Duration::ZERO).await?;
    let started = t.try_start(&spec, &Secrets::none()).await?;
    refused_as(ErrorKind::Conflict, "the start after a stop", started)?;
    t.ends_stopped(&handle).await?;
    t.began_times(&handle, 0, None).await
}

pub(in super::super) async fn a_start_after_the_stop_of_a_running_run_is_refused(
    t: &Trial,
) -> Tried {
    let spec = t.spec(short().hold());
    let handle = t.start(&spec).await?;
    let mut chunks = t.executor.logs(&handle, None);
    t.read_until(&mut chunks, BEGAN).await?;
    t.stop(&handle, Duration::ZERO).await?;
    t.ends_stopped(&handle).await?;
    let started = t.try_start(&spec, &Secrets::none()).await?;
    refused_as(ErrorKind::Conflict, "the start after a stop", started)?;
    t.ends_stopped(&handle).await?;
    t.began_times(&handle, 1, None).await
}

pub(in super::super) async fn a_field_that_cannot_be_honoured_is_refused_before_anything_is_made(
    t: &Trial,
) -> Tried {
    let mut spec = t.spec(short());
    let capabilities = t.within("the capabilities", t.executor.capabilities());
    if let Some(refused) = t.harness.unsupported(&spec) {
        spec = refused;
    } else if done("the capabilities", capabilities.await?)?.resources {
        return Err(not_offered("a field that this backend cannot honour"));
    } else {
        spec.resources.limits.memory = Some(ByteSize::mib(64));
    }
    let started = t.try_start(&spec, &Secrets::none()).await?;
    refused_as(ErrorKind::Unsupported, "the field", started)?;
    nothing_was_made(t, &spec.run).await
}

pub(in super::super) async fn a_missing_value_is_refused_before_anything_is_made(
    t: &Trial,
) -> Tried {
    let mut spec = t.spec(short());
    spec.env.insert(
        "PASSWORD".into(),
        "secret:/contract/never-handed-over".into(),
    );
    let started = t.try_start(&spec, &Secrets::none()).await?;
    let error = refused("the start without a value", started)?;
    ensure(
        contains(error.report().as_bytes(), b"/contract/never-handed-over"),
        "an error that names the reference",
        || error.report(),
    )?;
    nothing_was_made(t, &spec.run).await
}

async fn nothing_was_made(t: &Trial, run: &crate::RunId) -> Tried {
    let listed = t.listed(&*t.executor).await?;
    ensure(!listed.contains(run), "nothing to be made", || {
        "the refused run in the list".to_owned()
    })?;
    t.began_times(&Handle::of(*run), 0, None).await
}

pub(in super::super) async fn a_missing_command_is_a_run_that_fails(t: &Trial) -> Tried {
    let mut spec = t.spec(short());
    spec.command = Some(vec!["/no/such/command".into()]);
    let handle = t.start(&spec).await?;
    let outcome = t.end(&handle).await?;
    let class = match &outcome {
        Outcome::Failed(failure) => Some(failure.class),
        _ => None,
    };
    ensure(
        class == Some(FailureClass::Spec),
        "a missing command to end as failed, class `spec`",
        || shown(&outcome),
    )
}
