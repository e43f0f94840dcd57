//! The floor under trigger → process start: a bare agent without any durability.
//!
//! It dials a WebSocket; per message `ID\tPROGRAM\tARG…` it forks and executes, and answers `ID\tCODE`
//! when the process has ended. It keeps nothing, checks nothing, reads no output. What it takes is what
//! the machine takes; the driver (`bench`) sends the messages and holds the clock.

use futures::{SinkExt as _, StreamExt as _};
use tokio::process::Command;
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::Message;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let url = std::env::args()
        .nth(1)
        .expect("usage: floor ws://HOST:PORT");
    let (socket, _) = tokio_tungstenite::connect_async(url)
        .await
        .expect("the driver listens before it starts the floor");
    let (mut answers, mut orders) = socket.split();
    let mut running = JoinSet::new();
    loop {
        tokio::select! {
            order = orders.next() => {
                let Some(Ok(Message::Text(order))) = order else { return };
                running.spawn(run(order.as_str().to_owned()));
            }
            Some(done) = running.join_next() => {
                let done = done.expect("no run panics");
                if answers.send(Message::text(done)).await.is_err() {
                    return;
                }
            }
        }
    }
}

async fn run(order: String) -> String {
    let mut words = order.split('\t');
    let (id, program) = (
        words.next().expect("an id"),
        words.next().expect("a program"),
    );
    let status = Command::new(program)
        .args(words)
        .status()
        .await
        .expect("the program exists");
    format!("{id}\t{}", status.code().unwrap_or(-1))
}
