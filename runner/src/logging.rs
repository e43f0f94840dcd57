//! Our own log: to stderr, text or JSON.

use std::io::{IsTerminal as _, Write};

use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::config::LogFormat;
use crate::tame::tame;

/// Libraries that see values on their way: what they would tell below `info` is never written, whatever the level. Some print
/// whole answers when they cannot read them.
const SEE_VALUES: &[&str] = &[
    "aws", "azure", "google", "h2", "hyper", "kube", "reqwest", "rustls", "tower", "typespec",
];

/// Those of them that speak to a cloud or a cluster.
const CLIENTS: &[&str] = &["aws", "azure", "google", "kube", "typespec"];

fn quiet_libraries(targets: Targets, level: &str) -> Targets {
    SEE_VALUES.iter().fold(targets, |targets, library| {
        let wanted: Option<LevelFilter> = level
            .split(',')
            .rev()
            .find_map(|one| one.trim().parse().ok());
        let most = wanted.unwrap_or(LevelFilter::INFO).min(LevelFilter::INFO);
        // Their warnings may hold an answer itself, and their errors tell what ours do.
        let most = if CLIENTS.contains(library) {
            LevelFilter::OFF
        } else {
            most
        };
        targets.with_target(*library, most)
    })
}

/// Starts logging. A second call changes nothing.
///
/// `level` has been checked by the configuration; what cannot be read counts as `info`.
pub fn start(level: &str, format: LogFormat, color: bool) {
    let targets: Targets = level
        .parse()
        .unwrap_or_else(|_| Targets::new().with_default(tracing::Level::INFO));
    let targets = quiet_libraries(targets, level);
    let json = match format {
        LogFormat::Json => true,
        LogFormat::Text => false,
        LogFormat::Auto => !std::io::stderr().is_terminal(),
    };
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let layer = if json {
        layer.json().flatten_event(true).boxed()
    } else {
        let layer = layer.with_writer(|| Tame(std::io::stderr()));
        layer.with_ansi(color).with_target(false).boxed()
    };
    // An embedding program may have its own subscriber: then that one counts.
    let started = tracing_subscriber::registry()
        .with(layer.with_filter(targets))
        .try_init();
    if started.is_err() {
        tracing::debug!("logging was started before");
    }
}

/// Writes events without what would move the cursor: a field may come from a plugin, or a backend.
struct Tame<W>(W);

impl<W: Write> Write for Tame<W> {
    fn write(&mut self, event: &[u8]) -> std::io::Result<usize> {
        // An event comes whole.
        let text = String::from_utf8_lossy(event);
        self.0.write_all(tame(&text).as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_level_makes_a_library_tell_what_it_sees() {
        for level in ["trace", "info,hyper=trace", "debug,kube_client=trace"] {
            let targets = quiet_libraries(level.parse().unwrap(), level);
            for (target, at) in [
                ("aws_smithy_runtime", tracing::Level::DEBUG),
                ("hyper_util::client", tracing::Level::TRACE),
                ("google_cloud_gax_internal", tracing::Level::DEBUG),
            ] {
                assert!(!targets.would_enable(target, &at), "{level}: {target}");
            }
        }
        let targets = quiet_libraries("trace".parse().unwrap(), "trace");
        for target in ["kube_client::client", "aws_config::sts", "azure_identity"] {
            assert!(
                !targets.would_enable(target, &tracing::Level::ERROR),
                "{target}"
            );
        }
        assert!(targets.would_enable("hybrid_runner::link", &tracing::Level::TRACE));
    }
}
