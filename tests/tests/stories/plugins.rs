//! A plugin under the real runner: whoever dies, and whenever, nothing is lost and nothing is started twice.

use hybrid_runner_tests::processes::{self, Process};
use hybrid_runner_tests::workflow::numbered_lines;
use hybrid_runner_tests::{Binary, Runner, Server, Story};
use rustix::process::Signal;

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
