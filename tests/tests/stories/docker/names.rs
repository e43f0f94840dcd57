//! Names: what people call their things, two runs of one name, and two runners on one engine.

use hybrid_runner_tests::{Docker, Runner, Server, Story, Workflow};
use serde_json::{Value, json};

const LABEL: &str = "io.hybrid-runner.label.";

fn labels(container: &Value) -> &Value {
    &container["Config"]["Labels"]
}

#[tokio::test]
async fn whatever_runs_are_called_their_containers_do_not_collide_and_tell_whose_they_are() {
    Story::told(120, async |story| {
        let Some(docker) = Docker::of(&story) else {
            return;
        };
        let server = Server::started(&story).await;
        let runner = Runner::started_in(&story, &server, Some(&docker)).await;
        let client = server.client();
        let long = "x".repeat(200);
        let value = "Заказы из 東京 🚚 \"quoted\" = $(x)";
        let script = "echo \"$WORKFLOW_NAME\"; while [ ! -e $STORY/gate ]; do sleep 0.1; done";
        let mut runs = Vec::new();
        for name in [long.as_str(), &long, "a.b-c_d", "a.b-c_d"] {
            let workflow = story
                .sh(name, script)
                .with("labels", json!({"team": value, "ключ": "ü"}));
            runs.push((client.submit(&workflow, "runner-1").await, name));
        }
        for (run, name) in &runs {
            client.follow(run).lines(1).await;
            let container = docker.container(run).await;
            let labels = labels(&container);
            assert_eq!(labels["io.hybrid-runner.name"], json!(name));
            assert_eq!(labels["io.hybrid-runner.runner"], json!("runner-1"));
            assert_eq!(labels[format!("{LABEL}team")], json!(value));
            assert_eq!(labels[format!("{LABEL}ключ")], json!("ü"));
        }
        assert_eq!(docker.containers().await.len(), runs.len());
        story.write("gate", "");
        for (run, name) in &runs {
            client.finished(run).await.expect("succeeded");
            assert_eq!(client.text(run).await, format!("{name}\n"));
        }
        docker.nothing_of(&docker.owner_of(&runner.id)).await;
    })
    .await;
}

#[tokio::test]
async fn two_runners_on_one_engine_take_up_and_stop_only_their_own() {
    Story::told(120, async |story| {
        let Some(docker) = Docker::of(&story) else {
            return;
        };
        let server = Server::started(&story).await;
        let client = server.client();
        let mut runners = Vec::new();
        let mut runs = Vec::new();
        for id in ["one", "two"] {
            let mut runner = Runner::new(&story, &server, id).await;
            runner.run_in(Some(&docker));
            runner.start().await;
            runners.push(runner);
            let script = format!(
                "echo up; while [ ! -e $STORY/{id}.gate ]; do sleep 0.1; done; echo over; exit 3"
            );
            let workflow: Workflow = story.sh("same", &script).with("grace", "1s");
            for _ in 0..2 {
                runs.push((client.submit(&workflow, id).await, id));
            }
        }
        for (run, _) in &runs {
            client.follow(run).lines(1).await;
        }
        let owners = ["one", "two"].map(|id| docker.owner_of(id));
        for owner in &owners {
            assert_eq!(docker.containers_of(owner).await.len(), 2);
        }

        // The state of the one is lost; what it finds in the engine is its own alone.
        runners[0].kill().await;
        std::fs::remove_dir_all(&runners[0].data_dir).expect("its data can be removed");
        runners[0].start().await;
        client.stop(&runs[0].0).await;
        client.finished(&runs[0].0).await.expect("stopped");
        story.write("one.gate", "");
        client
            .finished(&runs[1].0)
            .await
            .expect_failed("exit", &["3"]);
        docker.nothing_of(&owners[0]).await;
        // The other has not heard of it.
        assert_eq!(docker.containers_of(&owners[1]).await.len(), 2);
        for (run, _) in &runs[2..] {
            assert_eq!(client.show(run).await.state(), "running");
        }
        story.write("two.gate", "");
        for (run, _) in &runs[2..] {
            client.finished(run).await.expect_failed("exit", &["3"]);
            assert_eq!(client.text(run).await, "up\nover\n");
        }
        docker.nothing_of(&owners[1]).await;
    })
    .await;
}
