//! The record of the start: the file `started` in the folder of the run.
//!
//! The helper creates it with `O_EXCL` before it spawns, already with all that is needed to clean up after a helper
//! that was killed at any later instant, and overwrites it in place with the child once that runs. So: no file, never
//! started and never will without a new helper; file without `pid`, perhaps started; an unreadable file (power loss)
//! counts as perhaps started, too. A reader that meets a torn record reads again.
//!
//! ```text
//! hybrid-runner started 1
//! helper=1233
//! boot=5c0f…
//! cookie=77aa…
//! private=/dev/shm/hr-…
//! cgroup=/sys/fs/cgroup/…
//! pid=1234
//! ticks=889922
//! time=1764000000000000
//! .
//! ```

use crate::text::{TextError, TextReader, TextWriter, needed};

const NAME: &str = "started";
const VERSION: u32 = 1;

/// The record of a start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Started {
    /// The helper's process id.
    pub helper: u32,
    /// The kernel's boot id at that time; another one now means that nothing of the run lives.
    pub boot: String,
    /// Value of [`crate::COOKIE_VARIABLE`] in the environment of the workload.
    pub cookie: String,
    /// The private folder; what is left of it must be removed.
    pub private_dir: Option<Vec<u8>>,
    /// The control group of the run.
    pub cgroup: Option<Vec<u8>>,
    /// The workload's first process, once it runs.
    pub child: Option<Child>,
}

/// The workload's first process; it leads its own session and process group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Child {
    /// Its process id.
    pub pid: u32,
    /// Its start time in clock ticks since boot (field 22 of `/proc/<pid>/stat`): with the pid, its identity. 0 if the
    /// process had ended before it could be read.
    pub ticks: u64,
    /// When it started, in microseconds since the epoch.
    pub time: i64,
}

impl Started {
    /// The content of the file.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = TextWriter::new(NAME, VERSION)
            .number("helper", self.helper)
            .bytes("boot", self.boot.as_bytes())
            .bytes("cookie", self.cookie.as_bytes())
            .optional("private", self.private_dir.as_deref())
            .optional("cgroup", self.cgroup.as_deref());
        if let Some(child) = &self.child {
            writer = writer
                .number("pid", child.pid)
                .number("ticks", child.ticks)
                .number("time", child.time);
        }
        writer.finish()
    }

    /// Reads the content of the file.
    pub fn parse(bytes: &[u8]) -> Result<Self, TextError> {
        let fields = TextReader::new(bytes, NAME, VERSION)?;
        let child = match fields.number("pid")? {
            Some(pid) => Some(Child {
                pid,
                ticks: needed("ticks", fields.number("ticks")?)?,
                time: needed("time", fields.number("time")?)?,
            }),
            None => None,
        };
        Ok(Self {
            helper: needed("helper", fields.number("helper")?)?,
            boot: needed("boot", fields.text("boot")?)?,
            cookie: needed("cookie", fields.text("cookie")?)?,
            private_dir: fields.bytes("private")?,
            cgroup: fields.bytes("cgroup")?,
            child,
        })
    }
}
