//! What readiness and metrics say.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use hybrid_runner_core::Executor as _;
use hybrid_runner_core::executor::Handle;
use hybrid_runner_core::testing::{FakeBackend, Script};
use jiff::Timestamp;
use tower::Service as _;

use super::*;
use crate::measure::Measured;

#[derive(Debug)]
struct Standing(Snapshot);

impl Look for Standing {
    fn snapshot(&self) -> Snapshot {
        self.0.clone()
    }
}

fn standing() -> Snapshot {
    Snapshot {
        runs: crate::supervisor::Counts {
            running: 2,
            ..Default::default()
        },
        slots_used: 2,
        slots: 8,
        draining: false,
        oldest_outcome: Some(Duration::from_millis(1500)),
        executors: BTreeMap::from([("here".parse().unwrap(), None)]),
        journal: None,
        last_errors: Vec::new(),
    }
}

fn up() -> LinkState {
    LinkState::Connected {
        server: "plane".into(),
        since: Timestamp::UNIX_EPOCH,
    }
}

fn down() -> LinkState {
    LinkState::Waiting {
        since: Timestamp::UNIX_EPOCH,
        why: "connection refused".into(),
        refused: false,
    }
}

async fn ask(
    snapshot: Snapshot,
    link: LinkState,
    counts: Arc<Counts>,
    path: &str,
) -> (u16, String) {
    let link = watch::Sender::new(link);
    let observed = Observed::new(
        Arc::new(Standing(snapshot)),
        link.subscribe(),
        counts,
        Arc::default(),
    );
    let request = Request::get(path).body(Body::empty()).unwrap();
    let response = router(observed).call(request).await.unwrap();
    let status = response.status().as_u16();
    let body = axum::body::to_bytes(response.into_body(), 1 << 20)
        .await
        .unwrap();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn readiness_fails_when_work_cannot_flow_and_says_why() {
    let ready = |snapshot, link| ask(snapshot, link, Arc::default(), "/readyz");
    assert_eq!(ready(standing(), up()).await, (200, "ready\n".into()));

    let (status, why) = ready(standing(), down()).await;
    assert_eq!(
        (status, why.as_str()),
        (
            503,
            "not connected since 1970-01-01T00:00:00Z: connection refused\n"
        )
    );

    let mut broken = standing();
    broken
        .executors
        .insert("here".parse().unwrap(), Some("no such socket".into()));
    broken.journal = Some("disk full".into());
    let (status, why) = ready(broken, up()).await;
    assert_eq!(status, 503);
    assert!(
        why.contains("disk full") && why.contains("executor `here` cannot be used: no such socket"),
        "{why}"
    );
}

#[tokio::test]
async fn the_process_is_alive_whatever_else_is_wrong() {
    let (status, _) = ask(standing(), down(), Arc::default(), "/healthz").await;
    assert_eq!(status, 200);
}

/// A value of the metrics, by its whole name with labels.
fn value(text: &str, name: &str) -> f64 {
    let line = text.lines().find(|line| {
        line.strip_prefix(name)
            .is_some_and(|rest| rest.starts_with(' '))
    });
    let line = line.unwrap_or_else(|| panic!("no {name} in\n{text}"));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn the_metrics_have_the_names_of_the_existing_dashboard() {
    let counts = Arc::new(Counts::default());
    counts.server.took(Duration::from_millis(250));
    let (status, text) = ask(standing(), up(), counts, "/metrics").await;
    assert_eq!(status, 200);
    for name in [
        "collate_hybrid_agent_jobs_counter_total",
        "collate_hybrid_agent_cpu_usage",
        "collate_hybrid_agent_memory_usage",
        "collate_hybrid_agent_executor_response_time_seconds_count",
        "collate_hybrid_agent_argo_response_time_seconds_max",
    ] {
        value(&text, name);
    }
    assert!((value(&text, "collate_hybrid_agent_connected") - 1.0).abs() < f64::EPSILON);
    assert!(
        (value(
            &text,
            "collate_hybrid_agent_server_response_time_seconds_sum"
        ) - 0.25)
            .abs()
            < 1e-9
    );
    assert!((value(&text, "hybrid_runner_runs{state=\"running\"}") - 2.0).abs() < f64::EPSILON);
    assert!((value(&text, "hybrid_runner_oldest_outcome_seconds") - 1.5).abs() < f64::EPSILON);
    assert!(text.ends_with("# EOF\n"));
}

#[tokio::test]
async fn each_end_is_counted_once_however_often_it_is_watched() {
    use futures::StreamExt as _;
    use hybrid_runner_core::executor::Progress;
    use hybrid_runner_core::secret::Secrets;

    let counts = Arc::new(Counts::default());
    let backend = FakeBackend::new();
    let executor = Measured::new(backend.executor(), Arc::clone(&counts));
    let spec = Script::new()
        .exit(3)
        .spec(hybrid_runner_core::RunId::generate().attempt(1));
    executor
        .start(&spec, &Secrets::none(), &Progress::none())
        .await
        .unwrap();
    let handle = Handle::of(spec.run);
    for _ in 0..3 {
        let end = tokio::time::timeout(Duration::from_secs(10), executor.watch(&handle).count());
        end.await.unwrap();
    }
    let (_, text) = ask(standing(), up(), counts, "/metrics").await;
    assert!(
        (value(&text, "collate_hybrid_agent_jobs_total{status=\"failed\"}") - 1.0).abs()
            < f64::EPSILON
    );
    assert!((value(&text, "collate_hybrid_agent_jobs_counter_total") - 1.0).abs() < f64::EPSILON);
}
