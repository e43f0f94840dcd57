//! A place of its own in an engine.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use bollard::Docker;
use hybrid_runner_core::RunId;
use hybrid_runner_core::error::Result;
use hybrid_runner_core::executor::{Executor, Progress};
use hybrid_runner_core::id::Owner;
use hybrid_runner_core::kind::Context;
use hybrid_runner_core::run::RunSpec;
use hybrid_runner_core::secret::{References, Secrets};
use hybrid_runner_core::testing::{CASES, Harness, Script, processes_of, skipped};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::Duration;

/// The image of shell scripts.
pub(crate) const BUSYBOX: &str = "hybrid-runner-test/busybox:1";
const VARIABLE: &str = "HYBRID_RUNNER_TEST_DOCKER";
/// Says whose a container or a volume is.
pub(crate) const LABEL: &str = "io.hybrid-runner.owner";

/// The engine's address; where there is none, the test is skipped, which CI does not allow.
pub(crate) fn engine() -> Option<String> {
    service(VARIABLE, "scripts/services/docker up")
}

/// What a variable says of a service; without it, the test is skipped, which CI does not allow.
pub(crate) fn service(variable: &str, advice: &str) -> Option<String> {
    let value = std::env::var(variable)
        .ok()
        .filter(|value| !value.is_empty());
    if value.is_none() {
        skipped(&format!("`{variable}` is not set ({advice})"));
    }
    value
}

/// A place of its own in the engine: an owner, and a folder that its containers see.
pub(crate) struct Place {
    pub(crate) folder: TempDir,
    host: Option<String>,
    /// Two places of one server have the same owners.
    pub(crate) server: String,
    more: Value,
    references: References,
    declined: Vec<(&'static str, &'static str)>,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self::with(engine(), json!({}), References::none())
    }

    /// In this engine, with more settings in its section.
    pub(crate) fn with(host: Option<String>, more: Value, references: References) -> Self {
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
            references,
            declined,
        }
    }

    pub(crate) fn host(&self) -> &str {
        self.host.as_deref().unwrap_or("unix:///none")
    }

    pub(crate) fn owner(&self, agent: &str) -> Owner {
        Owner::of(&self.server, &agent.parse().unwrap())
    }

    /// The client of whoever looks from outside.
    pub(crate) fn client(&self) -> Docker {
        connect(self.host())
    }

    /// A new executor over the same engine.
    pub(crate) fn docker(&self, agent: &str) -> Arc<dyn Executor> {
        self.docker_at(agent, self.host())
    }

    pub(crate) fn docker_at(&self, agent: &str, host: &str) -> Arc<dyn Executor> {
        self.try_docker(agent, host).unwrap()
    }

    pub(crate) fn try_docker(&self, agent: &str, host: &str) -> Result<Arc<dyn Executor>> {
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
        )
        .with_references(self.references.clone());
        hybrid_runner_executors::build("docker", &context)
    }

    /// The container of a run, whether or not it is being made ready.
    pub(crate) fn container(&self, run: RunId) -> String {
        format!("hr-{}-{run}", self.owner("one"))
    }
}

pub(crate) fn connect(host: &str) -> Docker {
    let socket = host.trim_start_matches("unix://");
    Docker::connect_with_unix(socket, 60, bollard::API_DEFAULT_VERSION).unwrap()
}

/// What a test that failed has left behind must not disturb the next one.
impl Drop for Place {
    fn drop(&mut self) {
        let Some(host) = &self.host else { return };
        if !std::thread::panicking() {
            return;
        }
        let owners = ["one", "two"].map(|agent| format!("{LABEL}={}", self.owner(agent)));
        for owner in owners {
            let clean = format!(
                "timeout 20 docker ps -aq --filter label={owner} | xargs -r docker rm -fv; \
                 timeout 20 docker volume ls -q --filter label={owner} | xargs -r docker volume rm"
            );
            let cleaned = std::process::Command::new("sh")
                .args(["-c", &clean])
                .env("DOCKER_HOST", host)
                .output();
            drop(cleaned);
        }
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
        // Init's first line is among them: the engine may have taken it behind some output.
        let first = log.iter().position(|byte| *byte == 0x1e).unwrap();
        let (mut at, mut dropped) = (0, 0);
        while dropped < 100 || at <= first {
            // Records are framed by their length, before and behind.
            let length = u32::from_be_bytes(log[at..at + 4].try_into().unwrap());
            at += 8 + usize::try_from(length).unwrap();
            dropped += 1;
        }
        std::fs::write(path, &log[at..]).is_ok()
    }

    fn declines(&self) -> &[(&'static str, &'static str)] {
        &self.declined
    }
}
