//! An engine of one's own, by `scripts/services/docker`: to be filled, killed, and started again.

use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

use hybrid_runner_core::testing::skipped;
use rustix::process::{Pid, Signal, kill_process};

use crate::place::engine;

/// An engine that is removed, with all that it has, once it is dropped.
pub(crate) struct Own {
    name: String,
    options: Vec<String>,
    pub(crate) host: String,
}

impl Own {
    /// With these options of `dockerd`, and the image of scripts; `None` if it cannot be had.
    pub(crate) async fn up(options: &[&str]) -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        engine()?;
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("test-{}-{count}", std::process::id());
        let mut own = Self {
            name,
            options: options.iter().map(|option| (*option).to_owned()).collect(),
            host: String::new(),
        };
        let started = own.start().await;
        if !started.status.success() {
            skipped(String::from_utf8_lossy(&started.stderr).trim());
            return None;
        }
        let images = script(
            "docker-images",
            vec!["up".into(), own.host.clone(), "busybox".into()],
        );
        let images = images.await;
        assert!(images.status.success(), "{images:?}");
        Some(own)
    }

    async fn start(&mut self) -> Output {
        let mut arguments = vec!["up".to_owned(), self.name.clone()];
        arguments.extend(self.options.iter().cloned());
        let output = script("docker", arguments).await;
        let said = String::from_utf8_lossy(&output.stdout);
        said.trim().clone_into(&mut self.host);
        output
    }

    /// Starts it again, with all that it had.
    pub(crate) async fn again(&mut self) {
        let started = self.start().await;
        assert!(started.status.success(), "{started:?}");
    }

    /// Where its socket and its files are.
    pub(crate) fn folder(&self) -> PathBuf {
        let socket = PathBuf::from(self.host.trim_start_matches("unix://"));
        socket.parent().unwrap().to_owned()
    }

    /// Sends its daemon a signal and waits until it is gone; its containers are left as they are.
    pub(crate) async fn end(&self, signal: Signal) {
        let file = self.folder().join("docker.pid");
        let pid: i32 = std::fs::read_to_string(file)
            .unwrap()
            .trim()
            .parse()
            .unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
        crate::bench::until("the end of the engine", async || {
            !PathBuf::from(format!("/proc/{pid}")).exists()
        })
        .await;
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        drop(command("docker", &["remove".into(), self.name.clone()]).output());
        if !self.host.is_empty() {
            // Nobody else has an engine of this name.
            drop(std::fs::remove_file(self.folder().with_extension("lock")));
        }
    }
}

fn command(script: &str, arguments: &[String]) -> Command {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/services");
    let mut command = Command::new(format!("{folder}/{script}"));
    command.args(arguments);
    command
}

async fn script(script: &'static str, arguments: Vec<String>) -> Output {
    let run = move || command(script, &arguments).output().unwrap();
    tokio::task::spawn_blocking(run).await.unwrap()
}
