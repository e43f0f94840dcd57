use std::fs::OpenOptions;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use hybrid_runner_core::log::{GapReason, Stream};
use hybrid_runner_core::run::State;
use hybrid_runner_core::{LogChunk, LogCursor, LogItem, Outcome, RunId, RunSpec, Status};

use super::*;
use crate::store::Db;
use crate::store::runs::{self, Made, NewRun};

/// A store, segments of a size, and one run.
struct Place {
    db: Db,
    segments: Arc<Segments>,
    run: i64,
}

impl Place {
    async fn open(dir: &Path, full: u64) -> Self {
        let db = Db::open_server(dir).await.unwrap().db;
        let segments = Arc::new(Segments::open_with(&dir.join("logs"), full).unwrap());
        let id = RunId::of_key("run");
        let runner: hybrid_runner_core::AgentId = "a".parse().unwrap();
        let new = NewRun {
            spec: RunSpec::new(id, "w".parse().unwrap(), ["true"]),
            runner,
            key: None,
            deployment: None,
            first_sent: None,
            status: Status::new(0, State::Queued),
        };
        let made = db
            .write(move |tx| runs::insert(tx, &new))
            .await
            .unwrap()
            .into_value();
        let run = if let Made::New(run) = made { run } else { 1 };
        Self { db, segments, run }
    }

    async fn append(&self, before: Option<&str>, items: &[(&str, LogItem)]) -> Appended {
        let mut batch = Batch::default();
        for (cursor, item) in items {
            batch.push(&LogChunk {
                item: item.clone(),
                next: cursor.parse().unwrap(),
            });
        }
        let (store, segments, run) = (
            self.db.store().clone(),
            Arc::clone(&self.segments),
            self.run,
        );
        let before: Option<LogCursor> = before.map(|before| before.parse().unwrap());
        self.db
            .write(move |tx| append(tx, &store, &segments, run, before.as_ref(), &batch))
            .await
            .unwrap()
            .into_value()
    }

    async fn read(&self, from: u64) -> Vec<Chunk> {
        let mut reader = Reader::new(self.run, from);
        let segments = Arc::clone(&self.segments);
        self.db
            .read(move |tx| {
                let mut all = Vec::new();
                loop {
                    let chunks = reader.read(tx, &segments)?;
                    if chunks.is_empty() {
                        return Ok(all);
                    }
                    all.extend(chunks);
                }
            })
            .await
            .unwrap()
    }

    async fn recover(&self, boot: &'static str) -> usize {
        let segments = Arc::clone(&self.segments);
        let recovered = self
            .db
            .write(move |tx| recover::recover(tx, &segments, boot));
        recovered.await.unwrap().into_value().len()
    }

    async fn stored(&self) -> runs::Run {
        let run = self.run;
        self.db.read(move |tx| runs::by_seq(tx, run)).await.unwrap()
    }
}

fn data(text: &str) -> LogItem {
    LogItem::Data {
        stream: Stream::Out,
        time: None,
        bytes: Bytes::copy_from_slice(text.as_bytes()),
    }
}

fn text(chunks: &[Chunk]) -> String {
    chunks
        .iter()
        .map(|chunk| match &chunk.item {
            LogItem::Data { bytes, .. } => String::from_utf8_lossy(bytes).into_owned(),
            LogItem::Gap { why, .. } => format!("<{why:?}>"),
            _ => "?".to_owned(),
        })
        .collect()
}

fn segment(dir: &Path, number: u64) -> std::path::PathBuf {
    dir.join(format!("logs/{number:010}.log"))
}

#[tokio::test]
async fn a_log_is_read_from_any_position_across_extents_and_segments() {
    let dir = tempfile::tempdir().unwrap();
    let place = Place::open(dir.path(), 100).await;
    let mut before = None;
    let mut expected = String::new();
    for n in 0..20 {
        let (cursor, line) = (format!("1:{n}"), format!("line {n}\n"));
        place
            .append(before.as_deref(), &[(&cursor, data(&line))])
            .await;
        expected += &line;
        before = Some(cursor);
    }
    assert!(segment(dir.path(), 3).exists());
    for from in 0..=expected.len() {
        assert_eq!(text(&place.read(from as u64).await), expected[from..]);
    }
}

#[tokio::test]
async fn writes_that_follow_each_other_share_an_extent_and_a_gap_is_one_position() {
    let dir = tempfile::tempdir().unwrap();
    let place = Place::open(dir.path(), 1 << 20).await;
    let gap = LogItem::Gap {
        bytes: Some(9),
        why: GapReason::Limit,
    };
    place.append(None, &[("1:1", data("a"))]).await;
    place
        .append(Some("1:1"), &[("1:2", gap), ("1:3", data("b"))])
        .await;
    let count = place.db.read(|tx| {
        tx.query_row("SELECT count(*) FROM extents", [], |row| {
            row.get::<_, u64>(0)
        })
    });
    assert_eq!(count.await.unwrap(), 1);
    assert_eq!(text(&place.read(0).await), "a<Limit>b");
    assert_eq!(text(&place.read(2).await), "b");
}

#[tokio::test]
async fn what_does_not_follow_the_stored_cursor_is_fenced() {
    let dir = tempfile::tempdir().unwrap();
    let place = Place::open(dir.path(), 1 << 20).await;
    assert!(matches!(
        place.append(None, &[("1:1", data("a"))]).await,
        Appended::Stored { .. }
    ));
    assert!(matches!(
        place.append(None, &[("1:1", data("a"))]).await,
        Appended::Fenced
    ));
    assert!(matches!(
        place.append(Some("1:7"), &[("1:8", data("b"))]).await,
        Appended::Fenced
    ));
    let (run, outcome) = (place.run, State::Finished(Outcome::Succeeded));
    let ended = place
        .db
        .write(move |tx| runs::finish(tx, run, &Status::new(1, outcome)));
    assert!(ended.await.unwrap().into_value());
    assert!(matches!(
        place.append(Some("1:1"), &[("1:2", data("b"))]).await,
        Appended::Fenced
    ));
    assert_eq!(text(&place.read(0).await), "a");
}

#[tokio::test]
async fn a_torn_end_is_cut_off_and_the_cursor_steps_back() {
    let dir = tempfile::tempdir().unwrap();
    // Each write is an extent in a segment of its own.
    let place = Place::open(dir.path(), 1).await;
    place.append(None, &[("1:1", data("one"))]).await;
    place.append(Some("1:1"), &[("1:2", data("two"))]).await;
    place.append(Some("1:2"), &[("1:3", data("three"))]).await;
    let (run, outcome) = (place.run, State::Finished(Outcome::Succeeded));
    let ended = place
        .db
        .write(move |tx| runs::finish(tx, run, &Status::new(1, outcome)));
    assert!(ended.await.unwrap().into_value());
    assert_eq!(place.recover("boot").await, 0, "nothing is torn yet");
    OpenOptions::new()
        .write(true)
        .open(segment(dir.path(), 2))
        .unwrap()
        .write_all_at(&[9], 21)
        .unwrap();
    OpenOptions::new()
        .write(true)
        .open(segment(dir.path(), 3))
        .unwrap()
        .set_len(5)
        .unwrap();
    assert_eq!(place.recover("boot").await, 1);
    let stored = place.stored().await;
    assert_eq!(stored.cursor, Some("1:1".parse().unwrap()));
    assert_eq!(stored.finished, None, "the runner says it again");
    assert_eq!(text(&place.read(0).await), "one");
    place.append(Some("1:1"), &[("1:2", data("two"))]).await;
    place.append(Some("1:2"), &[("1:3", data("three"))]).await;
    assert_eq!(text(&place.read(0).await), "onetwothree");
}

#[tokio::test]
async fn in_another_boot_a_hole_before_a_sound_end_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let place = Place::open(dir.path(), 1).await;
    place.recover("first").await;
    place.append(None, &[("1:1", data("one"))]).await;
    place.append(Some("1:1"), &[("1:2", data("two"))]).await;
    place.append(Some("1:2"), &[("1:3", data("three"))]).await;
    OpenOptions::new()
        .write(true)
        .open(segment(dir.path(), 2))
        .unwrap()
        .write_all_at(&[9], 21)
        .unwrap();
    assert_eq!(place.recover("second").await, 1);
    assert_eq!(place.stored().await.cursor, Some("1:1".parse().unwrap()));
}

#[tokio::test]
async fn damage_in_a_log_that_cannot_be_fetched_again_is_a_gap() {
    let dir = tempfile::tempdir().unwrap();
    let place = Place::open(dir.path(), 1).await;
    place.append(None, &[("1:1", data("one"))]).await;
    place.append(Some("1:1"), &[("1:2", data("two"))]).await;
    place.append(Some("1:2"), &[("1:3", data("three"))]).await;
    OpenOptions::new()
        .write(true)
        .open(segment(dir.path(), 2))
        .unwrap()
        .write_all_at(&[9], 21)
        .unwrap();
    assert_eq!(text(&place.read(0).await), "one<Damaged>three");
    place.segments.delete(1).unwrap();
    place
        .db
        .write(|tx| drop_segment(tx, 1))
        .await
        .unwrap()
        .into_value();
    assert_eq!(text(&place.read(0).await), "<Rotated><Damaged>three");
}

#[tokio::test]
async fn the_last_lines_are_found_across_extents() {
    let dir = tempfile::tempdir().unwrap();
    let place = Place::open(dir.path(), 1).await;
    place.append(None, &[("1:1", data("a\nb"))]).await;
    place.append(Some("1:1"), &[("1:2", data("b\nc\n"))]).await;
    place.append(Some("1:2"), &[("1:3", data("d"))]).await;
    for (lines, expected) in [
        (0, ""),
        (1, "d"),
        (2, "c\nd"),
        (3, "bb\nc\nd"),
        (4, "a\nbb\nc\nd"),
        (9, "a\nbb\nc\nd"),
    ] {
        let (segments, run) = (Arc::clone(&place.segments), place.run);
        let start = place
            .db
            .read(move |tx| tail_start(tx, &segments, run, &View::default(), lines))
            .await
            .unwrap();
        assert_eq!(text(&place.read(start).await), expected, "{lines} lines");
    }
}
