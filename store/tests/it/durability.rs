//! Waiting for power-loss durability.

use std::fs::{self, File};
use std::sync::Arc;

use hybrid_runner_store::Error;

use crate::{add, begin, fresh, lines, opened, within};

#[tokio::test]
async fn many_waiters_share_one_sync() {
    within(async {
        let (_directory, store) = fresh().await;
        let mut commits = Vec::new();
        for number in 0..50 {
            commits.push(
                store
                    .write(add(&number.to_string()))
                    .await
                    .expect("commits")
                    .commit(),
            );
        }
        assert_eq!(store.stats().syncs, 0, "nobody waited for one");
        let mut waits: Vec<_> = commits
            .iter()
            .map(|commit| Box::pin(commit.synced()))
            .collect();
        for wait in &mut waits {
            begin(wait).await;
        }
        for wait in waits {
            wait.await.expect("syncs");
        }
        assert_eq!(store.stats().syncs, 1);
        commits[7].synced().await.expect("is synced");
        store.sync().await.expect("is synced");
        assert_eq!(
            store.stats().syncs,
            1,
            "what is durable needs no other sync"
        );
    })
    .await;
}

#[tokio::test]
async fn a_commit_after_a_sync_needs_another() {
    within(async {
        let (_directory, store) = fresh().await;
        for number in 1..=3 {
            store
                .write(add("x"))
                .await
                .expect("commits")
                .synced()
                .await
                .expect("syncs");
            assert_eq!(store.stats().syncs, number);
        }
    })
    .await;
}

#[tokio::test]
async fn what_opening_wrote_can_be_synced() {
    within(async {
        let (_directory, store) = fresh().await;
        store.sync().await.expect("syncs");
        assert_eq!(store.stats().syncs, 1);
    })
    .await;
}

/// `/dev/null` cannot be synced, which shows both that a sync is waited for and that the file is part of it.
#[tokio::test]
async fn a_failed_sync_fails_all_who_wait_until_the_store_is_opened_anew() {
    within(async {
        let (directory, store) = fresh().await;
        let early = store.write(add("early")).await.expect("commits").commit();
        early.synced().await.expect("syncs");
        store.sync_first(Arc::new(File::open("/dev/null").expect("opens")));
        let write = store.write(add("unsynced")).await.expect("commits");
        let error = write.synced().await.expect_err("the file cannot be synced");
        assert!(
            matches!(error, Error::Io(_)) && error.is_storage(),
            "{error:?}"
        );
        early.synced().await.expect("was durable before");
        let later = store
            .write(add("later"))
            .await
            .expect("still survives kill -9");
        later
            .synced()
            .await
            .expect_err("a later success proves nothing");
        store.close().await;
        let store = opened(directory.path()).await.store;
        assert_eq!(lines(&store).await, ["early", "unsynced", "later"]);
        store.sync().await.expect("syncs again");
    })
    .await;
}

#[tokio::test]
async fn files_named_before_a_commit_are_synced_once_with_it() {
    within(async {
        let (directory, store) = fresh().await;
        let segment =
            Arc::new(File::create(directory.path().join("segment")).expect("makes a file"));
        for _ in 0..3 {
            store.sync_first(Arc::clone(&segment));
        }
        store
            .write(add("row"))
            .await
            .expect("commits")
            .synced()
            .await
            .expect("syncs");
        assert_eq!(
            Arc::strong_count(&segment),
            1,
            "the store lets go of a file when it is synced"
        );
    })
    .await;
}

/// So that tests of others can pause the clock and still use a real store.
#[tokio::test(start_paused = true)]
async fn a_paused_clock_stands_still_while_the_store_works() {
    within(async {
        let began = tokio::time::Instant::now();
        let (_directory, store) = fresh().await;
        for _ in 0..20 {
            store
                .write(add("x"))
                .await
                .expect("commits")
                .synced()
                .await
                .expect("syncs");
        }
        assert_eq!(lines(&store).await.len(), 20);
        store.close().await;
        assert_eq!(began.elapsed(), std::time::Duration::ZERO);
    })
    .await;
}

/// What power loss may do to the log's end: cut it, or leave pages of it unwritten.
#[tokio::test]
async fn a_torn_log_keeps_every_commit_before_the_tear() {
    within(async {
        let (directory, store) = fresh().await;
        let path = |name| directory.path().join(name);
        let mut ends = Vec::new();
        for number in 0..20 {
            store
                .write(add(&number.to_string()))
                .await
                .expect("commits");
            ends.push(fs::metadata(path("state.db-wal")).expect("exists").len());
        }
        let expected = lines(&store).await;
        let [database, log] =
            ["state.db", "state.db-wal"].map(|name| fs::read(path(name)).expect("reads"));
        for tear in (ends[0]..=ends[19]).step_by(1500) {
            let kept = ends.iter().filter(|end| **end <= tear).count();
            let tear = usize::try_from(tear).expect("is small");
            let mut unwritten = log.clone();
            unwritten[tear..].fill(0);
            for torn in [&log[..tear], &unwritten] {
                let copy = tempfile::TempDir::new().expect("makes a directory");
                fs::write(copy.path().join("state.db"), &database).expect("writes");
                fs::write(copy.path().join("state.db-wal"), torn).expect("writes");
                let opened = opened(copy.path()).await;
                assert!(opened.set_aside.is_none());
                assert_eq!(
                    lines(&opened.store).await,
                    expected[..kept],
                    "torn at {tear}"
                );
            }
        }
    })
    .await;
}
