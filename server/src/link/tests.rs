//! The contract of executors, through a real WebSocket: the server's end of it as it is, a fake behind it.

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::extract::WebSocketUpgrade;
use axum::routing::get;
use futures::stream::BoxStream;
use futures::{Sink, SinkExt as _, Stream, StreamExt as _};
use hybrid_runner_core::incarnation::Incarnation;
use hybrid_runner_core::run::{Failure, State};
use hybrid_runner_core::session::{
    Closed, ExecutorService, Hello, NoService, Options, RemoteExecutor, SUBPROTOCOL, Session,
    Welcome,
};
use hybrid_runner_core::testing::{FakeBackend, Harness, Script};
use hybrid_runner_core::{
    Capabilities, Error, Executor, Handle, LogChunk, LogCursor, Outcome, Progress, Result, RunId,
    RunSpec, Secrets, Status,
};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{Error as WsError, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use super::transport::Socket;
use crate::app::App;
use crate::tests::ask;
use crate::{Config, NewToken, Role, Server};

/// The runner's end.
struct Frames(WebSocketStream<MaybeTlsStream<TcpStream>>);

fn failed(error: WsError) -> Error {
    Error::unavailable("the WebSocket failed").with_source(error)
}

impl Stream for Frames {
    type Item = Result<String>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Poll::Ready(match ready!(self.0.poll_next_unpin(cx)) {
            Some(Ok(Message::Text(text))) => Some(Ok(text.to_string())),
            Some(Err(error)) => Some(Err(failed(error))),
            _ => None,
        })
    }
}

impl Sink<String> for Frames {
    type Error = Error;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.0.poll_ready_unpin(cx).map_err(failed)
    }
    fn start_send(mut self: Pin<&mut Self>, message: String) -> Result<()> {
        self.0
            .start_send_unpin(Message::text(message))
            .map_err(failed)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.0.poll_flush_unpin(cx).map_err(failed)
    }
    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.0.poll_close_unpin(cx).map_err(failed)
    }
}

/// Puts a WebSocket on loopback before each executor of a fake backend.
struct OverSocket {
    inner: FakeBackend,
    tasks: Mutex<JoinSet<()>>,
}

impl OverSocket {
    fn new() -> Self {
        Self {
            inner: FakeBackend::new(),
            tasks: Mutex::default(),
        }
    }

    async fn reach(&self, executor: Arc<dyn Executor>) -> Arc<dyn Executor> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (arrived, mut arrivals) = mpsc::channel(1);
        let upgrade = move |upgrade: WebSocketUpgrade| async move {
            upgrade.on_upgrade(async move |socket| {
                let options = Options::default();
                let (session, driver) =
                    Session::start(Socket::new(socket), Arc::new(NoService), options);
                arrived.send(session).await.unwrap();
                drop::<Closed>(driver.await);
            })
        };
        let served = axum::serve(listener, Router::new().route("/", get(upgrade)));
        let url = format!("ws://{address}/");
        self.tasks
            .lock()
            .unwrap()
            .spawn(async move { served.await.unwrap() });
        let (ws, _) = Box::pin(tokio_tungstenite::connect_async(url))
            .await
            .unwrap();
        let service = Arc::new(ExecutorService::new(executor));
        let (_, driver) = Session::start(Frames(ws), service, Options::default());
        self.tasks
            .lock()
            .unwrap()
            .spawn(async move { drop::<Closed>(driver.await) });
        // The suite hands values to what it starts; a link proper carries none.
        Arc::new(RemoteExecutor::with_secrets(arrivals.recv().await.unwrap()))
    }
}

#[async_trait]
impl Harness for OverSocket {
    async fn executor(&self) -> Arc<dyn Executor> {
        self.reach(self.inner.executor()).await
    }
    fn run_id(&self) -> RunId {
        RunId::generate()
    }
    fn spec(&self, run: RunId, script: &Script) -> RunSpec {
        self.inner.spec(run, script)
    }
    async fn hand_over(&self, values: &Secrets) -> Secrets {
        self.inner.hand_over(values).await
    }
    fn tick(&self) -> Duration {
        self.inner.tick()
    }
    fn patience(&self) -> Duration {
        self.inner.patience()
    }
    async fn other_owner(&self) -> Option<Arc<dyn Executor>> {
        Some(self.reach(self.inner.other_owner().await?).await)
    }
    async fn unreachable(&self) -> Option<Arc<dyn Executor>> {
        Some(self.reach(self.inner.unreachable().await?).await)
    }
    async fn half_start(&self, spec: &RunSpec, secrets: &Secrets) -> bool {
        self.inner.half_start(spec, secrets).await
    }
    fn unsupported(&self, spec: &RunSpec) -> Option<RunSpec> {
        self.inner.unsupported(spec)
    }
    async fn alive(&self, run: RunId) -> Option<bool> {
        self.inner.alive(run).await
    }
    fn evidence(&self, run: RunId) -> Option<PathBuf> {
        self.inner.evidence(run)
    }
    async fn starts(&self, run: RunId) -> Option<u32> {
        Harness::starts(&self.inner, run).await
    }
    async fn drop_log(&self, run: RunId) -> bool {
        self.inner.drop_log(run).await
    }
    fn declines(&self) -> &[(&'static str, &'static str)] {
        self.inner.declines()
    }
}

#[tokio::test]
async fn a_log_that_cannot_be_stored_is_not_read_on_until_it_can() {
    let work = async {
        let dir = tempfile::tempdir().unwrap();
        let mut tasks = JoinSet::new();
        let backend = FakeBackend::new();
        let (app, client, _session) = connected(dir.path(), backend.executor(), &mut tasks).await;

        let router = crate::api::router(&app);
        let run = RunId::generate();
        submit(&router, &client, run).await;
        let control = backend.control(run);
        control.begun().await;
        let (logs, away) = (dir.path().join("logs"), dir.path().join("away"));
        std::fs::rename(&logs, &away).unwrap();
        app.segments.release();
        control.emit("one\n");
        control.finish(Outcome::Succeeded);
        let ready = async || ask(&router, &client, "GET", "/readyz", None).await;
        let mut now = ready().await;
        while now.0 == 200 {
            tokio::task::yield_now().await;
            now = ready().await;
        }
        assert!(now.1.contains("logs cannot be stored"), "{}", now.1);
        let path = format!("/api/v1/runs/{run}");
        let look = async |more: &str| {
            ask(&router, &client, "GET", &format!("{path}{more}"), None)
                .await
                .1
        };
        assert!(
            !look("").await.contains("succeeded"),
            "the outcome waits for the log"
        );
        std::fs::rename(&away, &logs).unwrap();
        assert!(look("?wait=20s").await.contains("succeeded"));
        assert_eq!(look("/logs").await, "one\n");
        assert_eq!(ready().await.0, 200);
    };
    Box::pin(tokio::time::timeout(Duration::from_secs(30), work))
        .await
        .unwrap();
}

/// A runner that is as its backend is, but for one thing.
#[derive(Debug)]
struct Odd(Arc<dyn Executor>, But);

#[derive(Debug)]
enum But {
    /// It takes nothing up, has no logs, and is slow to write a stop down.
    Busy,
    /// The same, and it gives these levels, one each time that it is watched.
    Says(Mutex<Vec<Status>>),
    /// It cannot read logs, for now.
    Shut(AtomicBool, fn(&'static str) -> Error),
}

#[async_trait]
impl Executor for Odd {
    async fn capabilities(&self) -> Result<Capabilities> {
        self.0.capabilities().await
    }
    async fn check(&self) -> Result<()> {
        self.0.check().await
    }
    async fn start(&self, spec: &RunSpec, values: &Secrets, told: &Progress) -> Result<Handle> {
        match &self.1 {
            But::Busy => Err(Error::unavailable("no free slot")),
            But::Says(_) => Ok(Handle::of(spec.run)),
            But::Shut(..) => self.0.start(spec, values, told).await,
        }
    }
    fn watch(&self, run: &Handle) -> BoxStream<'static, Result<Status>> {
        let But::Says(levels) = &self.1 else {
            return self.0.watch(run);
        };
        let level = levels.lock().unwrap().pop();
        let gone = Err(Error::unavailable("gone"));
        futures::stream::iter(level.map(Ok).into_iter().chain([gone])).boxed()
    }
    fn logs(&self, run: &Handle, from: Option<LogCursor>) -> BoxStream<'static, Result<LogChunk>> {
        let error = match &self.1 {
            But::Busy | But::Says(_) => Error::not_found("this runner does not know the run"),
            But::Shut(is_shut, error) if is_shut.load(Ordering::Relaxed) => error("add this rule"),
            But::Shut(..) => return self.0.logs(run, from),
        };
        futures::stream::once(async { Err(error) }).boxed()
    }
    async fn stop(&self, run: &Handle, grace: Duration) -> Result<()> {
        if let But::Busy | But::Says(_) = &self.1 {
            for _ in 0..1000 {
                tokio::task::yield_now().await;
            }
        }
        self.0.stop(run, grace).await
    }
    async fn remove(&self, run: &Handle) -> Result<()> {
        self.0.remove(run).await
    }
    async fn list(&self) -> Result<Vec<Handle>> {
        self.0.list().await
    }
}

#[tokio::test]
async fn a_log_that_may_not_be_read_says_why_and_comes_once_it_may() {
    let work = async {
        late_log(Error::denied, true).await;
        // Of one that is away for a moment nothing is said while the work runs.
        late_log(Error::unavailable, false).await;
    };
    Box::pin(tokio::time::timeout(Duration::from_mins(1), work))
        .await
        .unwrap();
}

/// A log that cannot be read before the outcome, and then can.
async fn late_log(error: fn(&'static str) -> Error, is_told_soon: bool) {
    let dir = tempfile::tempdir().unwrap();
    let mut tasks = JoinSet::new();
    let backend = FakeBackend::new();
    let shut = But::Shut(AtomicBool::new(true), error);
    let shut = Arc::new(Odd(backend.executor(), shut));
    let runner = Arc::clone(&shut);
    let (app, client, _session) = connected(dir.path(), runner, &mut tasks).await;
    let router = crate::api::router(&app);
    let run = RunId::generate();
    submit(&router, &client, run).await;
    let control = backend.control(run);
    control.begun().await;
    control.emit("one\n");
    let path = format!("/api/v1/runs/{run}");
    let look = async |more: &str| {
        let path = format!("{path}{more}");
        ask(&router, &client, "GET", &path, None).await.1
    };
    let told = async || {
        while !look("").await.contains("add this rule") {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    if is_told_soon {
        told().await;
    }
    control.finish(Outcome::Succeeded);
    told().await;
    let shown = look("?state=finished&wait=1s").await;
    assert!(!shown.contains("succeeded"), "the outcome waits: {shown}");
    if let But::Shut(is_shut, _) = &shut.1 {
        is_shut.store(false, Ordering::Relaxed);
    }
    let shown = look("?wait=20s").await;
    assert!(shown.contains("succeeded"), "{shown}");
    assert!(!shown.contains("add this rule"), "{shown}");
    assert_eq!(look("/logs").await, "one\n");
}

#[tokio::test]
async fn a_run_that_was_sent_and_not_taken_says_why_is_stopped_and_not_lost() {
    let work = async {
        let dir = tempfile::tempdir().unwrap();
        let mut tasks = JoinSet::new();
        let backend = FakeBackend::new();
        let busy = Arc::new(Odd(backend.executor(), But::Busy));
        let (app, client, _session) = connected(dir.path(), busy, &mut tasks).await;
        let router = crate::api::router(&app);
        let run = RunId::generate();
        let path = format!("/api/v1/runs/{run}");
        submit(&router, &client, run).await;
        // Why it waits is told meanwhile.
        loop {
            let shown = ask(&router, &client, "GET", &path, None).await.1;
            assert!(shown.contains(r#""state":"queued""#), "{shown}");
            if shown.contains("no free slot") {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let asked = ask(&router, &client, "POST", &format!("{path}/stop"), None).await;
        assert_eq!(asked.0, 202, "{}", asked.1);
        let ended = ask(&router, &client, "GET", &format!("{path}?wait=20s"), None).await;
        assert!(ended.1.contains(r#""state":"stopped""#), "{}", ended.1);
        let log = ask(&router, &client, "GET", &format!("{path}/logs"), None).await;
        assert_eq!(log, (200, String::new()));
    };
    Box::pin(tokio::time::timeout(Duration::from_secs(30), work))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_runner_that_forgot_the_last_attempt_leaves_no_run_without_an_end() {
    let work = async {
        let dir = tempfile::tempdir().unwrap();
        let mut tasks = JoinSet::new();
        let failed = State::Finished(Outcome::Failed(Failure::exit(3)));
        let levels = vec![Status::new(2, failed), Status::new(3, State::Queued)];
        let says = But::Says(Mutex::new(levels));
        let says = Odd(FakeBackend::new().executor(), says);
        let (app, client, _session) = connected(dir.path(), Arc::new(says), &mut tasks).await;
        let router = crate::api::router(&app);
        let run = RunId::generate();
        submit(&router, &client, run).await;
        let path = format!("/api/v1/runs/{run}?wait=20s");
        let (_, ended) = ask(&router, &client, "GET", &path, None).await;
        assert!(ended.contains(r#""state":"lost","attempt":3"#), "{ended}");
        assert!(ended.contains("older copy"), "{ended}");
    };
    Box::pin(tokio::time::timeout(Duration::from_secs(30), work))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_stop_that_came_between_two_attempts_is_one_although_the_runner_forgot_the_next() {
    let work = async {
        let dir = tempfile::tempdir().unwrap();
        let mut tasks = JoinSet::new();
        let levels = vec![Status::new(2, State::Queued)];
        let says = But::Says(Mutex::new(levels));
        let says = Arc::new(Odd(FakeBackend::new().executor(), says));
        let runner = Arc::clone(&says) as _;
        let (app, client, _session) = connected(dir.path(), runner, &mut tasks).await;
        let router = crate::api::router(&app);
        let run = RunId::generate();
        let path = format!("/api/v1/runs/{run}");
        submit(&router, &client, run).await;
        while !ask(&router, &client, "GET", &path, None)
            .await
            .1
            .contains(r#""attempt":2"#)
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let asked = ask(&router, &client, "POST", &format!("{path}/stop"), None).await;
        assert_eq!(asked.0, 202, "{}", asked.1);
        let failed = State::Finished(Outcome::Failed(Failure::exit(3)));
        if let But::Says(levels) = &says.1 {
            levels.lock().unwrap().push(Status::new(1, failed));
        }
        let (_, ended) = ask(&router, &client, "GET", &format!("{path}?wait=20s"), None).await;
        assert!(
            ended.contains(r#""state":"stopped","attempt":2"#),
            "{ended}"
        );
    };
    Box::pin(tokio::time::timeout(Duration::from_secs(30), work))
        .await
        .unwrap();
}

#[tokio::test]
async fn what_is_stored_is_told_to_the_runner_although_the_client_hung_up() {
    let work = async {
        let dir = tempfile::tempdir().unwrap();
        let mut tasks = JoinSet::new();
        let backend = FakeBackend::new();
        let (app, client, _session) = connected(dir.path(), backend.executor(), &mut tasks).await;
        let router = crate::api::router(&app);
        for polls in 1..6 {
            let run = RunId::generate();
            hang_up(polls, submit(&router, &client, run)).await;
            // Whether or not it was stored before: now it is.
            let body =
                serde_json::json!({ "id": run, "workflow": { "name": "w", "command": ["hold"] } });
            let (code, said) = ask(&router, &client, "POST", "/api/v1/runs", Some(body)).await;
            assert!(code < 300, "{said}");
            backend.control(run).begun().await;
            let path = format!("/api/v1/runs/{run}");
            let look = async |state: &str| {
                let path = format!("{path}?state={state}&wait=10s");
                ask(&router, &client, "GET", &path, None).await.1
            };
            look("running").await;
            let stop = format!("{path}/stop");
            hang_up(polls + 3, ask(&router, &client, "POST", &stop, None)).await;
            let known = look("running").await;
            if known.contains("stop_requested") {
                let ended = look("finished").await;
                assert!(ended.contains(r#""state":"stopped""#), "{ended}");
            }
        }
    };
    Box::pin(tokio::time::timeout(Duration::from_mins(1), work))
        .await
        .unwrap();
}

#[tokio::test]
async fn what_a_runner_finds_later_of_a_run_that_has_ended_is_put_away() {
    let work = async {
        let dir = tempfile::tempdir().unwrap();
        let mut tasks = JoinSet::new();
        let backend = FakeBackend::new();
        let runner = backend.executor();
        let shown = Arc::clone(&runner);
        let (app, client, _session) = connected(dir.path(), shown, &mut tasks).await;
        let router = crate::api::router(&app);
        let run = RunId::generate();
        submit(&router, &client, run).await;
        let control = backend.control(run);
        control.begun().await;
        control.finish(Outcome::Succeeded);
        let is_gone = async || {
            while !runner.list().await.unwrap().is_empty() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        is_gone().await;
        // Somebody else had begun it, too, in a backend that was away when the runner came.
        let spec = RunSpec::new(run, "w".parse().unwrap(), ["hold"]);
        let (values, told) = (Secrets::none(), Progress::none());
        runner.start(&spec, &values, &told).await.unwrap();
        assert_eq!(runner.list().await.unwrap().len(), 1);
        is_gone().await;
        let path = format!("/api/v1/runs/{run}");
        let (_, shown) = ask(&router, &client, "GET", &path, None).await;
        assert!(shown.contains("succeeded"), "{shown}");
    };
    Box::pin(tokio::time::timeout(Duration::from_secs(30), work))
        .await
        .unwrap();
}

/// Polls a request that often and drops it.
async fn hang_up<T>(polls: usize, request: impl Future<Output = T>) {
    let mut request = Box::pin(request);
    for _ in 0..polls {
        if futures::poll!(&mut request).is_ready() {
            return;
        }
    }
}

/// A server, a client's token, and the link of a runner that has been welcomed.
async fn connected(
    dir: &Path,
    executor: Arc<dyn Executor>,
    tasks: &mut JoinSet<()>,
) -> (Arc<App>, String, Session) {
    let mut config = Config::new(dir);
    config.listen = "127.0.0.1:0".parse().unwrap();
    let server = Server::bind(config).await.unwrap();
    let (app, link) = (server.app(), server.link_url());
    let token = |role, agent: Option<&str>| NewToken {
        role,
        agent: agent.map(|agent| agent.parse().unwrap()),
        name: None,
    };
    let runner = server
        .create_token(&token(Role::Runner, Some("a")))
        .await
        .unwrap();
    let client = server
        .create_token(&token(Role::Client, None))
        .await
        .unwrap();
    let client = client.secret.expose_text().unwrap().to_owned();
    tasks.spawn(server.serve(std::future::pending()));
    let session = dial(&link, runner.secret.expose_text().unwrap(), executor, tasks).await;
    let agent = "a".parse().unwrap();
    let life = Incarnation::new("boot", uuid::Uuid::new_v4(), 1);
    let hello = Hello::new(agent, life, Capabilities::least());
    let _welcome: Welcome = session.call("hello", &hello).await.unwrap();
    (app, client, session)
}

/// Submits a run that holds until it is told to end.
async fn submit(router: &Router, client: &str, run: RunId) {
    let body = serde_json::json!({ "id": run, "workflow": { "name": "w", "command": ["hold"] } });
    let answer = ask(router, client, "POST", "/api/v1/runs", Some(body)).await;
    assert_eq!(answer.0, 201, "{}", answer.1);
}

/// A runner's end of a link.
async fn dial(
    link: &str,
    token: &str,
    executor: Arc<dyn Executor>,
    tasks: &mut JoinSet<()>,
) -> Session {
    let mut request = link.into_client_request().unwrap();
    let headers = request.headers_mut();
    headers.insert("authorization", format!("Bearer {token}").parse().unwrap());
    headers.insert("sec-websocket-protocol", SUBPROTOCOL.parse().unwrap());
    let (ws, _) = Box::pin(tokio_tungstenite::connect_async(request))
        .await
        .unwrap();
    let service = Arc::new(ExecutorService::new(executor));
    let (session, driver) = Session::start(Frames(ws), service, Options::default());
    tasks.spawn(async move { drop::<Closed>(driver.await) });
    session
}

mod contract {
    hybrid_runner_core::executor_contract_tests!(super::OverSocket::new());
}
