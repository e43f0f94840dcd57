//! A plugin under the real runner: whoever dies, and whenever, nothing is lost and nothing is started twice.
//! What it does not mask is masked by the runner, in its next life too, or held back.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use hybrid_runner_tests::processes::{self, Process};
use hybrid_runner_tests::workflow::numbered_lines;
use hybrid_runner_tests::{Binary, Runner, Server, Story};
use rustix::process::Signal;
use tokio::time::Instant;

const LINES: u32 = 250;

/// Who dies.
#[derive(Debug, Clone, Copy)]
enum Dies {
    Plugin,
    Runner,
    Both,
}

/// A runner whose executor is the local one behind a pipe.
async fn with_plugin(story: &Story, server: &Server) -> Runner {
    let mut runner = Runner::new(story, server, "runner-1").await;
    let binary = Binary::Product.path();
    runner.sections = format!(
        "[executors.plugged]\nkind = \"plugin\"\ncommand = [\"{}\", \"plugin\", \"serve\", \"local\"]\nenv = [\"STORY\"]\n",
        binary.display()
    );
    let folder = story.folder().display().to_string();
    runner.environment.push(("STORY".to_owned(), folder));
    runner.start().await;
    runner
}

fn plugins(story: &Story) -> Vec<Process> {
    let of_story = |process: &Process| {
        process.belongs_to(story.folder()) && process.line().contains("plugin serve local")
    };
    processes::all().into_iter().filter(of_story).collect()
}

fn kill_plugin(story: &Story) {
    let plugins = plugins(story);
    assert_eq!(plugins.len(), 1, "one process serves all runs");
    processes::signal(plugins[0].pid, Signal::KILL);
}

async fn told(dies: Dies) {
    Story::told(120, async |story| {
        let server = Server::started(&story).await;
        let mut runner = with_plugin(&story, &server).await;
        let script = format!(
            "echo start >> $STORY/starts; i=0; while [ $i -lt {LINES} ]; do i=$((i+1)); echo line $i; sleep 0.02; done; exit 3"
        );
        let client = server.client();
        let workflow = story.sh("printing", &script).with("executor", "plugged");
        let run = client.submit(&workflow, "runner-1").await;
        let mut follow = client.follow(&run);
        for seen in [40, 140] {
            follow.lines(seen).await;
            match dies {
                Dies::Plugin => kill_plugin(&story),
                Dies::Runner => runner.kill().await,
                Dies::Both => {
                    kill_plugin(&story);
                    runner.kill().await;
                }
            }
            if !matches!(dies, Dies::Plugin) {
                runner.start().await;
            }
        }
        let end = follow.end().await;
        end.expect("failed");
        assert_eq!(client.show(&run).await.0["failure"]["exit_code"], 3);
        assert_eq!(follow.text(), numbered_lines(LINES), "what the follower was told");
        assert_eq!(client.text(&run).await, numbered_lines(LINES), "what is stored");
        assert_eq!(story.read("starts"), "start\n");
        assert!(plugins(&story).len() <= 1, "no plugin is left behind");
    })
    .await;
}

#[tokio::test]
async fn a_plugin_killed_again_and_again_loses_no_line() {
    told(Dies::Plugin).await;
}

#[tokio::test]
async fn a_runner_killed_above_its_plugin_loses_no_line() {
    told(Dies::Runner).await;
}

#[tokio::test]
async fn runner_and_plugin_killed_together_lose_no_line() {
    told(Dies::Both).await;
}

/// A store whose values have versions: `<name>@<version>` in its folder, the present version in `<name>`.
const STORE: &str = r#"#!/usr/bin/env python3
import json, os, sys
for line in sys.stdin:
    asked = json.loads(line)
    answer = {"jsonrpc": "2.0", "id": asked.get("id")}
    params = asked.get("params", {})
    if asked["method"] == "hello":
        folder = params["settings"]["folder"]
        answer["result"] = {"version": params["versions"][0], "software": "versions 1"}
    elif asked["method"] == "get":
        path = os.path.join(folder, params["name"].strip("/"))
        try:
            version = params.get("version") or open(path).read()
            answer["result"] = {"value": {"text": open(path + "@" + version).read()}, "version": version}
        except OSError as error:
            answer["error"] = {"code": -32000, "message": error.strerror, "data": {"kind": "not_found"}}
    else:
        answer["result"] = {}
    print(json.dumps(answer), flush=True)
"#;

const VALUE: &str = "kestrel-umbrella-4711-quartz";
/// An outcome whose log is held back is told much sooner than after the 30 s that a log may pause.
const SOON: Duration = Duration::from_secs(12);

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("the folder of the story can be written to");
    let entries = fs::read_dir(from).expect("the examples are there");
    for entry in entries.flatten().filter(|entry| entry.path().is_file()) {
        fs::copy(entry.path(), to.join(entry.file_name())).expect("an example can be copied");
    }
}

fn write_store(story: &Story) {
    let program = story.write("store.py", STORE);
    let executable = fs::Permissions::from_mode(0o755);
    fs::set_permissions(program, executable).expect("a file of our own can be made executable");
}

/// Makes the executor of the tutorial say what its runs were given, to stderr and in errors.
fn blab(program: &Path) {
    let text = fs::read_to_string(program).expect("the example is there");
    let said = "str([path.read_text() for path in self.root.parent.glob(\"blab-*\")])";
    let blabbing = [
        (
            "            batch.submit(",
            "            (self.root.parent / (\"blab-\" + spec[\"run\"])).write_text(str(job[\"env\"]))\n".to_owned(),
        ),
        (
            "        try:\n            job = batch.status(",
            format!("        print({said}, file=sys.stderr, flush=True)\n"),
        ),
        (
            "        return batch.jobs(",
            format!(
                "        self.asked = getattr(self, \"asked\", 0) + 1\n        if self.asked < 3:\n            raise Refused(\"unavailable\", {said})\n"
            ),
        ),
    ];
    let blabbing = blabbing.iter().fold(text, |text, (before, more)| {
        assert!(
            text.contains(before),
            "the example has changed: no `{before}`"
        );
        text.replacen(before, &format!("{more}{before}"), 1)
    });
    fs::write(program, blabbing).expect("a copy of our own can be written");
}

/// A runner whose executor is the one of the tutorial, which does not mask, and whose default store has versions.
async fn with_careless_plugin(story: &Story, server: &Server) -> Runner {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    copy(&examples.join("batch"), &story.path("batch"));
    copy(
        &examples.join("custom-executor-python"),
        &story.path("mine"),
    );
    blab(&story.path("mine/executor.py"));
    write_store(story);
    let mut runner = Runner::new(story, server, "runner-1").await;
    runner.sections = format!(
        "[executors.plugged]\nkind = \"plugin\"\ncommand = [\"./mine/executor.py\"]\n\
         [secrets.versions]\nkind = \"plugin\"\ncommand = [\"./store.py\"]\nsettings = {{ folder = \"{}\" }}\n",
        story.path("values").display()
    );
    runner.start().await;
    runner
}

/// A run that tells its value before and after the runner's death; what is told of it, and how long after its end.
async fn outlives_the_runner(story: &Story, reference: &str) -> (Told, Runner, Server) {
    let server = Server::started(story).await;
    let mut runner = with_careless_plugin(story, &server).await;
    let client = server.client();
    let script =
        "echo before $PW; while [ ! -e $STORY/gate ]; do sleep 0.05; done; echo after $PW; exit 3";
    let workflow = story.sh("careless", script).env("PW", reference);
    let run = client
        .submit(&workflow.with("executor", "plugged"), "runner-1")
        .await;
    let mut follow = client.follow(&run);
    follow.lines(1).await;
    runner.kill().await;
    // The present version is another one by now.
    story.write("values/pw", "2");
    story.write("values/pw@2", "rotated");
    runner.start().await;
    if reference.contains("files:") {
        let told = |show: &hybrid_runner_tests::Run| {
            show.0["message"]
                .as_str()
                .unwrap_or_default()
                .contains("held back")
        };
        client.until(&run, told).await;
    }
    story.write("gate", "");
    let opened = Instant::now();
    let end = follow.end().await;
    end.expect("failed");
    assert_eq!(end.0["failure"]["exit_code"], 3);
    let told = Told {
        after: opened.elapsed(),
        failure: end.failure(),
        text: follow.text(),
        gaps: follow.gaps.clone(),
        stored: client.text(&run).await,
    };
    (told, runner, server)
}

struct Told {
    after: Duration,
    failure: String,
    text: String,
    gaps: Vec<String>,
    stored: String,
}

#[tokio::test]
async fn a_log_that_the_plugin_does_not_mask_is_masked_by_the_runners_next_life() {
    Story::told(90, async |story| {
        story.write("values/pw", "1");
        story.write("values/pw@1", VALUE);
        let (told, _runner, _server) = outlives_the_runner(&story, "secret:versions:/pw").await;
        assert_eq!(told.text, "before ***\nafter ***\n");
        assert_eq!(told.stored, told.text);
        assert_eq!(told.gaps, [""; 0]);
        assert!(told.after < SOON, "{:?}", told.after);
    })
    .await;
}

#[tokio::test]
async fn a_log_that_cannot_be_masked_any_more_is_held_back_and_the_outcome_is_not() {
    Story::told(90, async |story| {
        story.write("secrets/pw", VALUE);
        let (told, mut runner, server) = outlives_the_runner(&story, "secret:files:/pw").await;
        assert_eq!(told.text, "before ***\n");
        assert_eq!(told.gaps, ["held_back"]);
        assert!(
            told.failure.contains("store `files` has no versions"),
            "{}",
            told.failure
        );
        assert!(
            told.stored
                .contains("held back: the values that the run was given"),
            "{}",
            told.stored
        );
        assert!(told.after < SOON, "{:?}", told.after);
        let said = runner.program().errors();
        assert!(said.contains("store `files` has no versions"), "{said}");
        assert!(said.contains("stderr are held back"), "{said}");
        assert!(!said.contains(VALUE), "{said}");
        for file in ["server.db", "server.db-wal"] {
            let stored =
                fs::read(server.data_dir().join(file)).expect("it is there while the server runs");
            let found = memchr::memmem::find(&stored, VALUE.as_bytes());
            assert_eq!(found, None, "in the control plane's `{file}`");
        }
    })
    .await;
}

fn copy_tutorial(story: &Story) {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    copy(&examples.join("batch"), &story.path("batch"));
    copy(
        &examples.join("custom-executor-python"),
        &story.path("mine"),
    );
}

#[tokio::test]
async fn a_plugin_test_that_is_interrupted_ends_and_removes_what_it_began() {
    Story::told(90, async |story| {
        copy_tutorial(&story);
        let folder = story.folder().to_owned();
        let keepers = move || {
            let keeps = |process: &Process| {
                process.line().contains("batch.py keep")
                    && process.line().contains(folder.to_str().unwrap())
            };
            processes::all()
                .into_iter()
                .filter(keeps)
                .collect::<Vec<_>>()
        };
        let arguments = [
            "plugin",
            "test",
            "--only",
            "a second stop shortens the grace",
            "--patience",
            "30s",
            "--",
            "./mine/executor.py",
        ];
        let mut test = story.start("test", Binary::Product, &arguments).spawn();
        let appear = || (!keepers().is_empty()).then_some(());
        processes::until("a job of the suite", Duration::from_secs(30), appear).await;
        test.signal(Signal::TERM);
        let ended = test.end(Duration::from_secs(25)).await;
        assert_eq!(ended.code(), Some(143), "{}", test.errors());
        assert!(
            test.errors().contains("ending the runs of the test"),
            "{}",
            test.errors()
        );
        let gone = || keepers().is_empty().then_some(());
        processes::until("no job of the suite", Duration::from_secs(5), gone).await;
        let left = fs::read_dir(story.folder()).unwrap().map(Result::unwrap);
        let left = left.filter(|entry| entry.file_name().to_string_lossy().contains("plugin-test"));
        assert_eq!(left.count(), 0, "its folder is gone");
    })
    .await;
}

#[tokio::test]
async fn plugin_test_tells_at_once_what_it_cannot_do_and_reports_what_cannot_be_used() {
    Story::told(60, async |story| {
        let wrong = ["plugin", "test", "--junit", "/no/such/folder/j.xml", "--", "sleep", "60"];
        story.command(&wrong).await.expect(2).says(&["/no/such/folder/j.xml"]);
        let strange = ["plugin", "test", "--only", "no such", "--", "sleep", "60"];
        story.command(&strange).await.expect(2).says(&["no promise has `no_such` in its name"]);
        let missing = ["plugin", "test", "--json", "--junit", "j.xml", "--", "./none"];
        let report = story.command(&missing).await;
        report.expect(1);
        assert_eq!(report.json()["cases"][0]["name"], "it_can_be_used");
        assert!(story.read("j.xml").contains("<failure"), "{}", story.read("j.xml"));
        write_store(&story);
        story.write("c.toml", "[secrets.mine]\nkind = \"plugin\"\ncommand = [\"./store.py\"]\nsettings = { folder = \".\" }\n");
        let only = ["--only", "check answers without side effects"];
        let section = [&["plugin", "test", "-c", "c.toml", "--section", "mine"][..], &only].concat();
        let told = story.command(&section).await;
        told.expect(0);
        assert!(told.text().contains("versions 1 (a secret store): 1 passed"), "{}", told.text());
    })
    .await;
}
