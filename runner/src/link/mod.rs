//! The link to the control plane: dials, says hello, serves, and comes back.
//!
//! | file | holds |
//! |---|---|
//! | `connect` | one connect: TCP or proxy, TLS, WebSocket |
//! | `socket` | a WebSocket as a transport |
//! | `tls` | system roots, own CA, client certificate |
//! | `token` | the token, read again at each connect |
//! | `backoff` | how long to wait |

mod backoff;
mod connect;
mod socket;
#[cfg(test)]
mod tests;
mod tls;
mod token;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use hybrid_runner_core::executor::Executor;
use hybrid_runner_core::id::AgentId;
use hybrid_runner_core::incarnation::Incarnation;
use hybrid_runner_core::session::{self, ExecutorService, Hello, Session, Welcome};
use hybrid_runner_core::{Error, ErrorKind, Result};
use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use backoff::{Backoff, LIVED, is_refusal, random};
use connect::{Connect, Dialer};
use token::Tokens;

use crate::config;
use crate::measure::Counts;

/// The answer to `hello` comes within this.
const HELLO_TIMEOUT: Duration = Duration::from_secs(20);

/// A closing session may flush for this long.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// A refusal because the id is held is probably our own last session for this long after it.
const OWN_GHOST: Duration = Duration::from_mins(2);

/// What stands behind the link.
#[async_trait]
pub trait Side: Send + Sync + 'static {
    /// What the control plane talks to.
    fn executor(&self) -> Arc<dyn Executor>;

    /// The control plane let us in; this is its id.
    async fn welcomed(&self, server: &str);

    /// A new life of the runner's memory: raised and synced before each connect.
    async fn incarnation(&self) -> Result<Incarnation>;
}

/// How the link stands. Its `Display` is what `/readyz` says.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum LinkState {
    /// Dials for the first time, or again after a session that lived.
    Connecting {
        /// Since when there is no session.
        since: Timestamp,
    },
    /// A session is up.
    Connected {
        /// The control plane's id.
        server: String,
        /// Since when.
        since: Timestamp,
    },
    /// The last connect failed; waits for the next.
    Waiting {
        /// Since when there is no session.
        since: Timestamp,
        /// What went wrong.
        why: String,
        /// Whether somebody must change something first.
        refused: bool,
    },
}

impl LinkState {
    /// Whether a session is up.
    pub fn is_connected(&self) -> bool {
        matches!(self, Self::Connected { .. })
    }

    fn since(&self) -> Option<Timestamp> {
        match self {
            Self::Connecting { since } | Self::Waiting { since, .. } => Some(*since),
            Self::Connected { .. } => None,
        }
    }
}

impl fmt::Display for LinkState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connecting { since } => write!(f, "not connected since {since:.0}"),
            Self::Connected { server, since, .. } => {
                write!(f, "connected to {server} since {since:.0}")
            }
            Self::Waiting { since, why, .. } => write!(f, "not connected since {since:.0}: {why}"),
        }
    }
}

/// The link of one runner.
pub struct Link {
    connect: Box<dyn Connect>,
    tokens: Tokens,
    agent: AgentId,
    side: Arc<dyn Side>,
    state: watch::Sender<LinkState>,
    heartbeat: Duration,
    last_session: Option<Instant>,
    counts: Arc<Counts>,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link")
            .field("agent", &self.agent)
            .finish_non_exhaustive()
    }
}

/// What came of one connect.
enum Ended {
    /// A session was up for so long.
    Session(Duration, String),
    /// There was none.
    Failed(Error),
    /// We are to leave.
    Shutdown,
}

impl Link {
    /// A link of what `[link]` says. Nothing happens until it [runs](Self::run).
    pub(crate) fn new(
        link: &config::Link,
        agent: AgentId,
        side: Arc<dyn Side>,
        stores: Arc<hybrid_runner_secrets::Stores>,
        counts: Arc<Counts>,
    ) -> Result<Self> {
        let url = link
            .url
            .clone()
            .ok_or_else(|| Error::invalid("[link] url is not set"))?;
        let token = link
            .token
            .as_ref()
            .ok_or_else(|| Error::invalid("[link] token is not set"))?;
        let tokens = Tokens::new(token, stores);
        let dialer = Dialer::new(url, link);
        dialer.check_files()?;
        let dialer = Box::new(dialer);
        let link = Self::over(dialer, tokens, agent, side, link.heartbeat);
        Ok(Self { counts, ..link })
    }

    fn over(
        connect: Box<dyn Connect>,
        tokens: Tokens,
        agent: AgentId,
        side: Arc<dyn Side>,
        heartbeat: Duration,
    ) -> Self {
        let since = Timestamp::now();
        Self {
            connect,
            tokens,
            agent,
            side,
            state: watch::Sender::new(LinkState::Connecting { since }),
            heartbeat,
            last_session: None,
            counts: Arc::default(),
        }
    }

    /// How the link stands, now and later.
    pub fn state(&self) -> watch::Receiver<LinkState> {
        self.state.subscribe()
    }

    /// Connects again and again until `shutdown`, then closes the session that is up.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut backoff = Backoff::default();
        loop {
            let print = self.tokens.print().await;
            let wait = match self.session(&shutdown).await {
                Ended::Shutdown => return,
                Ended::Session(lived, why) => self.after_session(&mut backoff, lived, &why),
                Ended::Failed(error) => self.after_failure(&mut backoff, &error),
            };
            let changed = async {
                if is_waiting_for_somebody(&self.state.borrow()) && self.tokens.can_change() {
                    // Nothing to see for a moment is no change.
                    while self
                        .tokens
                        .print()
                        .await
                        .is_none_or(|now| Some(now) == print)
                    {
                        sleep(self.tokens.poll()).await;
                    }
                    info!(source = self.tokens.name(), "the token changed");
                } else {
                    std::future::pending::<()>().await;
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = sleep(wait) => {}
                () = changed => backoff.reset(),
            }
        }
    }

    fn after_session(&mut self, backoff: &mut Backoff, lived: Duration, why: &str) -> Duration {
        info!(server = self.connect.name(), lived = ?lived, why, "disconnected");
        self.last_session = Some(Instant::now());
        self.state.send_replace(LinkState::Connecting {
            since: Timestamp::now(),
        });
        if lived >= LIVED {
            backoff.reset();
            return Duration::ZERO;
        }
        backoff.after(ErrorKind::Unavailable, random())
    }

    fn after_failure(&mut self, backoff: &mut Backoff, error: &Error) -> Duration {
        let ghost = error.kind() == ErrorKind::Conflict
            && self.last_session.is_some_and(|at| at.elapsed() < OWN_GHOST);
        let kind = if ghost {
            ErrorKind::Unavailable
        } else {
            error.kind()
        };
        let wait = backoff.after(kind, random());
        let why = error.report();
        let since = self.state.borrow().since().unwrap_or_else(Timestamp::now);
        let refused = is_refusal(kind);
        let seen =
            matches!(&*self.state.borrow(), LinkState::Waiting { why: last, .. } if *last == why);
        match (refused, seen) {
            (_, true) => {
                debug!(server = self.connect.name(), why, wait = ?wait, "still not connected");
            }
            (true, false) => {
                warn!(server = self.connect.name(), why, next_try_in = ?wait, "refused");
            }
            (false, false) => {
                warn!(server = self.connect.name(), why, next_try_in = ?wait, "not connected");
            }
        }
        self.state.send_replace(LinkState::Waiting {
            since,
            why,
            refused,
        });
        wait
    }

    /// One connect and, if it comes about, the session to its end.
    async fn session(&mut self, shutdown: &CancellationToken) -> Ended {
        let opened = tokio::select! {
            () = shutdown.cancelled() => return Ended::Shutdown,
            opened = self.open() => opened,
        };
        let (session, mut driver, welcome) = match opened {
            Ok(opened) => opened,
            Err(error) => return Ended::Failed(error),
        };
        let up = Instant::now();
        self.side.welcomed(&welcome.server).await;
        self.heartbeat = self
            .heartbeat
            .min(welcome.heartbeat.limit().unwrap_or(self.heartbeat));
        info!(
            server = self.connect.name(),
            id = welcome.server,
            epoch = welcome.epoch,
            version = welcome.version,
            "connected"
        );
        self.state.send_replace(LinkState::Connected {
            server: welcome.server,
            since: Timestamp::now(),
        });
        tokio::select! {
            closed = &mut driver => return Ended::Session(up.elapsed(), closed.to_string()),
            () = shutdown.cancelled() => session.close(),
        }
        if timeout(CLOSE_TIMEOUT, driver).await.is_err() {
            debug!("the session did not close in time");
        }
        Ended::Shutdown
    }

    async fn open(&self) -> Result<(Session, session::Driver, Welcome)> {
        let incarnation = self.side.incarnation().await?;
        let token = self.tokens.read().await?;
        let transport = self.connect.connect(&token).await?;
        let executor = self.side.executor();
        let capabilities = executor.capabilities().await?;
        let mut options = session::Options::default();
        options.heartbeat = Some(self.heartbeat);
        let service = Arc::new(ExecutorService::new(executor));
        let (session, mut driver) = Session::start(transport, service, options);
        let mut hello = Hello::new(self.agent.clone(), incarnation, capabilities);
        concat!("hybrid-runner ", env!("CARGO_PKG_VERSION")).clone_into(&mut hello.software);
        hello.host = host();
        let asked = Instant::now();
        let welcome = tokio::select! {
            closed = &mut driver => {
                return Err(Error::unavailable("the control plane closed the link before its welcome").with_source(closed.to_string()));
            }
            welcome = timeout(HELLO_TIMEOUT, session.call::<_, Welcome>("hello", &hello)) => {
                welcome.map_err(|_| Error::unavailable("the control plane did not answer `hello`"))??
            }
        };
        self.counts.server.took(asked.elapsed());
        Ok((session, driver, welcome))
    }
}

fn is_waiting_for_somebody(state: &LinkState) -> bool {
    matches!(state, LinkState::Waiting { refused: true, .. })
}

/// The machine's name, for people.
fn host() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned()
}
