//! Opening: new, known, newer, damaged, somebody else's.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use hybrid_runner_store::{Error, Options, Store, rusqlite};
use tempfile::TempDir;

use crate::{ID, MIGRATIONS, add, fresh, lines, opened, options, within};

#[tokio::test]
async fn a_new_file_is_private_and_keeps_what_is_written() {
    within(async {
        let directory = TempDir::new().expect("makes a directory");
        let first = opened(directory.path()).await;
        assert!(first.created && first.set_aside.is_none());
        first.store.write(add("one")).await.expect("commits");
        for name in ["state.db", "state.db-wal", "state.db-shm", "state.db.lock"] {
            let mode = fs::metadata(directory.path().join(name))
                .expect(name)
                .permissions()
                .mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
        first.store.close().await;
        let second = opened(directory.path()).await;
        assert!(!second.created && second.set_aside.is_none());
        assert_eq!(lines(&second.store).await, ["one"]);
    })
    .await;
}

#[tokio::test]
async fn an_empty_file_is_a_new_one() {
    within(async {
        let directory = TempDir::new().expect("makes a directory");
        fs::write(directory.path().join("state.db"), "").expect("writes");
        let opened = opened(directory.path()).await;
        assert!(opened.created && opened.set_aside.is_none());
    })
    .await;
}

#[tokio::test]
async fn dropping_the_last_clone_closes() {
    within(async {
        let (directory, store) = fresh().await;
        store.write(add("one")).await.expect("commits");
        drop(store);
        // The writer's task holds the store until it has seen that nothing is queued.
        let store = loop {
            match Store::open(options(directory.path())).await {
                Ok(opened) => break opened.store,
                Err(Error::Locked { .. }) => tokio::task::yield_now().await,
                Err(error) => panic!("{error}"),
            }
        };
        assert_eq!(lines(&store).await, ["one"]);
    })
    .await;
}

#[tokio::test]
async fn a_second_open_is_refused_and_told_who_holds_it() {
    within(async {
        let (directory, store) = fresh().await;
        let error = Store::open(options(directory.path()))
            .await
            .expect_err("is locked");
        let Error::Locked { by, .. } = &error else {
            panic!("{error:?}")
        };
        assert_eq!(*by, Some(std::process::id()));
        assert!(
            error.to_string().contains(&std::process::id().to_string()),
            "{error}"
        );
        store
            .write(add("one"))
            .await
            .expect("the holder is not disturbed");
    })
    .await;
}

#[tokio::test]
async fn migrations_run_one_by_one_and_once() {
    const TWO: &[&str] = &[
        MIGRATIONS[0],
        "ALTER TABLE line ADD COLUMN more TEXT; UPDATE line SET more = text || '!'",
    ];
    const BROKEN: &[&str] = &[
        TWO[0],
        TWO[1],
        "CREATE TABLE third (x); UPDATE missing SET x = 1",
    ];
    const THREE: &[&str] = &[TWO[0], TWO[1], "CREATE TABLE third (x)"];
    within(async {
        let (directory, store) = fresh().await;
        store.write(add("one")).await.expect("commits");
        store.close().await;
        let with = |migrations| Options::new(directory.path().join("state.db"), ID, migrations);
        for _ in 0..2 {
            let opened = Store::open(with(TWO)).await.expect("migrates");
            assert!(!opened.created);
            let more = opened.store.read(|db| {
                db.query_row("SELECT more FROM line", [], |row| row.get::<_, String>(0))
            });
            assert_eq!(more.await.expect("reads"), "one!");
            opened.store.close().await;
        }
        let error = Store::open(with(BROKEN)).await.expect_err("cannot migrate");
        assert!(matches!(error, Error::Sql(_)), "{error:?}");
        let opened = Store::open(with(THREE))
            .await
            .expect("the broken one left nothing behind");
        assert_eq!(lines(&opened.store).await, ["one"]);
    })
    .await;
}

#[tokio::test]
async fn a_file_of_a_newer_version_is_refused_and_left_alone() {
    const NEWER: &[&str] = &[MIGRATIONS[0], "CREATE TABLE future (x)"];
    within(async {
        let directory = TempDir::new().expect("makes a directory");
        let path = directory.path().join("state.db");
        Store::open(Options::new(&path, ID, NEWER))
            .await
            .expect("opens")
            .store
            .close()
            .await;
        let before = fs::read(&path).expect("reads");
        let error = Store::open(options(directory.path()))
            .await
            .expect_err("is newer");
        assert!(
            matches!(
                error,
                Error::TooNew {
                    found: 2,
                    supported: 1,
                    ..
                }
            ),
            "{error:?}"
        );
        assert_eq!(fs::read(&path).expect("reads"), before);
        Store::open(Options::new(&path, ID, NEWER))
            .await
            .expect("still opens for those who know it");
    })
    .await;
}

/// Opens what `damage` left: it must be set aside as it is, and a new store must work.
async fn is_set_aside(directory: &Path) {
    let path = directory.join("state.db");
    let damaged = fs::read(&path).ok();
    let opened = opened(directory).await;
    let aside = opened.set_aside.expect("sets it aside");
    assert!(opened.created);
    let name = aside
        .file_name()
        .expect("has a name")
        .to_string_lossy()
        .into_owned();
    assert!(name.starts_with("state.db.unreadable-2"), "{name}");
    assert_eq!(fs::read(&aside).ok(), damaged, "nothing is lost");
    opened.store.write(add("new")).await.expect("commits");
    assert_eq!(lines(&opened.store).await, ["new"]);
    opened.store.close().await;
}

async fn with_rows(directory: &Path, count: usize) {
    let store = opened(directory).await.store;
    let text = "x".repeat(1000);
    store
        .write(move |db| (0..count).try_for_each(|_| add(&text)(db)))
        .await
        .expect("commits");
    store.close().await;
}

#[tokio::test]
async fn garbage_is_set_aside_each_time_under_its_own_name() {
    within(async {
        let directory = TempDir::new().expect("makes a directory");
        for count in 1..=3 {
            fs::write(
                directory.path().join("state.db"),
                format!("{count} not a database ").repeat(999),
            )
            .expect("writes");
            is_set_aside(directory.path()).await;
            let names = fs::read_dir(directory.path())
                .expect("lists")
                .map(|entry| entry.expect("lists").file_name());
            assert_eq!(
                names
                    .filter(|name| name.to_string_lossy().contains("unreadable"))
                    .count(),
                count
            );
        }
    })
    .await;
}

#[tokio::test]
async fn a_truncated_file_is_set_aside() {
    within(async {
        for keep in [10, 3000, 4096, 30_000] {
            let directory = TempDir::new().expect("makes a directory");
            with_rows(directory.path(), 100).await;
            let file = fs::OpenOptions::new()
                .write(true)
                .open(directory.path().join("state.db"))
                .expect("opens");
            file.set_len(keep).expect("truncates");
            drop(file);
            is_set_aside(directory.path()).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_file_with_a_damaged_page_is_set_aside() {
    within(async {
        let directory = TempDir::new().expect("makes a directory");
        with_rows(directory.path(), 100).await;
        let path = directory.path().join("state.db");
        let mut bytes = fs::read(&path).expect("reads");
        bytes[3 * 4096..3 * 4096 + 100].fill(0xa5);
        fs::write(&path, bytes).expect("writes");
        is_set_aside(directory.path()).await;
    })
    .await;
}

#[tokio::test]
async fn another_programs_database_is_set_aside() {
    within(async {
        let directory = TempDir::new().expect("makes a directory");
        let other = rusqlite::Connection::open(directory.path().join("state.db")).expect("opens");
        other
            .execute_batch("CREATE TABLE theirs (x)")
            .expect("writes");
        drop(other);
        is_set_aside(directory.path()).await;
    })
    .await;
}

#[tokio::test]
async fn a_log_without_its_database_is_set_aside() {
    within(async {
        let directory = TempDir::new().expect("makes a directory");
        let log = directory.path().join("state.db-wal");
        fs::write(&log, "a log").expect("writes");
        is_set_aside(directory.path()).await;
        let kept = fs::read_dir(directory.path())
            .expect("lists")
            .map(|entry| entry.expect("lists").path());
        let kept = kept
            .filter(|path| path.to_string_lossy().ends_with("-wal"))
            .map(fs::read);
        assert_eq!(
            kept.map(|bytes| bytes.expect("reads")).collect::<Vec<_>>(),
            [b"a log"]
        );
    })
    .await;
}

#[tokio::test]
async fn a_missing_directory_is_an_error_and_moves_nothing() {
    within(async {
        let error = Store::open(options(Path::new("/nonexistent/directory")))
            .await
            .expect_err("is missing");
        assert!(matches!(error, Error::Io(_)), "{error:?}");
    })
    .await;
}
