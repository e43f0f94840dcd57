//! The REST API: access, errors, logs, following.

use super::support::{Events, Plane, Runner, boot, new_token, within};
use hybrid_runner_core::testing::{FakeBackend, Script};
use hybrid_runner_core::{Outcome, RunId};
use hybrid_runner_server::{Config, Role, Server, Tls};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

#[tokio::test]
async fn only_health_is_open() {
    within(async {
        let plane = Plane::start().await;
        let http = reqwest::Client::new();
        for path in ["/healthz", "/readyz", "/api/v1/healthz"] {
            assert_eq!(
                http.get(format!("{}{path}", plane.url))
                    .send()
                    .await
                    .unwrap()
                    .status(),
                StatusCode::OK
            );
        }
        let paths = [
            "/",
            "/metrics",
            "/api/v1/openapi.json",
            "/api/v1/runs",
            "/api/v1/runs/x/logs",
            "/api/v1/tokens",
            "/api/v1/link",
            "/x",
        ];
        for path in paths {
            let answer = http
                .get(format!("{}{path}", plane.url))
                .send()
                .await
                .unwrap();
            assert_eq!(answer.status(), StatusCode::UNAUTHORIZED, "{path}");
            let (status, _) = plane.ask("hr_wrong", Method::GET, path, None).await;
            assert_eq!(status, StatusCode::UNAUTHORIZED, "{path}");
        }
    })
    .await;
}

#[tokio::test]
async fn each_role_may_do_its_own_and_no_more() {
    within(async {
        let plane = Plane::start().await;
        let (_, client) = plane.token(Role::Client, None).await;
        let (status, _) = plane.ask(&client, Method::GET, "/api/v1/runs", None).await;
        assert_eq!(status, StatusCode::OK);
        let (status, answer) = plane
            .ask(&client, Method::GET, "/api/v1/tokens", None)
            .await;
        assert_eq!(
            (status, answer["error"]["kind"].as_str()),
            (StatusCode::FORBIDDEN, Some("denied"))
        );
        let (status, _) = plane
            .post("/api/v1/tokens", json!({ "role": "runner" }))
            .await;
        assert_eq!(status, StatusCode::BAD_REQUEST);
        let all = plane.get("/api/v1/tokens").await;
        assert_eq!(all["tokens"].as_array().unwrap().len(), 2);
        assert!(!all.to_string().contains("hr_"), "a list shows no token");
    })
    .await;
}

#[tokio::test]
async fn no_token_is_on_disk_but_the_admins() {
    within(async {
        let plane = Plane::start().await;
        let token = plane.runner_token("a").await;
        let admin = plane.admin.clone();
        let dir = plane.end().await;
        for entry in std::fs::read_dir(dir.path().join("data")).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                let bytes = std::fs::read(&path).unwrap();
                let holds = |needle: &str| {
                    bytes
                        .windows(needle.len())
                        .any(|window| window == needle.as_bytes())
                };
                assert!(!holds(&token), "{}", path.display());
                assert_eq!(
                    holds(&admin),
                    path.ends_with("admin.token"),
                    "{}",
                    path.display()
                );
            }
        }
        let mode = std::os::unix::fs::PermissionsExt::mode(
            &std::fs::metadata(dir.path().join("data/admin.token"))
                .unwrap()
                .permissions(),
        );
        assert_eq!(mode & 0o777, 0o600);
    })
    .await;
}

#[tokio::test]
async fn bad_bodies_and_parameters_say_what_is_wrong() {
    within(async {
        let plane = Plane::start().await;
        plane.runner_token("a").await;
        let long = "x".repeat(1 << 20);
        let workflow = |more: Value| {
            let mut workflow = json!({ "name": "w", "command": ["true"] });
            workflow
                .as_object_mut()
                .unwrap()
                .extend(more.as_object().unwrap().clone());
            json!({ "workflow": workflow })
        };
        for (body, code, word) in [
            (json!({}), 400, "workflow"),
            (
                json!({ "workflow": { "name": "w" } }),
                400,
                "nothing to run",
            ),
            (workflow(json!({ "comand": [] })), 400, "comand"),
            (workflow(json!({ "version": 9 })), 400, "version"),
            (workflow(json!({ "env": { "A": "${secret:}" } })), 400, "A"),
            (
                json!({ "workflow": { "name": "w", "command": ["true"] }, "id": "1" }),
                400,
                "run id",
            ),
            (workflow(json!({ "config": long })), 413, "longer than"),
        ] {
            let (status, answer) = plane.post("/api/v1/runs", body).await;
            assert_eq!(status.as_u16(), code, "{word}: {answer}");
            assert!(
                answer["error"]["message"].as_str().unwrap().contains(word),
                "{word}: {answer}"
            );
        }
        for (path, code) in [
            ("/api/v1/runs?state=odd", 400),
            ("/api/v1/runs?limit=x", 400),
            ("/api/v1/runs?after=x", 400),
            ("/api/v1/runs?strange=1", 400),
            ("/api/v1/runs/zz", 400),
            ("/api/v1/runs/ab", 404),
            ("/api/v1/runs/%00", 400),
            ("/api/v1/runners/nobody", 404),
            ("/api/v1/nothing", 404),
        ] {
            let (status, answer) = plane.ask(&plane.admin, Method::GET, path, None).await;
            assert_eq!(status.as_u16(), code, "{path}: {answer}");
            assert!(answer["error"]["message"].is_string(), "{path}: {answer}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_runner_may_be_left_out_when_there_is_one() {
    within(async {
        let plane = Plane::start().await;
        let body = json!({ "workflow": { "name": "w", "command": ["true"] } });
        assert_eq!(
            plane.post("/api/v1/runs", body.clone()).await.0,
            StatusCode::BAD_REQUEST
        );
        plane.runner_token("a").await;
        assert_eq!(
            plane.post("/api/v1/runs", body.clone()).await.1["runner"],
            "a"
        );
        plane.runner_token("b").await;
        let (status, answer) = plane.post("/api/v1/runs", body).await;
        assert_eq!(status, StatusCode::BAD_REQUEST);
        assert!(
            answer["error"]["message"]
                .as_str()
                .unwrap()
                .ends_with("a, b"),
            "{answer}"
        );
    })
    .await;
}

#[tokio::test]
async fn a_unique_beginning_of_an_id_is_enough() {
    within(async {
        let plane = Plane::start().await;
        let submit = async |id: &str| {
            let body = json!({ "runner": "a", "id": id, "workflow": { "name": "w", "command": ["true"] } });
            assert_eq!(plane.post("/api/v1/runs", body).await.0, StatusCode::CREATED);
        };
        submit("aaaaaaaa-0000-4000-8000-000000000001").await;
        submit("aaaaaaaa-0000-4000-8000-000000000002").await;
        submit("bbbbbbbb-0000-4000-8000-000000000003").await;
        assert_eq!(plane.get("/api/v1/runs/bB").await["id"], "bbbbbbbb-0000-4000-8000-000000000003");
        let (status, answer) = plane.ask(&plane.admin, Method::GET, "/api/v1/runs/aaaa", None).await;
        assert_eq!(status, StatusCode::CONFLICT);
        assert_eq!(answer["error"]["candidates"].as_array().unwrap().len(), 2);
    })
    .await;
}

#[tokio::test]
async fn a_list_goes_on_where_it_ended() {
    within(async {
        let plane = Plane::start().await;
        let mut ids = Vec::new();
        for _ in 0..5 {
            ids.push(plane.submit("a", &["true"]).await);
        }
        let mut seen = Vec::new();
        let mut path = "/api/v1/runs?limit=2&state=active&runner=a".to_owned();
        loop {
            let page = plane.get(&path).await;
            seen.extend(
                page["runs"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|run| run["id"].as_str().unwrap().to_owned()),
            );
            let Some(next) = page["next"].as_str() else {
                break;
            };
            path = format!("/api/v1/runs?limit=2&state=active&runner=a&after={next}");
        }
        ids.reverse();
        assert_eq!(seen, ids);
    })
    .await;
}

#[tokio::test]
async fn a_part_of_a_log_can_be_read() {
    within(async {
        let plane = Plane::start().await;
        let token = plane.runner_token("a").await;
        let backend = FakeBackend::new();
        let _runner = Runner::connect(&plane, &token, &boot("a"), backend.executor()).await;
        let script = Script::new().out("one\n").err("two\n").out("three\n");
        let command = script.command();
        let run = plane
            .submit("a", &command.each_ref().map(String::as_str))
            .await;
        plane.finished(&run).await;
        let read = async |part: &str| plane.text(&format!("/api/v1/runs/{run}/logs?{part}")).await;
        assert_eq!(read("tail=1").await, "three\n");
        assert_eq!(read("tail=2").await, "two\nthree\n");
        assert_eq!(read("tail=0").await, "");
        assert_eq!(read("tail=99").await, "one\ntwo\nthree\n");
        assert_eq!(read("stream=err").await, "two\n");
        assert_eq!(
            read("stream=out&tail=2").await,
            "one\ntwo\nthree\n".replace("two\n", "")
        );
        assert_eq!(read("from=2").await, "e\ntwo\nthree\n");
        assert_eq!(read("since=2999-01-01T00:00:00Z").await, "");
        assert_eq!(
            read("since=2000-01-01T00:00:00Z").await,
            "one\ntwo\nthree\n"
        );
        let answer = plane
            .raw(
                &format!("/api/v1/runs/{run}/logs"),
                "application/x-ndjson",
                None,
            )
            .await;
        assert_eq!(answer.headers()["x-log-cursor"], "14");
        let lines = answer.text().await.unwrap();
        let last: Value = serde_json::from_str(lines.lines().last().unwrap()).unwrap();
        assert_eq!(
            (
                last["text"].as_str(),
                last["stream"].as_str(),
                last["next"].as_str()
            ),
            (Some("three\n"), Some("out"), Some("14"))
        );
    })
    .await;
}

#[tokio::test]
async fn a_follower_gets_each_line_once_across_reconnects() {
    within(async {
        let plane = Plane::start().await;
        let token = plane.runner_token("a").await;
        let backend = FakeBackend::new();
        let _runner = Runner::connect(&plane, &token, &boot("a"), backend.executor()).await;
        let run = plane.submit("a", &["hold"]).await;
        let control = backend.control(run.parse::<RunId>().unwrap());
        control.begun().await;
        let path = format!("/api/v1/runs/{run}/logs?follow=true");
        let mut got = String::new();
        let mut last = None;
        for round in 0..5 {
            let answer = plane.raw(&path, "text/event-stream", last.as_deref()).await;
            let mut events = Events::new(answer);
            for line in 0..3 {
                control.emit(format!("{round}.{line}\n"));
                let (id, text) = events.next_log().await.unwrap();
                got.push_str(&text);
                last = Some(id);
            }
            // Written after the last that was read, while nobody follows.
            drop(events);
            control.emit(format!("{round}.x\n"));
        }
        let mut events = Events::new(plane.raw(&path, "text/event-stream", last.as_deref()).await);
        control.finish(Outcome::Succeeded);
        let mut end = Value::Null;
        while let Some((name, _, data)) = events.next().await {
            match name.as_str() {
                "log" => got.push_str(data["text"].as_str().unwrap()),
                "end" => end = data,
                _ => {}
            }
        }
        assert_eq!(got, plane.logs(&run).await);
        assert_eq!(got.lines().count(), 20);
        assert_eq!(end["state"], "succeeded");
    })
    .await;
}

#[tokio::test]
async fn a_follower_of_a_run_that_has_ended_gets_it_all_and_the_end() {
    within(async {
        let plane = Plane::start().await;
        let token = plane.runner_token("a").await;
        let backend = FakeBackend::new();
        let _runner = Runner::connect(&plane, &token, &boot("a"), backend.executor()).await;
        let run = plane.submit("a", &["echo", "x"]).await;
        plane.finished(&run).await;
        let path = format!("/api/v1/runs/{run}/logs?follow=true");
        let mut events = Events::new(plane.raw(&path, "text/event-stream", None).await);
        let mut names = Vec::new();
        while let Some((name, ..)) = events.next().await {
            names.push(name);
        }
        assert_eq!(names, ["status", "log", "end"]);
    })
    .await;
}

#[tokio::test]
async fn a_large_binary_log_comes_back_byte_for_byte() {
    within(async {
        let plane = Plane::start().await;
        let token = plane.runner_token("a").await;
        let backend = FakeBackend::new();
        let _runner = Runner::connect(&plane, &token, &boot("a"), backend.executor()).await;
        let run = plane.submit("a", &["hold"]).await;
        let control = backend.control(run.parse::<RunId>().unwrap());
        control.begun().await;
        let bytes: Vec<u8> = (0..3_000_000_u32)
            .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
            .collect();
        control.emit(&bytes);
        control.finish(Outcome::Succeeded);
        plane.finished(&run).await;
        let answer = plane
            .raw(&format!("/api/v1/runs/{run}/logs"), "text/plain", None)
            .await;
        assert!(answer.bytes().await.unwrap() == bytes);
    })
    .await;
}

#[tokio::test]
async fn the_document_of_the_api_names_every_path() {
    within(async {
        let plane = Plane::start().await;
        let document = plane.get("/api/v1/openapi.json").await;
        let mut paths: Vec<&String> = document["paths"].as_object().unwrap().keys().collect();
        paths.sort_unstable();
        insta::assert_json_snapshot!(paths);
        let schemas = &document["components"]["schemas"];
        assert_eq!(
            schemas["Submit"]["properties"]["workflow"]["$ref"],
            "#/components/schemas/Workflow"
        );
        let text = document.to_string();
        let references = text.match_indices("#/components/schemas/");
        for (at, start) in references {
            let name = text[at + start.len()..].split('"').next().unwrap();
            assert!(schemas[name].is_object(), "`{name}` is described");
        }
        assert!(
            plane
                .text("/metrics")
                .await
                .contains("hybrid_runner_server_runners_connected 0")
        );
    })
    .await;
}

#[tokio::test]
async fn a_damaged_state_file_is_set_aside_and_tokens_live_on() {
    within(async {
        let plane = Plane::start().await;
        let token = plane.runner_token("a").await;
        let run = plane.submit("a", &["true"]).await;
        let dir = plane.end().await;
        std::fs::write(
            dir.path().join("data/server.db"),
            b"not a database at all, but long enough",
        )
        .unwrap();
        let plane = Plane::start_in(dir, |_| {}).await;
        assert_eq!(
            plane
                .ask(
                    &plane.admin,
                    Method::GET,
                    &format!("/api/v1/runs/{run}"),
                    None
                )
                .await
                .0,
            StatusCode::NOT_FOUND
        );
        let executor = FakeBackend::new().executor();
        Runner::connect(&plane, &token, &boot("a"), executor)
            .await
            .leave()
            .await;
        let aside = std::fs::read_dir(plane.dir.path().join("data"))
            .unwrap()
            .any(|entry| {
                entry
                    .unwrap()
                    .file_name()
                    .to_string_lossy()
                    .contains("unreadable")
            });
        assert!(aside);
    })
    .await;
}

#[tokio::test]
async fn a_state_file_of_a_newer_version_is_left_alone() {
    within(async {
        let dir = Plane::start().await.end().await;
        let file = dir.path().join("data/server.db");
        let mut bytes = std::fs::read(&file).unwrap();
        // SQLite's `user_version`.
        bytes[60..64].copy_from_slice(&99_u32.to_be_bytes());
        std::fs::write(&file, &bytes).unwrap();
        let mut config = Config::new(dir.path().join("data"));
        config.listen = "127.0.0.1:0".parse().unwrap();
        let error = Server::bind(config).await.unwrap_err();
        assert!(error.message().contains("newer version"), "{error}");
        assert!(std::fs::read(&file).unwrap() == bytes);
    })
    .await;
}

#[tokio::test]
async fn a_data_folder_has_one_server() {
    within(async {
        let plane = Plane::start().await;
        let mut config = Config::new(plane.dir.path().join("data"));
        config.listen = "127.0.0.1:0".parse().unwrap();
        let error = Server::bind(config).await.unwrap_err();
        assert!(error.message().contains("in use"), "{error}");
    })
    .await;
}

#[tokio::test]
async fn tokens_go_over_a_network_only_with_tls() {
    within(async {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config::new(dir.path());
        config.listen = "0.0.0.0:0".parse().unwrap();
        let error = Server::bind(config.clone()).await.unwrap_err();
        assert!(error.message().contains("insecure = true"), "{error}");
        config.insecure = true;
        let server = Server::bind(config).await.unwrap();
        let made = server
            .create_token(&new_token(Role::Client, None))
            .await
            .unwrap();
        assert!(made.secret.expose().starts_with(b"hr_"));
    })
    .await;
}

#[tokio::test]
async fn the_api_is_served_over_tls() {
    within(async {
        let dir = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
        std::fs::write(&cert, made.cert.pem()).unwrap();
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        let mut config = Config::new(dir.path().join("data"));
        config.listen = "127.0.0.1:0".parse().unwrap();
        config.tls = Some(Tls { cert, key });
        let server = Server::bind(config).await.unwrap();
        let port = server.local_addr().port();
        let root = reqwest::Certificate::from_pem(made.cert.pem().as_bytes()).unwrap();
        let http = reqwest::Client::builder()
            .add_root_certificate(root)
            .build()
            .unwrap();
        let answer = async {
            http.get(format!("https://localhost:{port}/healthz"))
                .send()
                .await
                .unwrap()
        };
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let serving = server.serve(async { drop(stopped.await) });
        let asking = async {
            assert_eq!(answer.await.status(), StatusCode::OK);
            stop.send(()).unwrap();
        };
        tokio::join!(serving, asking);
    })
    .await;
}
