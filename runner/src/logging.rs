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

fn quiet_libraries(wanted: &Targets) -> Targets {
    let default = wanted.default_level().unwrap_or(LevelFilter::INFO);
    let mut quiet = Targets::new().with_default(default);
    for library in SEE_VALUES {
        quiet = quiet.with_target(*library, default.min(most_of(library)));
    }
    for (target, level) in wanted {
        // A part of a library that is named by itself is no exception.
        let library = SEE_VALUES
            .iter()
            .find(|library| target.starts_with(*library));
        let most = library.map_or(LevelFilter::TRACE, |library| most_of(library));
        quiet = quiet.with_target(target, level.min(most));
    }
    quiet
}

/// What such a library may say at the most. The warnings of clients may hold an answer itself, and their errors tell what ours do.
fn most_of(library: &str) -> LevelFilter {
    if CLIENTS.contains(&library) {
        LevelFilter::OFF
    } else {
        LevelFilter::INFO
    }
}

/// Starts logging. A second call changes nothing.
///
/// `level` has been checked by the configuration; what cannot be read counts as `info`.
pub fn start(level: &str, format: LogFormat, color: bool) {
    let targets: Targets = level
        .parse()
        .unwrap_or_else(|_| Targets::new().with_default(tracing::Level::INFO));
    let targets = quiet_libraries(&targets);
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
        for level in [
            "trace",
            "info,hyper=trace",
            "debug,kube_client=trace",
            "aws_smithy_runtime=trace,hyper_util::client=trace,google_cloud_gax_internal=debug,a=trace",
            "hyper_util=trace,aws_smithy_runtime::client::orchestrator=trace",
        ] {
            let targets = quiet_libraries(&level.parse().unwrap());
            for (target, at) in [
                ("aws_smithy_runtime", tracing::Level::DEBUG),
                (
                    "aws_smithy_runtime::client::orchestrator",
                    tracing::Level::ERROR,
                ),
                ("kube_client::client", tracing::Level::ERROR),
                ("hyper_util::client", tracing::Level::TRACE),
                ("google_cloud_gax_internal", tracing::Level::DEBUG),
            ] {
                assert!(!targets.would_enable(target, &at), "{level}: {target}");
            }
        }
        let targets = quiet_libraries(&"trace,hyper=off".parse().unwrap());
        assert!(!targets.would_enable("hyper", &tracing::Level::ERROR));
        assert!(targets.would_enable("hybrid_runner::link", &tracing::Level::TRACE));
    }
}
