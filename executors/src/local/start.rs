//! Starting a run: the folder is claimed, the helper spawned and fed, its answer awaited.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::sync::Arc;
use std::time::Duration;

use hybrid_runner_core::error::{Error, Result};
use hybrid_runner_core::executor::{Handle, Progress};
use hybrid_runner_core::fault;
use hybrid_runner_core::run::{Amounts, RunSpec};
use hybrid_runner_core::secret::Secrets;
use hybrid_runner_helper::files;
use hybrid_runner_helper::payload::Private;
use hybrid_runner_helper::report::Report;
use hybrid_runner_helper::spool::{Item, Record};
use rustix::io::Errno;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::Child;
use tokio::time::Instant;

use super::folder::{Folder, Level, SPEC, WORK, now};
use super::plan::Plan;
use super::{Shared, blocking};

/// A helper answers within milliseconds; a machine that is this slow is out of order.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks at a run that somebody else is starting; doubled each time.
const PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(200);
/// The longest answer.
const ANSWER: u64 = 4096;

/// Starts a run, or completes a start that was left half done.
pub(super) async fn start(
    shared: &Arc<Shared>,
    spec: &RunSpec,
    secrets: &Secrets,
    progress: &Progress,
) -> Result<Handle> {
    let folder = shared.folder(spec.run);
    let handle = super::handle(spec.run, spec.name.as_str());
    // Wrong or not: a run that was started before needs none.
    let mut claim = Claim::new(shared, spec, secrets);
    for note in claim.iter().flat_map(|claim| &claim.notes) {
        progress.report(note);
    }
    let deadline = Instant::now() + PATIENCE;
    let mut pause = PAUSE;
    while Instant::now() < deadline {
        let alone = shared.turns.take(spec.run).await;
        let looked = folder.clone();
        let spawned = blocking(move || {
            let _alone = alone;
            if stands(&looked)? == Stands::Started {
                return Ok(None);
            }
            let mut claim = claim?;
            claim.refuse_limits()?;
            let (child, payload) = claim.spawn()?;
            Ok(Some((claim, child, payload)))
        });
        let Some((same, child, payload)) = spawned.await? else {
            return Ok(handle);
        };
        claim = Ok(same);
        fault::step("local.start.spawned");
        let Ok(answer) = tokio::time::timeout_at(deadline, feed(child, &payload)).await else {
            break;
        };
        if is_final(&folder, answer?)? {
            return Ok(handle);
        }
        // Another has it, or it died before it answered: the folder tells, or it is tried again.
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
    Err(Error::unavailable(format!(
        "the helper of run `{}` did not answer within {} s",
        folder.run,
        PATIENCE.as_secs()
    )))
}

#[derive(Debug, PartialEq, Eq)]
enum Stands {
    Open,
    Started,
}

/// Whether the run has been started; a stop forbids it for ever.
fn stands(folder: &Folder) -> Result<Stands> {
    if folder.has(files::STOP)? {
        return Err(Error::conflict(format!(
            "run `{}` was stopped and will not be started again",
            folder.run
        )));
    }
    let started = folder.has(files::STARTED)? || folder.over()?.is_some();
    Ok(if started {
        Stands::Started
    } else {
        Stands::Open
    })
}

/// What is needed to make a run's folder and its helper.
struct Claim {
    shared: Arc<Shared>,
    folder: Folder,
    spec: Vec<u8>,
    limits: Amounts,
    /// Lines for the log.
    notes: Vec<String>,
    plan: Plan,
}

impl Claim {
    /// Refuses what cannot be run, before anything is made.
    fn new(shared: &Arc<Shared>, spec: &RunSpec, secrets: &Secrets) -> Result<Self> {
        let folder = shared.folder(spec.run);
        let plan = Plan::of(spec, secrets, &shared.settings, &folder)?;
        plan.encode()?;
        Ok(Self {
            shared: Arc::clone(shared),
            folder,
            spec: serde_json::to_vec_pretty(spec)
                .map_err(|error| Error::internal("failed to write JSON").with_source(error))?,
            limits: spec.resources.limits.clone(),
            notes: spec
                .image
                .as_deref()
                .map(image_note)
                .into_iter()
                .chain(crate::private::short_values(secrets))
                .collect(),
            plan,
        })
    }

    /// Makes the folder, what the helper needs in it, and the helper. Each step may have been done before.
    fn spawn(&mut self) -> Result<(Child, Private)> {
        let folder = &self.folder;
        folder.create()?;
        fault::step("local.start.claimed");
        folder.write(SPEC, &self.spec)?;
        fault::step("local.start.described");
        if self.plan.needs_workdir {
            make_workdir(folder)?;
        }
        if !self.notes.is_empty() {
            say(folder, &self.notes)?;
        }
        if let Ok(groups) = self.shared.groups() {
            let group = groups
                .create(folder.run, &self.limits)
                .map_err(|error| folder.failed("make the control group of", error))?;
            self.plan.enter(&group);
        }
        self.plan
            .limit_log(self.shared.room.limit(&self.shared.root));
        let payload = self.plan.encode()?;
        fault::step("local.start.prepared");
        let child = self.shared.program.spawn(&folder.path).map_err(|error| {
            Error::unavailable("failed to start the helper of the run").with_source(error)
        })?;
        Ok((child, payload))
    }

    /// Refuses limits that cannot be enforced here, unless they are to be ignored.
    fn refuse_limits(&self) -> Result<()> {
        if self.limits.is_empty() || self.shared.settings.ignore_resources {
            return Ok(());
        }
        let why = match self.shared.groups() {
            Err(why) => why.clone(),
            Ok(groups) => match groups.missing(&self.limits) {
                None => return Ok(()),
                Some(name) => format!("the controller `{name}` is not there"),
            },
        };
        Err(Error::unsupported(format!(
            "`resources.limits` cannot be enforced on this machine; to run without them set `ignore = [\"resources\"]` in [executors.{}]",
            self.shared.name
        ))
        .with_source(why))
    }
}

fn make_workdir(folder: &Folder) -> Result<()> {
    match DirBuilder::new().mode(0o700).create(folder.path.join(WORK)) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(folder.failed("make", error))
        }
        _ => Ok(()),
    }
}

fn image_note(image: &str) -> String {
    format!(
        "the local executor uses no image: `{image}` is ignored, the command runs on this machine"
    )
}

/// Writes lines into the log, before the helper does.
fn say(folder: &Folder, notes: &[String]) -> Result<()> {
    let lines: Vec<_> = notes
        .iter()
        .map(|note| format!("hybrid-runner: {note}\n"))
        .collect();
    let record = Record {
        time: now(),
        item: Item::Err(lines.concat().into_bytes()),
    };
    let log = folder.path.join(files::LOG);
    let made = OpenOptions::new()
        .append(true)
        .create_new(true)
        .mode(0o600)
        .open(&log);
    match made {
        // By an earlier start, or another that is at it now.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made
            .and_then(|mut file| file.write_all(&record.encode()))
            .map_err(|error| {
                // Half a record would hide what follows it.
                fs::remove_file(&log).ok();
                folder.failed("write to", error)
            }),
    }
}

/// Hands the payload over and reads the one line of the answer. `None`: it died before it answered.
///
/// Dropped midway, the pipe closes and the helper ends without having started anything.
async fn feed(mut child: Child, payload: &Private) -> Result<Option<Report>> {
    let mut stdin = child.stdin.take().expect("it was asked for");
    let stdout = child.stdout.take().expect("it was asked for");
    // A helper that ends at once reads nothing; its answer says why.
    if stdin.write_all(payload.expose()).await.is_ok() {
        stdin.shutdown().await.ok();
    }
    drop(stdin);
    let mut line = String::new();
    BufReader::with_capacity(256, stdout.take(ANSWER))
        .read_line(&mut line)
        .await
        .map_err(|error| {
            Error::unavailable("failed to read the answer of the helper").with_source(error)
        })?;
    if line.is_empty() {
        return Ok(None);
    }
    match Report::parse(&line) {
        Some(report) => Ok(Some(report)),
        None => Err(Error::internal(format!(
            "the helper gave an answer that this version does not know: `{}`",
            hybrid_runner_core::id::shorten(line.trim_end())
        ))),
    }
}

/// Whether the answer means that the run was started; `false`: look into the folder, or try again.
fn is_final(folder: &Folder, answer: Option<Report>) -> Result<bool> {
    match answer {
        Some(Report::Started { .. } | Report::SpawnFailed | Report::Already) => Ok(true),
        Some(Report::Stopped) => stands(folder).map(|stands| stands == Stands::Started),
        Some(Report::BadPayload(why)) => {
            Err(Error::internal("the helper refused the run").with_source(why))
        }
        Some(Report::Failed { errno, what }) => {
            let error = io::Error::from(Errno::from_raw_os_error(errno));
            tracing::debug!(run = %folder.run, what, %error, "the helper could not use the folder");
            Err(folder.failed(&format!("start the run ({what}) in"), error))
        }
        _ => Ok(false),
    }
}

impl Shared {
    /// How runs stand over all methods: dead helpers are settled on the way.
    pub(super) async fn observe(&self, folder: &Folder) -> Result<Level> {
        let looked = folder.clone();
        match blocking(move || looked.level()).await? {
            Level::Dead(_) => super::settle::settle(folder).await,
            level => Ok(level),
        }
    }
}
