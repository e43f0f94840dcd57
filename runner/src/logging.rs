//! Our own log: to stderr, text or JSON.

use std::io::IsTerminal as _;

use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::config::LogFormat;

/// Starts logging. A second call changes nothing.
///
/// `level` has been checked by the configuration; what cannot be read counts as `info`.
pub fn start(level: &str, format: LogFormat, color: bool) {
    let targets: Targets = level
        .parse()
        .unwrap_or_else(|_| Targets::new().with_default(tracing::Level::INFO));
    let json = match format {
        LogFormat::Json => true,
        LogFormat::Text => false,
        LogFormat::Auto => !std::io::stderr().is_terminal(),
    };
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let layer = if json {
        layer.json().flatten_event(true).boxed()
    } else {
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
