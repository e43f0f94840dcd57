//! Whether a run that nothing here knows may be started. The runner decides, never the server.
//!
//! | what is known | then |
//! |---|---|
//! | the journal knows the run | it is answered for |
//! | a backend shows it | it was adopted when that backend was read, at the latest now, so the journal knows it |
//! | it was first sent to this boot and this journal, and the journal was not put back since | it is started |
//! | anything else | whatever could have known it is lost: it ends as lost, and is never started |
//!
//! The journal knows each number that it gave out for a connect. A copy that was put back counts through the same
//! numbers again, but draws other random bits below them, so it never takes a number for its own that a later
//! life of the original gave out.

use std::sync::Arc;

use hybrid_runner_core::error::Result;
use hybrid_runner_core::incarnation::Incarnation;

use super::recover;
use super::shared::Shared;

/// What is to be done with a run that nothing here knows.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Decision {
    Start,
    /// It may have run: this is what is known.
    Lost(String),
}

/// Decides about a run that nothing here knows, by the life under which its server first sent it.
///
/// An error while a backend that may show it has not answered yet.
pub(super) async fn decide(shared: &Arc<Shared>, first: Option<&Incarnation>) -> Result<Decision> {
    // Made here and now, by whoever calls: nobody can have started it before.
    let Some(first) = first else {
        return Ok(Decision::Start);
    };
    let now = shared.incarnation();
    if *first == now || (now.remembers(first) && shared.journal.gave_out(first.seq).await?) {
        return Ok(Decision::Start);
    }
    // Whoever calls looks again whether it is known.
    recover::survey_anew(shared).await?;
    Ok(Decision::Lost(lost_because(&now, first).to_owned()))
}

fn lost_because(now: &Incarnation, first: &Incarnation) -> &'static str {
    if now.state != first.state {
        "the runner's journal of that time is gone (another disk, or a damaged file), and no backend shows the run; \
         it may have run, so it is not started again"
    } else if now.boot != first.boot {
        "the runner's machine was restarted since this run was first sent, and neither journal nor backend shows it; \
         it may have run, so it is not started again"
    } else {
        "the runner's journal was put back to an older copy since this run was first sent, and no backend shows it; \
         it may have run, so it is not started again"
    }
}
