//! Who may sit down at the link, and who must leave.

use super::support::{Plane, Runner, boot, open, try_connect, within};
use std::sync::Arc;

use hybrid_runner_core::testing::FakeBackend;
use hybrid_runner_core::unit::Period;
use hybrid_runner_core::{ErrorKind, Executor as _, RunId};
use hybrid_runner_server::Role;
use reqwest::{Method, StatusCode};
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

#[tokio::test]
async fn only_the_token_of_that_runner_opens_the_link() {
    within(async {
        let plane = Plane::start().await;
        let token = plane.runner_token("a").await;
        let (_, client) = plane.token(Role::Client, None).await;
        assert_eq!(open(&plane.link, "hr_wrong").await.err(), Some(401));
        assert_eq!(open(&plane.link, &client).await.err(), Some(403));
        assert_eq!(open(&plane.link, &plane.admin).await.err(), Some(403));
        let executor = FakeBackend::new().executor();
        let error = try_connect(&plane.link, &token, &boot("b"), executor)
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied);
        let (status, _) = plane.ask(&token, Method::GET, "/api/v1/runs", None).await;
        assert_eq!(status, StatusCode::FORBIDDEN);
    })
    .await;
}

#[tokio::test]
async fn a_second_runner_with_a_live_id_is_told_who_holds_it() {
    within(async {
        let plane = Plane::start().await;
        let token = plane.runner_token("a").await;
        let executor = FakeBackend::new().executor();
        let life = boot("a");
        let holder = Runner::connect(&plane, &token, &life, Arc::clone(&executor) as _).await;
        let error = try_connect(
            &plane.link,
            &token,
            &life.stranger("there"),
            Arc::clone(&executor) as _,
        )
        .await
        .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict);
        assert!(
            error.message().contains("`a`") && error.message().contains("host `here` since 2"),
            "{error}"
        );
        // A copy of the holder's state is a stranger too.
        let error = try_connect(&plane.link, &token, &life, Arc::clone(&executor) as _)
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict);
        assert!(!holder.session.is_closed());
        holder.leave().await;
        let second = Runner::connect(&plane, &token, &life.stranger("there"), executor).await;
        assert_eq!(second.welcome.epoch, 2);
    })
    .await;
}

#[tokio::test]
async fn the_same_runner_come_again_takes_over() {
    within(async {
        let plane = Plane::start().await;
        let token = plane.runner_token("a").await;
        let backend = FakeBackend::new();
        let life = boot("a");
        let mut first = Runner::connect(&plane, &token, &life, backend.executor()).await;
        let run = plane.submit("a", &["hold"]).await;
        let id: RunId = run.parse().unwrap();
        backend.control(id).begun().await;
        let second = Runner::connect(&plane, &token, &life.again(), backend.executor()).await;
        first.closed().await;
        assert_eq!((first.welcome.epoch, second.welcome.epoch), (1, 2));
        assert_eq!(first.welcome.server, second.welcome.server);
        backend.control(id).emit("x");
        backend
            .control(id)
            .finish(hybrid_runner_core::Outcome::Succeeded);
        plane.finished(&run).await;
        assert_eq!(plane.logs(&run).await, "x");
    })
    .await;
}

#[tokio::test]
async fn a_revoked_token_closes_the_link_and_opens_it_no_more() {
    within(async {
        let plane = Plane::start().await;
        let (id, token) = plane.token(Role::Runner, Some("a")).await;
        let executor = FakeBackend::new().executor();
        let mut runner = Runner::connect(&plane, &token, &boot("a"), executor).await;
        assert_eq!(plane.get("/api/v1/runners/a").await["state"], "connected");
        let (status, _) = plane
            .ask(
                &plane.admin,
                Method::DELETE,
                &format!("/api/v1/tokens/{id}"),
                None,
            )
            .await;
        assert_eq!(status, StatusCode::NO_CONTENT);
        runner.closed().await;
        assert_eq!(open(&plane.link, &token).await.err(), Some(401));
        let plane = plane.restart().await;
        assert_eq!(
            open(&plane.link, &token).await.err(),
            Some(401),
            "after a restart too"
        );
    })
    .await;
}

#[tokio::test]
async fn a_runner_of_another_version_is_told_both_lists() {
    within(async {
        let plane = Plane::start().await;
        let token = plane.runner_token("a").await;
        let mut ws = open(&plane.link, &token).await.unwrap();
        let hello = json!({ "jsonrpc": "2.0", "id": 1, "method": "hello", "params": {
            "versions": ["v9"], "agent": "a",
            "incarnation": { "boot": "b", "state": uuid::Uuid::new_v4(), "seq": 1 },
            "capabilities": hybrid_runner_core::Capabilities::least(),
        }});
        let answer = say(&mut ws, &hello.to_string()).await;
        assert!(
            answer.contains("v1-preview") && answer.contains("v9"),
            "{answer}"
        );
    })
    .await;
}

type Ws =
    tokio_tungstenite::WebSocketStream<tokio_tungstenite::MaybeTlsStream<tokio::net::TcpStream>>;

async fn say(ws: &mut Ws, text: &str) -> String {
    use futures::{SinkExt as _, StreamExt as _};
    ws.send(Message::text(text)).await.unwrap();
    loop {
        if let Message::Text(text) = ws.next().await.unwrap().unwrap() {
            return text.to_string();
        }
    }
}

#[tokio::test]
async fn bad_frames_are_answered_or_end_the_link_and_the_server_lives() {
    within(async {
        use futures::{SinkExt as _, StreamExt as _};
        let plane = Plane::start().await;
        let token = plane.runner_token("a").await;
        let mut ws = open(&plane.link, &token).await.unwrap();
        for wrong in [
            "",
            "{",
            "[]",
            "null",
            "\u{1}",
            r#"{"jsonrpc":"2.0"}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"start","params":{}}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"hello"}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"hello","params":{"agent":"../x"}}"#,
        ] {
            assert!(say(&mut ws, wrong).await.contains("error"), "{wrong}");
        }
        let deep = "[".repeat(100_000);
        assert!(say(&mut ws, &deep).await.contains("error"));
        ws.send(Message::binary(vec![0, 1])).await.unwrap();
        while let Some(Ok(_)) = ws.next().await {}
        let mut ws = open(&plane.link, &token).await.unwrap();
        let _sent = ws.send(Message::text("x".repeat((1 << 20) + 1))).await;
        while let Some(Ok(_)) = ws.next().await {}
        // Nobody was harmed.
        let executor = FakeBackend::new().executor();
        let runner = Runner::connect(&plane, &token, &boot("a"), Arc::clone(&executor) as _).await;
        assert!(!runner.session.is_closed());
        executor.check().await.unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_link_without_the_subprotocol_is_refused_before_the_upgrade() {
    within(async {
        let plane = Plane::start().await;
        let token = plane.runner_token("a").await;
        let answer = reqwest::Client::new()
            .get(plane.link.replace("ws://", "http://"))
            .bearer_auth(token)
            .header("connection", "upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), StatusCode::NOT_IMPLEMENTED);
        assert!(answer.text().await.unwrap().contains("hybrid-runner.v1"));
    })
    .await;
}

#[tokio::test]
async fn a_holder_that_is_silent_makes_room_for_a_stranger() {
    within(async {
        let plane = Plane::start_with(|config| config.heartbeat = Period::millis(200)).await;
        let token = plane.runner_token("a").await;
        let executor = FakeBackend::new().executor();
        let life = boot("a");
        // Says hello, and then nothing more, as behind a cable that was pulled.
        let mut silent = open(&plane.link, &token).await.unwrap();
        let hello = json!({ "jsonrpc": "2.0", "id": 1, "method": "hello", "params": {
            "versions": ["v1-preview"], "agent": "a", "incarnation": life.incarnation,
            "capabilities": hybrid_runner_core::Capabilities::least(),
        }});
        assert!(say(&mut silent, &hello.to_string()).await.contains("epoch"));
        let second = Runner::connect(&plane, &token, &life.stranger("there"), executor).await;
        assert_eq!(second.welcome.epoch, 2);
    })
    .await;
}
