//! P10: bad input of any kind gives a clear error, never a panic, and nothing already accepted is lost.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hybrid_runner_tests::link::End;
use hybrid_runner_tests::processes::until;
use hybrid_runner_tests::rest::http;
use hybrid_runner_tests::{Client, Runner, Server, Story, files};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_tungstenite::tungstenite::Message;

const SOON: Duration = Duration::from_secs(30);

/// The SQLite files of a data folder.
fn databases(folder: &Path) -> Vec<PathBuf> {
    let is_database =
        |path: &PathBuf| fs::read(path).is_ok_and(|bytes| bytes.starts_with(b"SQLite format 3\0"));
    files(folder, "").into_iter().filter(is_database).collect()
}

/// Puts garbage in the place of a database and of its log, from which alone SQLite could make it anew.
fn spoil(database: &Path) {
    for end in ["", "-wal"] {
        let path = PathBuf::from(format!("{}{end}", database.display()));
        if path.exists() {
            fs::write(path, vec![0x5a; 20_000]).expect("the state can be written to");
        }
    }
}

async fn still_works(client: &Client, story: &Story) {
    let run = client
        .submit(&story.sh("still-works", "echo fine"), "runner-1")
        .await;
    client.finished(&run).await.expect("succeeded");
    assert_eq!(client.text(&run).await, "fine\n");
}

fn no_panic(text: &str) {
    assert!(!text.contains("panicked"), "{text}");
}

#[tokio::test]
async fn a_workflow_file_that_is_wrong_is_refused_with_line_and_column() {
    Story::told(90, async |story| {
        let server = Server::started(&story).await;
        let (url, token) = (server.url(), server.admin_token());
        let client = [
            ("HYBRID_RUNNER_SERVER", url.as_str()),
            ("HYBRID_RUNNER_TOKEN", token.as_str()),
        ];
        for (number, (text, words)) in [
            (
                "name: a\ncomand: [true]\n",
                &[":2:1", "comand", "command"][..],
            ),
            ("name: a\ncommand: [true\n", &[":"][..]),
            (
                "name: a\ncommand: [x]\ntimeout: soon\n",
                &[":3:", "soon"][..],
            ),
            ("name: a b\ncommand: [x]\n", &[":1:", "a b"][..]),
            ("name: a\ncommand: [x]\nname: b\n", &[":3:", "name"][..]),
            ("name: a\n", &["command"][..]),
            (
                "name: a\ncommand: [x]\nenv: { A: \"secret:/x?colour=red\" }\n",
                &[":3:", "colour"][..],
            ),
            ("version: 99\nname: a\ncommand: [x]\n", &["99"][..]),
            ("", &["empty"][..]),
            ("- 1\n- 2\n", &[":1:"][..]),
            ("\u{0}\u{1}", &[][..]),
        ]
        .into_iter()
        .enumerate()
        {
            let name = format!("wrong-{number}.yaml");
            let file = story.write(&name, text).display().to_string();
            let submitted = story.command_with(&["submit", &file], &client).await;
            no_panic(&submitted.err);
            submitted.expect(2).says(&[&name]).says(words);
            story
                .command(&["validate", &file])
                .await
                .expect(2)
                .says(words);
        }
        let bomb = (1..9).fold("a0: &a0 [x,x,x,x,x,x,x,x,x]\n".to_owned(), |text, n| {
            let aliases = vec![format!("*a{}", n - 1); 9].join(",");
            text + &format!("a{n}: &a{n} [{aliases}]\n")
        });
        let bomb = story.write("bomb.yaml", bomb).display().to_string();
        story.command(&["exec", &bomb]).await.expect(2);
        assert_eq!(
            server.client().get("/runs").await["runs"],
            json!([]),
            "a run was made all the same"
        );
    })
    .await;
}

#[tokio::test]
async fn a_configuration_that_is_wrong_names_key_and_source_and_the_near_miss() {
    Story::told(60, async |story| {
        for (number, (text, words)) in [
            ("[runner]\nmax_run = 3\n", &["max_run", "max_runs"][..]),
            ("[runer]\nid = \"a\"\n", &["runer", "runner"][..]),
            ("[runner]\ndrain = 30\n", &["drain"][..]),
            ("[runner]\nmax_runs = \"many\"\n", &["max_runs"][..]),
            (
                "[executors.here]\nkind = \"docke\"\n",
                &["docke", "local"][..],
            ),
            (
                "[executors.here]\nkind = \"local\"\nprivate_dri = \"/x\"\n",
                &["here", "private_dri"][..],
            ),
            ("[link]\nurl = \"wss://user:password@host\"\n", &["url"][..]),
            (
                "[link]\nurl = \"ws://far.example.com\"\n",
                &["ws://", "insecure"][..],
            ),
            ("[runner\n", &["wrong-8.toml"][..]),
            (
                "[server]\nlisten = \"0.0.0.0:1\"\nretention = { runs = \"x\" }\n",
                &["runs"][..],
            ),
        ]
        .into_iter()
        .enumerate()
        {
            let name = format!("wrong-{number}.toml");
            let file = story.write(&name, text).display().to_string();
            let ended = story.command(&["config", "lint", "-c", &file]).await;
            no_panic(&ended.err);
            ended.expect(2).says(words);
        }
        story
            .command(&["run", "-c", "/no/such.toml"])
            .await
            .expect(2)
            .says(&["/no/such.toml"]);
        let ended = story.command(&["run"]).await;
        ended
            .expect(2)
            .says(&["SERVER_URL", "AUTH_TOKEN", "AGENT_ID", "[executors.here]"]);
        let variable = [("HYBRID_RUNNER__RUNNER__MAX_RUNS", "many")];
        story
            .command_with(&["config", "lint"], &variable)
            .await
            .expect(2)
            .says(&["HYBRID_RUNNER__RUNNER__MAX_RUNS"]);
        let seed = [
            ("AGENT_ID", "00123"),
            ("AUTH_TOKEN", "00123"),
            ("SERVER_URL", "wss://x.example.com"),
        ];
        let shown = story
            .command_with(&["config", "show", "--json"], &seed)
            .await
            .expect(0)
            .text();
        assert!(
            shown.contains("\"00123\"") && shown.contains("AGENT_ID"),
            "strings stay strings: {shown}"
        );
    })
    .await;
}

#[tokio::test]
async fn requests_that_are_garbage_are_answered_in_one_shape() {
    Story::told(60, async |story| {
        let server = Server::started(&story).await;
        let client = server.client();
        let http = http();
        let deep = "[".repeat(100_000);
        let huge = format!("{{\"workflow\": {{\"name\": \"{}\"}}}}", "x".repeat(3 << 20));
        for (body, codes) in [
            ("", &[400][..]),
            ("{", &[400][..]),
            ("null", &[400][..]),
            ("{\"workflow\": {\"name\": \"a\", \"comand\": [\"x\"]}}", &[400][..]),
            ("{\"workflow\": {\"name\": \"a\", \"command\": [\"x\"]}, \"id\": \"x\"}", &[400][..]),
            ("{\"workflow\": {\"name\": \"a\", \"command\": [\"x\"], \"env\": {\"A\": \"secret:/a?x\"}}, \"runner\": \"r\"}", &[400][..]),
            (deep.as_str(), &[400][..]),
            (huge.as_str(), &[413][..]),
        ] {
            let sent = http.post(format!("{}/api/v1/runs", server.url())).bearer_auth(client.token_text()).body(body.to_owned()).send();
            let answer = sent.await.unwrap();
            assert!(codes.contains(&answer.status().as_u16()), "{}: {}", &body[..body.len().min(80)], answer.status());
            let answer: Value = answer.json().await.unwrap();
            assert!(answer["error"]["message"].is_string(), "{answer}");
        }
        for path in ["/runs/%00", "/runs?limit=x", "/runs/x/logs?from=%FF", "/nothing", "/runs/../../etc/passwd", "/runners/%2e%2e"] {
            let (status, answer) = client.insist(Method::GET, path, None).await;
            assert!(status.is_client_error(), "{path}: {status} {answer}");
        }
        let (status, _) = client.insist(Method::GET, "/openapi.json", None).await;
        assert_eq!(status.as_u16(), 200);
    })
    .await;
}

/// What no side of a link should send.
fn garbage() -> Vec<Message> {
    let text = |text: &str| Message::Text(text.to_owned().into());
    vec![
        text(""),
        text("garbage"),
        text("{}"),
        text("[]"),
        text("[{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"list\"}]"),
        text("{\"jsonrpc\":\"1.0\",\"id\":1,\"method\":\"list\"}"),
        text("{\"jsonrpc\":\"2.0\",\"id\":{},\"method\":\"list\"}"),
        text("{\"jsonrpc\":\"2.0\",\"id\":77,\"method\":\"no/such/method\",\"params\":{}}"),
        text("{\"jsonrpc\":\"2.0\",\"id\":78,\"method\":\"start\",\"params\":{\"spec\":7}}"),
        text("{\"jsonrpc\":\"2.0\",\"id\":79,\"method\":\"watch\",\"params\":null}"),
        text(
            "{\"jsonrpc\":\"2.0\",\"method\":\"stream.data\",\"params\":{\"stream\":18446744073709551615,\"item\":{}}}",
        ),
        text(
            "{\"jsonrpc\":\"2.0\",\"method\":\"stream.ack\",\"params\":{\"stream\":1,\"credit\":18446744073709551615}}",
        ),
        text("{\"jsonrpc\":\"2.0\",\"id\":99999,\"result\":{}}"),
        text(&"[".repeat(50_000)),
        text(&format!(
            "{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"hello\",\"params\":{}1{}}}",
            "{\"a\":".repeat(5000),
            "}".repeat(5000)
        )),
        text(&"x".repeat(3 << 20)),
        Message::Binary(vec![0, 159, 146, 150].into()),
        Message::Ping(vec![1; 125].into()),
    ]
}

#[tokio::test]
async fn garbage_on_a_link_disturbs_neither_the_server_nor_its_runners() {
    Story::told(90, async |story| {
        let mut server = Server::started(&story).await;
        let _runner = Runner::started(&story, &server).await;
        let client = server.client();
        let script = "echo up; while [ ! -e $STORY/gate ]; do sleep 0.05; done; echo down";
        let run = client.submit(&story.sh("beside", script), "runner-1").await;
        client.follow(&run).lines(1).await;
        let (_, token) = client.token("runner", Some("garbler")).await;

        let mut answers = 0;
        for message in garbage() {
            let mut end = End::dial(&server.address(), &token).await.expect("the server takes a link");
            if end.send_frame(message).await.is_err() {
                continue;
            }
            // After it, a request that is well formed but made too early, to which there is an answer or an end.
            let _sent = end.send("{\"jsonrpc\":\"2.0\",\"id\":5,\"method\":\"hello\",\"params\":{\"versions\":[\"v0\"],\"agent\":\"garbler\"}}").await;
            while let Some(answer) = tokio::time::timeout(SOON, end.next()).await.expect("an answer or an end") {
                answers += 1;
                assert!(answer["error"]["message"].is_string() || answer["method"].is_string(), "{answer}");
                if answer["id"] == json!(5) {
                    break;
                }
            }
        }
        assert!(answers > 10, "only {answers} answers");

        story.write("gate", "");
        client.finished(&run).await.expect("succeeded");
        still_works(&client, &story).await;
        no_panic(&server.program().errors());
    })
    .await;
}

#[tokio::test]
async fn garbage_from_a_server_disturbs_neither_the_runner_nor_its_runs() {
    Story::told(90, async |story| {
        let server = Server::started(&story).await;
        let mut runner = Runner::started(&story, &server).await;
        let client = server.client();
        let script = "echo up; while [ ! -e $STORY/gate ]; do sleep 0.05; done; echo down";
        let run = client.submit(&story.sh("beside", script), "runner-1").await;
        client.follow(&run).lines(1).await;

        // The same runner at another control plane: one that we play.
        runner.kill().await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy =
            hybrid_runner_tests::Proxy::new(&listener.local_addr().unwrap().to_string()).await;
        runner.dials = proxy.address().to_owned();
        runner.spawn();
        for message in garbage() {
            let mut end = tokio::time::timeout(SOON, End::accept(&listener))
                .await
                .expect("the runner dials again");
            end.welcome().await;
            if end.send_frame(message).await.is_err() {
                continue;
            }
            let _sent = end
                .send("{\"jsonrpc\":\"2.0\",\"id\":5,\"method\":\"capabilities\",\"params\":{}}")
                .await;
            while let Some(answer) = tokio::time::timeout(SOON, end.next())
                .await
                .expect("an answer or an end")
            {
                if answer["id"] == json!(5) {
                    assert!(answer["result"]["logs"].is_string(), "{answer}");
                    break;
                }
            }
        }
        assert!(runner.is_running());
        no_panic(&runner.program().errors());
        // Back home, behind the same address.
        proxy.lead_to(&server.address());
        drop(listener);
        proxy.cut();
        client.runner_is("runner-1", "connected").await;
        story.write("gate", "");
        let end = client.finished(&run).await;
        assert_eq!(story.read("gate"), "");
        end.expect("succeeded");
        still_works(&client, &story).await;
    })
    .await;
}

#[tokio::test]
async fn state_of_a_newer_version_is_left_alone_and_told() {
    Story::told(60, async |story| {
        let mut server = Server::started(&story).await;
        let mut runner = Runner::started(&story, &server).await;
        server.terminate().await;
        runner.terminate().await;
        for (name, folder) in [
            ("run", runner.data_dir.clone()),
            ("server", server.data_dir()),
        ] {
            let found = databases(&folder);
            assert!(!found.is_empty(), "no database below {}", folder.display());
            for path in &found {
                let database = rusqlite::Connection::open(path).unwrap();
                database.pragma_update(None, "user_version", 999).unwrap();
            }
            let config = if name == "run" {
                runner.config()
            } else {
                story.path("server-server.toml")
            };
            let ended = story
                .command(&[name, "-c", &config.display().to_string()])
                .await;
            no_panic(&ended.err);
            assert!(ended.code.is_some_and(|code| code != 0), "{ended:?}");
            ended.says(&["999", "newer"]);
            let names: Vec<_> = files(&folder, "")
                .into_iter()
                .filter(|path| path.to_string_lossy().contains("set-aside"))
                .collect();
            assert!(names.is_empty(), "{names:?}");
            assert!(databases(&folder).len() >= found.len());
        }
    })
    .await;
}

#[tokio::test]
async fn state_that_cannot_be_read_is_set_aside_and_the_runner_takes_up_its_runs() {
    Story::told(90, async |story| {
        let server = Server::started(&story).await;
        let mut runner = Runner::started(&story, &server).await;
        let client = server.client();
        let script = "echo start >> $STORY/starts; echo up; while [ ! -e $STORY/gate ]; do sleep 0.05; done; echo down";
        let run = client.submit(&story.sh("surviving", script), "runner-1").await;
        client.follow(&run).lines(1).await;

        runner.kill().await;
        let found = databases(&runner.data_dir);
        for path in &found {
            spoil(path);
        }
        runner.start().await;
        story.write("gate", "");

        client.finished(&run).await.expect("succeeded");
        assert_eq!(client.text(&run).await, "up\ndown\n");
        assert_eq!(story.read("starts"), "start\n");
        let aside: Vec<_> = files(&runner.data_dir, "").into_iter().filter(|path| fs::read(path).is_ok_and(|bytes| bytes.starts_with(&[0x5a; 1000]))).collect();
        assert!(aside.len() >= found.len(), "what could not be read is not kept: {aside:?}");
        assert!(aside.iter().all(|path| path.to_string_lossy().contains(".unreadable-20")), "no date: {aside:?}");
        still_works(&client, &story).await;
    })
    .await;
}

#[tokio::test]
async fn a_server_whose_state_cannot_be_read_adopts_what_its_runners_have() {
    Story::told(90, async |story| {
        let mut server = Server::started(&story).await;
        let _runner = Runner::started(&story, &server).await;
        let client = server.client();
        let script = "echo start >> $STORY/starts; echo up; while [ ! -e $STORY/gate ]; do sleep 0.05; done; echo down";
        let run = client.submit(&story.sh("adopted", script), "runner-1").await;
        client.follow(&run).lines(1).await;

        server.kill().await;
        let state: Vec<_> = databases(&server.data_dir()).into_iter().filter(|path| !path.to_string_lossy().contains("access")).collect();
        assert!(!state.is_empty());
        for path in &state {
            spoil(path);
        }
        server.start().await;
        client.adopted(&run).await;
        story.write("gate", "");

        client.finished(&run).await.expect("succeeded");
        assert_eq!(client.text(&run).await, "up\ndown\n");
        assert_eq!(story.read("starts"), "start\n");
        still_works(&client, &story).await;
    })
    .await;
}

#[tokio::test]
async fn a_truncated_or_damaged_spool_gives_a_gap_or_an_end_and_the_runner_lives() {
    Story::told(90, async |story| {
        let server = Server::started(&story).await;
        let mut runner = Runner::started(&story, &server).await;
        let client = server.client();
        let script = "echo up; while [ ! -e $STORY/gate ]; do sleep 0.05; done; \
                      i=0; while [ $i -lt 20000 ]; do i=$((i+1)); echo line $i; done; echo x > $STORY/ended";
        let mut runs = Vec::new();
        for name in ["truncated", "damaged"] {
            let run = client.submit(&story.sh(name, script), "runner-1").await;
            client.follow(&run).lines(1).await;
            runs.push(run);
        }
        runner.kill().await;
        story.write("gate", "");
        until("the helpers are gone", SOON, || (story.path("ended").exists() && runner.helpers().is_empty()).then_some(())).await;
        for (run, damage) in runs.iter().zip([true, false]) {
            let spool = files(&runner.data_dir, "/log").into_iter().find(|path| path.to_string_lossy().contains(run.as_str()));
            let spool = spool.expect("the run has a spool");
            let mut bytes = fs::read(&spool).unwrap();
            if damage {
                bytes.truncate(bytes.len() / 2 + 3);
            } else {
                let middle = bytes.len() / 2;
                // Longer than a record can be, so that the head of one is hit.
                bytes[middle..middle + (70 << 10)].fill(0xff);
            }
            fs::write(&spool, bytes).unwrap();
        }
        runner.start().await;
        for (run, name) in runs.iter().zip(["truncated", "damaged"]) {
            let mut follow = client.follow(run);
            let end = follow.end().await;
            assert_eq!(end.state(), "succeeded", "the end was recorded: {}", end.0);
            assert!(follow.text().starts_with("up\nline 1\nline 2\n"));
            assert!(follow.gaps.iter().any(|why| why == "damaged" || why == "crashed"), "{name}: {:?}", follow.gaps);
        }
        still_works(&client, &story).await;
        no_panic(&runner.program().errors());
    })
    .await;
}
