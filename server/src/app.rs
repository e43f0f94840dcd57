//! What all parts of a running server share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hybrid_runner_core::Result;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::access::Access;
use crate::config::Config;
use crate::link::Roster;
use crate::logs::{self, Segments};
use crate::store::Db;
use crate::watchers::Watchers;

/// What all parts of a running server share.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) config: Config,
    pub(crate) db: Db,
    pub(crate) segments: Arc<Segments>,
    pub(crate) access: Access,
    pub(crate) watchers: Watchers,
    pub(crate) roster: Roster,
    /// The links, and what must not be broken off; waited for at the end.
    pub(crate) links: TaskTracker,
    pub(crate) shutdown: CancellationToken,
    /// A segment has become full.
    pub(crate) segment_full: Notify,
    pub(crate) counters: Counters,
    /// When this process began to look, in microseconds.
    pub(crate) started: i64,
}

/// Counts since the start.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) log_bytes: AtomicU64,
    pub(crate) outcomes: AtomicU64,
    pub(crate) hellos: AtomicU64,
    pub(crate) refused: AtomicU64,
}

impl Counters {
    pub(crate) fn add(counter: &AtomicU64, more: u64) {
        counter.fetch_add(more, Ordering::Relaxed);
    }
}

impl App {
    /// Opens everything that is on disk.
    pub(crate) async fn open(config: Config) -> Result<Self> {
        let access = Access::open(&config.data_dir).await?;
        let opened = Db::open_server(&config.data_dir).await?;
        let logs = config.data_dir.join("logs");
        let created = opened.created;
        let segments = tokio::task::spawn_blocking(move || {
            let segments = Segments::open(&logs)?;
            // Segments without an index: the state file was set aside, or deleted.
            let aside = if created { segments.set_aside()? } else { None };
            std::io::Result::Ok((segments, aside))
        });
        let (segments, aside) = segments
            .await
            .map_err(std::io::Error::other)
            .and_then(|opened| opened)
            .map_err(hybrid_runner_store::Error::from)?;
        if let Some(path) = opened.set_aside {
            warn!(set_aside = %path.display(), "the state could not be read; runs are adopted from their runners as they connect");
        }
        if let Some(path) = aside {
            warn!(set_aside = %path.display(), "set logs aside whose index is gone");
        }
        let segments = Arc::new(segments);
        recover(&opened.db, &segments).await?;
        Ok(Self {
            config,
            db: opened.db,
            segments,
            access,
            watchers: Watchers::default(),
            roster: Roster::default(),
            links: TaskTracker::new(),
            shutdown: CancellationToken::new(),
            segment_full: Notify::new(),
            counters: Counters::default(),
            started: crate::store::now(),
        })
    }

    /// Does `work` to its end, even if whoever asked for it hangs up: what is stored and what its runner is told
    /// belong together.
    pub(crate) async fn to_the_end<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> T {
        match self.links.spawn(work).await {
            Ok(done) => done,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }

    /// Syncs and closes what is on disk.
    pub(crate) async fn close(&self) {
        self.db.close().await;
        self.access.close().await;
    }
}

async fn recover(db: &Db, segments: &Arc<Segments>) -> Result<()> {
    let segments = Arc::clone(segments);
    let boot = logs::recover::boot_id();
    let cut = db
        .write(move |tx| logs::recover::recover(tx, &segments, &boot))
        .await?
        .into_value();
    for run in &cut {
        info!(%run, "the end of its log was damaged; its runner will send it again");
    }
    Ok(())
}
