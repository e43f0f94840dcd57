//! What is tried: a program, or a section of the configuration.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt as _;
use hybrid_runner_core::RunId;
use hybrid_runner_core::error::{Error, ErrorKind, Result};
use hybrid_runner_core::executor::{Capabilities, Executor, Handle, Progress};
use hybrid_runner_core::id::{AgentId, Owner};
use hybrid_runner_core::kind::{Context, Kind};
use hybrid_runner_core::plugin::Contract;
use hybrid_runner_core::plugin::host::{Host, Launch, PluginSettings, caution};
use hybrid_runner_core::run::RunSpec;
use hybrid_runner_core::secret::Secrets;
use hybrid_runner_core::testing::{Harness, Script, Step, processes_of};
use hybrid_runner_executors::plugin::Plugin;
use tokio::time::timeout;

use super::frames::Frames;

/// The owners whose runs the suite starts.
const OWNERS: [&str; 2] = ["One", "Other"];

/// How a candidate is tried.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Options {
    /// The folder of the configuration file.
    pub config_dir: Option<PathBuf>,
    /// Where the candidate keeps its files; made for the trial and removed by its owner.
    pub folder: PathBuf,
    /// The image of the suite's workloads, for backends that need one.
    pub image: Option<String>,
    /// How long one step may take.
    pub patience: Duration,
    /// The shortest time that the backend keeps well.
    pub tick: Duration,
    /// All executors of the suite are one process: for a backend that lives in it.
    pub one_process: bool,
    /// The contract that it is held to; none: what it says that it can be.
    pub contract: Option<Contract>,
}

impl Options {
    /// The usual ones.
    pub fn new(folder: PathBuf) -> Self {
        Self {
            config_dir: None,
            folder,
            image: None,
            patience: Duration::from_secs(10),
            tick: Duration::from_millis(400),
            one_process: false,
            contract: None,
        }
    }
}

/// What is tried. Cheap to clone.
#[derive(Clone)]
pub struct Candidate {
    subject: Subject,
    options: Options,
    frames: Frames,
    /// What was found out by asking.
    probed: Probed,
    /// The one executor of a backend that lives in its process.
    only: Option<Arc<dyn Executor>>,
}

#[derive(Clone)]
enum Subject {
    Program(PluginSettings),
    Section(Kind<dyn Executor>, serde_json::Value),
}

#[derive(Debug, Clone)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent yes-or-no facts, as they were found"
)]
struct Probed {
    contract: Contract,
    software: String,
    masks: bool,
    notes: Vec<String>,
    /// Whether its workloads run on this machine, where we can see them.
    here: bool,
    named: bool,
    pub(super) put: bool,
}

impl fmt::Debug for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Candidate").field(&self.probed).finish()
    }
}

impl Candidate {
    /// A program that speaks over its stdin and stdout.
    pub fn program(settings: PluginSettings, options: Options) -> Self {
        Self::new(Subject::Program(settings), options)
    }

    /// An executor of some other kind, as a section of the configuration has it.
    pub fn section(
        kind: Kind<dyn Executor>,
        settings: serde_json::Value,
        options: Options,
    ) -> Self {
        Self::new(Subject::Section(kind, settings), options)
    }

    fn new(subject: Subject, options: Options) -> Self {
        let contract = options.contract.unwrap_or(Contract::Executor);
        let software = match &subject {
            Subject::Program(settings) => settings.command.first().cloned().unwrap_or_default(),
            Subject::Section(kind, _) => kind.name.to_owned(),
        };
        Self {
            subject,
            options,
            frames: Frames::default(),
            probed: Probed {
                contract,
                software,
                masks: false,
                notes: Vec::new(),
                here: false,
                named: true,
                put: false,
            },
            only: None,
        }
    }

    /// Its messages.
    pub fn frames(&self) -> &Frames {
        &self.frames
    }

    /// Which contract it keeps.
    pub fn contract(&self) -> Contract {
        self.probed.contract
    }

    /// The contract that it is held to, if that was said.
    pub(super) fn fixed_contract(&self) -> Option<Contract> {
        self.options.contract
    }

    /// What a person should know of it besides.
    pub(super) fn notes(&self) -> Vec<String> {
        self.probed.notes.clone()
    }

    /// Its own name and version; what was named, as long as it has not said.
    pub fn software(&self) -> &str {
        &self.probed.software
    }

    /// Whether there is a pipe.
    pub fn is_program(&self) -> bool {
        matches!(self.subject, Subject::Program(_))
    }

    pub(super) fn puts(&self) -> bool {
        self.probed.put
    }

    pub(super) fn masks(&self) -> bool {
        self.probed.masks
    }

    fn context(&self, owner: &str) -> Context {
        let agent: AgentId = owner.parse().expect("the suite's owners are agents");
        let name = "tested".parse().expect("a section's name");
        let mut settings = serde_json::Value::default();
        if let Subject::Section(_, of_section) = &self.subject {
            settings.clone_from(of_section);
        }
        let data_dir = self.options.folder.join("data");
        let owner = Owner::of("contract", &agent);
        let context = Context::new(name, settings, data_dir, owner, 1 << 30);
        let mut context = context.with_config_dir(self.options.config_dir.clone());
        context.trace = Some(self.frames.trace());
        context
    }

    /// A process of its own. `mask`: whether we mask what it says, as we do for a user.
    pub(super) fn host(&self, owner: &str, mask: bool) -> Result<Host> {
        let Subject::Program(settings) = &self.subject else {
            return Err(Error::internal("a section has no process"));
        };
        let context = self.context(owner);
        let mut launch = Launch::new(self.probed.contract, &context, settings, |name| {
            std::env::var_os(name)
        })?;
        launch.trace = Some(self.frames.trace());
        launch.mask = mask;
        Ok(Host::new(launch))
    }

    /// The executor of a process, as a user has it.
    pub(super) fn plugin(&self, host: Host) -> Plugin {
        Plugin::of(host, &self.context("One"))
    }

    fn build(&self, owner: &str) -> Result<Arc<dyn Executor>> {
        match &self.subject {
            // One that says that it masks is to be seen as it is.
            Subject::Program(_) => Ok(Arc::new(Plugin::of(
                self.host(owner, !self.probed.masks)?,
                &self.context(owner),
            ))),
            Subject::Section(kind, _) => (kind.build)(&self.context(owner)),
        }
    }

    /// Asks what it is, and whether its workloads can be seen from here.
    pub(super) async fn probed(mut self) -> Result<Self> {
        if self.is_program() {
            self.greet().await?;
        } else {
            let can = self.build("One")?.capabilities().await?;
            self.take(&can);
        }
        if self.probed.contract == Contract::Secrets {
            return Ok(self);
        }
        if self.options.one_process {
            self.only = Some(self.build("One")?);
        }
        self.probed.here = self.leaves_evidence().await;
        Ok(self)
    }

    /// The first exchange: as what it is said to be; else as an executor, and as a secret store if it says that it is none.
    async fn greet(&mut self) -> Result<()> {
        let asked = self.host("One", true)?.welcome().await;
        let is_open = self.options.contract.is_none();
        let is_none = match &asked {
            Err(error) => error.kind() == ErrorKind::Unsupported,
            // A store need not look at what it is asked to be.
            Ok(welcome) => welcome.capabilities.is_none(),
        };
        let welcome = if is_open && is_none {
            self.probed.contract = Contract::Secrets;
            if let Ok(welcome) = self.host("One", true)?.welcome().await {
                welcome
            } else {
                // What it said as an executor is the better answer if it is no store either.
                self.probed.contract = Contract::Executor;
                asked?
            }
        } else {
            asked?
        };
        if !welcome.software.is_empty() {
            self.probed.software.clone_from(&welcome.software);
        }
        if self.probed.contract == Contract::Executor && welcome.capabilities.is_none() {
            return Err(Error::invalid(
                "its answer to `hello` has no `capabilities`, which an executor names",
            ));
        }
        self.probed.put = welcome.put;
        if let Some(can) = &welcome.capabilities {
            self.take(can);
        }
        Ok(())
    }

    fn take(&mut self, can: &Capabilities) {
        self.probed.masks = can.masks;
        self.probed.notes.clone_from(&can.notes);
        let caution = caution(can).filter(|caution| !can.notes.iter().any(|note| note == caution));
        self.probed.notes.extend(caution.map(str::to_owned));
        self.probed.named = can.named_start;
    }

    /// Whether a workload can write to a file of ours.
    async fn leaves_evidence(&self) -> bool {
        let Ok(executor) = self.build_or_only() else {
            return false;
        };
        let path = self.options.folder.join("evidence-of-the-first");
        let run = RunId::generate().attempt(1);
        let script = Script::new().then(Step::Evidence(path.clone()));
        let spec = self.spec(run, &script);
        let tried = async {
            let handle = executor
                .start(&spec, &Secrets::none(), &Progress::none())
                .await
                .ok()?;
            let mut levels = executor.watch(&handle);
            while let Some(Ok(level)) = levels.next().await {
                if level.is_finished() {
                    break;
                }
            }
            executor.remove(&handle).await.ok()
        };
        drop(timeout(self.options.patience, tried).await);
        path.is_file()
    }

    /// Ends and removes every run that the candidate has of the suite, within a limit: for who leaves in the middle of it.
    ///
    /// # Errors
    ///
    /// If runs may be left.
    pub async fn clean_up(&self, limit: Duration) -> Result<()> {
        let cleaned = async {
            let mut known = self.clone();
            if known.is_program() {
                known.greet().await?;
            }
            if known.probed.contract == Contract::Secrets {
                return Ok(());
            }
            for owner in OWNERS {
                let executor = known.build(owner)?;
                let runs = executor.list().await?;
                let ended = runs.iter().map(|run| end_and_remove(&*executor, run));
                futures::future::try_join_all(ended).await?;
            }
            Ok(())
        };
        timeout(limit, cleaned).await.unwrap_or_else(|_| {
            Err(Error::unavailable(format!(
                "the backend did not end and remove its runs within {limit:?}"
            )))
        })
    }

    fn build_or_only(&self) -> Result<Arc<dyn Executor>> {
        match &self.only {
            Some(only) => Ok(Arc::clone(only)),
            None => self.build("One"),
        }
    }
}

/// Ends a run at once, and removes it.
async fn end_and_remove(executor: &dyn Executor, run: &Handle) -> Result<()> {
    // One that has no `stop` may still end by itself.
    drop(executor.stop(run, Duration::ZERO).await);
    let mut levels = executor.watch(run);
    while let Some(level) = levels.next().await {
        level?;
    }
    executor.remove(run).await
}

/// Stands for an executor that could not even be made: says so whatever it is asked.
#[derive(Debug)]
struct Unmade(String);

#[async_trait]
impl Executor for Unmade {
    async fn capabilities(&self) -> Result<Capabilities> {
        Err(self.why())
    }
    async fn check(&self) -> Result<()> {
        Err(self.why())
    }
    async fn start(&self, _: &RunSpec, _: &Secrets, _: &Progress) -> Result<Handle> {
        Err(self.why())
    }
    fn watch(
        &self,
        _: &Handle,
    ) -> futures::stream::BoxStream<'static, Result<hybrid_runner_core::Status>> {
        futures::stream::iter([Err(self.why())]).boxed()
    }
    fn logs(
        &self,
        _: &Handle,
        _: Option<hybrid_runner_core::LogCursor>,
    ) -> futures::stream::BoxStream<'static, Result<hybrid_runner_core::LogChunk>> {
        futures::stream::iter([Err(self.why())]).boxed()
    }
    async fn stop(&self, _: &Handle, _: Duration) -> Result<()> {
        Err(self.why())
    }
    async fn remove(&self, _: &Handle) -> Result<()> {
        Err(self.why())
    }
    async fn list(&self) -> Result<Vec<Handle>> {
        Err(self.why())
    }
}

impl Unmade {
    fn why(&self) -> Error {
        Error::internal(self.0.clone())
    }
}

#[async_trait]
impl Harness for Candidate {
    async fn executor(&self) -> Arc<dyn Executor> {
        self.build_or_only()
            .unwrap_or_else(|error| Arc::new(Unmade(error.report())))
    }

    fn spec(&self, run: RunId, script: &Script) -> RunSpec {
        let mut spec = script.spec(run);
        spec.image.clone_from(&self.options.image);
        spec
    }

    fn tick(&self) -> Duration {
        self.options.tick
    }

    fn patience(&self) -> Duration {
        self.options.patience
    }

    async fn other_owner(&self) -> Option<Arc<dyn Executor>> {
        if self.only.is_some() {
            return None;
        }
        self.build("Other").ok()
    }

    /// Kills the program while it starts the run.
    async fn half_start(&self, spec: &RunSpec, secrets: &Secrets) -> bool {
        if !self.is_program() || !self.probed.named || self.only.is_some() {
            return false;
        }
        let Ok(host) = self.host("One", true) else {
            return false;
        };
        // Its process is there, and knows us.
        if host.welcome().await.is_err() {
            return false;
        }
        let Some(process) = host.process().await else {
            return false;
        };
        let executor = Plugin::of(host, &self.context("One"));
        let none = Progress::none();
        let start = executor.start(spec, secrets, &none);
        // The request is in the pipe once the start has been waited for a moment.
        let answered = timeout(Duration::from_millis(2), start).await;
        kill(process);
        answered.is_err()
    }

    fn decided(&self) {
        self.frames.end();
    }

    async fn alive(&self, run: RunId) -> Option<bool> {
        if !self.probed.here {
            return None;
        }
        processes_of(run).map(|found| !found.is_empty())
    }

    fn evidence(&self, run: RunId) -> Option<PathBuf> {
        let path = self.options.folder.join(format!("evidence-{run}"));
        self.probed.here.then_some(path)
    }
}

/// Kills a process as nobody can prevent.
pub(super) fn kill(process: u32) {
    let process = i32::try_from(process)
        .ok()
        .and_then(rustix::process::Pid::from_raw);
    if let Some(process) = process
        && let Err(error) = rustix::process::kill_process(process, rustix::process::Signal::KILL)
    {
        tracing::debug!(%error, "failed to kill the plugin");
    }
}
