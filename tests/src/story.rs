//! One story: its time limit, its folder, and the end of every process it left behind.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use rustix::process::Signal;
use tempfile::TempDir;
use tokio::time::timeout;

use crate::processes;
use crate::program::{Binary, Ended, Start};
use crate::workflow::Workflow;

/// The variable by which the processes of a story's workloads are found; its value is the story's folder.
pub const FOLDER_VARIABLE: &str = "STORY";

/// A command of the product that is no server ends within this.
const COMMAND_LIMIT: Duration = Duration::from_mins(1);

/// One story. Cheap to clone; at the end of the last one every process of it is killed and its folder removed.
#[derive(Debug, Clone)]
pub struct Story(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    folder: TempDir,
}

impl Story {
    /// A story that is yet to be told.
    pub fn new() -> Self {
        let folder = tempfile::Builder::new()
            .prefix("hybrid-runner-story-")
            .tempdir();
        let folder = folder.expect("a temporary folder can be made");
        Self(Arc::new(Inner { folder }))
    }

    /// Tells a story within `seconds`.
    pub async fn told(seconds: u64, tell: impl AsyncFnOnce(Self)) {
        let limit = Duration::from_secs(seconds);
        let mut telling = pin!(tell(Self::new()));
        // What it holds is dropped behind the panic, and so says what it has to say.
        let told = timeout(limit, &mut telling).await;
        assert!(told.is_ok(), "the story was not told after {limit:?}");
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        self.0.folder.path()
    }

    /// A path in its folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder().join(name)
    }

    /// Writes a file into its folder.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).expect("the folder of the story can be written to");
        }
        fs::write(&path, content).expect("the folder of the story can be written to");
        path
    }

    /// Reads a file of its folder; one that is not there is empty.
    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// A workflow of a script, whose processes end with the story and find its folder at `$STORY`.
    pub fn sh(&self, name: &str, script: &str) -> Workflow {
        self.marked(Workflow::sh(name, script))
    }

    /// The same for any workflow.
    pub fn marked(&self, workflow: Workflow) -> Workflow {
        workflow.env(FOLDER_VARIABLE, &self.folder().display().to_string())
    }

    /// What a program of ours is started with.
    pub fn start(&self, name: &str, binary: Binary, arguments: &[&str]) -> Start {
        let folder = self.folder().to_owned();
        let here = folder.display().to_string();
        let environment = [("HOME", here.clone()), ("TMPDIR", here)];
        Start {
            name: name.to_owned(),
            program: binary.path(),
            arguments: arguments
                .iter()
                .map(|&argument| argument.to_owned())
                .collect(),
            environment: environment
                .map(|(name, value)| (name.to_owned(), value))
                .into(),
            folder,
        }
    }

    /// Runs a command of the product to its end.
    pub async fn command(&self, arguments: &[&str]) -> Ended {
        self.command_with(arguments, &[]).await
    }

    /// The same with variables.
    pub async fn command_with(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Ended {
        self.command_of(Binary::Product, arguments, environment)
            .await
    }

    /// The same of another build.
    pub async fn command_of(
        &self,
        binary: Binary,
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> Ended {
        let mut start = self.start("command", binary, arguments);
        let more: BTreeMap<String, String> = environment
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        start.environment.extend(more);
        start.run(COMMAND_LIMIT).await
    }
}

impl Default for Story {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Inner {
    /// A workload outlives its runner by design, so it is looked for by what it knows of the story.
    fn drop(&mut self) {
        for _ in 0..50 {
            let left: Vec<_> = processes::all()
                .into_iter()
                .filter(|process| process.belongs_to(self.folder.path()))
                .collect();
            if left.is_empty() {
                return;
            }
            for process in left {
                processes::signal(process.pid, Signal::KILL);
            }
        }
    }
}

/// Copies a folder of plain files and folders.
pub fn copy(from: &Path, to: &Path) {
    let copied = || {
        fs::create_dir_all(to)?;
        for entry in fs::read_dir(from)? {
            let entry = entry?;
            let (path, to) = (entry.path(), to.join(entry.file_name()));
            if path.is_dir() {
                copy(&path, &to);
            } else if path.is_file() {
                fs::copy(&path, &to)?;
            }
        }
        std::io::Result::Ok(())
    };
    copied().unwrap_or_else(|error| panic!("failed to copy `{}`: {error}", from.display()));
}

/// Puts another folder in the place of one.
pub fn replace(folder: &Path, by: &Path) {
    let replaced = fs::remove_dir_all(folder).and_then(|()| fs::rename(by, folder));
    replaced.unwrap_or_else(|error| panic!("failed to replace `{}`: {error}", folder.display()));
}

/// An address of this machine that nobody else uses: a host of the loopback network that this test program has for
/// itself, and a port below those that the system gives away.
///
/// A program that is killed and started again must come back at its address, so the address cannot be left to it.
pub fn free_address() -> String {
    static PORT: AtomicU16 = AtomicU16::new(15_000);
    let [_, _, high, low] = std::process::id().to_be_bytes();
    loop {
        let address = format!(
            "127.{high}.{low}.2:{}",
            PORT.fetch_add(1, Ordering::Relaxed)
        );
        if TcpListener::bind(&address).is_ok() {
            return address;
        }
    }
}

/// Files below a folder whose name ends so.
pub fn files(folder: &Path, end: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files(&path, end));
        } else if path.is_file() && path.to_string_lossy().ends_with(end) {
            found.push(path);
        }
    }
    found
}
