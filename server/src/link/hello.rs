//! The first exchange: who may sit down, who must leave.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use hybrid_runner_core::session::{Hello, Items, Service, Session, Welcome, unknown_method};
use hybrid_runner_core::{Error, Progress, Result, fault};
use serde::de::IgnoredAny;
use serde_json::value::{RawValue, to_raw_value};
use tokio::sync::{Notify, Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::roster::{Order, Seat};
use crate::access::Caller;
use crate::app::App;
use crate::store::{self, runners};

/// A runner that names no limit is given this many runs at a time.
const SLOTS: usize = 1024;

/// A holder that does not answer within this time, or a heartbeat if that is shorter, has left without a word.
const PROBE: Duration = Duration::from_secs(3);

/// What a runner may ask of the server: to be let in.
#[derive(Debug)]
pub(super) struct Door(mpsc::Sender<Knock>);

/// A hello that waits for its answer.
#[derive(Debug)]
pub(super) struct Knock {
    pub(super) hello: Hello,
    pub(super) answer: oneshot::Sender<Result<Welcome>>,
    /// Ends when the answer is made, so that nothing else is sent before it.
    pub(super) answered: oneshot::Receiver<()>,
}

impl Door {
    pub(super) fn new(knocks: mpsc::Sender<Knock>) -> Self {
        Self(knocks)
    }
}

#[async_trait]
impl Service for Door {
    async fn call(&self, method: &str, params: &RawValue, _: &Progress) -> Result<Box<RawValue>> {
        if method != "hello" {
            return Err(unknown_method(method));
        }
        let hello: Hello = serde_json::from_str(params.get()).map_err(|error| {
            Error::invalid(format!("the parameters of `hello` do not fit: {error}"))
        })?;
        let (answer, wait) = oneshot::channel();
        let (_until_answered, answered) = oneshot::channel();
        let again = |_| Error::conflict("`hello` comes once, and first");
        self.0
            .try_send(Knock {
                hello,
                answer,
                answered,
            })
            .map_err(again)?;
        let gone = |_| Error::unavailable("the link is closing");
        let welcome = wait.await.map_err(gone)??;
        to_raw_value(&welcome)
            .map_err(|error| Error::internal("failed to write an answer").with_source(error))
    }

    fn open(&self, _: &str, _: &RawValue) -> Option<Result<Items>> {
        None
    }
}

/// Lets a runner that was refused hang up first.
pub(super) async fn hung_up(session: &Session) {
    drop(tokio::time::timeout(Duration::from_millis(200), session.closed()).await);
}

/// Seats a runner, or says why not. Whoever held the seat before has left when this returns.
pub(super) async fn admit(
    app: &Arc<App>,
    caller: &Caller,
    session: &Session,
    hello: &Hello,
) -> Result<(Arc<Seat>, mpsc::UnboundedReceiver<Order>, Welcome)> {
    let version = hybrid_runner_core::session::hello::negotiate(&hello.versions)?;
    if caller.agent.as_ref() != Some(&hello.agent) {
        return Err(Error::denied(format!(
            "this token is not for the runner id `{}`",
            hello.agent
        )));
    }
    let chair = app.roster.chair(&hello.agent);
    let _gate = chair.gate.lock().await;
    if let Some(holder) = chair.holder() {
        make_room(&holder, hello, PROBE.min(app.config.heartbeat.get())).await?;
    }
    let said = hello.clone();
    let greeted = app
        .db
        .write(move |tx| runners::greet(tx, &said))
        .await?
        .synced()
        .await?;
    fault::step("server.greeted");
    if greeted.rolled_back {
        warn!(runner = %hello.agent, seq = hello.incarnation.seq, "its state is an older copy; what it was sent and does not list is lost");
    }
    let (orders, receiver) = mpsc::unbounded_channel();
    let slots = hello
        .capabilities
        .max_runs
        .map_or(SLOTS, |max| max as usize)
        .min(Semaphore::MAX_PERMITS >> 1);
    let seat = Arc::new(Seat {
        agent: hello.agent.clone(),
        epoch: greeted.epoch,
        incarnation: hello.incarnation.clone(),
        about: runners::About {
            host: hello.host.clone(),
            software: hello.software.clone(),
            capabilities: Some(hello.capabilities.clone()),
        },
        since: store::now(),
        token: caller.token.clone(),
        session: session.clone(),
        places: slots,
        slots: Arc::new(Semaphore::new(slots)),
        orders,
        queued: Notify::new(),
        ended: Notify::new(),
        leave: CancellationToken::new(),
        gone: CancellationToken::new(),
    });
    chair.take(&seat);
    let welcome = Welcome::new(
        version,
        &app.access.server,
        greeted.epoch,
        app.config.heartbeat,
    );
    Ok((seat, receiver, welcome))
}

/// Asks the holder to leave if the newcomer follows it, or if it is not there any more.
async fn make_room(holder: &Arc<Seat>, hello: &Hello, probe: Duration) -> Result<()> {
    let follows = hello.incarnation.follows(&holder.incarnation);
    if !follows && is_alive(&holder.session, probe).await {
        return Err(Error::conflict(format!(
            "the runner id `{}` is held by another runner on host `{}` since {}; stop that one, or give this one its own id and token",
            holder.agent,
            holder.about.host,
            store::time(holder.since),
        )));
    }
    info!(runner = %holder.agent, host = %hello.host, before = %holder.about.host, "takes over");
    holder.leave.cancel();
    holder.gone.cancelled().await;
    Ok(())
}

async fn is_alive(session: &Session, within: Duration) -> bool {
    let nothing = serde_json::json!({});
    let ping = session.call::<_, IgnoredAny>("ping", &nothing);
    !session.is_closed()
        && tokio::time::timeout(within, ping)
            .await
            .is_ok_and(|pong| pong.is_ok())
}
