//! What needs a hand inside: full disks, old age, runners that stay away.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hybrid_runner_core::incarnation::Incarnation;
use hybrid_runner_core::run::State;
use hybrid_runner_core::session::Hello;
use hybrid_runner_core::unit::Period;
use hybrid_runner_core::{AgentId, Capabilities, Outcome, RunId, RunSpec, Status};
use tempfile::TempDir;

use crate::app::App;
use crate::config::Config;
use crate::logs::{Appended, Batch, Reader, append};
use crate::store::runs::{self, Made, NewRun};
use crate::store::{queries, runners};
use crate::sweep;

async fn app(change: impl FnOnce(&mut Config)) -> (TempDir, App) {
    let dir = tempfile::tempdir().unwrap();
    let mut config = Config::new(dir.path());
    change(&mut config);
    let app = Box::pin(App::open(config)).await.unwrap();
    (dir, app)
}

/// A run of runner `a`, sent or not.
async fn run(app: &App, key: &str, sent: bool) -> i64 {
    let id = RunId::of_key(key);
    let mark = Incarnation::new("boot", uuid::Uuid::nil(), 1);
    let new = NewRun {
        spec: RunSpec::new(id, "w".parse().unwrap(), ["true"]),
        runner: "a".parse().unwrap(),
        key: None,
        deployment: None,
        first_sent: sent.then_some(mark),
        status: Status::new(0, State::Queued),
    };
    let made = app
        .db
        .write(move |tx| runs::insert(tx, &new))
        .await
        .unwrap()
        .into_value();
    let Made::New(seq) = made else {
        panic!("{made:?}")
    };
    seq
}

async fn state(app: &App, seq: i64) -> &'static str {
    let run = app.db.read(move |tx| runs::by_seq(tx, seq)).await.unwrap();
    run.status.state.name()
}

async fn finish(app: &App, seq: i64) {
    let status = Status::new(1, State::Finished(Outcome::Succeeded));
    let done = app
        .db
        .write(move |tx| runs::finish(tx, seq, &status))
        .await
        .unwrap();
    assert!(done.into_value());
}

async fn execute(app: &App, sql: &'static str) {
    app.db
        .write(move |tx| tx.execute_batch(sql))
        .await
        .unwrap()
        .into_value();
}

async fn greet(app: &App) {
    let agent: AgentId = "a".parse().unwrap();
    let incarnation = Incarnation::new("boot", uuid::Uuid::new_v4(), 1);
    let hello = Hello::new(agent, incarnation, Capabilities::least());
    app.db
        .write(move |tx| runners::greet(tx, &hello))
        .await
        .unwrap()
        .into_value();
}

#[tokio::test]
async fn the_runs_of_a_runner_that_stays_away_are_lost_and_the_queued_ones_wait() {
    let (_dir, mut app) = app(|config| config.runner_lost_after = Period::seconds(60)).await;
    greet(&app).await;
    let (sent, queued) = (
        run(&app, "sent", true).await,
        run(&app, "queued", false).await,
    );
    sweep::once(&app).await;
    assert_eq!(
        state(&app, sent).await,
        "queued",
        "it has not been away for long"
    );
    execute(&app, "UPDATE runners SET last_seen = 0").await;
    sweep::once(&app).await;
    assert_eq!(
        state(&app, sent).await,
        "queued",
        "this server has not looked for long"
    );
    app.started = 0;
    sweep::once(&app).await;
    assert_eq!(state(&app, sent).await, "lost");
    assert_eq!(state(&app, queued).await, "queued");
}

#[tokio::test]
async fn old_runs_and_old_logs_are_forgotten_and_the_rest_stays() {
    let (dir, app) = app(|_| {}).await;
    let (old, young, open) = (
        run(&app, "old", true).await,
        run(&app, "young", true).await,
        run(&app, "open", true).await,
    );
    finish(&app, old).await;
    finish(&app, young).await;
    execute(&app, "UPDATE runs SET finished = 0 WHERE seq = 1").await;
    // Of a segment that is full and old, and of the one being filled.
    let segment = dir.path().join("logs/0000000001.log");
    log(&app, open).await;
    std::fs::copy(&segment, dir.path().join("logs/0000000002.log")).unwrap();
    let long_ago = SystemTime::now() - Duration::from_hours(24 * 31);
    std::fs::File::options()
        .write(true)
        .open(&segment)
        .unwrap()
        .set_modified(long_ago)
        .unwrap();
    sweep::once(&app).await;
    let left = app
        .db
        .read(|tx| {
            queries::list(
                tx,
                &queries::Filter {
                    limit: 9,
                    ..Default::default()
                },
            )
        })
        .await
        .unwrap();
    assert_eq!(
        left.iter().map(|run| run.seq).collect::<Vec<_>>(),
        [open, young]
    );
    assert!(!segment.exists() && dir.path().join("logs/0000000002.log").exists());
}

async fn log(app: &App, seq: i64) {
    let mut batch = Batch::default();
    let item = hybrid_runner_core::LogItem::Data {
        stream: hybrid_runner_core::Stream::Out,
        time: None,
        bytes: bytes::Bytes::from_static(b"x"),
    };
    batch.push(&hybrid_runner_core::LogChunk {
        item,
        next: "1:1".parse().unwrap(),
    });
    let (store, segments) = (app.db.store().clone(), Arc::clone(&app.segments));
    let done = app
        .db
        .write(move |tx| append(tx, &store, &segments, seq, None, &batch))
        .await
        .unwrap();
    assert!(matches!(done.into_value(), Appended::Stored { .. }));
}

#[tokio::test]
async fn a_state_file_without_room_says_so_and_works_again_when_there_is() {
    let (_dir, app) = app(|_| {}).await;
    let app = Arc::new(app);
    let router = crate::api::router(&app);
    let token = app
        .access
        .create(&crate::NewToken {
            role: crate::Role::Client,
            agent: None,
            name: None,
        })
        .await
        .unwrap();
    let token = token.1.expose_text().unwrap().to_owned();
    let submit = |n: u32| {
        let body = serde_json::json!({ "runner": "a", "key": n.to_string(), "workflow": {
            "name": "w", "command": ["x".repeat(100_000)] } });
        ask(&router, &token, "POST", "/api/v1/runs", Some(body))
    };
    assert_eq!(submit(0).await.0, 201);
    execute(&app, "PRAGMA max_page_count = 40").await;
    let (status, answer) = submit(1).await;
    assert_eq!(status, 507, "{answer}");
    assert!(answer.contains("no room on the disk"), "{answer}");
    let (status, answer) = ask(&router, &token, "GET", "/readyz", None).await;
    assert!(status == 200 || answer.contains("no room"), "{answer}");
    assert_eq!(
        ask(&router, &token, "GET", "/api/v1/runs", None).await.0,
        200,
        "reading goes on"
    );
    execute(&app, "PRAGMA max_page_count = 100000").await;
    assert_eq!(submit(1).await.0, 201);
    assert_eq!(ask(&router, &token, "GET", "/readyz", None).await.0, 200);
}

pub(crate) async fn ask(
    router: &axum::Router,
    token: &str,
    method: &str,
    path: &str,
    body: Option<serde_json::Value>,
) -> (u16, String) {
    use tower::Service as _;
    let body = body.map_or_else(axum::body::Body::empty, |body| body.to_string().into());
    let request = axum::http::Request::builder()
        .method(method)
        .uri(path)
        .header("authorization", format!("Bearer {token}"))
        .body(body)
        .unwrap();
    let answer = router.clone().call(request).await.unwrap();
    let status = answer.status().as_u16();
    let bytes = axum::body::to_bytes(answer.into_body(), 1 << 20)
        .await
        .unwrap();
    (status, String::from_utf8_lossy(&bytes).into_owned())
}

#[tokio::test]
async fn a_reader_stops_where_it_was_told_to() {
    let (_dir, app) = app(|_| {}).await;
    let seq = run(&app, "run", true).await;
    log(&app, seq).await;
    let segments = Arc::clone(&app.segments);
    let read = app
        .db
        .read(move |tx| Reader::new(seq, 0).until(0).read(tx, &segments));
    assert!(read.await.unwrap().is_empty());
}

#[tokio::test]
async fn what_an_attempt_that_is_over_says_is_not_taken() {
    let (_dir, app) = app(|_| {}).await;
    let seq = run(&app, "run", true).await;
    let say = async |attempt, state| {
        let status = Status::new(attempt, state);
        let write = app.db.write(move |tx| {
            if status.is_finished() {
                runs::finish(tx, seq, &status)
            } else {
                runs::advance(tx, seq, &status)
            }
        });
        write.await.unwrap().into_value()
    };
    let done = || State::Finished(Outcome::Succeeded);
    assert!(say(1, State::Running).await);
    assert!(!say(1, State::Starting).await, "levels never go back");
    assert!(say(2, State::Starting).await);
    assert!(!say(1, State::Running).await);
    assert!(!say(1, done()).await);
    assert_eq!(state(&app, seq).await, "starting");
    assert!(say(2, done()).await);
    assert!(
        !say(3, State::Running).await,
        "nothing comes after the outcome"
    );
    assert!(
        say(3, State::Finished(Outcome::lost("late"))).await,
        "it has one"
    );
    assert_eq!(state(&app, seq).await, "succeeded");
}
