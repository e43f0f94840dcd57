//! The disk fills up and empties again; the log stays bounded.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use hybrid_runner_store::{Error, Store, rusqlite};
use tempfile::TempDir;

use crate::{add, fresh, lines, opened, within};

async fn set_page_limit(store: &Store, pages: u32) {
    let set = move |db: &rusqlite::Transaction<'_>| db.pragma_update(None, "max_page_count", pages);
    store.write(set).await.expect("sets the limit");
}

#[tokio::test]
async fn a_store_without_room_says_so_and_works_again_with_room() {
    within(async {
        let (directory, store) = fresh().await;
        let big = "x".repeat(100_000);
        store.write(add("small")).await.expect("commits");
        set_page_limit(&store, 10).await;
        for _ in 0..3 {
            let error = store.write(add(&big)).await.expect_err("has no room");
            assert!(
                matches!(error, Error::Full(_)) && error.is_storage(),
                "{error:?}"
            );
        }
        store
            .write(add("still fits"))
            .await
            .expect("what needs no room goes on");
        set_page_limit(&store, 1_000_000).await;
        store
            .write(add(&big))
            .await
            .expect("has room")
            .synced()
            .await
            .expect("syncs");
        store.close().await;
        let store = opened(directory.path()).await.store;
        assert_eq!(lines(&store).await, ["small", "still fits", &big]);
    })
    .await;
}

/// A small file system of its own, gone with the test.
struct Tmpfs(TempDir);

impl Tmpfs {
    fn mount(size: &str) -> Option<Self> {
        let directory = TempDir::new().expect("makes a directory");
        let mut mount = Command::new("mount");
        mount
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"])
            .arg(directory.path());
        mount
            .output()
            .is_ok_and(|output| output.status.success())
            .then_some(Self(directory))
    }

    fn fill(&self) {
        let mut file = File::create(self.filler()).expect("makes a file");
        while file.write_all(&[0; 4096]).is_ok() {}
    }

    fn empty(&self) {
        fs::remove_file(self.filler()).expect("removes");
    }

    fn filler(&self) -> impl AsRef<Path> + use<> {
        self.0.path().join("filler")
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg(self.0.path()).status();
        assert!(
            unmounted.is_ok_and(|status| status.success()),
            "the file system is let go of"
        );
    }
}

#[tokio::test]
async fn a_full_disk_fails_writes_until_there_is_room() {
    let Some(disk) = Tmpfs::mount("2m") else {
        eprintln!("skipped: mounting a tmpfs needs root");
        return;
    };
    within(async {
        let store = opened(disk.0.path()).await.store;
        let text = "x".repeat(10_000);
        let mut kept = vec![text.clone()];
        store.write(add(&text)).await.expect("commits");
        for _ in 0..2 {
            disk.fill();
            // The log has some room of its own left from before.
            let error = loop {
                match store.write(add(&text)).await {
                    Ok(_) => kept.push(text.clone()),
                    Err(error) => break error,
                }
            };
            assert!(matches!(error, Error::Full(_)), "{error:?}");
            assert_eq!(lines(&store).await, kept, "reads go on");
            disk.empty();
            kept.push(text.clone());
            store
                .write(add(&text))
                .await
                .expect("has room")
                .synced()
                .await
                .expect("syncs");
        }
        store.close().await;
        let store = opened(disk.0.path()).await.store;
        assert_eq!(lines(&store).await, kept);
        store.close().await;
    })
    .await;
}

#[tokio::test]
async fn the_log_stays_bounded_and_what_it_held_is_in_the_database() {
    within(async {
        let (directory, store) = fresh().await;
        let size = |name| {
            fs::metadata(directory.path().join(name))
                .expect("exists")
                .len()
        };
        let text = "x".repeat(100_000);
        let mut most = 0;
        for _ in 0..1000 {
            store.write(add(&text)).await.expect("commits");
            most = most.max(size("state.db-wal"));
        }
        assert!(most < 21 << 20, "{most}");
        assert!(size("state.db") > 60 << 20);
        store.close().await;
        let names = fs::read_dir(directory.path()).expect("lists").count();
        assert_eq!(names, 2, "closed, there is the database and its lock");
        let store = opened(directory.path()).await.store;
        assert_eq!(lines(&store).await.len(), 1000);
    })
    .await;
}
