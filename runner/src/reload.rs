//! Reading the configuration again: on SIGHUP, and when its file changes.
//!
//! The secret stores (`[secrets]`, `runner.secrets`) and the policy (`[policy]`) take effect at once, for whatever starts next; what
//! is under way ends as it began. Everything else needs a restart, and the log says so. A configuration that is wrong
//! changes nothing.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hybrid_runner_core::id::Owner;
use hybrid_runner_secrets::Stores;
use tokio::sync::Notify;
use tokio::time::sleep;
use tracing::{error, info, warn};

use crate::app;
use crate::config::{self, Inputs, Loaded};
use crate::supervisor::Runner;

/// The file is looked at this often; a mounted one changes without a signal.
const POLL: Duration = Duration::from_secs(5);

/// What takes effect without a restart.
const CHANGEABLE: [&str; 3] = ["secrets.", "policy.", "runner.secrets"];

/// Where the configuration comes from, and who says that it changed.
#[derive(Debug)]
pub(crate) struct Reload {
    /// All that it is made of.
    pub(crate) inputs: Inputs,
    /// The file that was read.
    pub(crate) file: Option<PathBuf>,
    /// What it said when the runner began.
    pub(crate) known: Values,
    /// Notified by SIGHUP.
    pub(crate) hangup: Arc<Notify>,
}

/// Each key and its value. Secrets in it are masked, so that one that changed shows only by its source.
pub(crate) type Values = Vec<config::Shown>;

/// What a configuration that is read again is put into.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) runner: Runner,
    pub(crate) stores: Arc<Stores>,
    pub(crate) data_dir: PathBuf,
    pub(crate) owner: Owner,
}

/// A state of the file.
type Print = Option<(u64, i64, i64, u64)>;

impl Reload {
    /// Watches for as long as it is polled.
    pub(crate) async fn watch(mut self, target: Target) {
        let mut print = self.print().await;
        loop {
            let changed = async {
                loop {
                    sleep(POLL).await;
                    let now = self.print().await;
                    if now.is_some() && now != print {
                        break now;
                    }
                }
            };
            print = tokio::select! {
                now = changed => now,
                () = self.hangup.notified() => self.print().await,
            };
            self.again(&target);
        }
    }

    async fn print(&self) -> Print {
        let meta = tokio::fs::metadata(self.file.as_ref()?).await.ok()?;
        Some((meta.ino(), meta.mtime(), meta.mtime_nsec(), meta.len()))
    }

    /// Reads everything again. What is wrong is told, and changes nothing.
    fn again(&mut self, target: &Target) {
        let file = self.file.as_deref().unwrap_or(Path::new("the environment"));
        let loaded = match config::load(&self.inputs) {
            Ok(loaded) => loaded,
            Err(problems) => {
                error!(file = %file.display(), %problems, "the configuration is wrong now; the last one stays");
                return;
            }
        };
        if let Err(why) = put(&loaded, target) {
            error!(file = %file.display(), why, "the configuration cannot be used now; the last one stays");
            return;
        }
        info!(file = %file.display(), "read the configuration again: secret stores and policy");
        let values = loaded.show();
        let rest = needs_restart(&self.known, &values);
        if !rest.is_empty() {
            warn!(
                keys = rest.join(", "),
                "these changed too, and need a restart"
            );
        }
        self.known = values;
    }
}

fn put(loaded: &Loaded, target: &Target) -> Result<(), String> {
    let config = &loaded.config;
    let stores = config.build_stores(&target.data_dir, &target.owner);
    let stores = stores.map_err(|error| error.to_string())?;
    let rules = app::rules(config).map_err(|error| error.report())?;
    target.stores.replace(&stores);
    target.runner.set_rules(rules);
    Ok(())
}

/// The keys that changed and cannot take effect now.
fn needs_restart(before: &Values, after: &Values) -> Vec<String> {
    let fixed = |shown: &&config::Shown| !CHANGEABLE.iter().any(|key| shown.key.starts_with(key));
    let changed = after
        .iter()
        .filter(fixed)
        .filter(|one| !before.contains(one));
    let gone = before
        .iter()
        .filter(fixed)
        .filter(|one| !after.iter().any(|now| now.key == one.key));
    changed.chain(gone).map(|shown| shown.key.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_needs_a_restart_is_told_and_what_does_not_is_not() {
        let shown = |pairs: &[(&str, &str)]| -> Values {
            let one = |(key, value): &(&str, &str)| config::Shown::new(key, value, "file");
            pairs.iter().map(one).collect()
        };
        let before = shown(&[
            ("secrets.a.kind", "env"),
            ("runner.max_runs", "1"),
            ("link.url", "x"),
        ]);
        let after = shown(&[
            ("secrets.a.kind", "file"),
            ("policy.images", "y"),
            ("runner.max_runs", "2"),
        ]);
        assert_eq!(
            needs_restart(&before, &after),
            ["runner.max_runs", "link.url"]
        );
        assert!(needs_restart(&after, &after).is_empty());
    }
}
