//! P4: no value of the customer's stores leaves, whoever runs the work.

use std::fs;
use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use hybrid_runner_core::testing::{Looked, Search};
use hybrid_runner_tests::processes::{self, holds};
use hybrid_runner_tests::story::FOLDER_VARIABLE;
use hybrid_runner_tests::{Docker, Engine, Runner, Server, Story};
use serde_json::json;

const SOON: Duration = Duration::from_secs(30);

#[tokio::test]
async fn a_crash_of_the_runner_would_leave_no_core_and_nobody_else_reads_its_memory() {
    Story::told(60, async |story| {
        let server = Server::started(&story).await;
        let mut runner = Runner::started(&story, &server).await;
        let pid = runner.program().pid();
        let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
        let core = limits
            .lines()
            .find(|line| line.starts_with("Max core file size"));
        assert_eq!(
            core.unwrap().split_whitespace().nth(4),
            Some("0"),
            "{limits}"
        );
        // The files of a process that is not dumpable belong to root, whoever runs it.
        let environ = fs::metadata(format!("/proc/{pid}/environ")).unwrap();
        assert_eq!(std::os::unix::fs::MetadataExt::uid(&environ), 0);
    })
    .await;
}

/// Name, value: all that is awkward in a shell, a URL, JSON, a log.
const VALUES: [(&str, &str); 6] = [
    ("plain", "hunter2-correct-horse"),
    ("quotes", r#"it's "quoted" \and\ `ticked`"#),
    (
        "lines",
        "first-line-of-key\nsecond line of key\nthird-line-of-key",
    ),
    ("percent", "100%s of %d%% $HOME ${x}"),
    ("unicode", "pässwörd-密码-🔑"),
    ("shell", "a;b|c&d>e<f(g)h*i?j[k]l#m~n=o"),
];

/// What the workload runs: each value as it is, split at each byte into two writes, and in several encodings.
const SCRIPT: &str = r#"
print() {
  printf '%s\n' "$1"
  length=$(printf '%s' "$1" | wc -c)
  at=1
  while [ $at -lt $length ]; do
    printf '%s' "$1" | head -c $at
    printf '%s' "$1" | tail -c +$((at + 1))
    echo
    at=$((at + 1))
  done
  printf '%s' "$1" | base64
  printf '%s' "$1" | base64 -w0; echo
  printf 'user:%s' "$1" | base64 -w0; echo
  printf '%s' "$1" | od -An -v -tx1 | tr -d ' \n'; echo
  printf '%s' "$1" >&2
}
for name in PLAIN QUOTES LINES PERCENT UNICODE SHELL; do
  eval "print \"\$$name\""
done
cat "$WORKFLOW_CONFIG"
cat "$PRIVATE"
set -x
: "$PLAIN" "$QUOTES" "$SHELL"
set +x
env
echo waiting
while [ ! -e $STORY/gate ]; do sleep 0.05; done
echo "url=$URL"
exit 7
"#;

/// The value, and the forms that a log may hold it in.
fn needles() -> Vec<(Vec<u8>, String)> {
    let mut needles = Vec::new();
    for (name, value) in VALUES {
        let bytes = value.as_bytes();
        let hex = bytes
            .iter()
            .fold(String::new(), |hex, byte| format!("{hex}{byte:02x}"));
        let quoted = json!(value).to_string();
        let forms = [
            value.to_owned(),
            base64::engine::general_purpose::STANDARD.encode(bytes),
            hex,
            quoted[1..quoted.len() - 1].to_owned(),
        ];
        needles.extend(forms.map(|form| (form.clone().into_bytes(), format!("{name}: {form}"))));
        let lines = value.lines().filter(|line| line.len() >= 12);
        needles.extend(lines.map(|line| (line.as_bytes().to_vec(), format!("a line of {name}"))));
    }
    needles
}

/// Every file below a folder, but not below `secrets`. How many there were.
fn look_into(search: &mut Search, folder: &Path) -> usize {
    search.files(folder, &|folder| folder.ends_with("secrets"))
}

/// Arguments of every process of the machine, and the environments of all that are no workload's.
fn look_at_processes(search: &mut Search) {
    let mark = format!("{FOLDER_VARIABLE}=");
    search.processes(|_, _, environment| {
        if holds(environment, mark.as_bytes()) {
            return Looked::Arguments;
        }
        Looked::All
    });
}

/// What an engine keeps, and what it tells.
async fn look_into_engine(search: &mut Search, place: Option<(&Docker, &Engine)>) {
    let Some((docker, engine)) = place else {
        return;
    };
    for path in [
        "/containers/json?all=true",
        "/volumes",
        "/images/json",
        "/info",
    ] {
        let told = docker.get(path).await.to_string();
        search.look(&format!("the engine's {path}"), told.as_bytes());
    }
    for container in docker.containers().await {
        let id = container["Id"].as_str().unwrap_or_default();
        let told = docker
            .get(&format!("/containers/{id}/json"))
            .await
            .to_string();
        search.look("docker inspect", told.as_bytes());
    }
    assert!(look_into(search, engine.folder()) > 20);
}

#[tokio::test]
async fn no_value_is_on_disk_in_argv_in_environ_in_answers_or_in_logs() {
    Story::told(110, async |story| values_stay(&story, None).await).await;
}

/// Where the work is a container, in an engine that is searched as well.
pub(super) async fn values_stay(story: &Story, place: Option<(&Docker, &Engine)>) {
    let server = Server::started(story).await;
    let mut runner = Runner::started_in(story, &server, place.map(|(docker, _)| docker)).await;
    let client = server.client();
    for (name, value) in VALUES {
        story.write(&format!("secrets/{name}"), value);
    }
    let mark = format!("mark-{}", uuid::Uuid::new_v4());
    let mut workflow = story
        .sh("leaky", SCRIPT)
        .env("MARK", &mark)
        .env("URL", "mysql://u:${secret:/plain}@db/orders")
        .with("files", json!({"PRIVATE": "secret:/lines"}))
        .with(
            "config",
            json!({"source": {"password": "secret:/quotes", "url": "a-${secret:/unicode}-b"}}),
        )
        .with("config_env", "CONFIG");
    for (name, _) in VALUES {
        workflow = workflow.env(&name.to_uppercase(), &format!("secret:/{name}"));
    }
    let run = client.submit(&workflow, "runner-1").await;
    let mut follow = client.follow(&run);
    while !follow.text().contains("\nwaiting\n") {
        follow.next().await;
    }

    // While it runs: the workload has the values, nobody else.
    let workload = processes::appear(&mark, 1, SOON).await;
    assert!(
        holds(&workload[0].environment, VALUES[0].1.as_bytes()),
        "the workload has no value at all"
    );
    if place.is_none() {
        let helpers = runner.helpers();
        assert!(
            helpers.iter().any(|process| !process.mentions(&mark)),
            "no helper was found"
        );
    }
    let mut search = Search::new(needles());
    look_at_processes(&mut search);
    look_into_engine(&mut search, place).await;
    assert!(look_into(&mut search, story.folder()) > 5);

    // The runner's next life goes on masking although it never had the values.
    runner.kill().await;
    story.write("gate", "");
    runner.start().await;
    let end = follow.end().await;
    end.expect_failed("exit", &["7"]);

    search.look("the followed log", &follow.log);
    search.look("the stored log", &client.log(&run).await);
    let told = client.show(&run).await.0.to_string();
    search.look("the run", told.as_bytes());
    let told = client.get("/runs").await.to_string();
    search.look("the list", told.as_bytes());
    let text = follow.text();
    assert!(text.contains("***"), "{text}");
    assert!(text.contains("url=mysql://u:***@db/orders"), "{text}");
    let reported = runner.ask("metrics").await.1;
    search.look("the metrics", reported.as_bytes());
    look_at_processes(&mut search);
    assert!(look_into(&mut search, story.folder()) > 5);
    if let Some((docker, _)) = place {
        docker.nothing_of(&docker.owner_of(&runner.id)).await;
        look_into_engine(&mut search, place).await;
    }
    search.found_nothing(30);
}

#[tokio::test]
async fn private_files_are_gone_with_the_run() {
    Story::told(60, async |story| {
        let server = Server::started(&story).await;
        let _runner = Runner::started(&story, &server).await;
        let client = server.client();
        story.write("secrets/key", "the-private-key");
        let script = "echo $WORKFLOW_CONFIG > $STORY/paths; echo $KEY >> $STORY/paths; stat -c %a $KEY; cat $KEY > /dev/null";
        let workflow = story
            .sh("private", script)
            .with("files", json!({"KEY": "secret:/key"}))
            .with("config", json!({"a": "secret:/key"}));
        let run = client.submit(&workflow, "runner-1").await;
        client.finished(&run).await.expect("succeeded");
        assert!(["600\n", "400\n"].contains(&client.text(&run).await.as_str()));
        let paths = story.read("paths");
        assert_eq!(paths.lines().count(), 2);
        for path in paths.lines() {
            assert!(!Path::new(path).exists(), "{path} is left");
        }
    })
    .await;
}
