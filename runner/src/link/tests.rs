//! The loop under a paused clock, and the dialer against real sockets.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use base64::Engine as _;
use futures::stream::BoxStream;
use futures::{SinkExt as _, StreamExt as _};
use hybrid_runner_core::executor::{Capabilities, Handle, Progress};
use hybrid_runner_core::log::{LogChunk, LogCursor};
use hybrid_runner_core::run::{RunSpec, Status};
use hybrid_runner_core::secret::Secrets;
use hybrid_runner_core::session::{
    Items, MemoryTransport, SUBPROTOCOL, Service, Transport, memory_pair, unknown_method,
};
use hybrid_runner_core::unit::Period;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::value::{RawValue, to_raw_value};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::*;
use crate::config::{Inputs, LinkUrl};

const HEARTBEAT: Duration = Duration::from_secs(15);
const LIMIT: Duration = Duration::from_secs(30);

/// An executor that is never asked to do anything.
#[derive(Debug)]
struct Idle;

#[async_trait]
impl Executor for Idle {
    async fn capabilities(&self) -> Result<Capabilities> {
        Ok(Capabilities::least())
    }
    async fn check(&self) -> Result<()> {
        Ok(())
    }
    async fn start(&self, _: &RunSpec, _: &Secrets, _: &Progress) -> Result<Handle> {
        Err(Error::unsupported("idle"))
    }
    fn watch(&self, _: &Handle) -> BoxStream<'static, Result<Status>> {
        futures::stream::empty().boxed()
    }
    fn logs(&self, _: &Handle, _: Option<LogCursor>) -> BoxStream<'static, Result<LogChunk>> {
        futures::stream::empty().boxed()
    }
    async fn stop(&self, _: &Handle, _: Duration) -> Result<()> {
        Ok(())
    }
    async fn remove(&self, _: &Handle) -> Result<()> {
        Ok(())
    }
    async fn list(&self) -> Result<Vec<Handle>> {
        Ok(Vec::new())
    }
}

#[derive(Default)]
struct FakeSide(AtomicU64);

#[async_trait]
impl Side for FakeSide {
    fn executor(&self) -> Arc<dyn Executor> {
        Arc::new(Idle)
    }
    async fn welcomed(&self, _: &str) {}
    async fn incarnation(&self) -> Result<Incarnation> {
        let seq = self.0.fetch_add(1, Ordering::SeqCst) + 1;
        Ok(Incarnation::new("boot", uuid::Uuid::from_u128(1), seq))
    }
}

/// What the control plane does with a connect.
#[derive(Clone)]
enum Answer {
    Refuse(ErrorKind),
    Welcome,
    /// Welcomes, then reads and says nothing more.
    Mute,
    /// Refuses the hello.
    Hello(ErrorKind),
}

/// A control plane in memory.
struct Plane {
    answers: Mutex<VecDeque<Answer>>,
    always: Answer,
    connects: Mutex<Vec<Instant>>,
    sessions: Mutex<JoinSet<()>>,
    hellos: Mutex<Vec<Hello>>,
}

struct Dial(Arc<Plane>);

struct Greeter(Arc<Plane>, Answer);

#[async_trait]
impl Service for Greeter {
    async fn call(&self, method: &str, params: &RawValue, _: &Progress) -> Result<Box<RawValue>> {
        if method != "hello" {
            return Err(unknown_method(method));
        }
        self.0
            .hellos
            .lock()
            .unwrap()
            .push(serde_json::from_str(params.get()).unwrap());
        if let Answer::Hello(kind) = self.1 {
            return Err(Error::new(
                kind,
                "the id `west` is held by host `a` since noon",
            ));
        }
        Ok(to_raw_value(&Welcome::new("v1-preview", "plane", 1, Period::seconds(15))).unwrap())
    }
    fn open(&self, _: &str, _: &RawValue) -> Option<Result<Items>> {
        None
    }
}

impl Plane {
    fn new(answers: impl IntoIterator<Item = Answer>, always: Answer) -> Arc<Self> {
        Arc::new(Self {
            answers: Mutex::new(answers.into_iter().collect()),
            always,
            connects: Mutex::default(),
            sessions: Mutex::new(JoinSet::new()),
            hellos: Mutex::default(),
        })
    }

    fn connects(&self) -> usize {
        self.connects.lock().unwrap().len()
    }

    /// Waits for the `n`-th connect.
    async fn connected(&self, n: usize) {
        let enough = async {
            while self.connects() < n {
                sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(LIMIT * 20, enough).await.unwrap();
    }

    fn cut(&self) {
        self.sessions.lock().unwrap().abort_all();
    }
}

/// Reads the hello, answers it, and is silent for ever.
async fn mute(mut transport: MemoryTransport) {
    let hello: serde_json::Value =
        serde_json::from_str(&transport.next().await.unwrap().unwrap()).unwrap();
    let welcome = serde_json::json!({
        "jsonrpc": "2.0", "id": hello["id"],
        "result": Welcome::new("v1-preview", "plane", 1, Period::seconds(15)),
    });
    transport.send(welcome.to_string()).await.unwrap();
    while transport.next().await.is_some() {}
}

#[async_trait]
impl Connect for Dial {
    async fn connect(&self, _: &SecretString) -> Result<Box<dyn Transport>> {
        let plane = &self.0;
        plane.connects.lock().unwrap().push(Instant::now());
        let answer = plane
            .answers
            .lock()
            .unwrap()
            .pop_front()
            .unwrap_or(plane.always.clone());
        if let Answer::Refuse(kind) = answer {
            return Err(Error::new(kind, "no"));
        }
        let (ours, theirs) = memory_pair();
        let mut sessions = plane.sessions.lock().unwrap();
        if matches!(answer, Answer::Mute) {
            sessions.spawn(mute(theirs));
        } else {
            let greeter = Arc::new(Greeter(Arc::clone(plane), answer));
            let (_, driver) = Session::start(theirs, greeter, session::Options::default());
            sessions.spawn(async {
                driver.await;
            });
        }
        Ok(Box::new(ours))
    }

    fn name(&self) -> String {
        "memory".to_owned()
    }
}

/// A running link.
struct Running {
    state: watch::Receiver<LinkState>,
    shutdown: CancellationToken,
    tasks: JoinSet<()>,
}

fn start(plane: &Arc<Plane>, tokens: Tokens) -> Running {
    let link = Link::over(
        Box::new(Dial(Arc::clone(plane))),
        tokens,
        "west".parse().unwrap(),
        Arc::new(FakeSide::default()),
        HEARTBEAT,
    );
    let (state, shutdown) = (link.state(), CancellationToken::new());
    let mut tasks = JoinSet::new();
    tasks.spawn(link.run(shutdown.clone()));
    Running {
        state,
        shutdown,
        tasks,
    }
}

impl Running {
    async fn until(&mut self, what: impl FnMut(&LinkState) -> bool) -> LinkState {
        timeout(LIMIT * 20, self.state.wait_for(what))
            .await
            .unwrap()
            .unwrap()
            .clone()
    }
}

fn value() -> Tokens {
    Tokens::Value(SecretString::from("t"))
}

#[tokio::test(start_paused = true)]
async fn a_refused_token_is_told_and_not_hammered() {
    for kind in [ErrorKind::Denied, ErrorKind::Unsupported] {
        let plane = Plane::new([], Answer::Refuse(kind));
        let mut running = start(&plane, value());
        let state = running
            .until(|state| matches!(state, LinkState::Waiting { refused: true, .. }))
            .await;
        assert!(state.to_string().contains("no"), "{state}");
        sleep(Duration::from_mins(10)).await;
        assert!(
            plane.connects() <= 13,
            "{} connects in ten minutes",
            plane.connects()
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_changed_token_is_tried_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("token");
    std::fs::write(&path, "old").unwrap();
    let plane = Plane::new([Answer::Refuse(ErrorKind::Denied)], Answer::Welcome);
    let mut running = start(&plane, Tokens::File(path.clone()));
    running
        .until(|state| matches!(state, LinkState::Waiting { .. }))
        .await;
    std::fs::write(&path, "another").unwrap();
    let at = Instant::now();
    running.until(LinkState::is_connected).await;
    assert!(at.elapsed() < Duration::from_secs(5), "{:?}", at.elapsed());
}

#[tokio::test(start_paused = true)]
async fn an_unreachable_server_is_tried_again_with_growing_waits() {
    let plane = Plane::new([], Answer::Refuse(ErrorKind::Unavailable));
    let _running = start(&plane, value());
    sleep(Duration::from_mins(5)).await;
    let connects = plane.connects();
    assert!(
        (8..120).contains(&connects),
        "{connects} connects in five minutes"
    );
}

#[tokio::test(start_paused = true)]
async fn after_a_session_that_lived_the_next_connect_is_at_once() {
    let plane = Plane::new([], Answer::Welcome);
    let mut running = start(&plane, value());
    running.until(LinkState::is_connected).await;
    sleep(Duration::from_secs(10)).await;
    let at = Instant::now();
    plane.cut();
    plane.connected(2).await;
    assert!(
        at.elapsed() < Duration::from_millis(50),
        "{:?}",
        at.elapsed()
    );
    running.until(LinkState::is_connected).await;
    sleep(Duration::from_millis(1)).await;
    let seqs: Vec<_> = plane
        .hellos
        .lock()
        .unwrap()
        .iter()
        .map(|hello| hello.incarnation.seq)
        .collect();
    assert_eq!(seqs, [1, 2], "each connect has a new incarnation");
}

#[tokio::test(start_paused = true)]
async fn a_held_id_is_told_with_its_holder() {
    let plane = Plane::new([], Answer::Hello(ErrorKind::Conflict));
    let mut running = start(&plane, value());
    let state = running
        .until(|state| matches!(state, LinkState::Waiting { refused: true, .. }))
        .await;
    assert!(
        state.to_string().contains("held by host `a` since noon"),
        "{state}"
    );
    sleep(Duration::from_secs(200)).await;
    assert!(plane.connects() <= 12, "{}", plane.connects());
}

#[tokio::test(start_paused = true)]
async fn the_ghost_of_our_own_session_is_outwaited_quickly() {
    let conflict = Answer::Hello(ErrorKind::Conflict);
    let plane = Plane::new(
        [
            Answer::Welcome,
            conflict.clone(),
            conflict.clone(),
            conflict,
        ],
        Answer::Welcome,
    );
    let mut running = start(&plane, value());
    running.until(LinkState::is_connected).await;
    sleep(Duration::from_secs(10)).await;
    plane.cut();
    let at = Instant::now();
    plane.connected(5).await;
    running.until(LinkState::is_connected).await;
    assert!(at.elapsed() < Duration::from_secs(3), "{:?}", at.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_half_open_link_is_found_within_two_heartbeats() {
    let plane = Plane::new([Answer::Mute], Answer::Welcome);
    let mut running = start(&plane, value());
    running.until(LinkState::is_connected).await;
    let at = Instant::now();
    plane.connected(2).await;
    assert!(
        at.elapsed() <= HEARTBEAT * 2 + Duration::from_secs(1),
        "{:?}",
        at.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn shutdown_ends_the_link_whatever_it_waits_for() {
    for always in [
        Answer::Welcome,
        Answer::Refuse(ErrorKind::Denied),
        Answer::Refuse(ErrorKind::Unavailable),
    ] {
        let plane = Plane::new([], always);
        let mut running = start(&plane, value());
        sleep(Duration::from_secs(1)).await;
        running.shutdown.cancel();
        timeout(LIMIT, running.tasks.join_next())
            .await
            .unwrap()
            .unwrap()
            .unwrap();
    }
}

// Real sockets from here on.

/// A dialer of a `[link]` section.
fn dialer(settings: &[(&'static str, String)]) -> Dialer {
    let mut inputs = Inputs::default();
    for (key, value) in settings {
        inputs.flags.push(("test", key, value.clone()));
    }
    let link = crate::config::load(&inputs).unwrap().config.link;
    let url: LinkUrl = link.url.clone().unwrap();
    Dialer::new(url, &link)
}

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

async fn dial(dialer: &Dialer) -> Result<Box<dyn Transport>> {
    timeout(LIMIT, dialer.connect(&SecretString::from("s3cr3t")))
        .await
        .unwrap()
}

/// `expect_err` needs `Debug`, which a transport has not.
async fn dial_error(dialer: &Dialer) -> Error {
    match dial(dialer).await {
        Ok(_) => panic!("the connect should have failed"),
        Err(error) => error,
    }
}

/// Accepts one WebSocket, checks its head, and echoes.
async fn echo<S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin>(stream: S) {
    use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
    #[expect(clippy::result_large_err, reason = "the callback's own type")]
    let check = |request: &Request, mut response: Response| -> Result<Response, ErrorResponse> {
        assert_eq!(request.headers()["authorization"], "Bearer s3cr3t");
        assert_eq!(request.uri().path(), "/api/v1/link");
        let protocol = request.headers()["sec-websocket-protocol"].clone();
        assert_eq!(protocol, SUBPROTOCOL);
        response
            .headers_mut()
            .insert("sec-websocket-protocol", protocol);
        Ok(response)
    };
    let mut socket = tokio_tungstenite::accept_hdr_async(stream, check)
        .await
        .unwrap();
    while let Some(Ok(message)) = socket.next().await {
        if message.is_text() {
            socket.send(message).await.unwrap();
        }
    }
}

async fn says_hello_back(transport: &mut Box<dyn Transport>) {
    transport.send("hello".to_owned()).await.unwrap();
    let back = timeout(LIMIT, transport.next())
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert_eq!(back, "hello");
}

#[tokio::test]
async fn each_refusal_of_the_upgrade_is_told_apart() {
    for (status, body, kind, words) in [
        (
            "401 Unauthorized",
            r#"{"error":{"kind":"denied","message":"unknown token"}}"#,
            ErrorKind::Denied,
            "(401): unknown token",
        ),
        (
            "403 Forbidden",
            "the token is for `east`",
            ErrorKind::Denied,
            "(403): the token is for `east`",
        ),
        (
            "401 Unauthorized",
            "authorization: Bearer s3cr3t, czNjcjN0",
            ErrorKind::Denied,
            "(401): authorization: Bearer ***, ***",
        ),
        (
            "404 Not Found",
            "",
            ErrorKind::Unsupported,
            "speaks no `hybrid-runner.v1`",
        ),
        (
            "503 Service Unavailable",
            "\u{7}",
            ErrorKind::Unavailable,
            "answered 503",
        ),
    ] {
        let (listener, address) = listen().await;
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            read_head(&mut stream).await;
            let answer = format!(
                "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            );
            stream.write_all(answer.as_bytes()).await.unwrap();
        });
        let error = dial_error(&dialer(&[("link.url", format!("ws://{address}"))])).await;
        assert_eq!(error.kind(), kind, "{error:?}");
        assert!(error.report().contains(words), "{error:?}");
        assert!(!error.report().contains("s3cr3t"));
    }
}

async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

/// A proxy that wants `user:pass`; counts what it let through.
async fn proxy(listener: TcpListener, through: Arc<AtomicU64>) {
    let expected = base64::engine::general_purpose::STANDARD.encode("user:p@ss");
    let mut tasks = JoinSet::new();
    while let Ok((mut stream, _)) = listener.accept().await {
        let (expected, through) = (expected.clone(), Arc::clone(&through));
        tasks.spawn(async move {
            let head = read_head(&mut stream).await;
            if !head.contains(&format!("Basic {expected}")) {
                stream
                    .write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
                    .await
                    .unwrap();
                return;
            }
            let target = head.split(' ').nth(1).unwrap().to_owned();
            assert!(head.starts_with("CONNECT "), "{head}");
            let mut target = TcpStream::connect(target).await.unwrap();
            through.fetch_add(1, Ordering::SeqCst);
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
            // Ends with either side; how, is of no interest.
            drop(tokio::io::copy_bidirectional(&mut stream, &mut target).await);
        });
    }
}

#[tokio::test]
async fn a_proxy_is_asked_by_connect_with_its_password() {
    let (server, address) = listen().await;
    let (listener, proxy_address) = listen().await;
    let through = Arc::new(AtomicU64::new(0));
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { echo(server.accept().await.unwrap().0).await });
    tasks.spawn(proxy(listener, Arc::clone(&through)));
    let url = ("link.url", format!("ws://{address}"));

    let wrong = dial_error(&dialer(&[
        url.clone(),
        ("link.proxy", format!("http://user:wr0ng@{proxy_address}")),
    ]))
    .await;
    assert_eq!(wrong.kind(), ErrorKind::Unavailable);
    assert!(
        wrong.report().contains("proxy") && !wrong.report().contains("wr0ng"),
        "{wrong:?}"
    );

    let mut transport = dial(&dialer(&[
        url,
        ("link.proxy", format!("http://user:p%40ss@{proxy_address}")),
    ]))
    .await
    .unwrap();
    says_hello_back(&mut transport).await;
    assert_eq!(through.load(Ordering::SeqCst), 1);
}

/// Certificates of a test: a CA, a server's, a client's, as PEM files.
struct Pki {
    _dir: tempfile::TempDir,
    ca: PathBuf,
    client_cert: PathBuf,
    client_key: PathBuf,
    acceptor: tokio_rustls::TlsAcceptor,
}

fn pki() -> Pki {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    use rustls::pki_types::PrivateKeyDer;
    let ca_key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_cert = params.self_signed(&ca_key).unwrap();
    let issuer = Issuer::new(params, ca_key);
    let signed = |name: &str| {
        let key = KeyPair::generate().unwrap();
        let cert = CertificateParams::new(vec![name.to_owned()])
            .unwrap()
            .signed_by(&key, &issuer)
            .unwrap();
        (cert, key)
    };
    let (server_cert, server_key) = signed("localhost");
    let (client_cert, client_key) = signed("client");
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: String| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let mut roots = rustls::RootCertStore::empty();
    roots.add(ca_cert.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(
        Arc::new(roots),
        Arc::clone(&provider),
    )
    .build()
    .unwrap();
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(
            vec![server_cert.der().clone()],
            PrivateKeyDer::try_from(server_key.serialize_der()).unwrap(),
        )
        .unwrap();
    Pki {
        ca: file("ca.pem", ca_cert.pem()),
        client_cert: file("client.pem", client_cert.pem()),
        client_key: file("client.key", client_key.serialize_pem()),
        acceptor: tokio_rustls::TlsAcceptor::from(Arc::new(config)),
        _dir: dir,
    }
}

#[tokio::test]
async fn tls_needs_our_ca_and_shows_our_certificate() {
    let pki = pki();
    let (listener, address) = listen().await;
    let acceptor = pki.acceptor.clone();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            // A handshake that fails is what two of the three dials are about.
            if let Ok(stream) = acceptor.accept(stream).await
                && stream.get_ref().1.peer_certificates().is_some()
            {
                echo(stream).await;
            }
        }
    });
    let url = ("link.url", format!("wss://localhost:{}", address.port()));
    let path = |path: &PathBuf| path.to_str().unwrap().to_owned();

    let unknown = dial_error(&dialer(std::slice::from_ref(&url))).await;
    assert!(unknown.report().contains("UnknownIssuer"), "{unknown:?}");

    let nameless = dial_error(&dialer(&[url.clone(), ("link.ca", path(&pki.ca))])).await;
    assert_eq!(nameless.kind(), ErrorKind::Unavailable, "{nameless:?}");

    let mut transport = dial(&dialer(&[
        url,
        ("link.ca", path(&pki.ca)),
        ("link.client_cert", path(&pki.client_cert)),
        ("link.client_key", path(&pki.client_key)),
    ]))
    .await
    .unwrap();
    says_hello_back(&mut transport).await;
}

#[test]
fn a_missing_certificate_file_is_named_with_its_key() {
    let dialer = dialer(&[
        ("link.url", "wss://h".into()),
        ("link.ca", "/nowhere/ca.pem".into()),
    ]);
    let error = dialer.tls_config().unwrap_err();
    assert!(
        error.report().contains("`/nowhere/ca.pem` (link.ca)"),
        "{error:?}"
    );
}

#[test]
fn the_token_is_marked_in_the_request() {
    let dialer = dialer(&[("link.url", "ws://127.0.0.1:1".into())]);
    let request = dialer.request(&SecretString::from("s3cr3t")).unwrap();
    assert!(request.headers()["authorization"].is_sensitive());
    assert!(!format!("{request:?}").contains(SecretString::from("s3cr3t").expose_secret()));
}
