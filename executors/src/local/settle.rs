//! A run whose helper was killed: its leftovers are killed too, and that nobody knows how it ended is recorded.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;
use std::time::Duration;

use hybrid_runner_core::error::Result;
use hybrid_runner_core::fault;
use hybrid_runner_helper::files;
use hybrid_runner_helper::started::Started;
use rustix::fs::FlockOperation;

use super::blocking;
use super::cgroup;
use super::folder::{BOOT, Folder, LOST, Level, Lost, now, path_of};
use super::process::{Leftovers, Round};

/// Between two rounds of killing; a killed process is gone in less.
const PAUSE: Duration = Duration::from_millis(3);
/// About three seconds; what is not gone then hangs in the kernel.
const ROUNDS: usize = 1000;
/// To get the lock.
const TRIES: usize = 20;

/// The private folders that we make begin with this, so that nothing else is ever removed.
pub(super) const PRIVATE_PREFIX: &str = "hybrid-runner-";

/// Settles a run that stands at [`Level::Dead`] and gives its last level. If somebody else is at it, or the helper lives
/// after all, the level is not over yet and changes soon.
///
/// # Cancel safety
///
/// Dropped midway, the run stands at [`Level::Dead`] as before.
pub(super) async fn settle(folder: &Folder) -> Result<Level> {
    // Held until the record is written: nobody else settles this run, and to others it looks alive.
    let mut tries = 0;
    let (lock, started) = loop {
        let looked = folder.clone();
        match blocking(move || take(&looked)).await? {
            Taken::Not(level) => return Ok(level),
            Taken::Dead(lock, started) => break (lock, started),
            // Whoever just looks whether the helper lives holds the lock for an instant.
            Taken::Busy(level) if tries == TRIES => return Ok(level),
            Taken::Busy(_) => tries += 1,
        }
        tokio::time::sleep(PAUSE).await;
    };
    let why = match &started {
        None => "its record of the start is damaged, so that it is not known what ran".to_owned(),
        Some(started) if started.boot != *BOOT => {
            "this machine was restarted while it ran".to_owned()
        }
        Some(started) => in_words(started, kill(started).await?),
    };
    let folder = folder.clone();
    blocking(move || {
        let _held = &lock;
        if let Some(started) = &started {
            clean(&folder, started);
        }
        fault::step("local.settle.cleaned");
        let lost = Lost {
            why: format!("the helper of the run is gone: {why}"),
            found: now(),
            started: started
                .and_then(|started| started.child)
                .map(|child| child.time),
        };
        record(&folder, &lost)?;
        fault::step("local.settle.recorded");
        Ok(Level::Lost(lost))
    })
    .await
}

/// The lock of a dead helper, or why not.
enum Taken {
    Dead(Option<File>, Option<Started>),
    Busy(Level),
    Not(Level),
}

fn take(folder: &Folder) -> Result<Taken> {
    let lock = match folder.lock(FlockOperation::NonBlockingLockExclusive) {
        Ok(lock) => Some(lock),
        // Without a log there is nothing to lock; the helper makes it first.
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            return Ok(match folder.level()? {
                Level::Dead(started) => {
                    Taken::Busy(started.map_or(Level::Starting, Level::Running))
                }
                level if level.is_over() => Taken::Not(level),
                level => Taken::Busy(level),
            });
        }
        Err(error) => return Err(folder.failed("lock", error)),
    };
    // Looking for a living helper now would find ourselves.
    match folder.over()? {
        Some(over) => Ok(Taken::Not(over)),
        None if !folder.exists()? => Ok(Taken::Not(Level::Unknown)),
        None => Ok(Taken::Dead(lock, started(folder)?)),
    }
}

fn started(folder: &Folder) -> Result<Option<Started>> {
    Ok(folder
        .read(files::STARTED)?
        .and_then(|bytes| Started::parse(&bytes).ok()))
}

/// Kills all that is left, in rounds until there is nothing.
async fn kill(started: &Started) -> Result<Round> {
    let mut total = Round::default();
    let leftovers = Leftovers::of(started);
    let group = started.cgroup.as_deref().map(path_of);
    for _ in 0..ROUNDS {
        let (leftovers, group) = (leftovers.clone(), group.clone());
        let (round, populated) = blocking(move || {
            let populated = group.is_some_and(|group| cgroup::kill(&group).unwrap_or(false));
            let round = leftovers.kill().map_err(|error| {
                super::folder::io_error("look for processes in", Path::new("/proc"), error)
            })?;
            Ok((round, populated))
        })
        .await?;
        total.killed = total.killed.max(round.killed + usize::from(populated));
        total.refused = round.refused;
        if round.killed == 0 && !populated {
            break;
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(total)
}

fn in_words(started: &Started, round: Round) -> String {
    let before = if started.child.is_some() {
        "somebody killed it while the command ran"
    } else {
        "somebody killed it while it started the command"
    };
    let after = match round {
        Round { refused: 1.., .. } => "some processes of the command could not be killed",
        Round { killed: 0, .. } => "no process of the command was left",
        Round { .. } => "the command and all it had started were killed too",
    };
    format!("{before}; {after}")
}

/// Removes what a helper removes itself at its end.
pub(super) fn clean(folder: &Folder, started: &Started) {
    if let Some(private) = started.private_dir.as_deref().map(path_of) {
        let is_ours = private.starts_with(&folder.path)
            || private.file_name().is_some_and(|name| {
                name.as_encoded_bytes()
                    .starts_with(PRIVATE_PREFIX.as_bytes())
            });
        if is_ours
            && let Err(error) = fs::remove_dir_all(&private)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(run = %folder.run, %error, path = %private.display(), "private files of a run are left");
        }
    }
    if let Some(group) = started.cgroup.as_deref().map(path_of)
        && let Err(error) = cgroup::remove(&group)
    {
        tracing::warn!(run = %folder.run, %error, path = %group.display(), "the control group of a run is left");
    }
}

/// On a full disk the record takes the place that the helper had reserved for its own.
fn record(folder: &Folder, lost: &Lost) -> Result<()> {
    let mut bytes = serde_json::to_vec(lost).map_err(|error| {
        hybrid_runner_core::Error::internal("failed to write JSON").with_source(error)
    })?;
    let Err(error) = folder.write(LOST, &bytes) else {
        return Ok(());
    };
    let reserved = folder.path.join(files::END_TMP);
    let Ok(room) = fs::metadata(&reserved).map(|found| found.len()) else {
        return Err(error);
    };
    // Trailing space is no error in JSON.
    bytes.resize(bytes.len().max(usize::try_from(room).unwrap_or(0)), b' ');
    OpenOptions::new()
        .write(true)
        .open(&reserved)
        .and_then(|mut file| file.write_all(&bytes))
        .and_then(|()| fs::rename(&reserved, folder.path.join(LOST)))
        .map_err(|error| folder.failed("write", error))
}
