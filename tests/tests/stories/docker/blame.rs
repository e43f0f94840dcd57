//! Whose fault it is, as people read it: in a run's failure, on `exec`, and in the findings of `check`.

use std::time::Duration;

use hybrid_runner_tests::docker::BUSYBOX;
use hybrid_runner_tests::processes::until;
use hybrid_runner_tests::{Binary, Docker, Runner, Server, Story, Workflow, skipped};
use reqwest::Method;
use rustix::process::Signal;

const SOON: Duration = Duration::from_secs(30);

#[tokio::test]
async fn each_way_to_fail_in_an_engine_has_its_class_and_says_what_to_do() {
    let registries = ["", "_AUTH"].map(|end| format!("HYBRID_RUNNER_TEST_REGISTRY{end}"));
    let [Ok(open), Ok(registry)] = registries.map(std::env::var) else {
        return skipped("there is no registry; scripts/services/docker-registry up");
    };
    Story::told(120, async |story| {
        let Some(docker) = Docker::of(&story) else {
            return;
        };
        let server = Server::started(&story).await;
        let mut runner = Runner::new(&story, &server, "runner-1").await;
        runner.run_in(Some(&docker));
        let images = [
            "hybrid-runner-test/*".to_owned(),
            format!("{open}/*"),
            format!("{registry}/*"),
            "127.0.0.1:9/*".to_owned(),
        ];
        runner.sections = format!("[policy]\nimages = {images:?}\n");
        runner.start().await;
        let client = server.client();
        let of = |image: &str| {
            story
                .sh("blamed", "echo x >> $STORY/starts")
                .with("image", image)
        };
        let unknown = format!("{open}/nobody:1");
        let denied = format!("{registry}/busybox:1");
        // Whoever had the password may have left it.
        drop(
            docker
                .ask(Method::DELETE, &format!("/images/{denied}"))
                .await,
        );
        let cases: [(Workflow, &str, &[&str]); 6] = [
            (of(&unknown), "image", &[&unknown]),
            (of(&denied), "image", &[&denied, "registries"]),
            (
                // It is tried until the time for a start is over.
                of("127.0.0.1:9/gone:1").with("start_timeout", "2s"),
                "image",
                &["127.0.0.1:9", "connection refused"],
            ),
            (of("evil/miner:1"), "policy", &["evil/miner:1", "images = "]),
            (
                Workflow::new("blamed", &["/no/such/program"]),
                "spec",
                &["/no/such/program"],
            ),
            (story.sh("blamed", "kill -KILL $$"), "killed", &["signal 9"]),
        ];
        let mut runs = Vec::new();
        for (workflow, class, says) in cases {
            runs.push((client.submit(&workflow, "runner-1").await, class, says));
        }
        for (run, class, says) in runs {
            let end = client.finished(&run).await;
            end.expect_failed(class, says);
        }
        assert_eq!(
            story.read("starts"),
            "",
            "a run that was refused has started"
        );
        docker.nothing_of(&docker.owner_of(&runner.id)).await;
    })
    .await;
}

#[tokio::test]
async fn exec_runs_in_a_container_exits_like_it_and_leaves_nothing() {
    Story::told(120, async |story| {
        let Some(docker) = Docker::of(&story) else {
            return;
        };
        let config = format!(
            "[runner]\nexecutor = \"here\"\n[executors.here]\n{}[secrets.files]\nkind = \"file\"\npath = \"{}\"\n",
            docker.section(),
            story.path("secrets").display()
        );
        let config = story.write("exec.toml", config).display().to_string();
        story.write("secrets/word", "correct-horse-battery");
        let script = "[ -x /.hr/init ] && echo inside; echo \"word: $WORD\"; exit $CODE";
        for code in [0, 3] {
            let workflow = story
                .sh("tried", script)
                .env("WORD", "secret:/word")
                .env("CODE", &code.to_string());
            let file = story.write("tried.yaml", workflow.to_yaml()).display().to_string();
            let ended = story.command(&["exec", &file, "-c", &config]).await;
            ended.expect(i32::from(code != 0));
            assert!(ended.text().contains("inside\nword: ***\n"), "{}", ended.text());
            ended.says(if code == 0 { &["succeeded"] } else { &["failed (exit)", "exit code 3"] });
        }
        // It waits for nobody's acknowledgement.
        assert_eq!(docker.containers().await, [] as [serde_json::Value; 0]);
    })
    .await;
}

#[tokio::test]
async fn exec_shows_what_the_engine_itself_said_above_the_end_of_the_run() {
    Story::told(60, async |story| {
        let Some(docker) = Docker::of(&story) else {
            return;
        };
        let config = format!(
            "[executors.here]\n{}limits = {{ cpu = \"0.001\" }}\n",
            docker.section()
        );
        let config = story.write("little.toml", config).display().to_string();
        let file = story.write("little.yaml", story.sh("little", "true").to_yaml());
        let file = file.display().to_string();
        let ended = story.command(&["exec", &file, "-c", &config]).await;
        ended.expect(1);
        let mut lines = ended.err.lines().rev();
        let (end, source) = (
            lines.next().unwrap_or_default(),
            lines.next().unwrap_or_default(),
        );
        assert!(
            end.contains("failed (") && source.starts_with("source      "),
            "{}",
            ended.err
        );
        assert!(source.contains("cpu"), "{source}");
    })
    .await;
}

#[tokio::test]
async fn a_second_interrupt_of_exec_names_the_container_that_it_leaves() {
    Story::told(60, async |story| {
        let Some(docker) = Docker::of(&story) else {
            return;
        };
        let config = format!("[executors.here]\n{}", docker.section());
        let config = story.write("left.toml", config).display().to_string();
        let workflow = story
            .sh("left", "trap '' TERM; echo up; while :; do sleep 1; done")
            .with("grace", "10m");
        let file = story
            .write("left.yaml", workflow.to_yaml())
            .display()
            .to_string();
        let mut exec = story
            .start("exec", Binary::Product, &["exec", &file, "-c", &config])
            .spawn();
        until("the run is up", SOON, || {
            exec.output().contains("up").then_some(())
        })
        .await;
        exec.signal(Signal::INT);
        exec.says("a second Ctrl-C leaves it", SOON).await;
        exec.signal(Signal::INT);
        assert_eq!(exec.end(SOON).await.code(), Some(130));
        let said = exec.errors();
        assert!(said.contains("nobody will remove it"), "{said}");
        let left = docker.containers().await;
        let name = left[0]["Names"][0]
            .as_str()
            .unwrap()
            .trim_start_matches('/')
            .to_owned();
        assert!(
            said.contains(&format!("container `{name}`")),
            "no `{name}` in {said}"
        );
    })
    .await;
}

#[tokio::test]
async fn check_tells_what_stands_between_a_runner_and_its_containers() {
    Story::told(120, async |story| {
        let Some(docker) = Docker::of(&story) else {
            return;
        };
        let check = async |section: &str| {
            let config = format!("[runner]\nexecutor = \"here\"\n[executors.here]\n{section}");
            let config = story.write("check.toml", config).display().to_string();
            story.command(&["check", "-c", &config]).await
        };
        let good = check(&docker.section()).await;
        good.expect(0);
        let image = format!("the image `{BUSYBOX}` is there");
        for says in [
            "ok       executor here (docker): engine ",
            docker.address(),
            "may list containers and volumes: 0 of ours",
            " are free in `",
            "limits of ",
            &image,
        ] {
            assert!(good.text().contains(says), "no `{says}` in {}", good.text());
        }

        // Each with what to do about it.
        let missing = docker.section_with("hybrid-runner-test/nobody:1");
        let cases = [
            (
                format!("{missing}pull = \"never\"\n"),
                vec![
                    "does not have the image `hybrid-runner-test/nobody:1`",
                    "pull = \"missing\"",
                ],
            ),
            (
                docker.section_with("127.0.0.1:9/nobody:1"),
                vec!["127.0.0.1:9", "connection refused"],
            ),
            (
                "kind = \"docker\"\nhost = \"unix:///no/such/docker.sock\"\n".to_owned(),
                vec!["/no/such/docker.sock", "correct `host`"],
            ),
            (
                "kind = \"docker\"\nhost = \"tcp://127.0.0.1:9\"\n".to_owned(),
                vec!["127.0.0.1:9", "nobody listens there"],
            ),
            (
                docker.section().replace("\"none\"", "\"nobody\""),
                vec!["no network `nobody`", "docker network create"],
            ),
            (
                docker.section().replace("\"none\"", "\"container:nobody\""),
                vec!["no container `nobody`", "correct `network`"],
            ),
            (
                format!("{}runtime = \"nobody\"\n", docker.section()),
                vec!["no runtime `nobody`", "runc"],
            ),
            (
                format!("{}limits = {{ cpu = \"1000\" }}\n", docker.section()),
                vec!["limits.cpu", "cores"],
            ),
        ];
        for (section, says) in cases {
            let ended = check(&section).await;
            ended.expect(1);
            let text = ended.text() + &ended.err;
            assert!(text.contains("failed   executor here (docker): "), "{text}");
            for says in says {
                assert!(text.contains(says), "no `{says}` in {text}");
            }
        }
    })
    .await;
}
