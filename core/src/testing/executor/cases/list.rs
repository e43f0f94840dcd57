//! What `list` promises.

use crate::testing::executor::Trial;
use crate::testing::script::Script;
use crate::testing::verdict::{Tried, ensure, not_offered, shown};

pub(in super::super) async fn list_finds_every_run_until_it_is_removed(t: &Trial) -> Tried {
    let running = t.begin_and_see_running(Script::new().hold()).await?;
    let (finished, _) = t.run(Script::new().exit(1)).await?;
    let (removed, _) = t.run(Script::new()).await?;
    t.remove(&removed).await?;
    let other = t.harness.executor().await;
    for executor in [&t.executor, &other] {
        let listed = t.listed(&**executor).await?;
        for run in [running.run, finished.run] {
            let times = listed.iter().filter(|listed| **listed == run).count();
            ensure(times == 1, "each run in the list, once", || shown(&listed))?;
        }
        let gone = !listed.contains(&removed.run);
        ensure(gone, "the removed run not to be in it", || shown(&listed))?;
    }
    Ok(())
}

pub(in super::super) async fn list_shows_nothing_of_another_owner(t: &Trial) -> Tried {
    let Some(other) = t.harness.other_owner().await else {
        return Err(not_offered(
            "an executor of another owner in the same place",
        ));
    };
    let handle = t.begin_and_see_running(Script::new().hold()).await?;
    let listed = t.listed(&*other).await?;
    ensure(
        !listed.contains(&handle.run),
        "nothing of another owner",
        || shown(&listed),
    )
}
