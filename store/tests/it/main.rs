//! What the store promises, by what a program sees of it.

mod crash;
mod disk;
mod durability;
mod group;
mod open;

use std::future::{Future, poll_fn};
use std::path::Path;
use std::pin::Pin;
use std::sync::mpsc;
use std::task::Poll;
use std::time::Duration;

use hybrid_runner_store::rusqlite::{self, Transaction};
use hybrid_runner_store::{Opened, Options, Store};
use tempfile::TempDir;

const ID: i32 = 0x4852_0001;
const MIGRATIONS: &[&str] =
    &["CREATE TABLE line (number INTEGER PRIMARY KEY, text TEXT NOT NULL) STRICT"];

fn options(directory: &Path) -> Options {
    Options::new(directory.join("state.db"), ID, MIGRATIONS)
}

async fn opened(directory: &Path) -> Opened {
    Store::open(options(directory)).await.expect("opens")
}

async fn fresh() -> (TempDir, Store) {
    let directory = TempDir::new().expect("makes a directory");
    let store = opened(directory.path()).await.store;
    (directory, store)
}

/// Adds a row; its number is the order in which it was added.
fn add(text: &str) -> impl FnOnce(&Transaction<'_>) -> rusqlite::Result<()> + Send + use<> {
    let text = text.to_owned();
    move |db| {
        db.prepare_cached("INSERT INTO line (text) VALUES (?1)")?
            .execute([text])
            .map(drop)
    }
}

async fn lines(store: &Store) -> Vec<String> {
    let select = |db: &rusqlite::Connection| {
        db.prepare("SELECT text FROM line ORDER BY number")?
            .query_map([], |row| row.get(0))?
            .collect()
    };
    store.read(select).await.expect("reads")
}

/// Every test ends, whatever hangs.
async fn within<T>(test: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_mins(1), test)
        .await
        .expect("ends in time")
}

/// Polls once: what the future does before its first wait has happened then.
async fn begin<F: Future>(future: &mut Pin<Box<F>>) {
    let ready = poll_fn(|context| Poll::Ready(future.as_mut().poll(context).is_ready())).await;
    assert!(!ready, "the future was to wait");
}

/// Holds the writer, so that what is queued from now on is one group, until the sender speaks or is dropped.
async fn hold(store: &Store) -> mpsc::Sender<()> {
    let (open, wait) = mpsc::channel::<()>();
    let (running, runs) = tokio::sync::oneshot::channel();
    let mut write = Box::pin(store.write(move |_| {
        running.send(()).ok();
        wait.recv().ok();
        Ok(())
    }));
    begin(&mut write).await;
    runs.await.expect("the writer took it");
    open
}
