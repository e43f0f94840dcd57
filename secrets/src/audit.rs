//! One line for each reference that was asked for: to the log, and to a file if one is configured.
//!
//! Who asked, the reference, the store, the version, the outcome, how long it took; never a value, never its length.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use hybrid_runner_core::id::SectionName;
use hybrid_runner_core::secret::Reference;
use serde_json::json;

/// What one line tells.
#[derive(Debug)]
pub(crate) struct Line<'a> {
    /// Who asked: a run, or a part of the runner.
    pub who: &'a str,
    pub reference: &'a Reference,
    pub store: &'a SectionName,
    pub version: Option<&'a str>,
    pub outcome: &'static str,
    pub took: Duration,
}

/// The log, and a file that is only ever appended to. It is opened for each line, so that it may be rotated.
#[derive(Debug, Default)]
pub(crate) struct Audit {
    file: Option<PathBuf>,
}

impl Audit {
    pub(crate) fn to(file: Option<PathBuf>) -> Self {
        Self { file }
    }

    pub(crate) fn write(&self, line: &Line<'_>) {
        tracing::info!(
            target: "audit",
            run = line.who,
            reference = %line.reference,
            store = %line.store,
            version = line.version,
            outcome = line.outcome,
            duration = ?line.took,
            "secret read"
        );
        let Some(path) = &self.file else { return };
        let mut text = line.json();
        text.push('\n');
        // One write: lines of several processes do not mix.
        let written = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(path)
            .and_then(|mut file| file.write_all(text.as_bytes()));
        if let Err(error) = written {
            tracing::error!(path = %path.display(), %error, "failed to write the audit file; see to it");
        }
    }
}

impl Line<'_> {
    fn json(&self) -> String {
        let time = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        json!({
            "time_ms": u64::try_from(time.as_millis()).unwrap_or(u64::MAX),
            "run": self.who,
            "reference": self.reference.to_string(),
            "store": self.store.as_str(),
            "version": self.version,
            "outcome": self.outcome,
            "duration_ms": self.took.as_secs_f64() * 1000.0,
        })
        .to_string()
    }
}
