//! Groups, their order, failures and cancellation.

use hybrid_runner_store::{Error, rusqlite};

use crate::{add, begin, fresh, hold, lines, opened, within};

#[tokio::test]
async fn closures_that_wait_together_are_committed_together() {
    within(async {
        let (_directory, store) = fresh().await;
        let open = hold(&store).await;
        let mut rest = Vec::new();
        for number in 0..100 {
            let mut write = Box::pin(store.write(add(&number.to_string())));
            begin(&mut write).await;
            rest.push(write);
        }
        open.send(()).expect("the writer waits");
        for write in rest {
            write.await.expect("commits");
        }
        let stats = store.stats();
        assert_eq!(stats.writes, 101);
        assert_eq!(stats.commits, 2);
        assert_eq!(stats.syncs, 0, "nobody waited for one");
    })
    .await;
}

#[tokio::test]
async fn a_failing_closure_fails_alone() {
    within(async {
        let (_directory, store) = fresh().await;
        let open = hold(&store).await;
        let mut before = Box::pin(store.write(add("before")));
        let mut failing = Box::pin(store.write(|db| {
            db.execute("INSERT INTO line VALUES (100, 'undone')", [])?;
            db.execute("INSERT INTO line VALUES (100, 'twice')", [])
        }));
        let mut after = Box::pin(store.write(add("after")));
        begin(&mut before).await;
        begin(&mut failing).await;
        begin(&mut after).await;
        drop(open);
        before.await.expect("commits");
        let error = failing.await.expect_err("breaks the primary key");
        assert!(matches!(error, Error::Sql(_)), "{error:?}");
        after.await.expect("commits");
        assert_eq!(lines(&store).await, ["before", "after"]);
    })
    .await;
}

#[tokio::test]
async fn a_panicking_closure_panics_in_its_caller_alone() {
    within(async {
        let (_directory, store) = fresh().await;
        let open = hold(&store).await;
        let mut before = Box::pin(store.write(add("before")));
        begin(&mut before).await;
        let other = store.clone();
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(async move {
            let bad = |db: &rusqlite::Transaction<'_>| -> rusqlite::Result<()> {
                db.execute("INSERT INTO line VALUES (100, 'undone')", [])?;
                panic!("a bug in a closure")
            };
            other.write(bad).await.map(drop)
        });
        drop(open);
        before.await.expect("commits");
        let ended = tasks.join_next().await.expect("one task");
        assert!(ended.expect_err("panics").is_panic());
        store.write(add("after")).await.expect("the writer lives");
        assert_eq!(lines(&store).await, ["before", "after"]);
    })
    .await;
}

#[tokio::test]
async fn a_closure_that_ends_the_transaction_is_an_error() {
    within(async {
        let (_directory, store) = fresh().await;
        let error = store
            .write(|db| db.execute_batch("ROLLBACK"))
            .await
            .expect_err("is refused");
        assert!(matches!(error, Error::Sql(_)), "{error:?}");
        store.write(add("after")).await.expect("the writer lives");
    })
    .await;
}

#[tokio::test]
async fn closures_of_one_task_run_in_the_order_of_its_calls() {
    within(async {
        let (_directory, store) = fresh().await;
        let open = hold(&store).await;
        let expected: Vec<_> = (0..400).map(|number| number.to_string()).collect();
        let mut writes = Vec::new();
        for text in &expected {
            // Some of these have room and some have not: all the same.
            let mut write = Box::pin(store.write(add(text)));
            begin(&mut write).await;
            writes.push(write);
        }
        drop(open);
        for write in writes {
            write.await.expect("commits");
        }
        assert_eq!(lines(&store).await, expected);
    })
    .await;
}

#[tokio::test]
async fn a_write_that_was_queued_is_committed_although_its_future_is_dropped() {
    within(async {
        let (directory, store) = fresh().await;
        let open = hold(&store).await;
        let mut dropped = Box::pin(store.write(add("dropped")));
        begin(&mut dropped).await;
        drop(dropped);
        drop(open);
        store.close().await;
        assert_eq!(
            lines(&opened(directory.path()).await.store).await,
            ["dropped"]
        );
    })
    .await;
}

#[tokio::test]
async fn a_full_queue_makes_callers_wait_and_what_waits_can_still_be_dropped() {
    within(async {
        let (_directory, store) = fresh().await;
        let open = hold(&store).await;
        let mut writes = Vec::new();
        for number in 1..300 {
            let mut write = Box::pin(store.write(add(&number.to_string())));
            begin(&mut write).await;
            writes.push(write);
        }
        drop(writes.pop());
        drop(open);
        for write in writes {
            write.await.expect("commits");
        }
        let written = lines(&store).await;
        assert_eq!(written.len(), 298);
        assert!(
            !written.contains(&"299".to_owned()),
            "had no room yet, so never ran"
        );
    })
    .await;
}

#[tokio::test]
async fn closing_waits_for_what_is_queued_and_refuses_what_comes_later() {
    within(async {
        let (directory, store) = fresh().await;
        let other = store.clone();
        let open = hold(&store).await;
        let mut queued = Box::pin(other.write(add("queued")));
        begin(&mut queued).await;
        let mut closing = Box::pin(store.close());
        begin(&mut closing).await;
        let mut late = Box::pin(other.write(add("late")));
        begin(&mut late).await;
        drop(open);
        closing.await;
        let commit = queued.await.expect("commits").commit();
        commit.synced().await.expect("closing syncs");
        assert!(matches!(late.await, Err(Error::Closed)));
        assert!(matches!(other.read(|_| Ok(())).await, Err(Error::Closed)));
        assert_eq!(
            lines(&opened(directory.path()).await.store).await,
            ["queued"]
        );
    })
    .await;
}

#[tokio::test]
async fn reads_see_what_was_committed_and_cannot_write() {
    within(async {
        let (_directory, store) = fresh().await;
        store.write(add("one")).await.expect("commits");
        assert_eq!(lines(&store).await, ["one"]);
        let refused = store.read(|db| db.execute("DELETE FROM line", [])).await;
        assert!(matches!(refused, Err(Error::Io(_))), "{refused:?}");
        assert_eq!(lines(&store).await, ["one"]);
    })
    .await;
}

#[tokio::test]
async fn a_long_read_stands_in_the_way_of_neither_reads_nor_writes() {
    within(async {
        let (_directory, store) = fresh().await;
        let (open, wait) = std::sync::mpsc::channel::<()>();
        let mut long = Box::pin(store.read(move |db| {
            let count = |db: &rusqlite::Connection| {
                db.query_row("SELECT count(*) FROM line", [], |row| row.get::<_, i64>(0))
            };
            let before = count(db)?;
            wait.recv().ok();
            Ok((before, count(db)?))
        }));
        begin(&mut long).await;
        store.write(add("one")).await.expect("commits");
        assert_eq!(lines(&store).await, ["one"]);
        drop(open);
        let (before, after) = long.await.expect("reads");
        assert_eq!(before, after, "a read sees one state");
    })
    .await;
}
