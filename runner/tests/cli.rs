//! The binary as scripts see it: exit codes, stdout, stderr, signals.

#![cfg(feature = "local")]
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests, outside of the functions that clippy takes for tests"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

const LIMIT: Duration = Duration::from_mins(1);

/// A user with a home of their own.
struct User(tempfile::TempDir);

impl User {
    fn new() -> Self {
        let user = Self(tempfile::tempdir().unwrap());
        fs::create_dir(user.path("tmp")).unwrap();
        user
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn file(&self, name: &str, text: &str) -> String {
        fs::write(self.path(name), text).unwrap();
        self.path(name).to_str().unwrap().to_owned()
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hybrid-runner"));
        command
            .args(args)
            .env_clear()
            .env("HOME", self.0.path())
            .env("TMPDIR", self.path("tmp"))
            .env("PATH", "/usr/bin:/bin")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    async fn run(&self, args: &[&str]) -> Ran {
        Ran::of(self.command(args)).await
    }
}

/// How a command ended.
#[derive(Debug)]
struct Ran {
    code: i32,
    out: String,
    err: String,
}

impl Ran {
    async fn of(mut command: Command) -> Self {
        timeout(LIMIT, command.output())
            .await
            .unwrap()
            .unwrap()
            .into()
    }

    #[track_caller]
    fn expect(self, code: i32, words: &str) -> Self {
        assert_eq!(self.code, code, "{self:?}");
        assert!(
            self.out.contains(words) || self.err.contains(words),
            "no `{words}` in {self:?}"
        );
        self
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().expect("not ended by a signal"),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

fn example(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../examples")
        .join(name);
    path.to_str().unwrap().to_owned()
}

#[tokio::test]
async fn what_is_typed_wrong_exits_2_and_says_what_is_right() {
    let user = User::new();
    user.run(&["--colour"]).await.expect(2, "--color");
    user.run(&["exce"]).await.expect(2, "exec");
    user.run(&["run", "a.yaml"])
        .await
        .expect(2, "did you mean `exec a.yaml`?");
    user.run(&["runs"]).await.expect(2, "HYBRID_RUNNER_SERVER");
    user.run(&["--help"]).await.expect(0, "exec");
    user.run(&["validate"]).await.expect(2, "WORKFLOWS");
}

#[tokio::test]
async fn run_without_what_it_needs_exits_2_with_the_lines_to_add() {
    let user = User::new();
    let ran = user.run(&["run"]).await.expect(2, "[executors.here]");
    for words in [
        "SERVER_URL",
        "AUTH_TOKEN",
        "AGENT_ID",
        "EXECUTOR_TYPE=local",
    ] {
        assert!(ran.err.contains(words), "{ran:?}");
    }
    let mut command = user.command(&["run"]);
    command.envs([
        ("AGENT_ID", "a"),
        ("AUTH_TOKEN", "00123"),
        ("SERVER_URL", "ws://127.0.0.1:1"),
        ("ARGO_INGESTION_IMAGE", "img"),
        ("HYBRID_RUNNER__RUNNER__LISTEN", "none"),
    ]);
    command.env("HYBRID_RUNNER__RUNNER__DATA_DIR", user.path("data"));
    Ran::of(command)
        .await
        .expect(2, "no executor of kind `argo` in this build");
}

#[tokio::test]
async fn version_names_what_is_compiled_in() {
    let user = User::new();
    user.run(&["version"])
        .await
        .expect(0, "executors  docker local plugin command");
    let ran = user.run(&["version", "--json"]).await;
    let json: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(json["protocol"], "v1-preview");
}

#[tokio::test]
async fn bash_completes_subcommands() {
    let user = User::new();
    let script = user
        .run(&["completions", "bash"])
        .await
        .expect(0, "complete -F");
    let file = user.file("completion", &script.out);
    let ask = format!(
        "source {file}; COMP_WORDS=(hybrid-runner token ''); COMP_CWORD=2; \
         _hybrid_runner hybrid-runner '' token; echo \"${{COMPREPLY[@]}}\"; complete -p hybrid-runner"
    );
    let mut bash = Command::new("bash");
    bash.args(["-c", &ask]);
    let answer = Ran::of(bash).await.expect(0, "create");
    assert!(
        answer.out.contains("revoke") && answer.out.contains("_hybrid_runner"),
        "{answer:?}"
    );
    user.run(&["completions", "zsh"])
        .await
        .expect(0, "#compdef hybrid-runner");
}

#[tokio::test]
async fn validate_and_lint_tell_good_from_bad() {
    let user = User::new();
    user.run(&["validate", &example("workflows/hello.yaml")])
        .await
        .expect(0, "ok (hello)");
    let bad = user.file("bad.yaml", "name: a\ncomand: [x]\n");
    user.run(&["validate", &bad]).await.expect(2, "command");
    let ran = user.run(&["validate", "--json", &bad]).await;
    let json: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!((ran.code, json[0]["valid"].as_bool()), (2, Some(false)));

    user.run(&["config", "lint", "-c", &example("config/local.toml")])
        .await
        .expect(0, "ok");
    let wrong = user.file("wrong.toml", "[runner]\nmax_run = 1\n");
    user.run(&["config", "lint", "-c", &wrong])
        .await
        .expect(2, "did you mean `max_runs`?");
    let mut env = user.command(&["config", "env"]);
    env.env("AUTH_TOKEN", "hunter2")
        .env("HYBRID_RUNNER__RUNNER__ID", "x");
    let ran = Ran::of(env).await.expect(0, "[link] token");
    assert!(
        !ran.out.contains("hunter2") && ran.out.contains("[runner] id"),
        "{ran:?}"
    );
}

#[tokio::test]
async fn exec_exits_like_the_run() {
    let user = User::new();
    let ran = user
        .run(&["exec", &example("workflows/hello.yaml")])
        .await
        .expect(0, "the password is ***");
    assert!(ran.err.contains("succeeded"), "{ran:?}");
    let fails = user.file(
        "fails.yaml",
        "name: a\ncommand: [sh, -c, 'echo out; exit 3']\n",
    );
    let ran = user.run(&["exec", &fails]).await.expect(1, "exit code 3");
    assert_eq!(ran.out, "out\n");
    let left = fs::read_dir(user.path("tmp")).unwrap().count();
    assert_eq!(left, 0, "a folder was left behind");
}

#[tokio::test]
async fn quiet_says_how_a_run_failed_and_nothing_else() {
    let user = User::new();
    let failing = user.file("f.yaml", "name: f\ncommand: [/bin/sh, -c, exit 3]\n");
    let ran = user
        .run(&["exec", "-q", &failing])
        .await
        .expect(1, "failed (exit) after ");
    assert_eq!(ran.err.lines().count(), 1, "{}", ran.err);
    assert!(
        ran.err.ends_with("s: the command ended with exit code 3\n"),
        "{}",
        ran.err
    );

    let good = user.file("g.yaml", "name: g\ncommand: [\"true\"]\n");
    let ran = user.run(&["exec", "-q", &good]).await.expect(0, "");
    assert_eq!(ran.err, "");
}

#[tokio::test]
async fn a_folder_that_cannot_be_made_is_a_matter_of_configuration() {
    let user = User::new();
    let taken = user.file("taken", "");
    let config = user.file(
        "run.toml",
        &format!("[link]\nurl = \"ws://127.0.0.1:1\"\ntoken = {{ file = \"{taken}\" }}\n[runner]\nid = \"a\"\nlisten = \"none\"\ndata_dir = \"{taken}/data\"\n[executors.here]\nkind = \"local\"\n"),
    );
    user.run(&["run", "-c", &config])
        .await
        .expect(2, "taken/data");
}

#[tokio::test]
async fn a_certificate_that_cannot_be_read_is_a_matter_of_configuration() {
    let user = User::new();
    let token = user.file("token", "hr_x");
    let data = user.path("data").display().to_string();
    let config = user.file(
        "run.toml",
        &format!("[link]\nurl = \"wss://127.0.0.1:1\"\nca = \"/nowhere/ca.pem\"\ntoken = {{ file = \"{token}\" }}\n[runner]\nid = \"a\"\nlisten = \"none\"\ndata_dir = \"{data}\"\n[executors.here]\nkind = \"local\"\n"),
    );
    user.run(&["run", "-c", &config])
        .await
        .expect(2, "`/nowhere/ca.pem` (link.ca)");
}

#[tokio::test]
async fn exec_says_what_it_cannot_run() {
    let user = User::new();
    let good = user.file("good.yaml", "name: a\ncommand: ['true']\n");
    user.run(&["exec", &user.path("gone.yaml").display().to_string()])
        .await
        .expect(2, "gone.yaml");
    user.run(&["exec", &good, "--executor", "slurm"])
        .await
        .expect(2, "no executor of kind `slurm`");
    let missing = user.file("missing.yaml", "name: a\ncommand: [no-such-program-here]\n");
    user.run(&["exec", &missing]).await.expect(1, "(spec)");
    let secret = user.file(
        "secret.yaml",
        "name: a\ncommand: ['true']\nenv: { A: 'secret:/gone' }\n",
    );
    user.run(&["exec", &secret]).await.expect(1, "(secret)");
    let shown = user.file(
        "shown.yaml",
        "name: a\ncommand: ['true']\nargs: ['-p${secret:/prod/pw}']\n",
    );
    for words in [&["validate", &shown][..], &["exec", &shown]] {
        user.run(words).await.expect(2, "shown.yaml:3:");
    }
    user.run(&["exec", &secret, "--dry-run"])
        .await
        .expect(1, "SECRET_GONE");
    let mut dry = user.command(&["exec", &secret, "--dry-run"]);
    dry.env("SECRET_GONE", "hunter2");
    let ran = Ran::of(dry).await.expect(0, "`secret:/gone`: found");
    assert!(
        !ran.out.contains("hunter2") && !ran.err.contains("hunter2"),
        "{ran:?}"
    );
}

#[tokio::test]
async fn exec_json_is_one_object_a_line_and_the_end_comes_last() {
    let user = User::new();
    let file = user.file("a.yaml", "name: a\ncommand: [sh, -c, 'echo one; exit 3']\n");
    let ran = user.run(&["exec", &file, "--json"]).await.expect(1, "one");
    let lines: Vec<serde_json::Value> = ran
        .out
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines[0]["text"], "one\n");
    let last = lines.last().unwrap();
    assert_eq!(
        (
            &last["state"],
            &last["failure"]["class"],
            &last["failure"]["exit_code"]
        ),
        (&"failed".into(), &"exit".into(), &3.into())
    );
}

/// Starts a command and waits for a line of its output.
async fn until(command: &mut Command, words: &str) -> Child {
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let seen = async {
        while let Some(line) = lines.next_line().await.unwrap() {
            if line.contains(words) {
                return true;
            }
        }
        false
    };
    assert!(timeout(LIMIT, seen).await.unwrap(), "never said `{words}`");
    child.stdout = Some(lines.into_inner().into_inner());
    child
}

fn signal(child: &Child, signal: Signal) {
    let pid = i32::try_from(child.id().unwrap()).unwrap();
    kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}

#[tokio::test]
async fn a_signal_stops_the_run_of_exec() {
    for (number, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let user = User::new();
        let mark = user.path("ended");
        let text = format!(
            "name: a\ngrace: 10s\ncommand: [sh, -c, 'trap \"touch {}; exit 1\" TERM; echo up; while :; do sleep 0.05; done']\n",
            mark.display()
        );
        let file = user.file("a.yaml", &text);
        let mut child = until(&mut user.command(&["exec", &file]), "up").await;
        signal(&child, number);
        let status = timeout(LIMIT, child.wait()).await.unwrap().unwrap();
        assert_eq!(status.code(), Some(code));
        assert!(mark.exists(), "the run was not asked to end");
    }
}

#[cfg(feature = "server")]
mod with_a_control_plane {
    use super::*;

    #[tokio::test]
    async fn dev_once_exits_like_the_worst_of_its_runs() {
        let user = User::new();
        let good = user.file("good.yaml", "name: good\ncommand: [echo, fine]\n");
        let bad = user.file("bad.yaml", "name: bad\ncommand: ['false']\n");
        let ran = user.run(&["dev", "--once", &good]).await.expect(0, "fine");
        assert_eq!(ran.out, "fine\n");
        user.run(&["dev", "--once", &bad, &good])
            .await
            .expect(1, "exit code 1");
        user.run(&[
            "dev",
            "--once",
            &user.path("gone.yaml").display().to_string(),
        ])
        .await
        .expect(2, "gone.yaml");
    }

    /// A `dev` that stays, and what its clients need.
    struct Dev {
        user: User,
        child: Child,
        server: String,
        token: String,
    }

    impl Dev {
        async fn start() -> Self {
            let user = User::new();
            let quick = user.file("quick.yaml", "name: quick\ncommand: [echo, ready]\n");
            let data = user.path("data");
            let mut command = user.command(&["dev", "--data-dir", data.to_str().unwrap(), &quick]);
            command.stderr(Stdio::piped());
            let mut child = until(&mut command, "ready").await;
            let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
            let first = timeout(LIMIT, lines.next_line())
                .await
                .unwrap()
                .unwrap()
                .unwrap();
            child.stderr = Some(lines.into_inner().into_inner());
            let server = first.split_whitespace().last().unwrap().to_owned();
            let token = fs::read_to_string(data.join("server/admin.token"))
                .unwrap()
                .trim()
                .to_owned();
            Self {
                user,
                child,
                server,
                token,
            }
        }

        fn command(&self, args: &[&str]) -> Command {
            let mut command = self.user.command(args);
            command
                .env("HYBRID_RUNNER_SERVER", &self.server)
                .env("HYBRID_RUNNER_TOKEN", &self.token);
            command
        }

        async fn run(&self, args: &[&str]) -> Ran {
            Ran::of(self.command(args)).await
        }
    }

    #[tokio::test]
    async fn the_clients_tell_what_scripts_need() {
        let mut dev = Dev::start().await;
        let bad = dev.user.file(
            "bad.yaml",
            "name: bad\ncommand: [sh, -c, 'echo a; echo b; exit 4']\n",
        );
        let ran = dev
            .run(&["submit", &bad, "--key", "k"])
            .await
            .expect(0, "-");
        let id = ran.out.trim().to_owned();
        assert_eq!(
            dev.run(&["submit", &bad, "--key", "k"]).await.out.trim(),
            id,
            "one key is one run"
        );
        dev.run(&["logs", "-f", &id]).await.expect(1, "exit code 4");
        assert_eq!(
            dev.run(&["logs", &id, "--tail", "1"])
                .await
                .expect(0, "")
                .out,
            "b\n"
        );
        dev.run(&["show", &id[..30]]).await.expect(0, "(exit)");
        dev.run(&["stop", &id]).await.expect(0, "already");
        dev.run(&["runners"]).await.expect(0, "connected");
        dev.run(&["runs", "--state", "failed"]).await.expect(0, &id);
        dev.run(&["submit", "-f", &bad, "--json"])
            .await
            .expect(1, "\"class\":\"exit\"");

        dev.run(&["show", "0000"]).await.expect(1, "no run `0000`");
        dev.run(&["runs", "--state", "asleep"])
            .await
            .expect(2, "asleep");
        dev.run(&["submit", &bad, "--runner", "nowhere/else"])
            .await
            .expect(2, "nowhere/else");
        let mut stranger = dev.command(&["runs"]);
        stranger.env("HYBRID_RUNNER_TOKEN", "hr_wrong");
        Ran::of(stranger).await.expect(4, "token");
        let made = dev
            .run(&["token", "create", "--role", "client", "--json"])
            .await
            .expect(0, "token");
        let made: serde_json::Value = serde_json::from_str(&made.out).unwrap();
        dev.run(&["token", "revoke", made["id"].as_str().unwrap()])
            .await
            .expect(0, "revoked");
        let mut revoked = dev.command(&["runs"]);
        revoked.env("HYBRID_RUNNER_TOKEN", made["token"].as_str().unwrap());
        Ran::of(revoked).await.expect(4, "revoked");

        signal(&dev.child, Signal::TERM);
        let status = timeout(LIMIT, dev.child.wait()).await.unwrap().unwrap();
        assert_eq!(status.code(), Some(0));
        dev.run(&["runs"])
            .await
            .expect(3, "failed to reach the control plane");
    }

    #[tokio::test]
    async fn a_signal_leaves_a_followed_run_and_stop_ends_it() {
        let dev = Dev::start().await;
        let long = dev.user.file(
            "long.yaml",
            "name: long\ngrace: 5s\ncommand: [sh, -c, 'echo up; exec sleep 600']\n",
        );
        let mut child = until(&mut dev.command(&["submit", "-f", &long]), "up").await;
        signal(&child, Signal::INT);
        let status = timeout(LIMIT, child.wait()).await.unwrap().unwrap();
        assert_eq!(status.code(), Some(130));
        let ran = dev.run(&["runs", "--state", "running", "--json"]).await;
        let runs: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
        let id = runs[0]["id"].as_str().unwrap();
        dev.run(&["stop", id]).await.expect(0, "stopping");
        dev.run(&["logs", "-f", id]).await.expect(1, "stopped");
    }
}
