//! Deterministic tests over an in-memory pair under a paused clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures::{SinkExt as _, StreamExt as _, stream};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::*;
use crate::error::{Error, ErrorKind};

const NOTHING: &std::collections::BTreeMap<u8, u8> = &std::collections::BTreeMap::new();
const LONG: Duration = Duration::from_mins(10);

fn raw(value: &impl serde::Serialize) -> Box<RawValue> {
    serde_json::value::to_raw_value(value).unwrap()
}

/// Answers what the tests need, and counts.
#[derive(Default)]
struct Probe {
    produced: Arc<AtomicUsize>,
    dropped: Arc<AtomicUsize>,
    never: Notify,
}

struct CountDrop(Arc<AtomicUsize>);
impl Drop for CountDrop {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[async_trait]
impl Service for Probe {
    async fn call(
        &self,
        method: &str,
        params: &RawValue,
        progress: &Progress,
    ) -> Result<Box<RawValue>> {
        match method {
            "echo" => Ok(params.to_owned()),
            "fail" => Err(Error::conflict("it is taken").with_source(Error::denied("by another"))),
            "slow" => {
                let _count = CountDrop(Arc::clone(&self.dropped));
                progress.report("waiting");
                self.never.notified().await;
                Ok(raw(&json!("done")))
            }
            "panic" => panic!("a bug"),
            _ => Err(unknown_method(method)),
        }
    }

    fn open(&self, method: &str, params: &RawValue) -> Option<Result<Items>> {
        #[derive(serde::Deserialize)]
        struct Count {
            count: usize,
            size: usize,
        }
        match method {
            "count" => {
                let Count { count, size } = serde_json::from_str(params.get()).unwrap();
                let produced = Arc::clone(&self.produced);
                let guard = CountDrop(Arc::clone(&self.dropped));
                Some(Ok(stream::iter(0..count)
                    .map(move |n| {
                        let _keep = &guard;
                        produced.fetch_add(1, Ordering::SeqCst);
                        Ok(raw(&json!({ "n": n, "fill": "x".repeat(size) })))
                    })
                    .boxed()))
            }
            "break" => Some(Ok(stream::iter([
                Ok(raw(&1)),
                Err(Error::unavailable("the backend is away")),
            ])
            .boxed())),
            "refused" => Some(Err(Error::not_found("no such thing"))),
            _ => None,
        }
    }
}

struct Pair {
    asking: Session,
    probe: Arc<Probe>,
    tasks: JoinSet<Closed>,
}

fn pair_with(options: Options) -> Pair {
    let (left, right) = memory_pair();
    let probe = Arc::new(Probe::default());
    let (asking, one) = Session::start(left, Arc::new(NoService), options.clone());
    let (_answering, other) =
        Session::start(right, Arc::clone(&probe) as Arc<dyn Service>, options);
    let mut tasks = JoinSet::new();
    tasks.spawn(one);
    tasks.spawn(other);
    Pair {
        asking,
        probe,
        tasks,
    }
}

fn pair() -> Pair {
    pair_with(Options::default())
}

/// A session whose other end is spoken by hand.
fn by_hand(options: Options) -> (MemoryTransport, Session, Arc<Probe>, JoinSet<Closed>) {
    let (hand, other) = memory_pair();
    let probe = Arc::new(Probe::default());
    let (session, driver) = Session::start(other, Arc::clone(&probe) as Arc<dyn Service>, options);
    let mut tasks = JoinSet::new();
    tasks.spawn(driver);
    (hand, session, probe, tasks)
}

async fn hear(hand: &mut MemoryTransport) -> Value {
    let text = timeout(LONG, hand.next()).await.unwrap().unwrap().unwrap();
    serde_json::from_str(&text).unwrap()
}

async fn say(hand: &mut MemoryTransport, text: &str) {
    hand.send(text.to_owned()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn requests_are_answered_in_any_order() {
    let pair = pair();
    let slow = pair.asking.call::<_, Value>("slow", NOTHING);
    tokio::pin!(slow);
    let one = json!({"a": 1});
    tokio::select! {
        biased;
        _ = &mut slow => panic!("nobody released it"),
        echo = pair.asking.call::<_, Value>("echo", &one) => assert_eq!(echo.unwrap(), one),
    }
    pair.probe.never.notify_one();
    assert_eq!(timeout(LONG, slow).await.unwrap().unwrap(), json!("done"));
}

#[tokio::test(start_paused = true)]
async fn an_error_keeps_its_kind_and_its_causes() {
    let pair = pair();
    let error = pair
        .asking
        .call::<_, Value>("fail", NOTHING)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert_eq!(error.report(), "it is taken: by another");
    let error = pair
        .asking
        .call::<_, Value>("nonsense", NOTHING)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_request_is_cancelled_on_the_other_side() {
    let pair = pair();
    let call = timeout(
        Duration::from_secs(1),
        pair.asking.call::<_, Value>("slow", NOTHING),
    );
    assert!(call.await.is_err());
    pair.asking.call::<_, Value>("echo", NOTHING).await.unwrap();
    assert_eq!(pair.probe.dropped.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn progress_reaches_who_asked() {
    let pair = pair();
    let (heard, mut said) = tokio::sync::mpsc::channel(4);
    let progress = Progress::to(move |message| drop(heard.try_send(message.to_owned())));
    let call = pair
        .asking
        .call_with::<_, Value>("slow", NOTHING, &progress);
    tokio::select! {
        _ = call => panic!("nobody released it"),
        message = said.recv() => assert_eq!(message.unwrap(), "waiting"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_answered_and_the_session_lives() {
    let pair = pair();
    let error = pair
        .asking
        .call::<_, Value>("panic", NOTHING)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Internal);
    pair.asking.call::<_, Value>("echo", NOTHING).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_stream_comes_whole_and_in_order() {
    let pair = pair();
    let items: Vec<_> = pair
        .asking
        .subscribe::<_, Value>("count", json!({"count": 5000, "size": 100}))
        .collect()
        .await;
    assert_eq!(items.len(), 5000);
    for (n, item) in items.into_iter().enumerate() {
        assert_eq!(item.unwrap()["n"], n);
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_holds_the_sender_back() {
    let pair = pair();
    let mut items = pair
        .asking
        .subscribe::<_, Value>("count", json!({"count": 10_000, "size": 1000}));
    items.next().await.unwrap().unwrap();
    tokio::time::sleep(Duration::from_mins(1)).await;
    let produced = pair.probe.produced.load(Ordering::SeqCst);
    let bound = (256 << 10) / 1000 + 2;
    assert!(
        produced <= bound,
        "{produced} items were produced for one that was read; the bound is {bound}"
    );
    assert_eq!(items.count().await, 9_999);
}

#[tokio::test(start_paused = true)]
async fn requests_overtake_a_stream_that_nobody_reads() {
    let pair = pair();
    let mut items = pair
        .asking
        .subscribe::<_, Value>("count", json!({"count": 10_000, "size": 60_000}));
    items.next().await.unwrap().unwrap();
    let echo = timeout(
        Duration::from_secs(5),
        pair.asking.call::<_, Value>("echo", NOTHING),
    );
    echo.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_dropped_stream_is_dropped_on_the_other_side() {
    let pair = pair();
    let mut items = pair
        .asking
        .subscribe::<_, Value>("count", json!({"count": 1_000_000, "size": 1000}));
    items.next().await.unwrap().unwrap();
    drop(items);
    pair.asking.call::<_, Value>("echo", NOTHING).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(pair.probe.dropped.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn an_error_is_the_last_item_of_a_stream() {
    let pair = pair();
    let items: Vec<_> = pair
        .asking
        .subscribe::<_, Value>("break", json!({}))
        .collect()
        .await;
    assert_eq!(items.len(), 2);
    assert_eq!(
        items[1].as_ref().unwrap_err().kind(),
        ErrorKind::Unavailable
    );
    let items: Vec<_> = pair
        .asking
        .subscribe::<_, Value>("refused", json!({}))
        .collect()
        .await;
    assert_eq!(items[0].as_ref().unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(items.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_session_ends_every_wait() {
    let mut pair = pair();
    let mut items = pair
        .asking
        .subscribe::<_, Value>("count", json!({"count": 1_000_000, "size": 1000}));
    items.next().await.unwrap().unwrap();
    let call = pair.asking.call::<_, Value>("slow", NOTHING);
    let abort = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        pair.tasks.abort_all();
    };
    let (answer, ()) = tokio::join!(call, abort);
    assert_eq!(answer.unwrap_err().kind(), ErrorKind::Unavailable);
    let rest: Vec<_> = timeout(LONG, items.collect::<Vec<_>>()).await.unwrap();
    assert_eq!(
        rest.last().unwrap().as_ref().unwrap_err().kind(),
        ErrorKind::Unavailable
    );
    let late = pair.asking.call::<_, Value>("echo", NOTHING).await;
    assert_eq!(late.unwrap_err().kind(), ErrorKind::Unavailable);
}

#[tokio::test(start_paused = true)]
async fn silence_is_found_within_two_heartbeats() {
    let interval = Duration::from_secs(15);
    let options = Options {
        heartbeat: Some(interval),
        ..Options::default()
    };
    let (mut hand, _session, _probe, mut tasks) = by_hand(options);
    let start = tokio::time::Instant::now();
    let ping = hear(&mut hand).await;
    assert_eq!(ping["method"], "ping");
    let closed = timeout(LONG, tasks.join_next())
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert!(matches!(closed, Closed::Silent), "{closed:?}");
    assert_eq!(start.elapsed(), 2 * interval);
}

#[tokio::test(start_paused = true)]
async fn two_live_sides_keep_a_silent_session_open() {
    let options = Options {
        heartbeat: Some(Duration::from_secs(15)),
        ..Options::default()
    };
    let mut pair = pair_with(options);
    assert!(
        timeout(Duration::from_hours(1), pair.tasks.join_next())
            .await
            .is_err()
    );
    pair.asking.call::<_, Value>("echo", NOTHING).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn closing_sends_what_is_queued() {
    let (mut hand, session, _probe, mut tasks) = by_hand(Options::default());
    say(
        &mut hand,
        r#"{"jsonrpc":"2.0","id":1,"method":"echo","params":{}}"#,
    )
    .await;
    tokio::task::yield_now().await;
    assert_eq!(hear(&mut hand).await["id"], 1);
    session.close();
    assert!(timeout(LONG, hand.next()).await.unwrap().is_none());
    assert!(matches!(
        tasks.join_next().await.unwrap().unwrap(),
        Closed::Here
    ));
    assert!(session.is_closed());
}

#[tokio::test(start_paused = true)]
async fn each_malformed_message_has_its_error() {
    let (mut hand, _session, _probe, _tasks) = by_hand(Options::default());
    let deep = format!(
        r#"{{"jsonrpc":"2.0","id":9,"method":"start","params":{}{}}}"#,
        "[".repeat(5000),
        "]".repeat(5000)
    );
    let cases = [
        ("", code::PARSE),
        ("nonsense", code::PARSE),
        (r#"{"jsonrpc":"2.0","id":1"#, code::PARSE),
        (
            r#"[{"jsonrpc":"2.0","id":1,"method":"echo"}]"#,
            code::INVALID_REQUEST,
        ),
        (r#"{"id":1,"method":"echo"}"#, code::INVALID_REQUEST),
        (
            r#"{"jsonrpc":"1.0","id":1,"method":"echo"}"#,
            code::INVALID_REQUEST,
        ),
        (r#"{"jsonrpc":"2.0"}"#, code::INVALID_REQUEST),
        (
            r#"{"jsonrpc":"2.0","id":{},"method":"echo"}"#,
            code::INVALID_REQUEST,
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":7}"#,
            code::INVALID_REQUEST,
        ),
        (
            r#"{"jsonrpc":"2.0","method":"stream.ack","params":{"stream":"x"}}"#,
            code::INVALID_PARAMS,
        ),
        (
            r#"{"jsonrpc":"2.0","method":"$/cancel"}"#,
            code::INVALID_PARAMS,
        ),
        (
            r#"{"jsonrpc":"2.0","id":2,"method":"count","params":{"count":1,"size":1}}"#,
            code::INVALID_PARAMS,
        ),
    ];
    for (message, code) in cases {
        say(&mut hand, message).await;
        let answer = hear(&mut hand).await;
        assert_eq!(answer["error"]["code"], code, "{message}");
        assert!(!answer["error"]["message"].as_str().unwrap().is_empty());
    }
    say(&mut hand, &deep).await;
    assert!(hear(&mut hand).await["error"].is_object());
    say(
        &mut hand,
        r#"{"jsonrpc":"2.0","id":"s","method":"echo","params":{"unknown":1},"strange":2}"#,
    )
    .await;
    assert_eq!(
        hear(&mut hand).await,
        json!({"jsonrpc":"2.0","id":"s","result":{"unknown":1}})
    );
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_speaks_only_nonsense_is_given_up() {
    let (mut hand, _session, _probe, mut tasks) = by_hand(Options::default());
    for _ in 0..100 {
        say(&mut hand, "nonsense").await;
        hear(&mut hand).await;
    }
    say(&mut hand, "nonsense").await;
    let closed = timeout(LONG, tasks.join_next())
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert!(matches!(closed, Closed::Protocol(_)), "{closed:?}");
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_sends_more_than_its_credit_is_given_up() {
    let (mut hand, session, _probe, mut tasks) = by_hand(Options::default());
    let mut items = session.subscribe::<_, Value>("anything", json!({}));
    let read = async {
        let open = hear(&mut hand).await;
        let stream = open["params"]["stream"].as_u64().unwrap();
        let data = format!(
            r#"{{"jsonrpc":"2.0","method":"stream.data","params":{{"stream":{stream},"item":"{}"}}}}"#,
            "x".repeat(60_000)
        );
        for _ in 0..20 {
            if hand.send(data.clone()).await.is_err() {
                break;
            }
        }
    };
    tokio::select! {
        biased;
        closed = tasks.join_next() => assert!(matches!(closed.unwrap().unwrap(), Closed::Protocol(_))),
        () = async { let _first = items.next().await; std::future::pending::<()>().await } => {}
        () = async { read.await; std::future::pending::<()>().await } => {}
    }
}

#[tokio::test(start_paused = true)]
async fn too_many_requests_are_refused_and_the_first_go_on() {
    let options = Options {
        max_in_flight: 2,
        ..Options::default()
    };
    let (mut hand, _session, probe, _tasks) = by_hand(options);
    for id in 1..=3 {
        say(
            &mut hand,
            &format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"slow"}}"#),
        )
        .await;
    }
    let mut refused = None;
    while refused.is_none() {
        let message = hear(&mut hand).await;
        if message.get("error").is_some() {
            refused = Some(message);
        }
    }
    assert_eq!(refused.unwrap()["id"], 3);
    probe.never.notify_waiters();
    let mut answered = Vec::new();
    while answered.len() < 2 {
        // Progress messages stand between the answers.
        answered.extend(hear(&mut hand).await["id"].as_u64());
    }
    answered.sort_unstable();
    assert_eq!(answered, [1, 2]);
}

#[tokio::test(start_paused = true)]
async fn an_id_in_use_is_refused() {
    let (mut hand, _session, _probe, _tasks) = by_hand(Options::default());
    for _ in 0..2 {
        say(&mut hand, r#"{"jsonrpc":"2.0","id":1,"method":"slow"}"#).await;
    }
    loop {
        let message = hear(&mut hand).await;
        if message["error"]["code"] == code::INVALID_REQUEST {
            break;
        }
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(256))]
    #[test]
    fn no_message_makes_it_panic(text in ".{0,200}", pick in 0_usize..8, cut in 0_usize..100) {
        let templates = [
            r#"{"jsonrpc":"2.0","id":1,"method":"start","params":{"spec":{"run":"0190","name":"a"}}}"#,
            r#"{"jsonrpc":"2.0","method":"stream.data","params":{"stream":1,"item":{}}}"#,
            r#"{"jsonrpc":"2.0","id":1,"result":{}}"#,
            r#"{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":"a"}}"#,
            r#"{"jsonrpc":"2.0","method":"stream.ack","params":{"stream":1,"credit":18446744073709551615}}"#,
        ];
        let base = templates.get(pick).copied().unwrap_or("");
        let mut cut = cut.min(base.len());
        while !base.is_char_boundary(cut) { cut -= 1; }
        let message = format!("{}{text}{}", &base[..cut], &base[cut..]);
        let _read = frame::read(&message);
        let _read = frame::read(&text);
        if let Ok(chunk) = serde_json::from_str::<crate::LogChunk>(&message) {
            let _written = serde_json::to_string(&chunk);
        }
    }
}

/// Messages as they stand on the wire, pinned: a change here is a change of the protocol.
mod messages {
    use super::super::executor::{
        Empty, Examined, FindParams, Found, Listed, LogsParams, RunParams, StartParams, StopParams,
        WireValue,
    };
    use super::super::frame::{
        self, AckParams, DropParams, EndParams, OpenParams, ProgressParams, WireError,
    };
    use super::super::{Hello, Welcome};
    use crate::error::Error;
    use crate::executor::{Capabilities, Handle};
    use crate::id::RunId;
    use crate::incarnation::Incarnation;
    use crate::log::{GapReason, LogChunk, LogItem, Stream};
    use crate::run::{Failure, FailureClass, Outcome, RunSpec, State, Status};
    use crate::unit::Period;
    use serde_json::value::RawValue;

    fn run() -> RunId {
        "0190a1b2-0000-7000-8000-000000000001".parse().unwrap()
    }

    fn spec() -> RunSpec {
        let mut spec = RunSpec::new(run(), "orders".parse().unwrap(), ["metadata", "ingest"]);
        spec.env.insert(
            "DB_URL".into(),
            "mysql://u:${secret:/prod/orders}@db".into(),
        );
        spec.first_sent = Some(incarnation());
        spec
    }

    fn incarnation() -> Incarnation {
        Incarnation::new("2f0c", uuid::Uuid::from_u128(7), 3)
    }

    fn line(text: String) -> String {
        text + "\n"
    }

    #[test]
    #[expect(clippy::too_many_lines, reason = "a table: one line a message")]
    fn stay_as_they_are() {
        let id = RawValue::from_string("1".into()).unwrap();
        let handle = Handle::of(run());
        let time = "2026-12-01T03:00:00.25Z".parse().unwrap();
        let data = |bytes: &'static [u8]| LogChunk {
            item: LogItem::Data {
                stream: Stream::Out,
                time: Some(time),
                bytes: bytes::Bytes::from_static(bytes),
            },
            next: "1:o17".parse().unwrap(),
        };
        let gap = LogChunk {
            item: LogItem::Gap {
                bytes: Some(5),
                why: GapReason::Rotated,
            },
            next: "1:o18".parse().unwrap(),
        };
        let mut status = Status::new(1, State::Finished(Outcome::Failed(Failure::exit(3))));
        status.times.finished = Some(time);
        let item = |value: &dyn erased::Json| {
            frame::data(7, &RawValue::from_string(value.json()).unwrap())
        };
        let ok = |value: &dyn erased::Json| {
            frame::answer(&id, &Ok(RawValue::from_string(value.json()).unwrap()))
        };
        let mut capabilities = Capabilities::least();
        capabilities.max_runs = Some(8);
        let hello = Hello::new(
            "WestEu1Runner".parse().unwrap(),
            incarnation(),
            capabilities,
        );
        let secrets = RawValue::from_string(
            serde_json::to_string(&std::collections::BTreeMap::from([(
                "/a",
                WireValue::Text("v".into()),
            )]))
            .unwrap(),
        );
        let error = Error::denied("failed to read `/a`").with_source(Error::denied("AccessDenied"));
        let text: String = [
            frame::request(1, "hello", &hello).unwrap(),
            ok(&Welcome::new("v1-preview", "0190", 4, Period::seconds(15))),
            frame::request(1, "capabilities", &Empty {}).unwrap(),
            frame::request(1, "check", &Empty {}).unwrap(),
            frame::request(
                1,
                "start",
                &StartParams {
                    spec: spec(),
                    secrets: None,
                },
            )
            .unwrap(),
            frame::request(
                1,
                "start",
                &StartParams {
                    spec: spec().attempt(1),
                    secrets: secrets.ok(),
                },
            )
            .unwrap(),
            ok(&Handle::with_state(
                run().attempt(1),
                1,
                serde_json::json!({"pid": 7}),
            )),
            frame::request(
                1,
                "watch",
                &serde_json::json!({"stream": 7, "credit": 65536, "run": handle}),
            )
            .unwrap(),
            frame::request(
                1,
                "logs",
                &LogsParams {
                    run: handle.clone(),
                    from: Some("1:o17".parse().unwrap()),
                },
            )
            .unwrap(),
            frame::request(
                1,
                "stop",
                &StopParams {
                    run: handle.clone(),
                    grace: Period::seconds(30),
                },
            )
            .unwrap(),
            frame::request(
                1,
                "remove",
                &RunParams {
                    run: handle.clone(),
                },
            )
            .unwrap(),
            frame::request(1, "list", &Empty {}).unwrap(),
            ok(&Listed { runs: vec![handle] }),
            item(&Status::new(0, State::Queued)),
            item(&Status::new(1, State::Running)),
            item(&status),
            item(&Status::new(1, State::Finished(Outcome::Succeeded))),
            item(&Status::new(
                1,
                State::Finished(Outcome::Stopped {
                    by: Some("eva".into()),
                }),
            )),
            item(&Status::new(
                1,
                State::Finished(Outcome::lost("the node is gone")),
            )),
            item(&Status::new(
                1,
                State::Finished(Outcome::Failed(Failure::new(FailureClass::Secret, "no"))),
            )),
            item(&data("line ü\n".as_bytes())),
            item(&data(&[0xff, 0])),
            item(&gap),
            frame::notification(
                "stream.ack",
                &AckParams {
                    stream: 7,
                    credit: 65536,
                },
            ),
            frame::notification("stream.drop", &DropParams { stream: 7 }),
            frame::notification(
                "stream.end",
                &EndParams {
                    stream: 7,
                    error: None,
                },
            ),
            frame::notification(
                "stream.end",
                &EndParams {
                    stream: 7,
                    error: Some(WireError::of(&error)),
                },
            ),
            frame::notification(
                "$/progress",
                &ProgressParams {
                    id: &id,
                    message: "pulling".into(),
                },
            ),
            frame::answer(&id, &Err(WireError::of(&error))),
            serde_json::to_string(&OpenParams {
                stream: 7,
                credit: 65536,
            })
            .unwrap(),
        ]
        .into_iter()
        .map(line)
        .collect();
        insta::assert_snapshot!("messages", text);
    }

    /// The schema in the docs folder is generated; run with `UPDATE_SCHEMA=1` to write it anew.
    #[cfg(feature = "plugin")]
    #[test]
    fn the_schema_in_the_docs_is_that_of_the_types() {
        use crate::plugin::{
            GetParams, Got, Identified, PluginHello, PluginWelcome, Put, PutParams,
        };

        let mut generator = schemars::SchemaGenerator::default();
        macro_rules! define {
            ($($name:literal => $type:ty),* $(,)?) => {
                serde_json::json!({ $($name: generator.subschema_for::<$type>()),* })
            };
        }
        let methods = define! {
            "hello.params" => Hello, "hello.result" => Welcome,
            "capabilities.params" => Empty, "capabilities.result" => Capabilities,
            "check.params" => Empty, "check.result" => Empty,
            "start.params" => StartParams, "start.result" => Handle,
            "watch.params" => RunParams, "watch.item" => Status,
            "logs.params" => LogsParams, "logs.item" => LogChunk,
            "stop.params" => StopParams, "stop.result" => Empty,
            "remove.params" => RunParams, "remove.result" => Empty,
            "list.params" => Empty, "list.result" => Listed,
            "plugin hello.params" => PluginHello, "plugin hello.result" => PluginWelcome,
            "plugin examine.params" => Empty, "plugin examine.result" => Examined,
            "plugin find.params" => FindParams, "plugin find.result" => Found,
            "plugin get.params" => GetParams, "plugin get.result" => Got,
            "plugin identity.params" => Empty, "plugin identity.result" => Identified,
            "plugin put.params" => PutParams, "plugin put.result" => Put,
            "stream.open" => OpenParams, "stream.ack.params" => AckParams, "stream.drop.params" => DropParams,
            "stream.end.params" => EndParams, "$/progress.params" => ProgressParams<'_>, "error" => WireError,
        };
        let schema = serde_json::json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "title": "hybrid-runner.v1 (v1-preview)",
            "properties": methods,
            "$defs": generator.definitions(),
        });
        let text = serde_json::to_string_pretty(&schema).unwrap() + "\n";
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/protocol.schema.json");
        if std::env::var_os("UPDATE_SCHEMA").is_some() {
            std::fs::write(path, &text).unwrap();
        }
        let kept = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            kept == text,
            "docs/protocol.schema.json is out of date; run this test with UPDATE_SCHEMA=1"
        );
    }

    /// `Serialize` as an object-safe trait, for the table above.
    mod erased {
        pub(super) trait Json {
            fn json(&self) -> String;
        }
        impl<T: serde::Serialize> Json for T {
            fn json(&self) -> String {
                serde_json::to_string(self).unwrap()
            }
        }
    }
}
