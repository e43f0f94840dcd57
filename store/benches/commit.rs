//! Writes per second and their latency, in both grades, beside one `synchronous=FULL` commit each.
//!
//! `cargo bench -p hybrid-runner-store` (on the disk of the temporary directory; set `TMPDIR` for another).
#![expect(clippy::print_stdout, reason = "the table is the product")]

use std::path::Path;
use std::time::Duration;

use hybrid_runner_store::rusqlite::{self, Connection};
use hybrid_runner_store::{Options, Store};
use tokio::task::JoinSet;
use tokio::time::Instant;

const MIGRATIONS: &[&str] =
    &["CREATE TABLE line (number INTEGER PRIMARY KEY, text TEXT NOT NULL) STRICT"];
const INSERT: &str = "INSERT INTO line (text) VALUES (?1)";
const LASTS: Duration = Duration::from_secs(3);

#[derive(Clone, Copy, PartialEq)]
enum Grade {
    /// Survives `kill -9`.
    Written,
    /// Survives power loss.
    Synced,
}

#[tokio::main]
async fn main() {
    if !std::env::args().any(|argument| argument == "--bench") {
        return; // `cargo test --all-targets` only wants it to compile.
    }
    let directory = tempfile::tempdir().expect("makes a directory");
    let before = memory();
    let store = open(directory.path()).await;
    grown("open", before);
    for _ in 0..2000 {
        store
            .write(insert)
            .await
            .expect("commits")
            .synced()
            .await
            .expect("syncs");
    }
    let count =
        |db: &Connection| db.query_row("SELECT count(*) FROM line", [], |row| row.get::<_, i64>(0));
    store.read(count).await.expect("reads");
    grown("open, after 2,000 writes and a read", before);
    store.close().await;

    println!(
        "{:<34} {:>9} {:>9} {:>9} {:>9}",
        "", "writes/s", "p50 µs", "p99 µs", "max µs"
    );
    full(directory.path());
    for (grade, name) in [(Grade::Written, "written"), (Grade::Synced, "synced")] {
        for writers in [1, 64] {
            let directory = tempfile::tempdir().expect("makes a directory");
            let store = open(directory.path()).await;
            let began = Instant::now();
            let times = many(&store, writers, grade).await;
            let stats = store.stats();
            report(
                &format!("{writers} writers, {name}"),
                times,
                began.elapsed(),
            );
            println!("    {stats:?}");
            store.close().await;
        }
    }
}

async fn open(directory: &Path) -> Store {
    let options = Options::new(directory.join("state.db"), 1, MIGRATIONS);
    Store::open(options).await.expect("opens").store
}

fn insert(db: &rusqlite::Transaction<'_>) -> rusqlite::Result<()> {
    db.prepare_cached(INSERT)?
        .execute(["a line of about the size of a status: 0123456789"])
        .map(drop)
}

async fn many(store: &Store, writers: usize, grade: Grade) -> Vec<Duration> {
    let mut tasks = JoinSet::new();
    for _ in 0..writers {
        let store = store.clone();
        tasks.spawn(async move {
            let end = Instant::now() + LASTS;
            let mut times = Vec::new();
            while Instant::now() < end {
                let began = Instant::now();
                let committed = store.write(insert).await.expect("commits");
                if grade == Grade::Synced {
                    committed.synced().await.expect("syncs");
                }
                times.push(began.elapsed());
            }
            times
        });
    }
    tasks.join_all().await.concat()
}

/// The floor: one commit after the other, each synced by SQLite.
fn full(directory: &Path) {
    let db = Connection::open(directory.join("full.db")).expect("opens");
    db.pragma_update(None, "journal_mode", "WAL").expect("sets");
    db.pragma_update(None, "synchronous", "FULL").expect("sets");
    db.execute_batch(MIGRATIONS[0]).expect("makes the table");
    let began = Instant::now();
    let mut times = Vec::new();
    while began.elapsed() < LASTS {
        let start = Instant::now();
        let transaction = db.unchecked_transaction().expect("begins");
        insert(&transaction).expect("inserts");
        transaction.commit().expect("commits");
        times.push(start.elapsed());
    }
    report("SQLite alone, synchronous=FULL", times, began.elapsed());
}

fn report(name: &str, mut times: Vec<Duration>, lasted: Duration) {
    times.sort_unstable();
    let at = |part: usize| times[(times.len() - 1) * part / 100].as_micros();
    let rate = times.len() as u128 * 1_000_000 / lasted.as_micros();
    println!(
        "{name:<34} {rate:>9} {:>9} {:>9} {:>9}",
        at(50),
        at(99),
        at(100)
    );
}

/// Says what the process grew by.
fn grown(what: &str, before: [u64; 2]) {
    let [resident, anonymous] = memory();
    println!(
        "{what}: {} KiB resident, {} KiB of it anonymous",
        resident - before[0],
        anonymous - before[1]
    );
}

/// Resident memory and its anonymous part, in KiB.
fn memory() -> [u64; 2] {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    ["VmRSS:", "RssAnon:"].map(|name| {
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .unwrap_or_default();
        line.trim()
            .trim_end_matches(" kB")
            .parse()
            .unwrap_or_default()
    })
}
