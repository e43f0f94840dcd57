use std::time::Duration;

use futures::StreamExt as _;

use super::*;
use crate::log::{GapReason, LogItem, Stream};

fn by_hand() -> RunSpec {
    let run = RunId::generate().attempt(1);
    RunSpec::new(run, "orders".parse().unwrap(), ["run"])
}

async fn start(executor: &FakeExecutor, spec: &RunSpec) -> Result<Handle> {
    executor
        .start(spec, &Secrets::none(), &Progress::none())
        .await
}

fn out(text: &'static str) -> LogItem {
    LogItem::Data {
        stream: Stream::Out,
        time: None,
        bytes: bytes::Bytes::from_static(text.as_bytes()),
    }
}

fn timeless(chunk: LogChunk) -> LogItem {
    match chunk.item {
        LogItem::Data { stream, bytes, .. } => LogItem::Data {
            stream,
            time: None,
            bytes,
        },
        other => other,
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_by_hand_says_and_ends_as_the_test_wants() {
    let backend = FakeBackend::new();
    let executor = backend.executor();
    let spec = by_hand();
    let control = backend.control(spec.run);
    let handle = start(&executor, &spec).await.unwrap();
    control.emit("a\n");
    control.finish(Outcome::Succeeded);
    let log: Vec<LogItem> = executor
        .logs(&handle, None)
        .map(|chunk| timeless(chunk.unwrap()))
        .collect()
        .await;
    assert_eq!(log, [out("a\n")]);
    assert_eq!(control.starts(), 1);
    assert_eq!(
        control.status().unwrap().outcome(),
        Some(&Outcome::Succeeded)
    );
}

#[tokio::test(start_paused = true)]
async fn a_held_start_waits_and_a_stop_meanwhile_wins() {
    let backend = FakeBackend::new();
    let executor = backend.executor();
    let spec = by_hand();
    let control = backend.control(spec.run);
    backend.hold_starts();
    let starting = start(&executor, &spec);
    tokio::pin!(starting);
    tokio::select! {
        _ = &mut starting => panic!("the start was held"),
        () = control.known() => {}
    }
    executor
        .stop(&Handle::of(spec.run), Duration::ZERO)
        .await
        .unwrap();
    backend.release_starts();
    assert_eq!(starting.await.unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(backend.starts_of(spec.run), 0);
}

#[tokio::test(start_paused = true)]
async fn an_unreachable_backend_answers_nothing_and_goes_on_working() {
    let backend = FakeBackend::new();
    let executor = backend.executor();
    let spec = by_hand();
    let handle = start(&executor, &spec).await.unwrap();
    let mut statuses = executor.watch(&handle);
    assert!(statuses.next().await.unwrap().is_ok());
    backend.set_reachable(false);
    let error = statuses.next().await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(statuses.next().await.is_none());
    assert!(executor.list().await.is_err());
    assert!(backend.control(spec.run).is_alive());
    backend.set_reachable(true);
    assert_eq!(executor.list().await.unwrap(), [handle]);
}

#[tokio::test(start_paused = true)]
async fn a_lost_reply_and_an_injected_error_come_once() {
    let backend = FakeBackend::new();
    let executor = backend.executor();
    let spec = by_hand();
    backend.fail_next_start(ErrorKind::Denied, "no");
    assert_eq!(
        start(&executor, &spec).await.unwrap_err().kind(),
        ErrorKind::Denied
    );
    assert!(backend.known().is_empty());
    backend.lose_next_reply();
    assert!(start(&executor, &spec).await.unwrap_err().is_transient());
    start(&executor, &spec).await.unwrap();
    assert_eq!(backend.starts_of(spec.run), 1);
    assert_eq!(backend.calls_of("start", spec.run), 3);
}

#[tokio::test(start_paused = true)]
async fn what_was_rotated_away_is_one_gap() {
    let backend = FakeBackend::new();
    let executor = backend.executor();
    let spec = by_hand();
    let control = backend.control(spec.run);
    let handle = start(&executor, &spec).await.unwrap();
    for line in ["a\n", "b\n", "c\n"] {
        control.emit(line);
    }
    control.rotate(1);
    control.finish(Outcome::Succeeded);
    let log = executor.logs(&handle, None);
    let log: Vec<LogItem> = log.map(|chunk| timeless(chunk.unwrap())).collect().await;
    let gap = LogItem::Gap {
        bytes: Some(4),
        why: GapReason::Rotated,
    };
    assert_eq!(log, [gap, out("c\n")]);
}

#[tokio::test(start_paused = true)]
async fn simple_commands_do_what_they_say() {
    let backend = FakeBackend::new();
    let executor = backend.executor();
    for (command, name, output) in [
        (&["true"][..], "succeeded", ""),
        (&["false"], "failed", ""),
        (&["echo", "a", "b"], "succeeded", "a b\n"),
        (&["sleep", "1.5"], "succeeded", ""),
        (&["/no/such/thing"], "failed", ""),
    ] {
        let spec = RunSpec {
            command: Some(command.iter().map(ToString::to_string).collect()),
            ..by_hand()
        };
        let control = backend.control(spec.run);
        start(&executor, &spec).await.unwrap();
        control.finished().await;
        assert_eq!(control.status().unwrap().state.name(), name, "{command:?}");
        assert_eq!(control.output(), output, "{command:?}");
    }
}
