//! What is done now and then: retention, runners that stay away, syncing full segments.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hybrid_runner_core::AgentId;
use tracing::{info, warn};

use crate::app::App;
use crate::logs::{drop_segment, recover};
use crate::store::{now, queries, runners};

/// How often it is looked whether something is old enough, at least.
const EVERY: Duration = Duration::from_mins(1);

/// Sweeps until the server ends.
pub(crate) async fn sweep(app: Arc<App>) {
    // A bound that is short is kept as well.
    let short = app.config.runner_lost_after.limit();
    let every = short.map_or(EVERY, |limit| {
        EVERY.min(limit / 2).max(Duration::from_secs(1))
    });
    let mut often = tokio::time::interval(every);
    often.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = app.shutdown.cancelled() => return,
            () = app.segment_full.notified() => sync(&app).await,
            _ = often.tick() => once(&app).await,
        }
    }
}

/// Syncs what is in full segments, so that a recovery need not look there.
async fn sync(app: &App) {
    let Some(filling) = app.segments.filling() else {
        return;
    };
    let synced = app.db.store().sync().await;
    app.db.note(synced.as_ref().err());
    if synced.is_ok() {
        let write = app
            .db
            .write(move |tx| recover::set_synced_before(tx, filling))
            .await;
        if let Err(error) = write {
            warn!(%error, "failed to note what is synced");
        }
    }
}

pub(crate) async fn once(app: &App) {
    let done = async {
        note_presence(app).await?;
        give_up_on_the_lost(app).await?;
        forget_runs(app).await?;
        forget_logs(app).await
    };
    if let Err(error) = done.await {
        warn!(%error, "failed to sweep; trying again later");
    }
}

type Result<T> = std::result::Result<T, hybrid_runner_store::Error>;

/// So that a crash of the server does not make a runner look as if it had been away.
async fn note_presence(app: &App) -> Result<()> {
    let agents: Vec<AgentId> = app
        .roster
        .seats()
        .iter()
        .map(|seat| seat.agent.clone())
        .collect();
    if !agents.is_empty() {
        drop(app.db.write(move |tx| runners::seen(tx, &agents)).await?);
    }
    Ok(())
}

/// Gives up the runs of runners that have been away too long, counted from when this server could see them.
async fn give_up_on_the_lost(app: &App) -> Result<()> {
    let Some(limit) = app.config.runner_lost_after.limit() else {
        return Ok(());
    };
    let before = now() - i64::try_from(limit.as_micros()).unwrap_or(i64::MAX >> 1);
    if app.started > before {
        return Ok(());
    }
    let all = app.db.read(runners::all).await?;
    for runner in all.into_iter().filter(|runner| runner.last_seen < before) {
        if app.roster.seat(&runner.agent).is_some() {
            continue;
        }
        let why = format!(
            "its runner has been away for more than {}",
            app.config.runner_lost_after
        );
        let agent = runner.agent.clone();
        let lost = app
            .db
            .write(move |tx| queries::lose(tx, &agent, &why))
            .await?
            .into_value();
        for run in lost {
            warn!(%run, runner = %runner.agent, "lost: its runner stays away");
        }
    }
    Ok(())
}

async fn forget_runs(app: &App) -> Result<()> {
    let Some(keep) = app.config.retention.runs.limit() else {
        return Ok(());
    };
    let before = now() - i64::try_from(keep.as_micros()).unwrap_or(i64::MAX >> 1);
    loop {
        let gone = app
            .db
            .write(move |tx| queries::forget(tx, before))
            .await?
            .into_value();
        if gone == 0 {
            return Ok(());
        }
        info!(runs = gone, "forgot old runs");
    }
}

async fn forget_logs(app: &App) -> Result<()> {
    let Some(keep) = app.config.retention.logs.limit() else {
        return Ok(());
    };
    let Some(before) = SystemTime::now().checked_sub(keep) else {
        return Ok(());
    };
    for segment in app.segments.older_than(before)? {
        // The index first: a row without its file would read as damage.
        drop(app.db.write(move |tx| drop_segment(tx, segment)).await?);
        app.segments.delete(segment)?;
        info!(segment, "deleted old logs");
    }
    Ok(())
}
