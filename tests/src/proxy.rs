//! A TCP proxy that cuts, refuses and swallows, and keeps what passes if it is told to.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::capture::Capture;

/// What becomes of bytes and connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// All pass.
    Open,
    /// New connections are closed at once; those that are there go on.
    Refuse,
    /// Connections stay and new ones are taken, but no byte passes and no end is told: half-open, as after a lost
    /// route. What was held passes when the route is back, as retransmitted packets do.
    Swallow,
    /// All pass, each piece so much later.
    Delay(Duration),
}

#[derive(Debug, Clone, Copy)]
struct Rule {
    mode: Mode,
    /// Connections of an earlier number are cut.
    cut: u64,
    /// Connections of an earlier number are stranded.
    strand: u64,
}

/// A proxy between a runner and its server, inside the test program.
#[derive(Debug)]
pub struct Proxy {
    address: String,
    rule: watch::Sender<Rule>,
    upstream: watch::Sender<String>,
    taken: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

impl Proxy {
    /// A proxy in front of `upstream`.
    pub async fn new(upstream: &str) -> Self {
        Self::with(upstream, None).await
    }

    /// The same; it keeps what passes.
    pub async fn recording(upstream: &str, capture: &Capture) -> Self {
        Self::with(upstream, Some(capture.clone())).await
    }

    async fn with(upstream: &str, capture: Option<Capture>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port is free");
        let address = listener.local_addr().expect("it listens").to_string();
        let rule = watch::Sender::new(Rule {
            mode: Mode::Open,
            cut: 0,
            strand: 0,
        });
        let upstream = watch::Sender::new(upstream.to_owned());
        let taken = Arc::new(AtomicUsize::new(0));
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(
            listener,
            rule.subscribe(),
            upstream.subscribe(),
            Arc::clone(&taken),
            capture,
        ));
        Self {
            address,
            rule,
            upstream,
            taken,
            _tasks: tasks,
        }
    }

    /// `host:port` of it.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// How many connections it has taken so far.
    pub fn taken(&self) -> usize {
        self.taken.load(Ordering::SeqCst)
    }

    /// Another server behind it, for new connections.
    pub fn lead_to(&self, upstream: &str) {
        self.upstream.send_replace(upstream.to_owned());
    }

    /// Another mode.
    pub fn set(&self, mode: Mode) {
        self.rule.send_modify(|rule| rule.mode = mode);
    }

    /// Strands all connections that are there: half-open for ever, while new ones pass.
    pub fn strand(&self) {
        self.rule.send_modify(|rule| rule.strand += 1);
    }

    /// Cuts all connections that are there.
    pub fn cut(&self) {
        self.rule.send_modify(|rule| rule.cut += 1);
    }
}

async fn accept(
    listener: TcpListener,
    rule: watch::Receiver<Rule>,
    upstream: watch::Receiver<String>,
    taken: Arc<AtomicUsize>,
    capture: Option<Capture>,
) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            return;
        };
        taken.fetch_add(1, Ordering::SeqCst);
        if rule.borrow().mode != Mode::Refuse {
            let to = upstream.borrow().clone();
            connections.spawn(connect(stream, to, rule.clone(), capture.clone()));
        }
        while connections.try_join_next().is_some() {}
    }
}

async fn connect(
    here: TcpStream,
    to: String,
    rule: watch::Receiver<Rule>,
    capture: Option<Capture>,
) {
    let born = *rule.borrow();
    let mut watching = rule.clone();
    let cut = watching.wait_for(|rule| rule.cut > born.cut);
    let work = async {
        let Ok(there) = TcpStream::connect(to).await else {
            return;
        };
        let (here_in, here_out) = here.into_split();
        let (there_in, there_out) = there.into_split();
        tokio::join!(
            pump(
                here_in,
                there_out,
                rule.clone(),
                born.strand,
                capture.clone()
            ),
            pump(there_in, here_out, rule.clone(), born.strand, capture)
        );
    };
    tokio::select! {
        _ = cut => {}
        () = work => {}
    }
}

async fn pump(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    mut rule: watch::Receiver<Rule>,
    born: u64,
    capture: Option<Capture>,
) {
    let kept = capture.map(|capture| (capture.begin(), capture));
    let mut buffer = vec![0; 16 << 10];
    loop {
        let read = from.read(&mut buffer).await.unwrap_or(0);
        let passes = rule
            .wait_for(|rule| rule.mode != Mode::Swallow && rule.strand == born)
            .await;
        if let Some((stream, capture)) = &kept {
            capture.keep(*stream, &buffer[..read]);
        }
        let Ok(mode) = passes.map(|rule| rule.mode) else {
            return;
        };
        if let Mode::Delay(time) = mode {
            sleep(time).await;
        }
        if read == 0 || to.write_all(&buffer[..read]).await.is_err() {
            drop(to.shutdown().await);
            return;
        }
    }
}
