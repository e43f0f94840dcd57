//! A real engine for tests: the one that `scripts/services/docker` has started, named by `HYBRID_RUNNER_TEST_DOCKER`.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use bollard::Docker;
use hybrid_runner_core::RunId;
use hybrid_runner_core::executor::{Executor, Progress};
use hybrid_runner_core::id::Owner;
use hybrid_runner_core::kind::Context;
use hybrid_runner_core::run::RunSpec;
use hybrid_runner_core::secret::Secrets;
use hybrid_runner_core::testing::{CASES, Harness, Script, processes_of};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::Duration;

/// The image of shell scripts.
pub const BUSYBOX: &str = "hybrid-runner-test/busybox:1";
const VARIABLE: &str = "HYBRID_RUNNER_TEST_DOCKER";

/// The engine's address; where there is none, the test is skipped, which CI does not allow.
pub fn engine() -> Option<String> {
    let host = std::env::var(VARIABLE).ok().filter(|host| !host.is_empty());
    if host.is_none() {
        skipped(&format!(
            "no engine: `{VARIABLE}` is not set (scripts/services/docker up)"
        ));
    }
    host
}

#[expect(clippy::print_stdout, reason = "for people and for scripts/test")]
fn skipped(why: &str) {
    use std::io::Write as _;
    println!("skipped: {why}");
    if let Some(path) = std::env::var_os("HYBRID_RUNNER_SKIPS") {
        let mut file = std::fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(path)
            .unwrap();
        let thread = std::thread::current();
        writeln!(file, "{}: {why}", thread.name().unwrap_or("a test")).unwrap();
    }
    let ci = std::env::var("CI").is_ok_and(|ci| ci == "true");
    assert!(!ci, "skipped, which CI does not allow: {why}");
}

/// A place of its own in the engine: an owner, and a folder that its containers see.
pub struct Place {
    pub folder: TempDir,
    host: Option<String>,
    server: String,
    more: Value,
    declined: Vec<(&'static str, &'static str)>,
}

impl Place {
    pub fn new() -> Self {
        Self::with(json!({}))
    }

    /// With more settings in its section.
    pub fn with(more: Value) -> Self {
        let host = engine();
        let declined = match host {
            Some(_) => Vec::new(),
            None => CASES
                .iter()
                .map(|case| (case.name, "there is no engine"))
                .collect(),
        };
        Self {
            folder: tempfile::tempdir().unwrap(),
            host,
            server: RunId::generate().to_string(),
            more,
            declined,
        }
    }

    pub fn is_there(&self) -> bool {
        self.host.is_some()
    }

    pub fn host(&self) -> &str {
        self.host.as_deref().unwrap_or("unix:///none")
    }

    pub fn owner(&self, agent: &str) -> Owner {
        Owner::of(&self.server, &agent.parse().unwrap())
    }

    /// The client of whoever looks from outside.
    pub fn client(&self) -> Docker {
        let socket = self.host().trim_start_matches("unix://");
        Docker::connect_with_unix(socket, 60, bollard::API_DEFAULT_VERSION).unwrap()
    }

    /// A new executor over the same engine.
    pub fn docker(&self, agent: &str) -> Arc<dyn Executor> {
        self.docker_at(agent, self.host())
    }

    pub fn docker_at(&self, agent: &str, host: &str) -> Arc<dyn Executor> {
        let folder = self.folder.path().to_str().unwrap();
        let mut settings = json!({
            "host": host,
            "image": BUSYBOX,
            "network": "none",
            "mounts": [{ "source": folder, "target": folder }],
        });
        for (name, value) in self.more.as_object().unwrap() {
            settings[name] = value.clone();
        }
        let context = Context::new(
            "here".parse().unwrap(),
            settings,
            self.folder.path().join("data"),
            self.owner(agent),
            1 << 30,
        );
        hybrid_runner_executors::build("docker", &context).unwrap()
    }

    /// The container of a run, whether or not it is being made ready.
    pub fn container(&self, run: RunId) -> String {
        format!("hr-{}-{run}", self.owner("one"))
    }
}

#[async_trait]
impl Harness for Place {
    async fn executor(&self) -> Arc<dyn Executor> {
        self.docker("one")
    }

    fn spec(&self, run: RunId, script: &Script) -> RunSpec {
        script.spec(run)
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(30)
    }

    async fn other_owner(&self) -> Option<Arc<dyn Executor>> {
        Some(self.docker("two"))
    }

    async fn unreachable(&self) -> Option<Arc<dyn Executor>> {
        Some(self.docker_at("one", "unix:///nowhere/docker.sock"))
    }

    /// As after a crash: the first that can be seen of it is there, and the start goes no further.
    async fn half_start(&self, spec: &RunSpec, secrets: &Secrets) -> bool {
        let (starting, looking) = (self.docker("one"), self.docker("one"));
        let progress = Progress::none();
        let seen = async {
            while !looking
                .list()
                .await
                .is_ok_and(|runs| runs.iter().any(|run| run.run == spec.run))
            {}
        };
        tokio::select! {
            biased;
            () = seen => true,
            _ = starting.start(spec, secrets, &progress) => false,
        }
    }

    fn unsupported(&self, _spec: &RunSpec) -> Option<RunSpec> {
        None
    }

    async fn alive(&self, run: RunId) -> Option<bool> {
        processes_of(run).map(|found| !found.is_empty())
    }

    fn evidence(&self, run: RunId) -> Option<PathBuf> {
        Some(self.folder.path().join(format!("evidence-{run}")))
    }

    async fn drop_log(&self, run: RunId) -> bool {
        let container = self
            .client()
            .inspect_container(&self.container(run), None)
            .await
            .unwrap();
        let root = self.client().info().await.unwrap().docker_root_dir.unwrap();
        let id = container.id.unwrap();
        let path = PathBuf::from(root).join(format!("containers/{id}/local-logs/container.log"));
        let log = std::fs::read(&path).unwrap();
        let mut at = 0;
        for _ in 0..100 {
            // Records are framed by their length, before and behind.
            let length = u32::from_be_bytes(log[at..at + 4].try_into().unwrap());
            at += 8 + usize::try_from(length).unwrap();
        }
        std::fs::write(path, &log[at..]).is_ok()
    }

    fn declines(&self) -> &[(&'static str, &'static str)] {
        &self.declined
    }
}
