//! Kill -9 of the runner, and of the runner and its plugin together, at each message between them: the right end, started once,
//! each line once, nothing left behind.

use std::path::Path;
use std::time::Duration;

use futures::StreamExt as _;
use hybrid_runner_tests::workflow::numbered_lines;
use hybrid_runner_tests::{Client, Runner, Server, Story, processes};

use super::ODD;

/// Walks that go on at the same time. They mostly wait.
const TOGETHER: usize = 4;
/// More messages than a run has.
const MANY: i64 = 1_000_000;
const LINES: u32 = 5;
const PATIENCE: Duration = Duration::from_mins(1);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_runner_killed_at_any_message_of_its_plugin_starts_nothing_twice_and_loses_nothing() {
    walk("runner").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runner_and_plugin_killed_together_at_any_message_start_nothing_twice_and_lose_nothing() {
    walk("both").await;
}

async fn walk(who: &str) {
    Story::told(400, async |story| {
        let server = Server::started(&story).await;
        // Nobody dies, to see how many messages there are.
        let whole = Walk::new(&story, &server, who, MANY).await.told().await;
        let messages = MANY - whole;
        assert!(messages > 15, "too few messages to walk over: {messages}");
        let walk = |at| {
            let walk = Walk::new(&story, &server, who, at);
            async move { walk.await.told().await <= 0 }
        };
        let fired: Vec<bool> = futures::stream::iter((1..=messages).map(walk))
            .buffer_unordered(TOGETHER)
            .collect()
            .await;
        let count = fired.iter().filter(|fired| **fired).count();
        assert!(
            count * 4 > fired.len() * 3,
            "only {count} of {messages} walks came to their message"
        );
    })
    .await;
}

/// One run under a runner that has its executor behind a pipe, where `who` dies at a message.
struct Walk<'a> {
    story: &'a Story,
    client: Client,
    name: String,
    runner: Runner,
}

impl<'a> Walk<'a> {
    async fn new(story: &'a Story, server: &Server, who: &str, at: i64) -> Self {
        let name = format!("{who}-{at}");
        let counter = story.write(&format!("{name}.counter"), at.to_string());
        let mut runner = Runner::new(story, server, &name).await;
        runner.executor = format!(
            "kind = \"plugin\"\ncommand = [\"{ODD}\", \"mortal\", \"{}\", \"{who}\"]\n",
            counter.display()
        );
        Self {
            story,
            client: server.client(),
            name,
            runner,
        }
    }

    /// Tells it to its end; how many messages were left.
    async fn told(mut self) -> i64 {
        self.runner.spawn();
        let (story, client, name) = (self.story, self.client.clone(), self.name.clone());
        let data = self.runner.data_dir.clone();
        tokio::select! {
            () = goes_well(story, &client, &name, &data) => {}
            () = self.lives() => {}
        }
        // The last messages may come only while it leaves.
        self.runner.terminate().await;
        processes::gone(&format!("{name}.counter"), PATIENCE).await;
        let counter = story.read(&format!("{name}.counter"));
        counter.trim().parse().unwrap()
    }

    /// Its lives, one after the other.
    async fn lives(&mut self) {
        loop {
            let ended = self.runner.program().end(2 * PATIENCE).await;
            assert!(!ended.success(), "{}: a runner left by itself", self.name);
            self.runner.start().await;
        }
    }
}

/// A run that fails after a few lines, until nothing is left of it.
async fn goes_well(story: &Story, client: &Client, name: &str, data: &Path) {
    let script = format!(
        "echo start >> $STORY/{name}.starts; i=0; while [ $i -lt {LINES} ]; do i=$((i+1)); echo line $i; sleep 0.02; done; exit 3"
    );
    let run = client.submit(&story.sh(name, &script), name).await;
    let end = client.finished(&run).await;
    assert_eq!(
        (end.state(), end.class()),
        ("failed", "exit"),
        "{name}: {}",
        end.0
    );
    assert_eq!(end.0["failure"]["exit_code"], 3, "{name}");
    assert_eq!(client.text(&run).await, numbered_lines(LINES), "{name}");
    assert_eq!(story.read(&format!("{name}.starts")), "start\n", "{name}");
    let what = format!("the backend of `{name}` forgets its run");
    processes::until(&what, PATIENCE, || (!holds(data, &run)).then_some(())).await;
}

/// Whether something below a folder has a name that begins so.
fn holds(folder: &Path, beginning: &str) -> bool {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.into_iter().any(|entry| {
        entry.file_name().to_string_lossy().starts_with(beginning)
            || holds(&entry.path(), beginning)
    })
}
