//! Where all this was measured.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use tokio::time::Instant;

use crate::stage::Tools;
use crate::table::Sample;

/// The load averages of the last 1, 5 and 15 minutes.
pub(crate) fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').take(3).collect::<Vec<_>>().join(" ")
}

/// Processor, memory, kernel, file system, cost of a sync, sizes of the binaries.
pub(crate) fn describe(tools: &Tools) -> Result<String> {
    let system = rustix::system::uname();
    let size = |path: &Path| -> Result<String> {
        let length = fs::metadata(path)
            .with_context(|| path.display().to_string())?
            .len();
        Ok(format!("{:.1} MB", crate::table::number(length) / 1e6))
    };
    let sync = syncs(&tools.folder)?;
    Ok(format!(
        "Machine: {} × {}, {}, {} {}; data on {}; a sync of 4 KiB there: p50 {:.1} ms, p95 {:.1} ms. \
         Binary: {} (default features), {} (`--no-default-features --features local`). Load average at the beginning: {}.",
        std::thread::available_parallelism()?,
        field("/proc/cpuinfo", "model name"),
        field("/proc/meminfo", "MemTotal"),
        system.sysname().to_string_lossy(),
        system.release().to_string_lossy(),
        file_system(&tools.folder)?,
        sync.p50(),
        sync.percentile(95),
        size(&tools.product)?,
        size(&tools.minimal)?,
        load(),
    ))
}

fn field(path: &str, name: &str) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let line = text
        .lines()
        .find(|line| line.starts_with(name))
        .unwrap_or_default();
    line.split_once(':')
        .map_or("?", |(_, value)| value.trim())
        .to_owned()
}

/// The type of the file system that a folder lies on: the longest mount point that begins its path.
fn file_system(folder: &Path) -> Result<String> {
    let folder = folder.canonicalize()?;
    let mounts = fs::read_to_string("/proc/mounts")?;
    let mut best = (0, "?");
    for mount in mounts.lines() {
        let mut words = mount.split(' ').skip(1);
        let (Some(point), Some(kind)) = (words.next(), words.next()) else {
            continue;
        };
        if folder.starts_with(point) && point.len() >= best.0 {
            best = (point.len(), kind);
        }
    }
    anyhow::ensure!(
        best.1 != "tmpfs",
        "{} is in memory; measure on a disk",
        folder.display()
    );
    Ok(best.1.to_owned())
}

/// What an append and its sync take.
fn syncs(folder: &Path) -> Result<Sample> {
    let path = folder.join("sync");
    let mut file = OpenOptions::new().create(true).append(true).open(&path)?;
    let mut times = Vec::new();
    for _ in 0..50 {
        let start = Instant::now();
        file.write_all(&[7; 4096])?;
        file.sync_data()?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    fs::remove_file(path)?;
    Ok(Sample::new(times))
}
