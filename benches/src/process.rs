//! One child process; what `/proc` says about it.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context as _, Result};
use tokio::process::{Child, Command};

/// A child; killed when dropped.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    pub(crate) pid: u32,
}

impl Process {
    /// Starts a program; what it says goes to a file.
    pub(crate) fn start(
        program: &Path,
        args: &[&str],
        env: &[(String, String)],
        said: &Path,
    ) -> Result<Self> {
        let log = File::options().create(true).append(true).open(said)?;
        let child = Command::new(program)
            .args(args.iter().map(OsStr::new))
            .envs(env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("failed to start `{}`", program.display()))?;
        let pid = child.id().context("it has a pid until it is waited for")?;
        Ok(Self { child, pid })
    }

    /// `kill -9`, and waits for the end.
    pub(crate) async fn kill(mut self) -> Result<()> {
        self.child.kill().await.context("failed to kill a child")
    }

    pub(crate) fn memory(&self) -> Result<Memory> {
        Memory::of(self.pid)
    }

    /// Ticks of processor time used so far, by all threads.
    pub(crate) fn ticks(&self) -> Result<u64> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid))?;
        let after_name = stat.rsplit(')').next().unwrap_or_default();
        let words: Vec<&str> = after_name.split_whitespace().collect();
        let [user, system] =
            [11, 12].map(|at| words.get(at).and_then(|word| word.parse::<u64>().ok()));
        Ok(user.context("utime")? + system.context("stime")?)
    }

    pub(crate) fn threads(&self) -> Result<usize> {
        Ok(fs::read_dir(format!("/proc/{}/task", self.pid))?.count())
    }
}

/// What a process occupies, in KiB.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Memory {
    pub(crate) rss: f64,
    pub(crate) pss: f64,
    pub(crate) anonymous: f64,
}

impl Memory {
    pub(crate) fn of(pid: u32) -> Result<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))
            .with_context(|| format!("process {pid}"))?;
        let field = |name: &str| {
            let line = text.lines().find(|line| line.starts_with(name))?;
            line.split_whitespace().nth(1)?.parse().ok()
        };
        Ok(Self {
            rss: field("Rss:").context("Rss")?,
            pss: field("Pss:").context("Pss")?,
            anonymous: field("Anonymous:").context("Anonymous")?,
        })
    }
}

/// The processes whose arguments hold this text, each with its parent.
pub(crate) fn with_argument(text: &str) -> Result<Vec<(u32, u32)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?
            .file_name()
            .to_str()
            .and_then(|name| name.parse::<u32>().ok())
        else {
            continue;
        };
        // It may have ended meanwhile.
        let Ok(line) = fs::read(format!("/proc/{pid}/cmdline")) else {
            continue;
        };
        if !line
            .split(|byte| *byte == 0)
            .any(|word| word == text.as_bytes())
        {
            continue;
        }
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let parent = stat
            .rsplit(')')
            .next()
            .and_then(|rest| rest.split_whitespace().nth(1)?.parse().ok());
        if let Some(parent) = parent {
            found.push((pid, parent));
        }
    }
    Ok(found)
}
