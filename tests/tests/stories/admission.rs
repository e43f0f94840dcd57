//! Who may connect: live ids, tokens, TLS.

use std::time::Duration;

use hybrid_runner_tests::processes::until;
use hybrid_runner_tests::rest::http;
use hybrid_runner_tests::{Proxy, Runner, Server, Story};
use reqwest::Method;
use serde_json::json;
use tokio::time::{Instant, sleep};

const SOON: Duration = Duration::from_secs(30);

/// Asks the runner until it is not ready and says these words.
pub(crate) async fn not_ready(runner: &Runner, words: &[&str]) {
    let deadline = Instant::now() + SOON;
    loop {
        let (code, said) = runner.ask("readyz").await;
        if code != 200 && words.iter().all(|word| said.contains(word)) {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "{code} without {words:?}: {said}"
        );
        sleep(Duration::from_millis(50)).await;
    }
}

/// Waits until the runner answers on its own port.
async fn answers(runner: &mut Runner) {
    let url = runner.health("healthz");
    let deadline = Instant::now() + SOON;
    while http().get(&url).send().await.is_err() {
        assert!(
            runner.is_running(),
            "the runner has left: {}",
            runner.program().errors()
        );
        assert!(Instant::now() < deadline, "nobody answers at {url}");
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_second_runner_with_a_live_id_is_told_who_holds_it_and_does_not_hammer() {
    Story::told(60, async |story| {
        let server = Server::started(&story).await;
        let first = Runner::started(&story, &server).await;
        let client = server.client();
        let run = client
            .submit(
                &story.sh(
                    "held",
                    "echo up; while [ ! -e $STORY/gate ]; do sleep 0.05; done",
                ),
                "runner-1",
            )
            .await;
        client.follow(&run).lines(1).await;
        let since = client.runner("runner-1").await["since"]
            .as_str()
            .unwrap()
            .to_owned();

        let proxy = Proxy::new(&server.address()).await;
        let (_, token) = client.token("runner", Some("runner-1")).await;
        let elsewhere = Story::new();
        let mut second = Runner::with_token(&elsewhere, proxy.address(), "runner-1", &token);
        second.spawn();
        answers(&mut second).await;

        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
        not_ready(
            &second,
            &[
                "runner-1",
                "held by another runner",
                host.trim(),
                &since[..16],
            ],
        )
        .await;
        // Long enough for somebody who hammers.
        sleep(Duration::from_secs(3)).await;
        assert!(proxy.taken() <= 3, "{} connects in 3 s", proxy.taken());
        assert_eq!(first.ask("readyz").await.0, 200, "the holder was disturbed");
        assert_eq!(client.runner("runner-1").await["since"], json!(since));
        story.write("gate", "");
        client.finished(&run).await.expect("succeeded");
    })
    .await;
}

#[tokio::test]
async fn a_revoked_token_ends_the_link_but_no_run_and_a_new_one_is_taken_up_at_once() {
    Story::told(60, async |story| {
        let server = Server::started(&story).await;
        let client = server.client();
        let (id, token) = client.token("runner", Some("runner-1")).await;
        let proxy = Proxy::new(&server.address()).await;
        let mut runner = Runner::with_token(&story, proxy.address(), "runner-1", &token);
        runner.start().await;
        let script = "echo up; while [ ! -e $STORY/gate ]; do sleep 0.05; done; echo down";
        let run = client
            .submit(&story.sh("going-on", script), "runner-1")
            .await;
        client.follow(&run).lines(1).await;

        let (status, _) = client
            .insist(Method::DELETE, &format!("/tokens/{id}"), None)
            .await;
        assert_eq!(status.as_u16(), 204);
        not_ready(&runner, &["token"]).await;
        let before = proxy.taken();
        sleep(Duration::from_secs(2)).await;
        assert!(
            proxy.taken() - before <= 2,
            "{} connects in 2 s",
            proxy.taken() - before
        );
        assert!(runner.is_running());
        story.write("gate", "");

        let (_, token) = client.token("runner", Some("runner-1")).await;
        story.write("runner-1.token", token);
        runner.ready().await;
        client.finished(&run).await.expect("succeeded");
        assert_eq!(client.text(&run).await, "up\ndown\n");
    })
    .await;
}

#[tokio::test]
async fn a_token_opens_only_what_it_is_for() {
    Story::told(60, async |story| {
        let server = Server::started(&story).await;
        let admin = server.client();
        let (_, mine) = admin.token("runner", Some("runner-1")).await;
        let (_, user) = admin.token("client", None).await;

        for (token, path, code) in [
            ("", "/runs", 401),
            ("hr_garbage", "/runs", 401),
            ("é", "/runs", 401),
            (mine.as_str(), "/runs", 403),
            (user.as_str(), "/runs", 200),
            (user.as_str(), "/tokens", 403),
            (user.as_str(), "/link", 403),
        ] {
            let (status, answer) = admin
                .with_token(token)
                .insist(Method::GET, path, None)
                .await;
            // Without an upgrade, a link is refused for that before it is refused for the token.
            assert!(
                status.as_u16() == code || path == "/link" && status.is_client_error(),
                "{token} {path}: {status} {answer}"
            );
        }

        // A runner's token is for one id only.
        let mut stranger = Runner::with_token(&story, &server.address(), "runner-2", &mine);
        stranger.spawn();
        answers(&mut stranger).await;
        not_ready(&stranger, &["token", "runner-2"]).await;
        let mut unknown = Runner::with_token(&story, &server.address(), "runner-3", "hr_garbage");
        unknown.spawn();
        answers(&mut unknown).await;
        not_ready(&unknown, &["token"]).await;
        assert!(stranger.is_running() && unknown.is_running());
        // The token is no part of what they write.
        for runner in [&mut stranger, &mut unknown] {
            let said = runner.program().errors();
            assert!(
                !said.contains(&mine) && !said.contains("hr_garbage"),
                "{said}"
            );
        }
        assert_eq!(stranger.terminate().await.code(), Some(0));
    })
    .await;
}

#[tokio::test]
async fn tls_needs_an_authority_that_the_runner_trusts() {
    Story::told(60, async |story| {
        let mut server = Server::new(&story, "server");
        let host = server.address().split(':').next().unwrap().to_owned();
        let signed = rcgen::generate_simple_self_signed(vec![host]).unwrap();
        let cert = story
            .write("cert.pem", signed.cert.pem())
            .display()
            .to_string();
        let key = story
            .write("key.pem", signed.signing_key.serialize_pem())
            .display()
            .to_string();
        server
            .settings
            .push(format!("tls = {{ cert = \"{cert}\", key = \"{key}\" }}"));
        server.spawn();
        let url = format!("https://{}", server.address());
        until("the server has written its token", SOON, || {
            server.data_dir().join("admin.token").exists().then_some(())
        })
        .await;
        server.program().says("control plane", SOON).await;
        let token = server.admin_token();
        let client = [
            ("HYBRID_RUNNER_SERVER", url.as_str()),
            ("HYBRID_RUNNER_TOKEN", token.as_str()),
        ];

        let refused = story.command_with(&["runs"], &client).await;
        refused.expect(3).says(&["certificate"]);
        let made = [
            "token", "create", "--role", "runner", "--runner", "runner-1", "--ca", &cert,
        ];
        let made = story.command_with(&made, &client).await;
        let token = made.expect(0).text();

        let mut runner = Runner::with_token(&story, &server.address(), "runner-1", token.trim());
        runner.scheme = "wss".to_owned();
        runner.spawn();
        answers(&mut runner).await;
        not_ready(&runner, &["certificate"]).await;
        runner.terminate().await;
        runner.link.push(format!("ca = \"{cert}\""));
        runner.start().await;
        let workflow = story
            .write("hello.yaml", story.sh("hello", "echo over TLS").to_yaml())
            .display()
            .to_string();
        let submitted = story
            .command_with(&["submit", &workflow, "-f", "--ca", &cert], &client)
            .await;
        assert_eq!(submitted.expect(0).text(), "over TLS\n");
    })
    .await;
}
