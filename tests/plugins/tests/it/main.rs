//! The contract through the pipe, plugins that are wrong on purpose, and deaths at every message.

#![expect(clippy::unwrap_used, reason = "tests: a failure is the test's")]

mod broken;
mod certify;
mod contract;
mod deaths;
mod docs;
mod doctor;
mod guard;
mod hostile;
mod slow;
mod unnamed;
mod walk;

use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::StreamExt as _;
use hybrid_runner_core::RunId;
use hybrid_runner_core::executor::{Executor, Handle};
use hybrid_runner_core::id::Owner;
use hybrid_runner_core::kind::Context;
use hybrid_runner_core::log::{LogChunk, LogItem};
use hybrid_runner_core::plugin::Contract;
use hybrid_runner_core::plugin::host::{Host, Launch, PluginSettings};
use hybrid_runner_core::run::Outcome;
use hybrid_runner_core::testing::skipped;
use hybrid_runner_executors::plugin::Plugin;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::timeout;

/// The plugin that is odd as its arguments say.
const ODD: &str = env!("CARGO_BIN_EXE_odd-plugin");

/// A folder of a test, and the plugins that keep their things there.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn context(&self) -> Context {
        let owner = Owner::of("tests", &"me".parse().unwrap());
        let name = "tested".parse().unwrap();
        Context::new(name, Value::Null, self.path("data"), owner, 1 << 30)
            .with_config_dir(Some(self.0.path().to_owned()))
    }

    /// The claim of a run, of a backend with names of its own.
    fn claim(&self, run: RunId) -> PathBuf {
        let context = self.context();
        let claims = context.data_dir.join("claims").join(context.owner.as_str());
        claims.join(format!("{run}.claim"))
    }

    fn launch(&self, command: &[&str], more: &Value) -> Launch {
        let mut section = json!({ "command": command });
        section
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        let settings: PluginSettings = serde_json::from_value(section).unwrap();
        let variable = |name: &str| std::env::var_os(name);
        Launch::new(Contract::Executor, &self.context(), &settings, variable).unwrap()
    }

    /// The plugin of a command.
    fn plugin(&self, command: &[&str]) -> Plugin {
        self.plugin_with(command, &json!({}))
    }

    fn plugin_with(&self, command: &[&str], more: &Value) -> Plugin {
        let host = Host::new(self.launch(command, more));
        Plugin::of(host, &self.context())
    }
}

/// Tells a test within so many seconds.
async fn told<T>(seconds: u64, test: impl Future<Output = T>) -> T {
    let limit = Duration::from_secs(seconds);
    let told = timeout(limit, test).await;
    told.unwrap_or_else(|_| panic!("the test did not end within {limit:?}"))
}

/// The repository.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .unwrap()
}

/// The path of a file among the examples.
fn example(name: &str) -> String {
    root().join("examples").join(name).display().to_string()
}

/// The interpreter itself, without what may stand before it in `PATH`: it is started hundreds of times.
fn python() -> String {
    let asked = std::process::Command::new("python3")
        .args(["-c", "import sys; print(sys.executable)"])
        .output()
        .unwrap();
    String::from_utf8(asked.stdout).unwrap().trim().to_owned()
}

/// Whether the programs are there; if not, the test is skipped, which CI does not allow.
fn has(programs: &[&str]) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let is_there =
        |program: &&str| std::env::split_paths(&path).any(|folder| folder.join(program).is_file());
    if let Some(missing) = programs.iter().find(|program| !is_there(program)) {
        skipped(&format!("there is no `{missing}`"));
        return false;
    }
    true
}

/// How a run ends, asked again as long as there is an error.
async fn end(executor: &dyn Executor, run: &Handle) -> Outcome {
    loop {
        let mut levels = executor.watch(run);
        while let Some(Ok(level)) = levels.next().await {
            if let Some(outcome) = level.outcome() {
                return outcome.clone();
            }
        }
        // An error is the last item: a runner asks again after a pause too.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The whole log, read on from where it broke.
async fn log(executor: &dyn Executor, run: &Handle) -> String {
    let mut from = None;
    let mut text = Vec::new();
    loop {
        let mut chunks = executor.logs(run, from.clone());
        loop {
            match chunks.next().await {
                None => return String::from_utf8(text).unwrap(),
                Some(Err(_)) => break,
                Some(Ok(LogChunk { item, next })) => {
                    if let LogItem::Data { bytes, .. } = item {
                        text.extend_from_slice(&bytes);
                    }
                    from = Some(next);
                }
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
