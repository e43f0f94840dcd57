//! What runs as a process runs as a container, by one line of configuration; and what stock images expect.

use hybrid_runner_tests::docker::BUSYBOX;
use hybrid_runner_tests::{Docker, Runner, Server, Story, Workflow, skipped};
use serde_json::json;

/// Whoever the first process is, the work is told the same.
const WORKFLOW: &str = r#"
name: either-way
image: hybrid-runner-test/busybox:1
command: [/bin/sh, -c]
args:
  - |
    echo "attempt $WORKFLOW_ATTEMPT of $WORKFLOW_NAME on $WORKFLOW_RUNNER: $GREETING, $1"
    echo "the password is $PASSWORD"
    cat "$WORKFLOW_CONFIG"; echo
    cat "$KEY"; echo
    if [ -x /.hr/init ]; then echo "in a container"; fi
    exit 3
  - $(WORKFLOW_NAME)
  - $(WORKFLOW_NAME) and $(NOBODY)
env:
  GREETING: "ünï  code"
  PASSWORD: secret:/password
files:
  KEY: "key: ${secret:/password}"
config: { source: { type: mysql, password: "secret:/password" } }
retries: { limit: 1, delay: 10ms, on: [exit] }
"#;

#[tokio::test]
async fn one_workflow_file_runs_as_a_process_and_as_a_container() {
    Story::told(120, async |story| {
        let Some(docker) = Docker::of(&story) else {
            return;
        };
        let server = Server::started(&story).await;
        let client = server.client();
        let mut runner = Runner::new(&story, &server, "runner-1").await;
        story.write("secrets/password", "correct-horse-battery");
        let file = story.write("either-way.yaml", WORKFLOW).display().to_string();
        let who = [
            ("HYBRID_RUNNER_SERVER", server.url()),
            ("HYBRID_RUNNER_TOKEN", server.admin_token()),
        ];
        let who = who.each_ref().map(|(name, value)| (*name, value.as_str()));
        // As on a machine that has an engine.
        runner.environment = vec![("DOCKER_HOST".to_owned(), docker.address().to_owned())];

        let mut told = Vec::new();
        for kind in ["local", "docker"] {
            runner.executor = format!("kind = \"{kind}\"\n");
            let config = std::fs::read_to_string(runner.config()).unwrap();
            runner.start().await;
            let submitted = story.command_with(&["submit", "-f", &file], &who).await;
            submitted.expect(1).says(&["failed (exit)", "exit code 3"]);
            // A runner that leaves puts nothing away any more.
            docker.nothing_of(&docker.owner_of(&runner.id)).await;
            runner.terminate().await;
            told.push((config, submitted));
        }

        let [(local, process), (engine, container)] = &told[..] else { panic!("two kinds") };
        let differ = local.lines().zip(engine.lines()).filter(|(one, other)| one != other);
        assert_eq!(differ.count(), 1, "one line is another");
        assert_eq!(local.lines().count(), engine.lines().count());
        let whole = |before: &str, behind: &str| -> String {
            let attempt = |number: u32| {
                format!(
                    "{before}attempt {number} of either-way on runner-1: ünï  code, either-way and $(NOBODY)\n\
                     the password is ***\n{{\"source\":{{\"password\":\"***\",\"type\":\"mysql\"}}}}\nkey: ***\n{behind}"
                )
            };
            attempt(1) + &attempt(2)
        };
        let ignored = format!(
            "hybrid-runner: the local executor uses no image: `{BUSYBOX}` is ignored, the command runs on this machine\n"
        );
        assert_eq!(process.text(), whole(&ignored, ""));
        assert_eq!(container.text(), whole("", "in a container\n"));
        let runs = client.get("/runs").await;
        assert_eq!(runs["runs"].as_array().map(Vec::len), Some(2), "{runs}");
    })
    .await;
}

/// As the entry point of the stock images reads what it is to do, down to the words of its errors.
const MAIN: &str = r#"
import hashlib, os, uuid, yaml

config = os.getenv("config")
if not config:
    raise RuntimeError("Missing environment variable `config` with the ingestion settings")
pipeline_type = os.getenv("pipelineType")
if not pipeline_type:
    raise RuntimeError("Missing environment variable `pipelineType`")
if pipeline_type not in ("metadata", "usage", "lineage", "profiler"):
    raise ValueError(f"Cannot map a workflow class from `{pipeline_type}`")
workflow = yaml.safe_load(config)
run = os.getenv("pipelineRunId")
if run:
    workflow["pipelineRunId"] = str(uuid.UUID(run))
token = workflow["workflowConfig"]["openMetadataServerConfig"]["securityConfig"]["jwtToken"]
print("type:", pipeline_type, "run:", workflow["pipelineRunId"])
print("source:", workflow["source"]["type"], workflow["source"]["port"], workflow["source"]["zip"])
print("token:", token, hashlib.sha256(token.encode()).hexdigest())
"#;

/// A token, and its digest, which only who has the token can tell.
const TOKEN: &str = "aaaaaaaa.bbbbbbbb.cccccccc";
const DIGEST: &str = "0570b430faa257b27cf0b0637f299a7a90199ba8d76b1e91d065560dce98241f";

/// What a control plane asks stock images to do.
fn stock(workflow: Workflow) -> Workflow {
    let config = json!({
        "source": {"type": "mysql", "port": 3306, "zip": "0123"},
        "workflowConfig": {"openMetadataServerConfig": {"securityConfig": {"jwtToken": "secret:/openmetadata/token"}}},
    });
    workflow
        .with("config", config)
        .with("config_env", "config")
        .env("pipelineType", "metadata")
        .env("pipelineRunId", "8d9f1c1e-6f0a-4a53-9d7b-0d6f3c1b2a11")
}

#[tokio::test]
async fn a_stock_entry_point_finds_its_config_with_resolved_secrets_in_its_environment() {
    let Ok(image) = std::env::var("HYBRID_RUNNER_TEST_DOCKER_PYTHON") else {
        return skipped("there is no image with python; scripts/services/all up");
    };
    Story::told(120, async |story| {
        let Some(docker) = Docker::of(&story) else {
            return;
        };
        let server = Server::started(&story).await;
        let mut runner = Runner::new(&story, &server, "runner-1").await;
        runner.executor = docker.section_with(&image);
        runner.start().await;
        let client = server.client();
        story.write("secrets/openmetadata/token", TOKEN);
        let main = Workflow::new("stock", &["python3", "-c", MAIN]);
        let good = client.submit(&stock(main.clone()), "runner-1").await;
        let bare = client.submit(&main, "runner-1").await;

        client.finished(&good).await.expect("succeeded");
        let expected = format!(
            "type: metadata run: 8d9f1c1e-6f0a-4a53-9d7b-0d6f3c1b2a11\nsource: mysql 3306 0123\ntoken: *** {DIGEST}\n"
        );
        assert_eq!(client.text(&good).await, expected);
        let end = client.finished(&bare).await;
        end.expect_failed("exit", &["1"]);
        let log = client.text(&bare).await;
        assert!(log.contains("Missing environment variable `config`"), "{log}");
    })
    .await;
}

#[tokio::test]
async fn an_images_own_entry_point_user_and_folder_are_kept() {
    Story::told(60, async |story| {
        let Some(docker) = Docker::of(&story) else {
            return;
        };
        let server = Server::started(&story).await;
        let runner = Runner::started_in(&story, &server, Some(&docker)).await;
        let client = server.client();
        story.write("secrets/openmetadata/token", TOKEN);
        let image = BUSYBOX.replace("busybox", "nonroot");
        let script = "echo \"$pipelineType $pipelineRunId [$1]\"; printf %s \"$config\" | grep -c bbbbbbbb; printf %s \"$config\"";
        let mut workflow = json!({"name": "entry", "image": image, "args": ["sh", "-c", script, "0", "$(WORKFLOW_NAME)"]});
        let stock = stock(Workflow::new("entry", &[])).to_value();
        for field in ["config", "config_env", "env"] {
            workflow[field] = stock[field].clone();
        }
        let (status, run) = client
            .insist(reqwest::Method::POST, "/runs", Some(&json!({"workflow": workflow, "runner": "runner-1"})))
            .await;
        assert!(status.is_success(), "{run}");
        let run = run["id"].as_str().unwrap();

        client.finished(run).await.expect("succeeded");
        let log = client.text(run).await;
        let start = "entry: 1000:1000 in /home/work\nmetadata 8d9f1c1e-6f0a-4a53-9d7b-0d6f3c1b2a11 [entry]\n1\n{";
        assert!(log.starts_with(start) && log.ends_with("\"jwtToken\":\"***\"}}}}"), "{log}");
        docker.nothing_of(&docker.owner_of(&runner.id)).await;
    })
    .await;
}
