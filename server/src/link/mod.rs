//! The link: where runners connect, and what is done with one that is there.
//!
//! | file | holds |
//! |---|---|
//! | `transport` | a WebSocket as a transport of messages |
//! | `hello` | the first exchange: who may sit down, who must leave |
//! | `roster` | who is connected |
//! | `work` | one connected runner: what to send it, in what order |
//! | `job` | one run of it: start, stop, follow, settle |
//! | `follow` | the status and the log of one run, into the store |
//! | `retry` | a stream that is asked for again |
//!
//! To the server a connected runner is an [`hybrid_runner_core::Executor`]; recovery is asking it again.
//! A link is one task, and one more for each run under way.

mod follow;
mod hello;
mod job;
mod retry;
mod roster;
#[cfg(test)]
mod tests;
mod transport;
mod work;

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::extract::ws::{WebSocket, WebSocketUpgrade};
use axum::response::{IntoResponse as _, Response};
use hybrid_runner_core::Error;
use hybrid_runner_core::session::{MAX_MESSAGE, Options, SUBPROTOCOL, Session};
use tokio::sync::mpsc;
use tracing::{debug, info};

use crate::access::{Caller, Role};
use crate::api::ApiError;
use crate::app::{App, Counters};
use hello::{Door, admit};
pub(crate) use roster::{Order, Roster, Seat};

/// A link that is idle should cost little: messages are read in pieces of this size.
const READ_BUFFER: usize = 4 << 10;

/// Small messages are put together up to this size.
const WRITE_BUFFER: usize = 16 << 10;

/// A runner's first message must come within this time.
const HELLO: std::time::Duration = std::time::Duration::from_secs(10);

/// `GET /api/v1/link`: a runner's WebSocket.
pub(crate) async fn connect(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    upgrade: WebSocketUpgrade,
) -> Response {
    if caller.role != Role::Runner {
        let error = Error::denied(
            "a link needs a token of role `runner`; make one with `hybrid-runner token create`",
        );
        return ApiError::forbidden(error).into_response();
    }
    let upgrade = upgrade
        .protocols([SUBPROTOCOL])
        .max_message_size(MAX_MESSAGE)
        .max_frame_size(MAX_MESSAGE)
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(WRITE_BUFFER)
        .max_write_buffer_size(2 * MAX_MESSAGE);
    if upgrade.selected_protocol().is_none() {
        let error = Error::unsupported(format!(
            "a link speaks the WebSocket subprotocol `{SUBPROTOCOL}`"
        ));
        return ApiError::from(error).into_response();
    }
    let links = app.links.clone();
    upgrade.on_upgrade(move |socket| links.track_future(serve(app, caller, socket)))
}

/// One link, from the first message to the last.
async fn serve(app: Arc<App>, caller: Caller, socket: WebSocket) {
    let (door, knocks) = mpsc::channel(1);
    let mut options = Options::default();
    options.heartbeat = Some(app.config.heartbeat.get());
    // A runner asks little: its hello and pings, later a credential.
    options.max_in_flight = 64;
    let (session, driver) = Session::start(
        transport::Socket::new(socket),
        Arc::new(Door::new(door)),
        options,
    );
    let life = Box::pin(live(Arc::clone(&app), caller, session.clone(), knocks));
    let (closed, ()) = tokio::join!(driver, life);
    debug!(%closed, "link closed");
}

/// What happens on a link until one side has enough of it. Closes the session at its end.
async fn live(
    app: Arc<App>,
    caller: Caller,
    session: Session,
    mut knocks: mpsc::Receiver<hello::Knock>,
) {
    let seated = tokio::select! {
        seated = greet(&app, &caller, &session, &mut knocks) => seated,
        () = session.closed() => None,
        () = app.shutdown.cancelled() => None,
    };
    if let Some((seated, orders)) = seated {
        let seat = &seated.seat;
        info!(runner = %seat.agent, host = %seat.about.host, epoch = seat.epoch, "runner connected");
        work::work(&app, seat, orders).await;
        let agents = [seat.agent.clone()];
        drop(
            app.db
                .write(move |tx| crate::store::runners::seen(tx, &agents))
                .await,
        );
        info!(runner = %seat.agent, epoch = seat.epoch, "runner disconnected");
    }
    session.close();
}

/// A seat that is left however its session ends: whoever comes next waits for that.
struct Seated {
    app: Arc<App>,
    seat: Arc<Seat>,
}

impl Drop for Seated {
    fn drop(&mut self) {
        self.app.roster.leave(&self.seat);
        self.seat.gone.cancel();
    }
}

/// Waits for a hello that is accepted.
async fn greet(
    app: &Arc<App>,
    caller: &Caller,
    session: &Session,
    knocks: &mut mpsc::Receiver<hello::Knock>,
) -> Option<(Seated, mpsc::UnboundedReceiver<Order>)> {
    let Ok(Some(knock)) = tokio::time::timeout(HELLO, knocks.recv()).await else {
        debug!(token = caller.token, "no hello in time");
        return None;
    };
    match admit(app, caller, session, &knock.hello).await {
        Ok((seat, orders, welcome)) => {
            let app = Arc::clone(app);
            let seated = Seated { app, seat };
            Counters::add(&seated.app.counters.hellos, 1);
            drop(knock.answer.send(Ok(welcome)));
            let _answered = knock.answered.await;
            Some((seated, orders))
        }
        Err(error) => {
            Counters::add(&app.counters.refused, 1);
            info!(runner = %knock.hello.agent, %error, "refused a runner");
            drop(knock.answer.send(Err(error)));
            let _answered = knock.answered.await;
            hello::hung_up(session).await;
            None
        }
    }
}
