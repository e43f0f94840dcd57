//! A Docker Engine of a story's own, which it may kill and start again.

use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::process::Signal;
use tokio::process::Command;
use tokio::time::timeout;

use crate::processes::{self, Process};
use crate::skipped;

/// An engine is there, or gone, within this; a machine that is busy takes its time.
const PATIENCE: Duration = Duration::from_mins(3);

/// The names of our engines begin with it; the number of the test program follows.
const PREFIX: &str = "story-";

/// An engine of our own. Removed with its data when dropped.
#[derive(Debug)]
pub struct Engine {
    name: String,
    options: Vec<String>,
    address: String,
}

impl Engine {
    /// An engine with the image of shell scripts, started with these options of `dockerd`; where it cannot be had, the
    /// story is skipped.
    pub async fn started(options: &[&str]) -> Option<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(1);
        remove_orphans();
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let mut engine = Self {
            name: format!("{PREFIX}{}-{number}", std::process::id()),
            options: options.iter().map(|&option| option.to_owned()).collect(),
            address: String::new(),
        };
        if let Err(why) = engine.up().await {
            skipped(&format!("no engine of our own: {why}"));
            return None;
        }
        let loaded = script("docker-images", &["up", &engine.address, "busybox"]).await;
        loaded.unwrap_or_else(|why| panic!("no image in the engine: {why}"));
        Some(engine)
    }

    /// Its address.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The folder of its data, its socket and all it writes.
    pub fn folder(&self) -> &Path {
        let socket = Path::new(self.address.trim_start_matches("unix://"));
        socket.parent().unwrap_or(socket)
    }

    /// `kill -9` of the engine alone: its containers go on, or not, as it is their nature.
    pub async fn kill(&self) {
        let pid = self.pid();
        processes::signal(pid, Signal::KILL);
        processes::until("the engine is gone", PATIENCE, move || {
            Process::read(pid).is_none().then_some(())
        })
        .await;
    }

    /// Starts it again, with all it had.
    pub async fn start(&mut self) {
        self.up()
            .await
            .unwrap_or_else(|why| panic!("the engine did not come back: {why}"));
    }

    fn pid(&self) -> i32 {
        let path = self.folder().join("docker.pid");
        let pid = std::fs::read_to_string(&path).ok();
        pid.and_then(|pid| pid.trim().parse().ok())
            .unwrap_or_else(|| panic!("no number in `{}`", path.display()))
    }

    async fn up(&mut self) -> Result<(), String> {
        let mut arguments = vec!["up", &self.name];
        arguments.extend(self.options.iter().map(String::as_str));
        let said = script("docker", &arguments).await?;
        said.trim().clone_into(&mut self.address);
        Ok(())
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        remove(&self.name);
    }
}

fn remove(name: &str) {
    let mut removal = std::process::Command::new(path("docker"));
    drop(removal.args(["remove", name]).output());
    // No other engine will ever have its name.
    drop(std::fs::remove_file(
        folder().join(name).with_extension("lock"),
    ));
}

/// Removes the engines of test programs that were killed.
fn remove_orphans() {
    for entry in std::fs::read_dir(folder()).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.split_once('-')?.0.parse().ok());
        if entry.path().is_dir() && owner.is_some_and(|pid| Process::read(pid).is_none()) {
            remove(&name);
        }
    }
}

/// Where `scripts/services/docker` keeps its engines.
fn folder() -> PathBuf {
    let cache = std::env::var_os("HYBRID_RUNNER_CACHE").map(PathBuf::from);
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_default());
    let cache = cache.unwrap_or_else(|| home().join(".cache/hybrid-runner"));
    cache.join("docker")
}

/// Runs a script of `scripts/services`: what it prints, or why it failed.
async fn script(name: &str, arguments: &[&str]) -> Result<String, String> {
    let running = Command::new(path(name)).args(arguments).output();
    let ended = timeout(PATIENCE, running).await;
    let Output {
        status,
        stdout,
        stderr,
    } = ended
        .map_err(|_| format!("`{name}` did not end within {PATIENCE:?}"))?
        .map_err(|error| format!("`{name}` could not be run: {error}"))?;
    if status.success() {
        return Ok(String::from_utf8_lossy(&stdout).into_owned());
    }
    Err(String::from_utf8_lossy(&stderr).trim().to_owned())
}

fn path(script: &str) -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.join("../scripts/services").join(script)
}
