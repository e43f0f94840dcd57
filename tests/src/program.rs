//! A program that was started, its output, its end.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::processes;

/// How much of a log is shown when a story fails.
const TAIL: usize = 6000;

/// Which build of the product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Binary {
    /// The one that is shipped.
    Product,
    /// The one that can be told to abort at a durable step.
    Faults,
    /// The one with every secret store in it.
    Clouds,
}

impl Binary {
    /// Where it is. Built by `scripts/test`, or by `cargo build -p hybrid-runner`.
    pub fn path(self) -> PathBuf {
        let path = self.place();
        assert!(
            path.is_file(),
            "no `{}`: build it with `cargo build -p hybrid-runner`, or run scripts/test",
            path.display()
        );
        path
    }

    /// Whether it was built.
    pub fn is_there(self) -> bool {
        self.place().is_file()
    }

    fn place(self) -> PathBuf {
        let (variable, place) = match self {
            Self::Product => ("HYBRID_RUNNER_BIN", "debug/hybrid-runner"),
            Self::Faults => ("HYBRID_RUNNER_FAULTS_BIN", "faults/hybrid-runner-faults"),
            Self::Clouds => ("HYBRID_RUNNER_CLOUDS_BIN", "clouds/hybrid-runner-clouds"),
        };
        if let Some(given) = std::env::var_os(variable) {
            return PathBuf::from(given);
        }
        // <target>/debug/deps/<this test program>
        let own = std::env::current_exe().expect("a program knows its own path");
        let target = own
            .ancestors()
            .nth(3)
            .expect("a test program lies three folders deep in the target folder");
        target.join(place)
    }
}

/// What a program is started with. Of our own environment it gets the `PATH` only.
#[derive(Debug, Clone)]
pub struct Start {
    /// A name for its output files.
    pub name: String,
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Its environment.
    pub environment: BTreeMap<String, String>,
    /// Its working directory, where its output files are too.
    pub folder: PathBuf,
}

impl Start {
    /// Starts it.
    pub fn spawn(&self) -> Program {
        let (number, files) = free_names(&self.folder, &self.name);
        let [out, err] = files;
        let create =
            |path: &Path| File::create(path).expect("the folder of the story can be written to");
        let child = self
            .command()
            .stdin(Stdio::null())
            .stdout(create(&out))
            .stderr(create(&err))
            .spawn()
            .unwrap_or_else(|error| {
                panic!("failed to start `{}`: {error}", self.program.display())
            });
        let pid = child
            .id()
            .and_then(|pid| i32::try_from(pid).ok())
            .expect("it was just started");
        Program {
            name: format!("{} {number}", self.name),
            child,
            pid,
            out,
            err,
            ended: None,
        }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(&self.arguments)
            .env_clear()
            .current_dir(&self.folder)
            .kill_on_drop(true);
        if let Some(path) = std::env::var_os("PATH") {
            command.env("PATH", path);
        }
        command.envs(&self.environment);
        command
    }

    /// Runs it to its end.
    pub async fn run(&self, limit: Duration) -> Ended {
        let mut program = self.spawn();
        let status = program.end(limit).await;
        Ended {
            code: status.code(),
            out: fs::read(&program.out).unwrap_or_default(),
            err: String::from_utf8_lossy(&fs::read(&program.err).unwrap_or_default()).into_owned(),
        }
    }
}

fn free_names(folder: &Path, name: &str) -> (u32, [PathBuf; 2]) {
    let mut number = 0;
    loop {
        number += 1;
        let files = [".out", ".err"].map(|end| folder.join(format!("{name}.{number}{end}")));
        if File::create_new(&files[0]).is_ok() {
            return (number, files);
        }
        assert!(
            number < 10_000,
            "`{}` cannot be written to",
            folder.display()
        );
    }
}

/// A program that ran to its end.
#[derive(Debug)]
pub struct Ended {
    /// Its exit code; none if a signal ended it.
    pub code: Option<i32>,
    /// Its standard output.
    pub out: Vec<u8>,
    /// Its standard error.
    pub err: String,
}

impl Ended {
    /// Its standard output as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.out).into_owned()
    }

    /// Its standard output as one JSON document.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.out)
            .unwrap_or_else(|error| panic!("not JSON ({error}): {self:?}"))
    }

    /// Panics unless it ended with that code.
    #[track_caller]
    pub fn expect(&self, code: i32) -> &Self {
        assert_eq!(
            self.code,
            Some(code),
            "stdout:\n{}\nstderr:\n{}",
            self.text(),
            self.err
        );
        self
    }

    /// Panics unless standard error holds each of these.
    #[track_caller]
    pub fn says(&self, words: &[&str]) -> &Self {
        for word in words {
            assert!(
                self.err.contains(word),
                "no `{word}` in stderr:\n{}\nstdout:\n{}",
                self.err,
                self.text()
            );
        }
        self
    }
}

/// A program that was started. Killed when dropped.
#[derive(Debug)]
pub struct Program {
    name: String,
    child: Child,
    pid: i32,
    out: PathBuf,
    err: PathBuf,
    ended: Option<ExitStatus>,
}

impl Program {
    /// Its number.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Whether it has not ended yet.
    pub fn is_running(&mut self) -> bool {
        self.ended.is_none() && matches!(self.child.try_wait(), Ok(None))
    }

    /// `kill -9`, and waits until it is gone.
    pub async fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.end(Duration::from_secs(20)).await;
    }

    /// Sends a signal.
    pub fn signal(&mut self, signal: Signal) {
        if self.is_running() {
            processes::signal(self.pid, signal);
        }
    }

    /// Waits for its end; panics after `limit`.
    pub async fn end(&mut self, limit: Duration) -> ExitStatus {
        if let Some(ended) = self.ended {
            return ended;
        }
        let waited = timeout(limit, self.child.wait()).await;
        let waited =
            waited.unwrap_or_else(|_| panic!("`{}` has not ended after {limit:?}", self.name));
        let status = waited.expect("our own child can be waited for");
        self.ended = Some(status);
        status
    }

    /// What it has written to standard output so far.
    pub fn output(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.out).unwrap_or_default()).into_owned()
    }

    /// What it has written to standard error so far: its own log.
    pub fn errors(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.err).unwrap_or_default()).into_owned()
    }

    /// Waits until its standard error holds `words`.
    pub async fn says(&self, words: &str, limit: Duration) {
        processes::until(&format!("`{}` says `{words}`", self.name), limit, || {
            self.errors().contains(words).then_some(())
        })
        .await;
    }
}

impl Drop for Program {
    #[expect(clippy::print_stderr, reason = "what a failed story needs")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            for text in [self.output(), self.errors()] {
                if !text.is_empty() {
                    let from = text.ceil_char_boundary(text.len().saturating_sub(TAIL));
                    eprintln!("--- {}\n{}", self.name, &text[from..]);
                }
            }
        }
    }
}
