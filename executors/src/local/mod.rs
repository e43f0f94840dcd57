//! Processes on this machine.
//!
//! Each run has a folder and a helper process ([`hybrid_runner_helper`]) that owns its processes, masks and spools its output,
//! enforces its limits, and records its end. The helper outlives this program; everything here works from the folder
//! alone, so that coming back after a crash is the same as looking for the first time.
//!
//! | file | holds |
//! |---|---|
//! | [`config`] | the section `[executors.NAME]` |
//! | `folder` | what is in the folder of a run, and how the run stands by it |
//! | `plan`, `program`, `start` | what the helper is told; its program; claim, spawn, answer |
//! | `bell`, `watch`, `status` | who waits hears of changes; the levels; the words of the contract |
//! | `spool`, `cursor`, `logs` | reading output; a place in it; following it |
//! | `room` | what the logs of all runs may take together |
//! | `stop` | stop and remove |
//! | `settle`, `process`, `cgroup` | a helper that was killed: what it left is killed, and the loss recorded |
//!
//! # What a run gets
//!
//! The environment is clean: `PATH`, `HOME`, `LANG`, `TZ` and `TMPDIR` of the runner (`env` in the section chooses others), the
//! run's own variables, and `WORKFLOW_*`. It starts in an empty folder of its own unless `workdir` says otherwise. Its
//! config is `config.json` (`config.yaml` if it was written as text), beside its `files`, in a private folder in memory.
//! `resources.requests` mean nothing on one machine and are accepted.

mod bell;
mod cgroup;
pub mod config;
mod cursor;
mod folder;
mod logs;
mod plan;
mod process;
mod program;
mod room;
mod settle;
mod spool;
mod start;
mod status;
mod stop;
mod watch;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use hybrid_runner_core::error::{Error, Result};
use hybrid_runner_core::executor::{Capabilities, Executor, Handle, Progress};
use hybrid_runner_core::id::{Owner, SectionName};
use hybrid_runner_core::kind::{Context, Kind};
use hybrid_runner_core::run::{RunSpec, Status};
use hybrid_runner_core::secret::Secrets;
use hybrid_runner_core::{LogChunk, LogCursor, RunId};
use rustix::fs::Access;
use serde::Deserialize;

pub use config::LocalConfig;

use bell::Bells;
use cgroup::Groups;
use config::{CgroupUse, PrivatePlace, Settings};
use folder::{Folder, SPEC, io_error};
use program::Program;
use room::Room;

use crate::turns::Turns;

/// The executor's entry in [`crate::KINDS`].
pub const KIND: Kind<dyn Executor> = Kind {
    name: "local",
    summary: "processes on this machine",
    build: |context| Ok(Arc::new(Local::new(context)?)),
    schema: || schemars::schema_for!(LocalConfig),
};

/// Of the handle's state.
const VERSION: u16 = 1;
/// Folders of removed runs begin with this until they are deleted.
const TRASH: &str = ".removed-";

/// Runs work as processes on this machine. See the [module](self).
#[derive(Debug)]
pub struct Local(Arc<Shared>);

/// What the methods share; streams hold it too.
#[derive(Debug)]
struct Shared {
    name: SectionName,
    settings: Settings,
    owner: Owner,
    /// The folders of all runs of this owner.
    root: PathBuf,
    room: Room,
    program: Program,
    groups: OnceLock<Result<Groups, String>>,
    bells: Bells,
    turns: Turns,
}

impl Local {
    /// The executor of a section. Touches nothing yet.
    pub fn new(context: &Context) -> Result<Self> {
        let settings = Settings::read(context, |name| std::env::var_os(name))?;
        let data_dir = std::path::absolute(&context.data_dir)
            .map_err(|error| io_error("find", &context.data_dir, error))?;
        Ok(Self(Arc::new(Shared {
            name: context.name.clone(),
            settings,
            owner: context.owner.clone(),
            root: data_dir.join("runs").join(context.owner.as_str()),
            room: Room::new(context.spool_per_run, context.spool_total),
            program: Program::new(data_dir),
            groups: OnceLock::new(),
            bells: Bells::default(),
            turns: Turns::default(),
        })))
    }
}

#[async_trait]
impl Executor for Local {
    async fn capabilities(&self) -> Result<Capabilities> {
        let shared = Arc::clone(&self.0);
        blocking(move || Ok(shared.capabilities())).await
    }

    async fn check(&self) -> Result<()> {
        let shared = Arc::clone(&self.0);
        blocking(move || shared.check()).await
    }

    async fn start(
        &self,
        spec: &RunSpec,
        secrets: &Secrets,
        progress: &Progress,
    ) -> Result<Handle> {
        start::start(&self.0, spec, secrets, progress).await
    }

    fn watch(&self, run: &Handle) -> BoxStream<'static, Result<Status>> {
        watch::watch(Arc::clone(&self.0), self.0.folder(run.run))
    }

    fn logs(&self, run: &Handle, from: Option<LogCursor>) -> BoxStream<'static, Result<LogChunk>> {
        logs::follow(Arc::clone(&self.0), self.0.folder(run.run), from)
    }

    async fn stop(&self, run: &Handle, grace: Duration) -> Result<()> {
        stop::stop(&self.0, run.run, grace).await
    }

    async fn remove(&self, run: &Handle) -> Result<()> {
        stop::remove(&self.0, run.run).await
    }

    async fn list(&self) -> Result<Vec<Handle>> {
        let shared = Arc::clone(&self.0);
        blocking(move || shared.list()).await
    }
}

impl Shared {
    fn folder(&self, run: RunId) -> Folder {
        Folder {
            run,
            path: self.root.join(run.to_string()),
        }
    }

    /// Our part of the control groups, or why there is none.
    fn groups(&self) -> Result<&Groups, &String> {
        self.groups
            .get_or_init(|| match self.settings.cgroup {
                CgroupUse::Off => Err("`cgroup = \"off\"` is set".to_owned()),
                CgroupUse::Auto => Groups::open(&self.owner),
            })
            .as_ref()
    }

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::least();
        capabilities.streams = true;
        capabilities.masks = true;
        match self.groups() {
            Ok(groups) => {
                capabilities.resources = groups.limits();
                capabilities.contained = groups.kill;
                if !groups.limits() {
                    capabilities.notes.push("the control group has no controllers for memory, cpu and pids: limits are refused".to_owned());
                }
            }
            Err(why) => capabilities
                .notes
                .push(format!("no control groups ({why}): limits are refused")),
        }
        if !capabilities.contained {
            capabilities.notes.push("if the helper of a run is killed, processes of it that left its session and cleared their environment may survive".to_owned());
        }
        if self.settings.private == PrivatePlace::RunFolder {
            capabilities.notes.push("no memory file system is there for private files: they are on disk until their run is removed; `private_dir` names a better place".to_owned());
        }
        capabilities
    }

    /// Whether runs could be started here.
    fn check(&self) -> Result<()> {
        // The nearest folder that is there; the rest is made by the first start.
        let there = self.root.ancestors().find(|path| path.exists());
        let there = there.unwrap_or(Path::new("/"));
        may_write(there, "keep runs in")?;
        match &self.settings.private {
            PrivatePlace::In(place) => may_write(place, "keep private files in"),
            PrivatePlace::RunFolder => Ok(()),
        }
    }

    /// All runs that have a folder here; those of other owners have theirs elsewhere.
    fn list(&self) -> Result<Vec<Handle>> {
        let failed = |error| io_error("list the runs in", &self.root, error);
        let entries = match fs::read_dir(&self.root) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(failed)?,
        };
        let mut handles = Vec::new();
        for entry in entries {
            let name = entry.map_err(failed)?.file_name();
            let Some(name) = name.to_str() else { continue };
            match name.parse() {
                Ok(run) => handles.push(self.found(run)),
                Err(_) => stop::sweep(self, name),
            }
        }
        Ok(handles)
    }

    fn found(&self, run: RunId) -> Handle {
        #[derive(Deserialize)]
        struct Named {
            name: String,
        }
        // Without a spec: stopped before it started.
        let spec = self.folder(run).read(SPEC).ok().flatten();
        match spec.and_then(|spec| serde_json::from_slice::<Named>(&spec).ok()) {
            Some(spec) => handle(run, &spec.name),
            None => Handle::of(run),
        }
    }
}

fn handle(run: RunId, name: &str) -> Handle {
    Handle::with_state(run, VERSION, serde_json::json!({ "name": name }))
}

fn may_write(path: &Path, what: &str) -> Result<()> {
    if !path.is_dir() {
        return Err(io_error(what, path, io::ErrorKind::NotADirectory.into()));
    }
    rustix::fs::access(path, Access::WRITE_OK | Access::EXEC_OK)
        .map_err(|error| io_error(what, path, error.into()))
}

/// Runs file operations where they may block. What was begun is finished even if nobody waits for it any more.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|error| {
        Error::internal("a file operation ended unexpectedly").with_source(error)
    })?
}
