//! A run's way through the control plane, over real sockets.

use std::sync::Arc;
use std::time::Duration;

use super::support::{Life, Plane, Runner, boot, within};
use hybrid_runner_core::testing::{FakeBackend, Script};
use hybrid_runner_core::{ErrorKind, Executor as _, Handle, Outcome, Progress, RunId, Secrets};
use serde_json::json;

fn id(text: &str) -> RunId {
    text.parse().unwrap()
}

#[tokio::test]
async fn a_submitted_run_is_run_and_its_log_and_outcome_come_back() {
    within(async {
        let plane = Plane::start().await;
        let token = plane.runner_token("a").await;
        let backend = FakeBackend::new();
        let _runner = Runner::connect(&plane, &token, &boot("a"), backend.executor()).await;
        let script = Script::new().out("one\n").err("two\n").out("three").exit(3);
        let command = script.command();
        let run = plane
            .submit("a", &command.each_ref().map(String::as_str))
            .await;
        let ended = plane.finished(&run).await;
        assert_eq!(ended["state"], "failed");
        assert_eq!(ended["failure"]["exit_code"], 3);
        assert_eq!(plane.logs(&run).await, "one\ntwo\nthree");
        let control = backend.control(id(&run));
        control.removed().await;
        assert_eq!(control.starts(), 1);
    })
    .await;
}

#[tokio::test]
async fn a_run_for_a_runner_that_is_away_waits_for_it() {
    within(async {
        let plane = Plane::start().await;
        let token = plane.runner_token("a").await;
        let first = plane.submit("a", &["echo", "1"]).await;
        let second = plane.submit("a", &["echo", "2"]).await;
        assert_eq!(
            plane.get(&format!("/api/v1/runs/{first}")).await["state"],
            "queued"
        );
        assert_eq!(plane.get("/api/v1/runners/a").await["queued"], 2);
        let backend = FakeBackend::new();
        let _runner = Runner::connect(&plane, &token, &boot("a"), backend.executor()).await;
        assert_eq!(plane.finished(&first).await["state"], "succeeded");
        assert_eq!(plane.finished(&second).await["state"], "succeeded");
        assert_eq!(plane.logs(&second).await, "2\n");
    })
    .await;
}

/// A runner with one place, and the run that has it.
async fn full(plane: &Plane, token: &str, backend: &FakeBackend) -> (Life, Runner, String) {
    let mut life = boot("a");
    life.max_runs = Some(1);
    let runner = Runner::connect(plane, token, &life, backend.executor()).await;
    let run = plane.submit("a", &["hold"]).await;
    backend.control(id(&run)).begun().await;
    (life, runner, run)
}

#[tokio::test]
async fn no_more_runs_are_sent_than_the_runner_takes() {
    within(async {
        let plane = Plane::start().await;
        let token = plane.runner_token("a").await;
        let backend = FakeBackend::new();
        let (_life, _runner, first) = full(&plane, &token, &backend).await;
        let second = plane.submit("a", &["true"]).await;
        assert_eq!(
            plane.get(&format!("/api/v1/runs/{second}")).await["state"],
            "queued"
        );
        assert_eq!(backend.calls_of("start", id(&second)), 0);
        backend.control(id(&first)).finish(Outcome::Succeeded);
        assert_eq!(plane.finished(&second).await["state"], "succeeded");
    })
    .await;
}

#[tokio::test]
async fn a_runner_without_room_is_asked_again() {
    within(async {
        let plane = Plane::start().await;
        let token = plane.runner_token("a").await;
        let backend = FakeBackend::new();
        let _runner = Runner::connect(&plane, &token, &boot("a"), backend.executor()).await;
        backend.fail_next_start(ErrorKind::Unavailable, "no free slot");
        backend.fail_next_start(ErrorKind::Unavailable, "no free slot");
        let run = plane.submit("a", &["true"]).await;
        assert_eq!(plane.finished(&run).await["state"], "succeeded");
        assert_eq!(backend.starts_of(id(&run)), 1);
    })
    .await;
}

#[tokio::test]
async fn a_run_that_the_runner_refuses_fails_with_its_words() {
    within(async {
        let plane = Plane::start().await;
        let token = plane.runner_token("a").await;
        let backend = FakeBackend::new();
        let _runner = Runner::connect(&plane, &token, &boot("a"), backend.executor()).await;
        backend.fail_next_start(ErrorKind::Unsupported, "cannot do that");
        let run = plane.submit("a", &["true"]).await;
        let ended = plane.finished(&run).await;
        assert_eq!(ended["state"], "failed");
        assert_eq!(ended["failure"]["class"], "spec");
        assert_eq!(ended["failure"]["message"], "cannot do that");
    })
    .await;
}

#[tokio::test]
async fn one_key_is_one_run() {
    within(async {
        let plane = Plane::start().await;
        plane.runner_token("a").await;
        let body = |text: &str| json!({ "key": "k", "workflow": { "name": "w", "command": ["echo", text] } });
        let (first, run) = plane.post("/api/v1/runs", body("x")).await;
        let (again, same) = plane.post("/api/v1/runs", body("x")).await;
        let (other, error) = plane.post("/api/v1/runs", body("y")).await;
        assert_eq!((first.as_u16(), again.as_u16(), other.as_u16()), (201, 200, 409));
        assert_eq!(run["id"], same["id"]);
        assert_eq!(run["id"], RunId::of_key("k").to_string());
        assert_eq!(error["error"]["kind"], "conflict");
    })
    .await;
}

#[tokio::test]
async fn streams_that_break_are_asked_for_again_and_nothing_comes_twice() {
    within(async {
        let plane = Plane::start().await;
        let token = plane.runner_token("a").await;
        let backend = FakeBackend::new();
        let _runner = Runner::connect(&plane, &token, &boot("a"), backend.executor()).await;
        let run = plane.submit("a", &["hold"]).await;
        let control = backend.control(id(&run));
        control.begun().await;
        let mut expected = String::new();
        for line in 1..=20 {
            let text = format!("line {line}\n");
            control.emit(&text);
            expected += &text;
            if line % 5 == 0 {
                backend.cut_streams();
            }
        }
        control.finish(Outcome::Succeeded);
        plane.finished(&run).await;
        assert_eq!(plane.logs(&run).await, expected);
    })
    .await;
}

#[tokio::test]
async fn a_link_that_is_cut_loses_and_doubles_nothing() {
    within(async {
        let plane = Plane::start().await;
        let token = plane.runner_token("a").await;
        let backend = FakeBackend::new();
        let life = boot("a");
        let runner = Runner::connect(&plane, &token, &life, backend.executor()).await;
        let run = plane.submit("a", &["hold"]).await;
        let control = backend.control(id(&run));
        control.begun().await;
        control.emit("before\n");
        plane.wait(&run, "running").await;
        drop(runner);
        control.emit("between\n");
        let _runner = Runner::connect(&plane, &token, &life.again(), backend.executor()).await;
        control.emit("after\n");
        control.finish(Outcome::Succeeded);
        assert_eq!(plane.finished(&run).await["state"], "succeeded");
        assert_eq!(plane.logs(&run).await, "before\nbetween\nafter\n");
        assert_eq!(control.starts(), 1);
    })
    .await;
}

#[tokio::test]
async fn after_a_restart_of_the_server_a_run_goes_on_under_its_first_mark() {
    within(async {
        let plane = Plane::start().await;
        let token = plane.runner_token("a").await;
        let backend = FakeBackend::new();
        let life = boot("a");
        let recorder = support_recorder::Recorder::new(backend.executor());
        let _first = Runner::connect(&plane, &token, &life, Arc::clone(&recorder) as _).await;
        backend.fail_next_start(ErrorKind::Unavailable, "not yet");
        let run = plane.submit("a", &["hold"]).await;
        let control = backend.control(id(&run));
        control.called("start", 1).await;
        control.begun().await;
        control.emit("one\n");
        let plane = plane.restart().await;
        control.emit("two\n");
        let executor = Arc::clone(&recorder) as _;
        let _second = Runner::connect(&plane, &token, &life.again(), executor).await;
        control.finish(Outcome::Succeeded);
        assert_eq!(plane.finished(&run).await["state"], "succeeded");
        assert_eq!(plane.logs(&run).await, "one\ntwo\n");
        assert_eq!(control.starts(), 1);
        let marks = recorder.marks();
        assert!(
            marks
                .iter()
                .all(|mark| *mark == Some(life.incarnation.clone())),
            "{marks:?}"
        );
    })
    .await;
}

#[tokio::test]
async fn a_run_that_was_sent_and_is_not_listed_is_delivered_again_with_the_same_mark() {
    within(async {
        let plane = Plane::start().await;
        let token = plane.runner_token("a").await;
        let lost = FakeBackend::new();
        let life = boot("a");
        let first = Runner::connect(&plane, &token, &life, lost.executor()).await;
        let run = plane.submit("a", &["hold"]).await;
        lost.control(id(&run)).begun().await;
        drop(first);
        // The runner comes back with nothing: what to do is its decision, on the mark that it is given.
        let backend = FakeBackend::new();
        let recorder = support_recorder::Recorder::new(backend.executor());
        let again = life.again();
        let _second = Runner::connect(&plane, &token, &again, Arc::clone(&recorder) as _).await;
        backend.control(id(&run)).begun().await;
        assert_eq!(recorder.marks(), [Some(life.incarnation.clone())]);
    })
    .await;
}

#[tokio::test]
async fn what_waits_for_a_place_is_not_sent_to_a_runner_that_has_left() {
    within(async {
        // Which comes first, the end of the session or that of its runs, is chance.
        for _ in 0..8 {
            let plane = Plane::start().await;
            let token = plane.runner_token("a").await;
            let lost = FakeBackend::new();
            let (life, first, running) = full(&plane, &token, &lost).await;
            let waiting = plane.submit("a", &["hold"]).await;
            drop(first);
            let mut other = boot("a");
            other.max_runs = Some(2);
            let backend = FakeBackend::new();
            let recorder = support_recorder::Recorder::new(backend.executor());
            let second = Runner::connect(&plane, &token, &other, Arc::clone(&recorder) as _).await;
            for run in [&running, &waiting] {
                backend.control(id(run)).begun().await;
            }
            let marks = recorder.marks();
            for life in [&life, &other] {
                let mark = Some(life.incarnation.clone());
                assert!(marks.contains(&mark), "{marks:?} without {mark:?}");
            }
            drop(second);
        }
    })
    .await;
}

#[tokio::test]
async fn after_a_rollback_no_mark_is_remembered() {
    within(async {
        let plane = Plane::start().await;
        let token = plane.runner_token("a").await;
        let lost = FakeBackend::new();
        let life = boot("a").again().again();
        let first = Runner::connect(&plane, &token, &life, lost.executor()).await;
        let run = plane.submit("a", &["hold"]).await;
        lost.control(id(&run)).begun().await;
        drop(first);
        let mut copy = life.clone();
        copy.incarnation.seq = 2;
        let backend = FakeBackend::new();
        let recorder = support_recorder::Recorder::new(backend.executor());
        let _second = Runner::connect(&plane, &token, &copy, Arc::clone(&recorder) as _).await;
        backend.control(id(&run)).begun().await;
        let marks = recorder.marks();
        let mark = marks[0].clone().unwrap();
        assert!(!copy.incarnation.remembers(&mark) && !life.again().incarnation.remembers(&mark));
    })
    .await;
}

#[tokio::test]
async fn a_run_that_only_the_runner_knows_is_adopted() {
    within(async {
        let plane = Plane::start().await;
        let token = plane.runner_token("a").await;
        let backend = FakeBackend::new();
        let executor = backend.executor();
        let spec = Script::new().out("hello\n").hold().spec(RunId::generate());
        executor
            .start(&spec, &Secrets::none(), &Progress::none())
            .await
            .unwrap();
        let _runner = Runner::connect(&plane, &token, &boot("a"), executor).await;
        backend.control(spec.run).called("watch", 1).await;
        backend.control(spec.run).finish(Outcome::Succeeded);
        let run = plane.finished(&spec.run.to_string()).await;
        assert_eq!(run["state"], "succeeded");
        assert_eq!(plane.logs(&spec.run.to_string()).await, "hello\n");
    })
    .await;
}

#[tokio::test]
async fn a_run_of_another_runner_is_left_alone() {
    within(async {
        let plane = Plane::start().await;
        let run = plane.submit("b", &["hold"]).await;
        let token = plane.runner_token("a").await;
        let backend = FakeBackend::new();
        let executor = backend.executor();
        let spec = Script::new().hold().spec(id(&run));
        executor
            .start(&spec, &Secrets::none(), &Progress::none())
            .await
            .unwrap();
        let _runner = Runner::connect(&plane, &token, &boot("a"), executor).await;
        let own = plane.submit("a", &["true"]).await;
        plane.finished(&own).await;
        assert_eq!(
            plane.get(&format!("/api/v1/runs/{run}")).await["state"],
            "queued"
        );
        assert_eq!(backend.calls_of("watch", id(&run)), 0);
    })
    .await;
}

#[tokio::test]
async fn a_run_is_stopped_in_each_state() {
    within(async {
        let plane = Plane::start().await;
        let token = plane.runner_token("a").await;
        let backend = FakeBackend::new();
        // Queued, and never sent.
        let queued = plane.submit("a", &["hold"]).await;
        let stop = async |run: &str| {
            plane
                .post(&format!("/api/v1/runs/{run}/stop"), json!({}))
                .await
        };
        assert_eq!(stop(&queued).await.1["state"], "stopped");
        let life = boot("a");
        let runner = Runner::connect(&plane, &token, &life, backend.executor()).await;
        // Starting.
        backend.hold_starts();
        let starting = plane.submit("a", &["hold"]).await;
        backend.control(id(&starting)).known().await;
        assert_eq!(stop(&starting).await.0.as_u16(), 202);
        assert_eq!(plane.finished(&starting).await["state"], "stopped");
        assert_eq!(backend.starts_of(id(&starting)), 0);
        backend.release_starts();
        // Running.
        let running = plane.submit("a", &["hold"]).await;
        backend.control(id(&running)).begun().await;
        stop(&running).await;
        let stopped = plane.finished(&running).await;
        assert_eq!(
            (stopped["state"].as_str(), stopped["stopped_by"].as_str()),
            (Some("stopped"), Some("admin"))
        );
        // Ended: the end stays.
        assert_eq!(stop(&running).await.0.as_u16(), 200);
        // While the runner is away.
        let away = plane.submit("a", &["hold"]).await;
        backend.control(id(&away)).begun().await;
        runner.leave().await;
        assert_eq!(stop(&away).await.0.as_u16(), 202);
        let _again = Runner::connect(&plane, &token, &life.again(), backend.executor()).await;
        assert_eq!(plane.finished(&away).await["state"], "stopped");
        assert_eq!(backend.starts_of(id(&queued)), 0);
    })
    .await;
}

#[tokio::test]
async fn a_shorter_grace_shortens_a_stop() {
    within(async {
        let plane = Plane::start().await;
        let token = plane.runner_token("a").await;
        let backend = FakeBackend::new();
        let _runner = Runner::connect(&plane, &token, &boot("a"), backend.executor()).await;
        let run = plane.submit("a", &["hold"]).await;
        let control = backend.control(id(&run));
        control.begun().await;
        control.make_stubborn();
        plane
            .post(
                &format!("/api/v1/runs/{run}/stop"),
                json!({ "grace": "1h" }),
            )
            .await;
        control.stopping().await;
        assert_eq!(control.stop_asked(), Some(Duration::from_hours(1)));
        plane
            .post(&format!("/api/v1/runs/{run}/stop"), json!({ "now": true }))
            .await;
        assert_eq!(plane.finished(&run).await["state"], "stopped");
    })
    .await;
}

#[tokio::test]
async fn nothing_is_accepted_after_the_outcome() {
    within(async {
        let plane = Plane::start().await;
        let token = plane.runner_token("a").await;
        let backend = FakeBackend::new();
        let life = boot("a");
        let runner = Runner::connect(&plane, &token, &life, backend.executor()).await;
        let run = plane.submit("a", &["echo", "x"]).await;
        assert_eq!(plane.finished(&run).await["state"], "succeeded");
        backend.control(id(&run)).removed().await;
        runner.leave().await;
        // The runner lives the same run again: a copy of its disk came back.
        let executor = backend.executor();
        let spec = Script::new().out("again\n").hold().spec(id(&run));
        executor
            .start(&spec, &Secrets::none(), &Progress::none())
            .await
            .unwrap();
        let _again = Runner::connect(&plane, &token, &life.again(), executor).await;
        backend.control(id(&run)).removed().await;
        assert_eq!(
            plane.get(&format!("/api/v1/runs/{run}")).await["state"],
            "succeeded"
        );
        assert_eq!(plane.logs(&run).await, "x\n");
    })
    .await;
}

#[tokio::test]
async fn the_outcome_is_acknowledged_only_when_it_is_stored() {
    within(async {
        let plane = Plane::start().await;
        let token = plane.runner_token("a").await;
        let backend = FakeBackend::new();
        let life = boot("a");
        let runner = Runner::connect(&plane, &token, &life, backend.executor()).await;
        let run = plane.submit("a", &["hold"]).await;
        backend.control(id(&run)).begun().await;
        drop(runner);
        backend.control(id(&run)).finish(Outcome::Succeeded);
        assert_eq!(backend.calls_of("remove", id(&run)), 0);
        let executor = backend.executor();
        assert!(executor.list().await.unwrap().contains(&Handle::with_state(
            id(&run),
            1,
            json!({ "fake": run })
        )));
        let _again = Runner::connect(&plane, &token, &life.again(), executor).await;
        backend.control(id(&run)).removed().await;
        assert_eq!(
            plane.get(&format!("/api/v1/runs/{run}")).await["state"],
            "succeeded"
        );
    })
    .await;
}

mod support_recorder {
    //! An executor that notes under which marks it is asked to start.

    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use async_trait::async_trait;
    use futures::stream::BoxStream;
    use hybrid_runner_core::incarnation::Incarnation;
    use hybrid_runner_core::{
        Capabilities, Executor, Handle, LogChunk, LogCursor, Progress, Result, RunSpec, Secrets,
        Status,
    };

    #[derive(Debug)]
    pub(crate) struct Recorder {
        inner: Arc<dyn Executor>,
        marks: Mutex<Vec<Option<Incarnation>>>,
    }

    impl Recorder {
        pub(crate) fn new(inner: Arc<dyn Executor>) -> Arc<Self> {
            Arc::new(Self {
                inner,
                marks: Mutex::default(),
            })
        }

        pub(crate) fn marks(&self) -> Vec<Option<Incarnation>> {
            self.marks.lock().unwrap().clone()
        }
    }

    #[async_trait]
    impl Executor for Recorder {
        async fn capabilities(&self) -> Result<Capabilities> {
            self.inner.capabilities().await
        }
        async fn check(&self) -> Result<()> {
            self.inner.check().await
        }
        async fn start(
            &self,
            spec: &RunSpec,
            secrets: &Secrets,
            progress: &Progress,
        ) -> Result<Handle> {
            self.marks.lock().unwrap().push(spec.first_sent.clone());
            self.inner.start(spec, secrets, progress).await
        }
        fn watch(&self, run: &Handle) -> BoxStream<'static, Result<Status>> {
            self.inner.watch(run)
        }
        fn logs(
            &self,
            run: &Handle,
            from: Option<LogCursor>,
        ) -> BoxStream<'static, Result<LogChunk>> {
            self.inner.logs(run, from)
        }
        async fn stop(&self, run: &Handle, grace: Duration) -> Result<()> {
            self.inner.stop(run, grace).await
        }
        async fn remove(&self, run: &Handle) -> Result<()> {
            self.inner.remove(run).await
        }
        async fn list(&self) -> Result<Vec<Handle>> {
            self.inner.list().await
        }
    }
}
