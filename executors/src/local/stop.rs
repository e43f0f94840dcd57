//! Stopping and removing.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hybrid_runner_core::RunId;
use hybrid_runner_core::error::{Error, Result};
use hybrid_runner_core::fault;
use hybrid_runner_helper::files;
use hybrid_runner_helper::started::Started;
use hybrid_runner_helper::stop::Stop;
use rustix::fs::OFlags;

use super::folder::{Folder, Level};
use super::{Shared, TRASH, blocking, cgroup, settle};

/// Asks a run to end. Of one that never started it prevents the start.
pub(super) async fn stop(shared: &Arc<Shared>, run: RunId, grace: Duration) -> Result<()> {
    let folder = shared.folder(run);
    let alone = shared.turns.take(run).await;
    let asked = folder.clone();
    blocking(move || {
        let _alone = alone;
        if asked.over()?.is_some() {
            return Ok(());
        }
        asked.create()?;
        fault::step("local.stop.claimed");
        request(&asked, grace)?;
        fault::step("local.stop.requested");
        poke(&asked)
    })
    .await?;
    // Nobody else would carry it out if the helper is dead.
    shared.observe(&folder).await.map(drop)
}

/// The request stands on disk, so that also a helper that is not there yet finds it. A longer grace changes nothing.
fn request(folder: &Folder, grace: Duration) -> Result<()> {
    if folder
        .stop_request()?
        .is_some_and(|stop| stop.grace <= grace)
    {
        return Ok(());
    }
    folder.write(files::STOP, &Stop { grace, by: None }.encode())
}

/// Makes the helper look. Without a helper there is nobody to poke: one that starts looks by itself.
fn poke(folder: &Folder) -> Result<()> {
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let poked = OpenOptions::new()
        .write(true)
        .custom_flags(flags)
        .open(folder.path.join(files::CONTROL))
        .and_then(|mut control| control.write_all(b"\n"));
    match poked {
        Err(error)
            if !matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::WouldBlock | io::ErrorKind::BrokenPipe
            ) && rustix::io::Errno::from_io_error(&error) != Some(rustix::io::Errno::NXIO) =>
        {
            Err(folder.failed("ask the helper in", error))
        }
        _ => Ok(()),
    }
}

/// Forgets a run that has ended.
pub(super) async fn remove(shared: &Arc<Shared>, run: RunId) -> Result<()> {
    let folder = shared.folder(run);
    let alone = shared.turns.take(run).await;
    let level = shared.observe(&folder).await?;
    if !level.is_over() {
        return Err(Error::conflict(format!(
            "run `{run}` has not ended; stop it first"
        )));
    }
    let shared = Arc::clone(shared);
    blocking(move || {
        let _alone = alone;
        if level != Level::Unknown {
            forget(&shared, &folder)?;
        }
        Ok(())
    })
    .await
}

/// In one step for all who look; what takes longer comes after it, and is done again by [`sweep`] if we die meanwhile.
fn forget(shared: &Shared, folder: &Folder) -> Result<()> {
    let trash = shared.root.join(format!("{TRASH}{}", folder.run));
    match fs::rename(&folder.path, &trash) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(folder.failed("remove", error)),
        Ok(()) => {}
    }
    fault::step("local.remove.forgotten");
    delete(
        shared,
        &Folder {
            run: folder.run,
            path: trash,
        },
    );
    Ok(())
}

fn delete(shared: &Shared, trash: &Folder) {
    let started = trash.read(files::STARTED).ok().flatten();
    if let Some(started) = started.and_then(|bytes| Started::parse(&bytes).ok()) {
        settle::clean(trash, &started);
    } else if let Ok(groups) = shared.groups() {
        // Made before a start that never was.
        cgroup::remove(&groups.of(trash.run)).ok();
    }
    fault::step("local.remove.cleaned");
    remove_all(&trash.path);
}

fn remove_all(path: &Path) {
    if let Err(error) = fs::remove_dir_all(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(%error, path = %path.display(), "the folder of a removed run is left");
    }
}

/// Deletes what was forgotten and not yet deleted.
pub(super) fn sweep(shared: &Shared, name: &str) {
    if let Some(run) = name.strip_prefix(TRASH).and_then(|name| name.parse().ok()) {
        let path = shared.root.join(name);
        delete(shared, &Folder { run, path });
    }
}
